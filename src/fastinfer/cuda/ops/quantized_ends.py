# SPDX-License-Identifier: Apache-2.0
"""Scales, zero points and bytes of the integer operators in their kernels' form: what csrc/ops/requantize.cc and
kernels/gemm/quantize.cc do for the CPU, number by number."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from fastinfer.cuda.context import Declined, Handle, NodeContext
from fastinfer.cuda.kernels.requantize import End, Numbers

BYTES = (torch.uint8, torch.int8)


@dataclass(frozen=True)
class Inputs:
    """Which inputs mean what; -1: the operator has none. C is what a residual R is added to (requantize.py: "inner")."""

    a: int = 0
    b: int = 1
    a_scale: int = -1
    b_scale: int = -1
    a_zero: int = -1
    b_zero: int = -1
    y_scale: int = -1
    y_zero: int = -1
    int_bias: int = -1
    residual: int = -1
    r_scale: int = -1
    r_zero: int = -1
    c_scale: int = -1
    c_zero: int = -1
    bias: int = -1  # of a float output
    factor: float = 1.0  # of the product


@dataclass(frozen=True)
class Ends:
    """What a kernel is compiled for, its numbers, and its tensors in the order of conv8.run: start, scale, sums, zeros, a_scale,
    a_zero, bias, residual."""

    end: End
    numbers: Numbers
    tensors: tuple[Handle | None, ...]


def given(ctx: NodeContext, i: int) -> bool:
    return i >= 0 and ctx.has(i)


def values(ctx: NodeContext, i: int, what: str) -> np.ndarray:
    """Of an input that is known while planning."""
    found = ctx.known(i)
    if found is None:
        raise Declined(f"{what} is not known before the model runs")
    return found.reshape(-1)


def one(ctx: NodeContext, i: int, what: str) -> np.generic:
    found = values(ctx, i, what)
    if found.size != 1:
        raise Declined(f"{what} has {found.size} values")
    return found[0]


def zero_point(ctx: NodeContext, i: int, what: str) -> int:
    return int(one(ctx, i, what)) if given(ctx, i) else 0


def is_dynamic(ctx: NodeContext, i: Inputs) -> bool:
    """Scale or zero point of A come with the data."""
    return any(given(ctx, j) and ctx.known(j) is None for j in (i.a_scale, i.a_zero))


def b_zeros(ctx: NodeContext, i: Inputs, n: int) -> np.ndarray:
    """int32 [n], for B as it is multiplied: 128 less than for bytes of u8."""
    zeros = values(ctx, i.b_zero, "B's zero point") if given(ctx, i.b_zero) else np.zeros(1, np.int32)
    if zeros.size not in (1, n):
        raise Declined(f"{zeros.size} zero points for {n} columns")
    return np.broadcast_to(zeros.astype(np.int32) - (128 if ctx.desc(i.b).dtype == torch.uint8 else 0), (n,)).copy()


def signed_weights(w: torch.Tensor) -> torch.Tensor:
    """Bytes as s8: u8 less 128."""
    return w if w.dtype == torch.int8 else (w ^ 128).view(torch.int8)


def wrapped(x: torch.Tensor) -> torch.Tensor:
    """int64 → int32, modulo 2³²."""
    return ((x + 2**31) % 2**32 - 2**31).to(torch.int32)


def _digest(*arrays: np.ndarray) -> str:
    return hashlib.blake2b(b"".join(a.tobytes() + str(a.dtype).encode() for a in arrays), digest_size=12).hexdigest()


def column_scales(ctx: NodeContext, i: Inputs, n: int, dynamic: bool) -> np.ndarray:
    """float32 [n]: a_scale · b_scale / (c_scale or y_scale) · factor, rounded after each step; without a_scale and factor where
    A's is dynamic."""
    b = values(ctx, i.b_scale, "B's scale") if given(ctx, i.b_scale) else np.ones(1, np.float32)
    if b.size not in (1, n) or b.dtype != np.float32:
        raise Declined(f"{b.size} scales of {b.dtype} for {n} columns")
    to = i.c_scale if given(ctx, i.c_scale) else i.y_scale
    if dynamic:
        if given(ctx, to):
            raise Declined("bytes of an A whose scale comes with the data")
        return np.broadcast_to(b, (n,)).copy()
    a = np.float32(one(ctx, i.a_scale, "A's scale")) if given(ctx, i.a_scale) else np.float32(1)
    y = np.float32(one(ctx, to, "the output's scale")) if given(ctx, to) else np.float32(1)
    with np.errstate(all="ignore"):
        return np.broadcast_to(a * b / y * np.float32(i.factor), (n,)).astype(np.float32)


def numbers_of(ctx: NodeContext, i: Inputs, out: torch.dtype, factor: float = 1.0) -> Numbers:
    if out not in BYTES:
        return Numbers(factor=factor)
    low, high = torch.iinfo(out).min, torch.iinfo(out).max
    zero = zero_point(ctx, i.y_zero, "the output's zero point")
    lo, hi = (min(max(int(ctx.attr(name, limit)), low), high) for name, limit in (("low", low), ("high", high)))
    found: dict[str, Any] = {"zero": zero, "lo": float(lo - zero), "hi": float(hi - zero), "factor": factor}
    if not given(ctx, i.residual):
        return Numbers(**found)
    y_scale = np.float32(one(ctx, i.y_scale, "the output's scale"))
    found["r_zero"] = float(zero_point(ctx, i.r_zero, "the residual's zero point"))
    found["r_factor"] = float(np.float32(one(ctx, i.r_scale, "the residual's scale")) / y_scale)
    if given(ctx, i.c_scale):
        c_type = ctx.desc(i.c_zero).dtype
        c_zero = zero_point(ctx, i.c_zero, "the inner zero point")
        c_low, c_high = torch.iinfo(c_type).min, torch.iinfo(c_type).max
        found["c_lo"] = float(min(max(int(ctx.attr("c_low", -128)), c_low), 255) - c_zero)
        found["c_hi"] = float(max(min(int(ctx.attr("c_high", 255)), c_high), -128) - c_zero)
        found["c_factor"] = float(np.float32(one(ctx, i.c_scale, "the inner scale")) / y_scale)
    return Numbers(**found)


def check(ctx: NodeContext, i: Inputs, made: bool) -> None:
    out = ctx.out_desc(0)
    for j in (i.b,) if made else (i.a, i.b):
        if ctx.desc(j).dtype not in BYTES:
            raise Declined(f"an integer product of {ctx.desc(j).dtype}")
    if given(ctx, i.residual) and (ctx.desc(i.residual).shape != out.shape or ctx.desc(i.residual).dtype not in BYTES):
        raise Declined("a residual of another shape than the output, or not of bytes")
    for j in (i.a_scale, i.a_zero):
        if given(ctx, j) and ctx.desc(j).elements != 1:
            raise Declined("scales or zero points of A by row")
    if given(ctx, i.y_scale) and ctx.desc(i.y_scale).elements != 1:
        raise Declined("an output scale per row")


def columns_of(ctx: NodeContext, i: Inputs, n: int, made: bool = False) -> tuple[End, Numbers, np.ndarray, np.ndarray]:
    """What does not depend on B's values; the integer bias and the scales by column, where both scales are known. made: A's
    bytes, scale and zero point are the node's own."""
    check(ctx, i, made)
    dynamic = made or is_dynamic(ctx, i)
    bias = values(ctx, i.int_bias, "the bias") if given(ctx, i.int_bias) else np.zeros(n, np.int32)
    if bias.size != n or (given(ctx, i.bias) and ctx.desc(i.bias).elements != n):
        raise Declined(f"a bias of {bias.size} values for {n} columns")
    residual = "" if not given(ctx, i.residual) else "inner" if given(ctx, i.c_scale) else "plain"
    end = End("exact", given(ctx, i.bias), residual, "", dynamic)
    return end, numbers_of(ctx, i, ctx.out_desc(0).dtype, i.factor), bias, column_scales(ctx, i, n, dynamic)


def table(ctx: NodeContext, array: np.ndarray, beside: int) -> Handle:
    """An array made on the host, on the device; kept with constant input `beside`."""
    return ctx.constant(beside, f"table {_digest(array)}", lambda w: torch.from_numpy(array).to(w.device))


def ends_of(ctx: NodeContext, i: Inputs, n: int, axis: int, made: tuple[Handle, Handle] | None = None) -> Ends:
    """Of a product with constant weights whose n columns lie along `axis` of B. made: scale and zero point of an A that the node
    quantises itself, to uint8."""
    end, numbers, bias, scales = columns_of(ctx, i, n, made is not None)
    dynamic, zeros = end.dynamic, b_zeros(ctx, i, n)
    a_flip = 128 if made or ctx.desc(i.a).dtype == torch.uint8 else 0
    za = 0 if dynamic else zero_point(ctx, i.a_zero, "A's zero point") - a_flip

    def sums(w: torch.Tensor) -> torch.Tensor:
        w = signed_weights(w).movedim(axis, 0).reshape(n, -1)
        return w.sum(1, dtype=torch.int64) - w.shape[1] * torch.from_numpy(zeros).to(w.device, torch.int64)

    def start(w: torch.Tensor) -> torch.Tensor:
        begin = torch.from_numpy(bias.astype(np.int64)).to(w.device)
        return wrapped(begin if dynamic else begin - za * sums(w))

    end = replace(end, row_sums=bool(zeros.any()))
    return Ends(end, numbers, (
        ctx.constant(i.b, f"start {axis} {za} {dynamic} {_digest(zeros, bias)}", start), table(ctx, scales, i.b),
        ctx.constant(i.b, f"sums {axis} {_digest(zeros)}", lambda w: wrapped(sums(w))) if dynamic else None,
        table(ctx, zeros, i.b) if end.row_sums else None, *(made or _dynamic_a(ctx, i, dynamic)),
        ctx.input(i.bias) if end.bias else None, ctx.input(i.residual) if end.residual else None,
    ))  # fmt: skip


def _dynamic_a(ctx: NodeContext, i: Inputs, dynamic: bool) -> tuple[Handle | None, Handle | None]:
    """Scale and zero point of A on the device."""
    if not dynamic:
        return None, None
    if not given(ctx, i.a_zero):
        raise Declined("A's scale comes with the data, and there is no zero point")
    return ctx.input(i.a_scale) if given(ctx, i.a_scale) else None, ctx.input(i.a_zero)
