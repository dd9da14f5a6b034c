# SPDX-License-Identifier: Apache-2.0
"""Convolution as an implicit matrix product: rows are output pixels, columns output channels, k runs over taps · channels.

Nothing is unrolled into memory: each program keeps the corner of its rows' windows and adds the tap's offset. The loop over
(tap, block of channels) is flat, so that the pipeline of loads never drains between taps. See conv.py for the modes."""

from __future__ import annotations

import triton
import triton.language as tl

from fastinfer.cuda.device import INTERPRET
from fastinfer.cuda.kernels import interpreter_range  # noqa: F401  (loops with bounds from memory)
from fastinfer.cuda.kernels.conv_epilogue import finish

# numpy has no bfloat16: the interpreter's products would be those of the bits.
INTERPRETED = tl.constexpr(INTERPRET)
# A new batch or image size is not a new kernel.
_SIZES = ["M", "tiles", "column_tiles", "D", "H", "W", "OD", "OH", "OW", "alpha", "beta"]


@triton.jit
def _corners(rows, OD, OH, OW, SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, PD: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr):  # fmt: skip
    """Sample, and the input coordinates under the window's first tap."""
    x = rows % OW
    rest = rows // OW
    y = rest % OH
    rest = rest // OH
    return rest // OD, (rest % OD) * SD - PD, y * SH - PH, x * SW - PW


@triton.jit
def _inside(z, y, x, D, H, W, DEEP: tl.constexpr):
    ok = (y >= 0) & (y < H) & (x >= 0) & (x < W)
    if DEEP:
        ok = ok & (z >= 0) & (z < D)
    return ok


@triton.jit(do_not_specialize=_SIZES)
def conv_kernel(
    x_ptr, w_ptr, b_ptr, r_ptr, y_ptr, p_ptr, alpha, beta, M, tiles, column_tiles,
    D, H, W, OD, OH, OW,
    CIN: tl.constexpr, COUT: tl.constexpr, GROUPS: tl.constexpr, KP: tl.constexpr,
    KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr, PD: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    MODE: tl.constexpr, X_FIRST: tl.constexpr, SCATTER: tl.constexpr, WIDE: tl.constexpr, DEEP: tl.constexpr,
    BIAS: tl.constexpr, RES: tl.constexpr, ACT: tl.constexpr, PRECISION: tl.constexpr,
    SEGMENTS: tl.constexpr, SPLIT: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """x: [N, D, H, W, GROUPS·CIN] (X_FIRST: [N, GROUPS·CIN, D, H, W]); w: [GROUPS·COUT, KP], k contiguous, zero beyond
    taps·CIN; b: float32 [GROUPS·COUT]; r, y: [M, GROUPS·COUT]; p: float32 [SEGMENTS, M, GROUPS·COUT] if SPLIT.

    MODE "dense": 1x1 on the same pixels. "taps": k in blocks of channels within a tap. "gather": k flat over taps · channels.
    SCATTER: a transposed convolution whose stride is its kernel; GROUPS counts taps, all read the same channels.
    SEGMENTS: k in so many runs, each summed from zero, then added in order: SPLIT or not, the same bits."""
    TAPS: tl.constexpr = 1 if SCATTER else KD * KH * KW
    CHUNKS: tl.constexpr = (CIN + BK - 1) // BK
    STEPS: tl.constexpr = (TAPS * CIN + BK - 1) // BK if MODE == "gather" else TAPS * CHUNKS
    RUN: tl.constexpr = (STEPS + SEGMENTS - 1) // SEGMENTS
    CX: tl.constexpr = CIN if SCATTER else CIN * GROUPS
    k = tl.arange(0, BK)
    first = tl.program_id(1) if SPLIT else 0
    count: tl.constexpr = 1 if SPLIT else SEGMENTS
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0)):
        rows = (tile // column_tiles) * BM + tl.arange(0, BM)
        group = tile % column_tiles // ((COUT + BN - 1) // BN)
        columns = tile % column_tiles % ((COUT + BN - 1) // BN) * BN + tl.arange(0, BN)
        row_ok = rows < M
        column_ok = columns < COUT
        channel = 0 if SCATTER else group * CIN
        if WIDE:
            rows = rows.to(tl.int64)
        if MODE == "dense":
            if X_FIRST:
                base = (rows // (D * H * W)) * (CX * D * H * W) + rows % (D * H * W) + channel * D * H * W
            else:
                base = rows * CX + channel
            ok = row_ok
        else:
            n, z0, y0, x0 = _corners(rows, OD, OH, OW, SD, SH, SW, PD, PH, PW)
            if X_FIRST:
                base = ((n * CX + channel) * D + z0) * H * W + y0 * W + x0
            else:
                base = (((n * D + z0) * H + y0) * W + x0) * CX + channel
        w_rows = w_ptr + (group * COUT + columns) * KP
        total = tl.zeros((BM, BN), dtype=tl.float32)
        for segment in tl.range(first, first + count):
            acc = tl.zeros((BM, BN), dtype=tl.float32)
            for step in tl.range(segment * RUN, tl.minimum(segment * RUN + RUN, STEPS)):
                if MODE == "gather":
                    at = step * BK + k
                    c = at % CIN
                    tap = at // CIN
                    dz = tap // (KH * KW) * DD
                    dy = tap // KW % KH * DH
                    dx = tap % KW * DW
                    if X_FIRST:
                        offsets = base[:, None] + (((c * D + dz) * H + dy) * W + dx)[None, :]
                    else:
                        offsets = base[:, None] + (((dz * H + dy) * W + dx) * CX + c)[None, :]
                    mask = _inside(z0[:, None] + dz[None, :], y0[:, None] + dy[None, :], x0[:, None] + dx[None, :], D, H, W, DEEP)  # fmt: skip
                    mask = mask & row_ok[:, None] & (at < TAPS * CIN)[None, :]
                    a = tl.load(x_ptr + offsets, mask=mask, other=0.0)
                    b = tl.load(w_rows[None, :] + at[:, None], mask=column_ok[None, :], other=0.0)
                else:
                    tap = step // CHUNKS
                    c = step % CHUNKS * BK + k
                    shift = 0
                    if MODE == "taps":
                        dz = tap // (KH * KW) * DD
                        dy = tap // KW % KH * DH
                        dx = tap % KW * DW
                        shift = ((dz * H + dy) * W + dx) * CX
                        ok = row_ok & _inside(z0 + dz, y0 + dy, x0 + dx, D, H, W, DEEP)
                    if MODE == "dense" and X_FIRST:
                        offsets = base[:, None] + (c * (D * H * W))[None, :]
                    else:
                        offsets = base[:, None] + (shift + c)[None, :]
                    w_at = w_rows[None, :] + (tap * CIN + c)[:, None]
                    if CIN % BK == 0:
                        a = tl.load(x_ptr + offsets, mask=ok[:, None], other=0.0)
                        b = tl.load(w_at, mask=column_ok[None, :], other=0.0)
                    else:
                        a = tl.load(x_ptr + offsets, mask=ok[:, None] & (c < CIN)[None, :], other=0.0)
                        b = tl.load(w_at, mask=column_ok[None, :] & (c < CIN)[:, None], other=0.0)
                a = a.to(b.dtype)  # a model's input may come as float32
                if INTERPRETED:
                    a = a.to(tl.float32)
                    b = b.to(tl.float32)
                acc = tl.dot(a, b, acc, input_precision=PRECISION)
            if SEGMENTS == 1:
                total = acc
            else:
                total += acc
        mask = row_ok[:, None] & column_ok[None, :]
        if SPLIT:
            at_p = (first * M + rows).to(tl.int64) * (GROUPS * COUT)
            tl.store(p_ptr + at_p[:, None] + (group * COUT + columns)[None, :], total, mask=mask)
        else:
            if SCATTER:
                pixel = (((n * OD + z0) * OH + y0) * KH + group // KW) * (OW * KW) + x0 * KW + group % KW
                offsets = pixel[:, None] * COUT + columns[None, :]
                channels = columns
            else:
                offsets = rows[:, None] * (GROUPS * COUT) + (group * COUT + columns)[None, :]
                channels = group * COUT + columns
            channels = tl.where(column_ok, channels, 0)
            total = finish(total, b_ptr, r_ptr, channels, offsets, mask, alpha, beta, BIAS, RES, ACT)
            tl.store(y_ptr + offsets, total.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["M"])
def conv_sum_kernel(
    p_ptr, b_ptr, r_ptr, y_ptr, alpha, beta, M,
    CHANNELS: tl.constexpr, SEGMENTS: tl.constexpr, BIAS: tl.constexpr, RES: tl.constexpr, ACT: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The runs' sums, in order from the first, and the epilogue. Bound by the bytes of p, which lie in the L2."""
    rows = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    mask = (rows < M)[:, None] & (columns < CHANNELS)[None, :]
    offsets = rows[:, None] * CHANNELS + columns[None, :]
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for segment in tl.static_range(SEGMENTS):
        part = p_ptr + segment * M.to(tl.int64) * CHANNELS
        total += tl.load(part + offsets, mask=mask, other=0.0)
    channels = tl.where(columns < CHANNELS, columns, 0)
    total = finish(total, b_ptr, r_ptr, channels, offsets, mask, alpha, beta, BIAS, RES, ACT)
    tl.store(y_ptr + offsets, total.to(y_ptr.dtype.element_ty), mask=mask)
