# SPDX-License-Identifier: Apache-2.0
"""The protocol's datatypes as numpy's, and tensors as bytes: little endian, row-major, no padding; a string is its length
as uint32 and its bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import ml_dtypes
import numpy as np

from fastinfer.serve.errors import Kind, ServeError

_NUMPY = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BF16": ml_dtypes.bfloat16,
}  # fmt: skip
DTYPES: dict[str, np.dtype] = {name: np.dtype(t) for name, t in _NUMPY.items()}
BYTES = "BYTES"
COPIED = 64 << 10  # bytes, 5 µs on the event loop
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def datatype_of(dtype: np.dtype | str) -> str:
    """The protocol's name of a numpy dtype, or of a TensorSpec's. Raises ServeError for one that the protocol lacks."""
    if dtype == "object" or (isinstance(dtype, np.dtype) and dtype.kind in "OSU"):
        return BYTES
    try:
        name = NAMES.get(np.dtype(dtype))
    except TypeError:
        name = "BF16" if dtype == "bfloat16" else None
    if name is None:
        raise ServeError(Kind.UNSUPPORTED, f"the Open Inference Protocol has no datatype for {dtype}")
    return name


def elements(name: str, shape: Sequence[int]) -> int:
    """How many elements a shape has. Raises ServeError for extents that no array can have."""
    if len(shape) > 64:
        raise ServeError(Kind.INVALID_ARGUMENT, f"tensor '{name}': {len(shape)} extents; at most 64 are possible")
    count = 1
    for extent in shape:
        if not 0 <= extent < 1 << 62:
            raise ServeError(
                Kind.INVALID_ARGUMENT, f"tensor '{name}': the shape {list(shape)[:16]} has the extent {extent}"
            )
        count *= extent or 1  # numpy's own bound leaves zeros out too
        if count >= 1 << 58:
            raise ServeError(Kind.INVALID_ARGUMENT, f"tensor '{name}': the shape {list(shape)[:16]} is too large")
    return 0 if 0 in shape else count


def decode(name: str, datatype: str, shape: Sequence[int], data: bytes | memoryview) -> np.ndarray:
    """An array over `data` (not copied, except strings and what is small and not aligned). Raises ServeError when length and shape do
    not agree."""
    count = elements(name, shape)
    if datatype == BYTES:
        return _decode_strings(name, count, memoryview(data)).reshape(shape)
    dtype = dtype_of(name, datatype)
    if len(data) != count * dtype.itemsize:
        raise ServeError(
            Kind.INVALID_ARGUMENT,
            f"tensor '{name}': {len(data)} bytes were given; {datatype} {list(shape)} needs {count * dtype.itemsize}",
        )
    if dtype == np.bool_:  # a byte other than 0 or 1 is no bool to numpy
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape)
    return aligned(np.frombuffer(data, dtype).reshape(shape))


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy where the elements of a small tensor lie across their alignment, as behind JSON of any length: the model would
    take its slow way (12 µs instead of 3). Large ones the model copies in its own thread."""
    return array if array.nbytes > COPIED or array.flags.aligned else array.copy()


def dtype_of(name: str, datatype: str) -> np.dtype:
    try:
        return DTYPES[datatype]
    except (KeyError, TypeError):
        raise ServeError(
            Kind.INVALID_ARGUMENT,
            f"tensor '{name}': no datatype is called {str(datatype)[:64]!r}; known: {', '.join([*DTYPES, BYTES])}",
        ) from None


def _decode_strings(name: str, count: int, data: memoryview) -> np.ndarray:
    # Every string takes four bytes at least: a lying shape is found before anything of its size is made.
    if count * 4 > len(data):
        raise ServeError(Kind.INVALID_ARGUMENT, f"tensor '{name}': {len(data)} bytes cannot hold {count} strings")
    strings = np.empty(count, object)
    at = 0
    for i in range(count):
        if at + 4 > len(data):
            raise ServeError(Kind.INVALID_ARGUMENT, f"tensor '{name}': the data ends before string {i} of {count}")
        (length,) = struct.unpack_from("<I", data, at)
        at += 4
        if length > len(data) - at:
            raise ServeError(
                Kind.INVALID_ARGUMENT, f"tensor '{name}': string {i} says {length} bytes; {len(data) - at} are left"
            )
        strings[i] = bytes(data[at : at + length])
        at += length
    if at != len(data):
        raise ServeError(
            Kind.INVALID_ARGUMENT, f"tensor '{name}': {len(data) - at} bytes are left after {count} strings"
        )
    return strings


def encode(array: np.ndarray) -> bytes | memoryview:
    """The bytes of an array; without a copy where it is dense."""
    if array.dtype == object:
        strings = [s if isinstance(s, bytes) else str(s).encode() for s in array.reshape(-1)]
        return b"".join(part for s in strings for part in (struct.pack("<I", len(s)), s))
    dense = np.ascontiguousarray(array)
    return dense.reshape(-1).view(np.uint8).data if dense.size else b""
