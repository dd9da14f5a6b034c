# SPDX-License-Identifier: Apache-2.0
"""numpy's types and torch's, and arrays on their way to a device."""

from __future__ import annotations

import numpy as np
import torch

from fastinfer import _core
from fastinfer.cuda.precision import Precision
from fastinfer.errors import UnsupportedError

DTYPES = {
    "float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16,
    "int8": torch.int8, "int16": torch.int16, "int32": torch.int32, "int64": torch.int64, "bool": torch.bool,
    "uint8": torch.uint8, "uint16": torch.uint16, "uint32": torch.uint32, "uint64": torch.uint64,
    "float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2,
    "complex64": torch.complex64, "complex128": torch.complex128,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# numpy knows these by ml_dtypes, which torch does not read: their bits go through an integer type.
_VIEWED = {torch.bfloat16: (np.int16, torch.int16)} | {
    t: (np.uint8, torch.uint8) for t in (torch.float8_e4m3fn, torch.float8_e5m2)
}
# ONNX's numbers of the types that inputs of a plan have.
CODES = {
    torch.float32: 1, torch.uint8: 2, torch.int8: 3, torch.uint16: 4, torch.int16: 5, torch.int32: 6, torch.int64: 7,
    torch.bool: 9, torch.float16: 10, torch.float64: 11, torch.uint32: 12, torch.uint64: 13, torch.complex64: 14,
    torch.complex128: 15, torch.bfloat16: 16,
}  # fmt: skip


def dtype_of(dtype: np.dtype) -> torch.dtype:
    """Raises UnsupportedError for strings, 4-bit numbers and what else torch has no type for."""
    if dtype.name not in DTYPES:
        raise UnsupportedError(f"torch has no type for {dtype}")
    return DTYPES[dtype.name]


def dtype_of_code(code: int) -> torch.dtype:
    """ONNX's number of a type → torch's type. Raises UnsupportedError where torch has none."""
    return dtype_of(_core.numpy_dtype(int(code)))


def to_torch(array: np.ndarray, copy: bool = True) -> torch.Tensor:
    """An array as a dense tensor on the CPU; without copy it shares memory where it can. Raises UnsupportedError as dtype_of."""
    dtype = dtype_of(array.dtype)
    own = array.dtype.newbyteorder("=")
    dense = np.array(array, own, order="C") if copy else np.ascontiguousarray(array, own).reshape(array.shape)
    if dtype in _VIEWED:
        dense = dense.view(_VIEWED[dtype][0])
    if not dense.flags.writeable:  # torch warns of such memory, which requests to the server come in
        dense = np.asarray(_Readable(dense))
    return torch.from_numpy(dense).view(dtype) if dtype in _VIEWED else torch.from_numpy(dense)


class _Readable:
    """An array's memory, without its flag that forbids to write there: who makes a tensor of it only reads."""

    def __init__(self, array: np.ndarray) -> None:
        about = array.__array_interface__
        self._array, self.__array_interface__ = array, {**about, "data": (about["data"][0], False)}


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's elements as an array of the same type; shares memory with a dense tensor on the CPU."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype not in _VIEWED:
        return tensor.numpy()
    import ml_dtypes

    return tensor.view(_VIEWED[tensor.dtype][1]).numpy().view(np.dtype(getattr(ml_dtypes, _NAMES[tensor.dtype])))


def stored(dtype: torch.dtype, precision: Precision) -> torch.dtype:
    """How the graph's `dtype` is stored between steps."""
    return precision.storage if dtype == torch.float32 else dtype


def narrowed(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """As dtype. What is beyond a half's range becomes its largest number, and not infinite: masks are written with float32's,
    which bfloat16 rounds up to infinity."""
    if dtype in (torch.float16, torch.bfloat16) and tensor.dtype in (torch.float32, torch.float64):
        most = torch.finfo(dtype).max
        tensor = torch.where(tensor.isinf(), tensor, tensor.clamp(-most, most))
    return tensor.to(dtype)


def tensor_of(array: np.ndarray, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A copy on the device; halves saturate."""
    return narrowed(to_torch(array), dtype).to(device)
