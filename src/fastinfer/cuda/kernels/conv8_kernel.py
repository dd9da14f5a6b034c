# SPDX-License-Identifier: Apache-2.0
"""Convolution of 8-bit operands as an implicit matrix product, see conv8.py; the walk is conv_kernel.py's.

No load of a whole block has a mask: rows past the end are the last one again, taps outside the image read a row of zero points
(`pad`), weights are laid out in whole blocks of k. A signed left operand goes from shared memory to the matrix units by itself;
an unsigned one through registers, where 128 is taken off."""

from __future__ import annotations

import triton
import triton.language as tl

from fastinfer.cuda.kernels import interpreter_range  # noqa: F401  (loops with bounds from memory)
from fastinfer.cuda.kernels.conv_kernel import _corners, _inside
from fastinfer.cuda.kernels.gemm_tile import dot
from fastinfer.cuda.kernels.requantize import dequantised, exact, signed

_VARYING = [
    "M", "tiles", "column_tiles", "D", "H", "W", "OD", "OH", "OW", "zero", "lo", "hi", "c_lo", "c_hi", "c_factor", "r_zero",
    "r_factor", "factor", "alpha", "beta",
]  # fmt: skip


@triton.jit
def _sums(BM: tl.constexpr, BN: tl.constexpr, PRODUCTS: tl.constexpr):
    return tl.zeros((BM, BN), tl.int32 if PRODUCTS == "int8" else tl.float32)


@triton.jit
def _finish(
    acc, row_sum, samples, columns, offsets, mask, y, start, scale, sums, zeros, a_scale, a_zero, bias, r,
    zero, lo, hi, c_lo, c_hi, c_factor, r_zero, r_factor, factor, alpha, beta,
    FORM: tl.constexpr, BIAS: tl.constexpr, RES: tl.constexpr, ACT: tl.constexpr, DYNAMIC: tl.constexpr,
    ROW_SUMS: tl.constexpr, FLIP: tl.constexpr,
):  # fmt: skip
    if FORM == "exact":
        exact(
            acc, row_sum, columns, offsets, mask, y, start, scale, sums, zeros, a_scale, a_zero, bias, r,
            zero, lo, hi, c_lo, c_hi, c_factor, r_zero, r_factor, factor, BIAS, RES, DYNAMIC, ROW_SUMS, FLIP,
        )  # fmt: skip
    else:
        dequantised(acc, samples, columns, offsets, mask, y, scale, a_scale, bias, r, alpha, beta, BIAS, RES, ACT)


@triton.jit(do_not_specialize=_VARYING)
def conv8_kernel(
    x_ptr, w_ptr, pad_ptr, y_ptr, p_ptr, start, scale, sums, zeros, a_scale, a_zero, bias, r_ptr,
    zero, lo, hi, c_lo, c_hi, c_factor, r_zero, r_factor, factor, alpha, beta,
    M, tiles, column_tiles, D, H, W, OD, OH, OW,
    CIN: tl.constexpr, COUT: tl.constexpr, GROUPS: tl.constexpr,
    KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr, PD: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    MODE: tl.constexpr, PADDED: tl.constexpr, WIDE: tl.constexpr, DEEP: tl.constexpr, PRODUCTS: tl.constexpr,
    FORM: tl.constexpr, BIAS: tl.constexpr, RES: tl.constexpr, ACT: tl.constexpr, DYNAMIC: tl.constexpr,
    ROW_SUMS: tl.constexpr, FLIP: tl.constexpr, SEGMENTS: tl.constexpr, SPLIT: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """x: [N, D, H, W, GROUPS·CIN]; w: [GROUPS·COUT, STEPS·BK] (conv8.lay_out_weights); pad: STEPS·BK bytes of x's zero point;
    y, r: [M, GROUPS·COUT]; p: int32 or float32 [SEGMENTS, M, GROUPS·COUT] if SPLIT. The rest: requantize.py.

    SEGMENTS: k in so many runs, each summed from zero, then added in order: SPLIT or not, the same bits."""
    TAPS: tl.constexpr = KD * KH * KW
    CHUNKS: tl.constexpr = (CIN + BK - 1) // BK
    STEPS: tl.constexpr = (TAPS * CIN + BK - 1) // BK if MODE == "gather" else TAPS * CHUNKS
    RUN: tl.constexpr = (STEPS + SEGMENTS - 1) // SEGMENTS
    CX: tl.constexpr = CIN * GROUPS
    TAIL: tl.constexpr = (TAPS * CIN) % BK != 0 if MODE == "gather" else CIN % BK != 0
    k = tl.arange(0, BK)
    first = tl.program_id(1) if SPLIT else 0
    count: tl.constexpr = 1 if SPLIT else SEGMENTS
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0)):
        rows = (tile // column_tiles) * BM + tl.arange(0, BM)
        group = tile % column_tiles // ((COUT + BN - 1) // BN)
        columns = tile % column_tiles % ((COUT + BN - 1) // BN) * BN + tl.arange(0, BN)
        rows = tl.minimum(rows, M - 1)
        columns = group * COUT + tl.minimum(columns, COUT - 1)
        if WIDE:
            rows = rows.to(tl.int64)
        n, z0, y0, x0 = _corners(rows, OD, OH, OW, SD, SH, SW, PD, PH, PW)
        if MODE == "dense":
            base = rows * CX + group * CIN
        else:
            base = (((n * D + z0) * H + y0) * W + x0) * CX + group * CIN
        w_rows = w_ptr + columns * (STEPS * BK)
        total = _sums(BM, BN, PRODUCTS)
        row_sum = tl.zeros((BM,), tl.int32)
        for segment in tl.range(first, first + count):
            acc = _sums(BM, BN, PRODUCTS)
            for step in tl.range(segment * RUN, tl.minimum(segment * RUN + RUN, STEPS)):
                if MODE == "gather":
                    at = step * BK + k
                    c = at % CIN
                    tap = at // CIN
                    dz = tap // (KH * KW) * DD
                    dy = tap // KW % KH * DH
                    dx = tap % KW * DW
                    whole = at < TAPS * CIN
                    ok = _inside(z0[:, None] + dz[None, :], y0[:, None] + dy[None, :], x0[:, None] + dx[None, :], D, H, W, DEEP)  # fmt: skip
                    offsets = base[:, None] + (((dz * H + dy) * W + dx) * CX + c)[None, :]
                    a = tl.load(tl.where(ok & whole[None, :], x_ptr + offsets, pad_ptr + c[None, :]))
                else:
                    tap = step // CHUNKS
                    c = step % CHUNKS * BK + k
                    whole = c < CIN
                    if MODE == "taps":
                        dz = tap // (KH * KW) * DD
                        dy = tap // KW % KH * DH
                        dx = tap % KW * DW
                        row = x_ptr + (base + ((dz * H + dy) * W + dx) * CX)
                        if PADDED:
                            row = tl.where(_inside(z0 + dz, y0 + dy, x0 + dx, D, H, W, DEEP), row, pad_ptr)
                    else:
                        row = x_ptr + base
                    if TAIL:
                        a = tl.load(row[:, None] + c[None, :], mask=whole[None, :], other=0.0)
                    else:
                        a = tl.load(row[:, None] + c[None, :])
                b = tl.load(w_rows[None, :] + (step * BK + k)[:, None])
                a = signed(a, FLIP)
                if ROW_SUMS:
                    if TAIL:
                        a = tl.where(whole[None, :], a, 0)
                    row_sum += tl.sum(a.to(tl.int32), 1)
                if PRODUCTS == "int8":
                    acc = tl.dot(a, b, acc, out_dtype=tl.int32)
                else:
                    acc = dot(a, b, acc, PRODUCTS, BK)
            if SEGMENTS == 1:
                total = acc
            else:
                total += acc
        # Again, rather than kept in registers through the loop.
        rows = (tile // column_tiles) * BM + tl.arange(0, BM)
        columns = tile % column_tiles % ((COUT + BN - 1) // BN) * BN + tl.arange(0, BN)
        mask = (rows < M)[:, None] & (columns < COUT)[None, :]
        columns = group * COUT + tl.minimum(columns, COUT - 1)
        if WIDE:
            rows = rows.to(tl.int64)
        offsets = rows[:, None] * (GROUPS * COUT) + columns[None, :]
        if SPLIT:
            at_p = (first * M + rows).to(tl.int64) * (GROUPS * COUT)
            tl.store(p_ptr + at_p[:, None] + columns[None, :], total, mask=mask)
        else:
            _finish(
                total, row_sum, tl.minimum(rows, M - 1) // (OD * OH * OW), columns, offsets, mask, y_ptr, start, scale, sums, zeros, a_scale, a_zero, bias, r_ptr,
                zero, lo, hi, c_lo, c_hi, c_factor, r_zero, r_factor, factor, alpha, beta,
                FORM, BIAS, RES, ACT, DYNAMIC, ROW_SUMS, FLIP,
            )  # fmt: skip


@triton.jit(do_not_specialize=_VARYING + ["pixels"])
def conv8_sum_kernel(
    p_ptr, y_ptr, start, scale, sums, zeros, a_scale, a_zero, bias, r_ptr,
    zero, lo, hi, c_lo, c_hi, c_factor, r_zero, r_factor, factor, alpha, beta, M, pixels,
    CHANNELS: tl.constexpr, SEGMENTS: tl.constexpr, PRODUCTS: tl.constexpr,
    FORM: tl.constexpr, BIAS: tl.constexpr, RES: tl.constexpr, ACT: tl.constexpr, DYNAMIC: tl.constexpr, FLIP: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The runs' sums, in order from the first, and the end. Bound by the bytes of p, which lie in the L2."""
    rows = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    mask = (rows < M)[:, None] & (columns < CHANNELS)[None, :]
    offsets = rows[:, None] * CHANNELS + columns[None, :]
    total = _sums(BM, BN, PRODUCTS)
    for segment in tl.static_range(SEGMENTS):
        part = p_ptr + segment * M.to(tl.int64) * CHANNELS
        total += tl.load(part + offsets, mask=mask, other=0)
    samples = tl.minimum(rows, M - 1) // pixels
    _finish(
        total, rows, samples, tl.minimum(columns, CHANNELS - 1), offsets, mask, y_ptr, start, scale, sums, zeros, a_scale, a_zero,
        bias, r_ptr, zero, lo, hi, c_lo, c_hi, c_factor, r_zero, r_factor, factor, alpha, beta,
        FORM, BIAS, RES, ACT, DYNAMIC, False, FLIP,
    )  # fmt: skip
