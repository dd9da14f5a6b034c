# SPDX-License-Identifier: Apache-2.0
"""ModelInferRequest and ModelInferResponse as bytes: tensors stay where they are, protobuf sees the rest.

protobuf would copy each tensor into its arena and once more into the bytes that it gives out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fastinfer.serve.errors import Kind, ServeError

MAX_MESSAGE = (1 << 31) - 1  # what gRPC's length, and clients, can take

_LENGTH = 2  # wire type of strings, bytes and messages
_RAW_INPUT = 7 << 3 | _LENGTH
_RAW_OUTPUT = bytes([6 << 3 | _LENGTH])
_ID = bytes([3 << 3 | _LENGTH])
_INFER_RESPONSE = bytes([2 << 3 | _LENGTH])
_FIXED = {1: 8, 5: 4}  # wire types of one size, in bytes


def split(raw: bytes, most: int) -> tuple[bytes, list[memoryview]]:
    """(a ModelInferRequest without raw_input_contents, these, not copied). most: how many fields there may be, so that
    two million bytes do not become a million objects. Raises ServeError."""
    view = memoryview(raw)
    tensors: list[memoryview] = []
    kept: list[tuple[int, int]] = []  # from, to: of what is not a tensor
    at, end, fields = 0, len(raw), 0
    try:
        while at < end:
            start = at
            fields += 1
            if fields > most:
                raise ServeError(Kind.INVALID_ARGUMENT, f"the request has more than {most} fields")
            tag, at = _varint(raw, at)
            if tag & 7 == _LENGTH:
                size, at = _varint(raw, at)
                at += size
                if tag == _RAW_INPUT:
                    tensors.append(view[at - size : at])
                    continue
            else:
                at = at + _FIXED[tag & 7] if tag & 7 else _varint(raw, at)[1]
            if kept and kept[-1][1] == start:
                kept[-1] = kept[-1][0], at
            else:
                kept.append((start, at))
    except (IndexError, KeyError):
        raise malformed() from None
    if at != end:
        raise malformed()
    if len(kept) == 1:
        return raw[kept[0][0] : kept[0][1]], tensors
    return b"".join(view[a:b] for a, b in kept), tensors


def fields(raw: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """(tag, where its value begins, where it ends) of the fields from `at` on, till one that has no length, or does not
    end in the message."""
    while at < len(raw):
        try:
            tag, at = _varint(raw, at)
            size, at = _varint(raw, at)
        except (IndexError, ServeError):
            return
        if tag & 7 != _LENGTH or at + size > len(raw):
            return
        yield tag, at, at + size
        at += size


def malformed() -> ServeError:
    return ServeError(Kind.INVALID_ARGUMENT, "the message is not what this call takes: it cannot be decoded")


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """(value, where it ends)"""
    if raw[at] < 0x80:
        return raw[at], at + 1
    value = 0
    for shift in range(0, 70, 7):
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise malformed()


def _prefix(tag: bytes, size: int) -> bytes:
    encoded = bytearray(tag)
    while size >= 0x80:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    encoded.append(size)
    return bytes(encoded)


def identity(request_id: str) -> bytes:
    """The field `id` of a ModelInferResponse."""
    data = request_id.encode()
    return _prefix(_ID, len(data)) + data


def before_output(size: int) -> bytes:
    """What stands before one of raw_output_contents."""
    return _prefix(_RAW_OUTPUT, size)


def before_response(size: int) -> bytes:
    """What stands before the response in a ModelStreamInferResponse."""
    return _prefix(_INFER_RESPONSE, size)


def join(head: bytes, tensors: Iterable[bytes | memoryview], streamed: bool) -> bytes:
    """A ModelInferResponse of its head and raw_output_contents, copied once; streamed: inside a ModelStreamInferResponse.
    Raises ServeError when it is longer than a message can be."""
    parts: list[bytes | memoryview] = [head]
    size = len(head)
    for tensor in tensors:
        prefix = before_output(len(tensor))
        parts += (prefix, tensor)
        size += len(prefix) + len(tensor)
    if size > MAX_MESSAGE - 16:
        raise ServeError(
            Kind.TOO_LARGE, f"the outputs have {size} bytes; a message holds at most {MAX_MESSAGE}. Ask for fewer"
        )
    if streamed:
        parts.insert(0, before_response(size))
    return b"".join(parts)
