# SPDX-License-Identifier: Apache-2.0
"""Errors as gRPC tells them: a status code, a text, and when to come again."""

from __future__ import annotations

from typing import NoReturn

import grpc

from fastinfer.serve.errors import as_serve_error, forget

# Bytes of a text. Clients take 8 KiB of metadata, and each byte that is not ASCII is three on the wire.
MAX_TEXT = 2048


def text_of(error: BaseException, request_id: str = "") -> str:
    return _short(str(as_serve_error(error, request_id)))


def _short(text: str) -> str:
    data = text.encode("utf-8", "replace")
    return data[:MAX_TEXT].decode("utf-8", "ignore") + ("…" if len(data) > MAX_TEXT else "")


async def fail(context: grpc.aio.ServicerContext, error: BaseException, request_id: str = "") -> NoReturn:
    """Ends the call with what the client is told of `error`. What its frames hold, such as the request's message, is let
    go: gRPC keeps the exception that ends a call in a circle with the call, until the garbage collector comes by."""
    await context.abort(*_status(error, request_id))
    raise AssertionError("abort() raises")


def refuse(context: grpc.aio.ServicerContext, error: BaseException, request_id: str = "") -> bytes:
    """As `fail`, for a unary handler to return. abort() leaves an exception in the call's state whose traceback leads back to
    it: forty objects a call, for the garbage collector to find."""
    code, text, metadata = _status(error, request_id)
    context.set_code(code)
    context.set_details(text)
    context.set_trailing_metadata(metadata)
    return b""


def _status(error: BaseException, request_id: str) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]]:
    told = as_serve_error(error, request_id)
    forget(error)
    metadata: tuple[tuple[str, str], ...] = ()
    if told.retry_after is not None:
        metadata = (("grpc-retry-pushback-ms", str(int(told.retry_after * 1000))),)
    return grpc.StatusCode[told.kind.code], _short(str(told)), metadata
