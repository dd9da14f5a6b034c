# SPDX-License-Identifier: Apache-2.0
"""Conversions between element types."""

from __future__ import annotations

import torch

from fastinfer.cuda.dtypes import dtype_of_code
from fastinfer.cuda.torch_ops.call import Call, TorchOp, int64
from fastinfer.errors import UnsupportedError

FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
# Beyond these the nearest number is past the largest one, which is NaN (e4m3, the tie goes to 448) or infinity.
_OVERFLOW = {torch.float8_e4m3fn: (464.0, "nan"), torch.float8_e5m2: (61439.99, "inf")}


def cast(x: torch.Tensor, dtype: torch.dtype, saturate: bool = True) -> torch.Tensor:
    """As ONNX's Cast: to integers towards zero; to fp8 by the nearest, saturating or not."""
    if x.dtype == dtype:
        return x
    if x.dtype == torch.uint64 and dtype.is_floating_point:
        x = int64(x).to(torch.float64) + (int64(x) < 0) * 2.0**64
    if dtype in FP8:
        x = x.to(torch.float32)
        most = torch.finfo(dtype).max
        y = x.clamp(-most, most).to(dtype)
        if saturate:
            return y
        least, becomes = _OVERFLOW[dtype]
        beyond = torch.copysign(torch.full_like(x, float(becomes)), x)
        return torch.where(x.abs() > least, beyond, y.float()).to(dtype)
    return x.to(dtype)


def _cast(call: Call) -> torch.Tensor:
    return cast(call.x(0), dtype_of_code(call.attr("to")), bool(call.attr("saturate", 1)))


def _cast_like(call: Call) -> torch.Tensor:
    return cast(call.x(0), call.x(1).dtype, bool(call.attr("saturate", 1)))


def _bit_cast(call: Call) -> torch.Tensor:
    """The bits of as many elements in a type of the same width."""
    x, dtype = call.x(0), dtype_of_code(call.attr("to"))
    if x.dtype.itemsize != dtype.itemsize or torch.bool in (x.dtype, dtype):
        raise UnsupportedError(f"BitCast from {x.dtype} to {dtype}")
    return x.view(dtype)


__all__ = ["EXACT", "FP8", "cast"]
EXACT: dict[str, TorchOp] = {"Cast": _cast, "CastLike": _cast_like, "BitCast": _bit_cast}
