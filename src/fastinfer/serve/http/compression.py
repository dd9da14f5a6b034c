# SPDX-License-Identifier: Apache-2.0
"""gzip and deflate (zlib's format, as RFC 9110 has it) of bodies. What takes long runs in a thread: zlib frees the GIL."""

from __future__ import annotations

import asyncio
import zlib

from fastinfer.serve.errors import Kind, ServeError

_WINDOW = {"gzip": 31, "deflate": 15}
IN_THREAD = 64 << 10  # bytes; at 50 to 300 MB/s a thread's 30 µs are worth it from here
INLINE = 4 << 10  # bytes of compressed input; deflate reaches 1:1032, so at most 4 MiB and 4 ms come of them
WORTHWHILE = 1 << 10  # bytes; smaller answers go as they are
LEVEL = 1


async def decompress(body: bytes | bytearray, coding: str, limit: int) -> bytes | bytearray:
    """The body behind a Content-Encoding, of at most `limit` bytes. Raises ServeError."""
    codings = [c.strip() for c in coding.lower().split(",")]
    codings = [c for c in codings if c not in ("", "identity")]
    if not codings:
        return body
    if len(codings) > 1 or codings[0] not in _WINDOW:
        raise ServeError(Kind.ENCODING, f"Content-Encoding {coding[:64]!r}; taken: gzip or deflate, once")
    if len(body) < INLINE:
        return _inflate(body, codings[0], limit)
    return await asyncio.to_thread(_inflate, body, codings[0], limit)


def _inflate(body: bytes | bytearray, coding: str, limit: int) -> bytes:
    inflater = zlib.decompressobj(_WINDOW[coding])
    try:
        data = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise ServeError(Kind.INVALID_ARGUMENT, f"the body is not {coding} as Content-Encoding says") from None
    if len(data) > limit:
        raise ServeError(Kind.TOO_LARGE, f"the body has more than {limit} bytes once decompressed; that is the limit")
    if not inflater.eof:
        raise ServeError(Kind.INVALID_ARGUMENT, f"the {coding} body is cut off")
    if inflater.unused_data:
        raise ServeError(
            Kind.INVALID_ARGUMENT, f"{len(inflater.unused_data)} bytes follow the end of the {coding} body"
        )
    return data


def asked(accept: bytes | None) -> str:
    """The one coding that Accept-Encoding names, or "". A list of several is a client's default, no request: tensors
    compress badly, and whoever wants it says so, as tritonclient's response_compression_algorithm does."""
    if accept is None:
        return ""
    name, _, quality = accept.decode("latin-1").replace(" ", "").lower().partition(";")
    return name if name in _WINDOW and quality.rstrip("0.") != "q=" else ""


async def compress(body: bytes, coding: str) -> bytes | None:
    """The compressed body, or None where it would not be smaller."""
    if len(body) < WORTHWHILE:
        return None
    small = _deflate(body, coding) if len(body) < IN_THREAD else await asyncio.to_thread(_deflate, body, coding)
    return small if len(small) < len(body) else None


def _deflate(body: bytes, coding: str) -> bytes:
    deflater = zlib.compressobj(LEVEL, zlib.DEFLATED, _WINDOW[coding])
    return deflater.compress(body) + deflater.flush()
