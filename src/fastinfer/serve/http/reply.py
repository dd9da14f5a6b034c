# SPDX-License-Identifier: Apache-2.0
"""What a handler is given and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastinfer.serve.access import Caller
from fastinfer.serve.errors import ServeError
from fastinfer.serve.http.body import Fields, Receive, Scope
from fastinfer.serve.http.encode import JSON_TYPE, Headers, dumps

Reply = tuple[int, Headers, bytes]  # status, headers but for the length, body
CLOSE = (b"connection", b"close")


@dataclass(slots=True)
class Call:
    """A request whose body is here. arguments: the parameters of its path, in order."""

    arguments: tuple[str, ...]
    fields: Fields
    body: bytes | bytearray
    scope: Scope
    receive: Receive


Handler = Callable[[Call], Awaitable[Reply]]


def answer(value: Any) -> Reply:
    return 200, [JSON_TYPE], dumps(value)


def readable(call: Call, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of what is said of all models: that of the caller's."""
    caller: Caller = call.scope["fastinfer.caller"]
    return [row for row in rows if caller.may("read", row["name"])]


def failure(error: ServeError) -> Reply:
    headers = [JSON_TYPE]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    text = str(error).encode("utf-8", "replace").decode()  # half a surrogate pair is no JSON
    return error.kind.status, headers, dumps({"error": text})
