# SPDX-License-Identifier: Apache-2.0
"""QuantizeLinear and DequantizeLinear with one scale, as pointwise programs: ONNX's arithmetic in float32, with the CPU's bits.
Scales per axis and per block stand at weights, which are folded, and else go through torch."""

from __future__ import annotations

from collections.abc import Callable

import torch

from fastinfer.cuda.context import Binder, Declined, NodeContext
from fastinfer.cuda.ops.pointwise import Build, Operand, add

_BYTES = {torch.uint8: (0.0, 255.0), torch.int8: (-128.0, 127.0), torch.int16: (-32768.0, 32767.0)}


def _one(build: Build, i: int) -> Operand:
    """The scale or zero point, as it was in the file: stored as a half it would have lost bits."""
    known = build.ctx.known(i)
    if known is None or known.size != 1 or build.ctx.attr("block_size", 0):
        raise Declined("a scale or zero point that is not one known number")
    return build.number(float(known.reshape(-1)[0]))


def _quantized(build: Build) -> Operand:
    """round(x / scale) to even + zero, saturated; NaN is 0."""
    limits = _BYTES.get(build.ctx.out_desc(0).dtype)
    if limits is None:
        raise Declined(f"quantised to {build.ctx.out_desc(0).dtype}")
    y = build.op("round", build.op("div", build.x(0), _one(build, 1)))
    if build.ctx.has(2):
        y = build.op("add", y, _one(build, 2))
    bounded = build.op("clip", y, *(build.number(limit) for limit in limits))
    return build.op("where", build.op("is_nan", y), build.number(0.0), bounded)


def _dequantized(build: Build) -> Operand:
    """(x - zero)·scale. An int32's zero point is 0, says ONNX; it is rounded to float32 before it is scaled."""
    dtype = build.ctx.desc(0).dtype
    if dtype not in _BYTES and dtype != torch.int32:
        raise Declined(f"dequantised from {dtype}")
    scale, x = _one(build, 1), build.x(0)
    if build.ctx.has(2) and dtype != torch.int32:
        x = build.op("sub", x, _one(build, 2))
    return build.op("mul", x, scale)


def _bind(make: Callable[[Build], Operand]) -> Binder:
    def bind(ctx: NodeContext) -> None:
        build = Build(ctx, numbers=True)
        result = make(build)
        add(ctx, build, [result])

    return bind


BINDERS: dict[tuple[str, str], Binder] = {
    (domain, op): _bind(make)
    for domain in ("", "com.microsoft")
    for op, make in {"QuantizeLinear": _quantized, "DequantizeLinear": _dequantized}.items()
}
