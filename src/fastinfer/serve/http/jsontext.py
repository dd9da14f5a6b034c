# SPDX-License-Identifier: Apache-2.0
"""JSON that strangers wrote: its cost is bounded before it is parsed, and what is wrong with it is said in words.

Of a member that occurs twice the last one counts (RFC 8259 leaves this open).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.messages import Limits

Text = bytes | bytearray | memoryview

# A parsed container or string costs 50 to 100 bytes of memory and as few as two bytes of text: both are counted first.
MAX_CONTAINERS = 1 << 20
MAX_STRINGS = 1 << 20

_BRACKETS = b"[]{}"
_OTHERS = bytes(set(range(256)) - set(_BRACKETS))
_CLOSING = np.zeros(256, bool)
_CLOSING[[ord("]"), ord("}")]] = True


def parse(text: Text, limits: Limits) -> Any:
    """The value of a JSON text. Raises ServeError: too long, too deep, too many parts, or not JSON."""
    text = bytes(text)
    if len(text) > limits.json:
        raise ServeError(Kind.TOO_LARGE, f"{len(text)} bytes of JSON; at most {limits.json} are taken: send it binary")
    # Few brackets cannot be deep: all that a binary request costs here is three counts.
    opening = text.count(b"[") + text.count(b"{")
    if opening > limits.json_depth or text.count(b'"') > MAX_STRINGS:
        _check_extent(text, limits)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as e:
        raise ServeError(Kind.INVALID_ARGUMENT, _fault(text, e)) from None


def parse_object(text: Text, limits: Limits) -> dict[str, Any]:
    """As :func:`parse`, and the value is an object; nothing at all is an empty one."""
    value = parse(text, limits) if len(text) else {}
    if type(value) is not dict:
        raise ServeError(Kind.INVALID_ARGUMENT, f"the body is {kind(value)}; needed: an object")
    return value


def _check_extent(text: bytes, limits: Limits) -> None:
    # Escapes out, so that every quote left begins or ends a string; then every second piece is outside of strings.
    plain = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 2 * MAX_STRINGS:
        raise ServeError(Kind.TOO_LARGE, f"more than {MAX_STRINGS} strings in the JSON: send them binary")
    brackets = b"".join(piece.translate(None, _OTHERS) for piece in plain.split(b'"')[::2])
    if len(brackets) > 2 * MAX_CONTAINERS:
        raise ServeError(
            Kind.TOO_LARGE, f"more than {MAX_CONTAINERS} lists or objects in the JSON: send it flat or binary"
        )
    steps = np.where(_CLOSING[np.frombuffer(brackets, np.uint8)], np.int8(-1), np.int8(1))
    depth = int(np.cumsum(steps, dtype=np.int32).max(initial=0))
    if depth > limits.json_depth:
        raise ServeError(
            Kind.INVALID_ARGUMENT, f"the JSON is nested {depth} deep; at most {limits.json_depth} are taken"
        )


def _fault(text: bytes, error: orjson.JSONDecodeError) -> str:
    at = len(error.doc[: error.pos].encode("utf-8", "replace")) if isinstance(error.doc, str) else error.pos
    token = text[max(at - 1, 0) : at + 10].lstrip(b"[,: \t\r\n")
    if token.lstrip(b"-").startswith((b"NaN", b"Infinity", b"nan", b"inf")):
        return (
            f'the JSON has NaN or Infinity at byte {at}, which JSON lacks: write "NaN", "Infinity" or "-Infinity" as '
            "strings, or send the tensor binary"
        )
    return f"the body is not JSON: {error.msg} (byte {at})"


def kind(value: Any) -> str:
    """What a JSON value is, for messages."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
