# SPDX-License-Identifier: Apache-2.0
"""QuantizeLinear and its kin: per tensor, per axis, blocked; to 8- and 16-bit integers and fp8."""

from __future__ import annotations

import torch
from torch import Tensor

from fastinfer.cuda.dtypes import dtype_of_code
from fastinfer.cuda.torch_ops.call import Call, TorchOp
from fastinfer.cuda.torch_ops.casts import FP8, cast


def spread(p: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """Scale or zero point against x: one for all, one per index of `axis`, or one per `block` of it."""
    if p.numel() == 1 and p.ndim <= 1 and not block:
        return p.reshape(())
    axis %= x.ndim
    if block:
        return p.repeat_interleave(block, dim=axis).narrow(axis, 0, x.shape[axis])
    return p.reshape([-1 if a == axis else 1 for a in range(x.ndim)])


def _wide(t: Tensor) -> Tensor:
    return t if t.dtype == torch.float64 else t.float()


def quantize(x: Tensor, scale: Tensor, zero: Tensor | None, dtype: torch.dtype, saturate: bool = True) -> Tensor:
    """round(x / scale) to even + zero, saturated. Operands that broadcast."""
    y = _wide(x) / _wide(scale)
    if dtype in FP8:
        return cast(y, dtype, saturate)
    y = torch.round(y)
    if zero is not None:
        y = y + _wide(zero)
    limits = torch.iinfo(dtype)
    return torch.nan_to_num(y, nan=0.0).clamp(limits.min, limits.max).to(torch.int32).to(dtype)


def _quantize(call: Call) -> Tensor:
    x, axis, block = call.x(0), call.attr("axis", 1), call.attr("block_size", 0)
    scale = spread(call.wide(1), x, axis, block)
    zero = spread(call.x(2), x, axis, block) if call.has(2) else None
    code = call.attr("output_dtype", 0)
    dtype = dtype_of_code(code) if code else torch.uint8 if zero is None else zero.dtype
    return quantize(x, scale, zero, dtype, bool(call.attr("saturate", 1)))


def dequantize(x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    """(x − zero) · scale in float32."""
    wide = x.to(torch.int32) if not x.dtype.is_floating_point else x.float()
    if zero is not None:
        wide = wide - (zero.to(torch.int32) if not zero.dtype.is_floating_point else zero.float())
    return wide.float() * _wide(scale)


def _dequantize(call: Call) -> Tensor:
    x, axis, block = call.x(0), call.attr("axis", 1), call.attr("block_size", 0)
    scale = spread(call.wide(1), x, axis, block)
    y = dequantize(x, scale, spread(call.x(2), x, axis, block) if call.has(2) else None)
    code = call.attr("output_dtype", 0)
    return y.to(dtype_of_code(code) if code else call.x(1).dtype)


def dynamic(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x as uint8, its scale and zero point, from its range with zero in it. Where all are 0 the scale is that of a range of 1;
    NaN counts as neither smallest nor largest: as on the CPU."""
    zero = torch.zeros(1, dtype=torch.float32, device=x.device)
    real = torch.cat([zero, torch.nan_to_num(x.float(), nan=0.0, posinf=torch.inf, neginf=-torch.inf).reshape(-1)])
    low, high = real.amin(), real.amax()
    scale = torch.where(low == high, torch.ones_like(low), high - low) / 255
    point = torch.round((-low / scale).clamp(0, 255)).to(torch.uint8)
    return quantize(x, scale, point, torch.uint8), scale, point


def _dynamic(call: Call) -> list[Tensor | None]:
    return list(dynamic(call.wide(0)))


EXACT: dict[str, TorchOp] = {
    "QuantizeLinear": _quantize, "DequantizeLinear": _dequantize, "DynamicQuantizeLinear": _dynamic,
}  # fmt: skip
MICROSOFT: dict[str, TorchOp] = {"QuantizeLinear": _quantize, "DequantizeLinear": _dequantize}
