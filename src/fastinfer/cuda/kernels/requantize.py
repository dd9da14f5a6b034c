# SPDX-License-Identifier: Apache-2.0
"""The ends of 8-bit products: exact ones of quantised operators, as kernels/gemm/gemm_u8s8.h computes them, and dequantised
ones of float models.

exact    S = sum + start[n] − za·sums[n] − zb[n]·row_sum, int32 that wraps
         int32 out: S.   float out: v = float(S)·scale[n], and + bias[n]
         bytes: quantize(v; zero, lo, hi) = clamp(v, lo, hi) to nearest even + zero (NaN gives lo), of v, or with a residual r of
           "plain"  v + (r − r_zero)·r_factor
           "inner"  (quantize(v; c_zero, c_lo, c_hi) − c_zero)·c_factor + (r − r_zero)·r_factor
         lo, hi, c_lo, c_hi count from their zero. A relu or clip before a quantisation is part of lo and hi.
scaled   act(sum · row_scale[sample]·scale[n] + bias[n] + residual), see conv_epilogue.py

Every multiplication and addition of "exact" rounds to float32 by itself, as on the CPU: launch with enable_fp_fusion=False
(FUSED below), else ptxas makes fused ones, and a value on a tie goes the other way now and then.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import triton
import triton.language as tl

from fastinfer.cuda.kernels.conv_epilogue import Epilogue, finish

FUSED = {"enable_fp_fusion": False}


@dataclass(frozen=True)
class End:
    """What kernels are compiled for. form: "exact" or "scaled"; residual: "", "plain", "inner" ("exact"), "before", "after"
    ("scaled"). dynamic: scale and zero point of the left operand lie on the device. row_sums: the right operand has zero
    points, so that sums over rows of the left one are needed."""

    form: str = "exact"
    bias: bool = False
    residual: str = ""
    activation: str = ""
    dynamic: bool = False
    row_sums: bool = False


@dataclass(frozen=True)
class Numbers:
    """What a node brings without being another kernel: see the module's text. factor: of the scale, where that is dynamic.
    alpha, beta: of the activation."""

    zero: int = 0
    lo: float = 0.0
    hi: float = 0.0
    c_lo: float = 0.0
    c_hi: float = 0.0
    c_factor: float = 1.0
    r_zero: float = 0.0
    r_factor: float = 1.0
    factor: float = 1.0
    alpha: float = 0.0
    beta: float = 0.0


NAMES = [f.name for f in fields(Numbers)]


def scaled(e: Epilogue) -> tuple[End, Numbers]:
    return End("scaled", e.bias, e.residual, e.activation), Numbers(alpha=e.alpha, beta=e.beta)


@triton.jit
def around(v, lo, hi):
    """Clamped, to nearest even: 1.5·2²³ added and taken off leaves no fraction."""
    v = tl.where(hi < v, hi, v)
    v = tl.where(v > lo, v, lo)
    return (v + 12582912.0) - 12582912.0


@triton.jit
def signed(a, FLIP: tl.constexpr):
    """u8 as s8, 128 less: matrix units of Triton's take s8 alone."""
    return (a ^ 128).to(tl.int8, bitcast=True) if FLIP else a


@triton.jit
def exact(
    acc, row_sum, columns, offsets, mask, y_ptr, start, scale, sums, zeros, a_scale, a_zero, bias, r_ptr,
    zero, lo, hi, c_lo, c_hi, c_factor, r_zero, r_factor, factor,
    BIAS: tl.constexpr, RES: tl.constexpr, DYNAMIC: tl.constexpr, ROW_SUMS: tl.constexpr, FLIP: tl.constexpr,
):  # fmt: skip
    """Stores the tile. columns: indices in range; offsets, mask: of y's and the residual's elements."""
    s = acc + tl.load(start + columns)[None, :]
    if DYNAMIC:
        za = tl.load(a_zero).to(tl.int32) - (128 if FLIP else 0)
        s -= (za * tl.load(sums + columns))[None, :]
    if ROW_SUMS:
        s -= row_sum[:, None] * tl.load(zeros + columns)[None, :]
    if y_ptr.dtype.element_ty == tl.int32:
        tl.store(y_ptr + offsets, s, mask=mask)
    else:
        unit = tl.load(scale + columns)
        if DYNAMIC:
            unit = tl.load(a_scale).to(tl.float32) * unit * factor
        v = s.to(tl.float32) * unit[None, :]
        if y_ptr.dtype.element_ty.is_int():
            if RES == "inner":
                v = around(v, c_lo, c_hi) * c_factor
            if RES != "":
                v = v + (tl.load(r_ptr + offsets, mask=mask, other=0).to(tl.float32) - r_zero) * r_factor
            q = around(v, lo, hi).to(tl.int32) + zero
            tl.store(y_ptr + offsets, q.to(y_ptr.dtype.element_ty), mask=mask)
        else:
            if BIAS:
                v = v + tl.load(bias + columns).to(tl.float32)[None, :]
            tl.store(y_ptr + offsets, v.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def dequantised(
    acc, samples, columns, offsets, mask, y_ptr, scale, a_scale, bias, r_ptr, alpha, beta,
    BIAS: tl.constexpr, RES: tl.constexpr, ACT: tl.constexpr,
):  # fmt: skip
    """Stores the tile; samples: of its rows, in range."""
    v = acc.to(tl.float32) * tl.load(a_scale + samples)[:, None] * tl.load(scale + columns)[None, :]
    v = finish(v, bias, r_ptr, columns, offsets, mask, alpha, beta, BIAS, RES, ACT)
    tl.store(y_ptr + offsets, v.to(y_ptr.dtype.element_ty), mask=mask)
