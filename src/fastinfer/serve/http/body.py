# SPDX-License-Identifier: Apache-2.0
"""A request's headers as they are needed, and its body within the limits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.http import compression
from fastinfer.serve.messages import Limits

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Fields = dict[bytes, bytes]

# Two of one of these are two opinions about where the message ends or what it means.
_SINGLE = (b"content-length", b"inference-header-content-length", b"transfer-encoding", b"content-encoding", b"timeout")
LENGTH = b"inference-header-content-length"


class Disconnected(Exception):
    """The client went away before its request was complete."""


def read_fields(scope: Scope, limits: Limits) -> Fields:
    """The headers by name; of several with one name the last. Raises ServeError."""
    pairs = scope["headers"]
    fields = dict(pairs)
    size = 32 * len(pairs)  # a field costs more than its characters
    for name, value in pairs:
        size += len(name) + len(value)
    if size > limits.header:
        raise ServeError(Kind.HEADERS_TOO_LARGE, f"the headers have {size} bytes; at most {limits.header} are taken")
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        for name in _SINGLE:
            if names.count(name) > 1:
                raise ServeError(Kind.INVALID_ARGUMENT, f"{names.count(name)} headers {name.decode()}; needed: one")
    path = len(scope.get("raw_path") or scope["path"]) + len(scope.get("query_string", b""))
    if path > limits.url:
        raise ServeError(Kind.URI_TOO_LONG, f"the URL has {path} bytes; at most {limits.url} are taken")
    return fields


def announces_body(fields: Fields) -> bool:
    return fields.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in fields


def check_length(fields: Fields, limits: Limits) -> None:
    """What the headers say of the body. Raises ServeError before any of it is read."""
    length = fields.get(b"content-length")
    coding = fields.get(b"transfer-encoding")
    if coding is not None and coding.lower() != b"chunked":
        raise ServeError(Kind.UNSUPPORTED, "Transfer-Encoding; taken: chunked, nothing else")
    if length is not None:
        if coding is not None:
            raise ServeError(Kind.INVALID_ARGUMENT, "Content-Length and Transfer-Encoding; needed: one of them")
        if number(length, "Content-Length") > limits.body:
            raise _too_large(limits)


def number(value: bytes, name: str) -> int:
    # isdigit of bytes is ASCII's; 19 digits are below 2^64
    if not value.isdigit() or len(value) > 19:
        raise ServeError(
            Kind.INVALID_ARGUMENT, f"{name} is {value[:32].decode('latin-1')!r}; needed: an integer of at least 0"
        )
    return int(value)


class Held:
    """Bytes of bodies that all requests under way hold together: a thousand may wait, but not a thousand large ones."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self, size: int) -> None:
        if self.used + size > self.limit:
            raise ServeError(Kind.UNAVAILABLE, "the server holds as many request bodies as it may", retry_after=1)
        self.used += size


async def read_body(receive: Receive, fields: Fields, limits: Limits, held: Held) -> bytes | bytearray:
    """The body, decompressed; its length is added to `held`. Raises ServeError as soon as it is too long, Disconnected."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Disconnected
    body: bytes | bytearray = message.get("body", b"")
    if message.get("more_body", False):
        body = await _rest(receive, bytearray(body), limits, held)
    else:
        _check_size(body, limits)
        held.take(len(body))
    coding = fields.get(b"content-encoding")
    if coding is None:
        return body
    try:
        plain = await compression.decompress(body, coding.decode("latin-1"), limits.body)
        held.take(len(plain))
    finally:
        held.used -= len(body)
    return plain


async def discard_body(receive: Receive, limits: Limits) -> None:
    """Reads a body and keeps nothing of it: the client sends it to its end before it looks at an answer, and goes on with the
    connection. Raises ServeError as soon as it is too long, Disconnected."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
        if size > limits.body:
            raise _too_large(limits)


async def _rest(receive: Receive, body: bytearray, limits: Limits, held: Held) -> bytearray:
    """One buffer, whatever the chunks: a list of a million one-byte chunks would be eight times their size."""
    taken, more = 0, True
    try:
        while more:
            _check_size(body, limits)
            held.take(len(body) - taken)
            taken = len(body)
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            body += message.get("body", b"")
            more = message.get("more_body", False)
        _check_size(body, limits)
        held.take(len(body) - taken)
    except BaseException:
        held.used -= taken
        raise
    return body


def _check_size(body: bytes | bytearray, limits: Limits) -> None:
    if len(body) > limits.body:
        raise _too_large(limits)


def _too_large(limits: Limits) -> ServeError:
    return ServeError(Kind.TOO_LARGE, f"the body has more than {limits.body} bytes; that is the limit")
