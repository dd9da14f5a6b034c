# SPDX-License-Identifier: Apache-2.0
"""numpy's types and torch's, and arrays on their way to a device."""

from __future__ import annotations

import numpy as np
import torch

from fastinfer.cuda.precision import Precision
from fastinfer.errors import UnsupportedError

_TORCH = {
    "float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16,
    "int8": torch.int8, "int16": torch.int16, "int32": torch.int32, "int64": torch.int64, "bool": torch.bool,
    "uint8": torch.uint8, "uint16": torch.uint16, "uint32": torch.uint32, "uint64": torch.uint64,
    "float8_e4m3fn": torch.float8_e4m3fn, "float8_e5m2": torch.float8_e5m2,
    "complex64": torch.complex64, "complex128": torch.complex128,
}  # fmt: skip


def dtype_of(dtype: np.dtype) -> torch.dtype:
    """Raises UnsupportedError for strings, 4-bit numbers and what else torch has no type for."""
    if dtype.name not in _TORCH:
        raise UnsupportedError(f"{dtype} has no form on the device 'cuda'")
    return _TORCH[dtype.name]


def stored(dtype: torch.dtype, precision: Precision) -> torch.dtype:
    """How the graph's `dtype` is stored between steps."""
    return precision.storage if dtype == torch.float32 else dtype


def tensor_of(array: np.ndarray, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A copy on the device. What is beyond a half's range becomes its largest number, and not infinite: masks are written
    with float32's, which bfloat16 rounds up to infinity."""
    if array.dtype.name == "bfloat16":
        tensor = torch.from_numpy(np.ascontiguousarray(array).view(np.int16).copy()).view(torch.bfloat16)
    else:
        tensor = torch.from_numpy(np.array(array, order="C"))
    if dtype in (torch.float16, torch.bfloat16) and tensor.dtype in (torch.float32, torch.float64):
        most = torch.finfo(dtype).max
        tensor = torch.where(tensor.isinf(), tensor, tensor.clamp(-most, most))
    return tensor.to(device=device, dtype=dtype)
