# SPDX-License-Identifier: Apache-2.0
"""What a request can fail with: one table from the kind of failure to an HTTP status and a gRPC code."""

from __future__ import annotations

import enum
import logging

from fastinfer.batching import Closed, DeadlineExceeded, QueueFull
from fastinfer.errors import FastinferError, InputError, UnsupportedError

log = logging.getLogger("fastinfer.serve")


class Kind(enum.Enum):
    """(HTTP status, name of the gRPC code). Statuses follow Triton's table; what Triton lacks follows RFC 9110 and 6585."""

    INVALID_ARGUMENT = 400, "INVALID_ARGUMENT"
    ALREADY_EXISTS = 400, "ALREADY_EXISTS"
    UNAUTHENTICATED = 401, "UNAUTHENTICATED"
    FORBIDDEN = 403, "PERMISSION_DENIED"
    NOT_FOUND = 404, "NOT_FOUND"
    METHOD = 405, "UNIMPLEMENTED"
    REQUEST_TIMEOUT = 408, "DEADLINE_EXCEEDED"  # the client was too slow to send its request
    CONFLICT = 409, "ABORTED"
    LENGTH_REQUIRED = 411, "INVALID_ARGUMENT"
    TOO_LARGE = 413, "RESOURCE_EXHAUSTED"
    URI_TOO_LONG = 414, "INVALID_ARGUMENT"
    ENCODING = 415, "UNIMPLEMENTED"
    RATE = 429, "RESOURCE_EXHAUSTED"  # this caller is too fast
    HEADERS_TOO_LARGE = 431, "RESOURCE_EXHAUSTED"
    CANCELLED = 499, "CANCELLED"
    INTERNAL = 500, "INTERNAL"
    UNSUPPORTED = 501, "UNIMPLEMENTED"
    UNAVAILABLE = 503, "UNAVAILABLE"  # not loaded, draining, or more work than the queue may hold
    DEADLINE = 504, "DEADLINE_EXCEEDED"

    @property
    def status(self) -> int:
        return self.value[0]

    @property
    def code(self) -> str:
        return self.value[1]


class ServeError(FastinferError):
    """A request failed. The text goes to the client: it names no path, no key and no stack."""

    def __init__(self, kind: Kind, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.kind = kind
        self.retry_after = retry_after  # seconds


def as_serve_error(error: BaseException, request_id: str = "") -> ServeError:
    """What the client is told of any exception. What nobody foresaw is logged here and told as INTERNAL without its text."""
    if isinstance(error, ServeError):
        return error
    if isinstance(error, QueueFull):
        return ServeError(Kind.UNAVAILABLE, str(error), retry_after=error.retry_after or 1)
    if isinstance(error, DeadlineExceeded):
        return ServeError(Kind.DEADLINE, str(error))
    if isinstance(error, Closed):
        return ServeError(Kind.UNAVAILABLE, "the model is being unloaded", retry_after=1)
    if isinstance(error, InputError):
        return ServeError(Kind.INVALID_ARGUMENT, str(error))
    if isinstance(error, UnsupportedError):
        return ServeError(Kind.UNSUPPORTED, str(error))
    if isinstance(error, FastinferError):  # ModelError, no memory for it, ...
        return ServeError(Kind.INTERNAL, f"the model failed: {error}")
    log.error("unforeseen error in request %r", request_id, exc_info=error)
    return ServeError(Kind.INTERNAL, f"an internal error, logged by the server ({type(error).__name__})")


def forget(error: BaseException | None) -> None:
    """Lets go of the frames of an error that was answered, and of those that caused it. They hold the request's tensors, and
    often the error itself: a circle that stays until the garbage collector comes by, which counts objects and not bytes.

    Frames are not cleared: some are of tasks that go on, such as the batcher's, which gave the same error to many."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
