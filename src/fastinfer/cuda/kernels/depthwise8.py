# SPDX-License-Identifier: Apache-2.0
# mypy: disable-error-code="assignment, var-annotated"
# (tuples that grow while a loop is unrolled)
"""Depthwise convolution of bytes, channels last, exactly: S[n, h, w, c] = bias[c] + Σ (x − x_zero)·(w − w_zero), and
requantize.py's exact end.

The walk is depthwise.py's. Products are taken in float32, where they and their sums are exact: 49 taps of 255·255 are below
2²⁴. Bound by turning bytes into floats (64 per cycle of a multiprocessor) rather than by memory: 4.5 of them per output with 4
rows of 3x3, for 2 bytes read and written.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, field
from typing import Any

import torch
import triton
import triton.language as tl

from fastinfer.cuda.kernels import depthwise
from fastinfer.cuda.kernels.conv_geometry import Window
from fastinfer.cuda.kernels.depthwise import Config, supported
from fastinfer.cuda.kernels.launch import launch
from fastinfer.cuda.kernels.requantize import FUSED, End, Numbers, exact

__all__ = ["Config", "Problem", "configs", "default", "lay_out_weights", "run", "supported", "workspace"]


@dataclass(frozen=True)
class Problem:
    """dtype: of x; out: of y; channels: of both."""

    dtype: torch.dtype
    out: torch.dtype
    batch: int
    window: Window
    channels: int
    end: End = field(default_factory=End)

    @property
    def flops(self) -> float:
        return 2.0 * self.batch * self.window.pixels * self.channels * self.window.taps


def _halves(p: Problem) -> depthwise.Problem:
    """What has the same registers: 8 channels of a thread."""
    return depthwise.Problem(torch.bfloat16, p.batch, p.window, p.channels)


def configs(p: Problem) -> list[Config]:
    return depthwise.configs(_halves(p))


def default(p: Problem) -> Config:
    return depthwise.default(_halves(p))


def workspace(p: Problem, c: Config) -> int:
    return 0


def lay_out_weights(w: torch.Tensor, zeros: torch.Tensor) -> torch.Tensor:
    """Bytes [channels, 1, kh, kw] and int32 [channels] → float32 [kh · kw, channels] without their zero point."""
    return (w.reshape(w.shape[0], -1).to(torch.int32) - zeros[:, None]).t().float()


@triton.jit(do_not_specialize=[
    "H", "W", "OH", "OW", "row_blocks", "column_blocks", "x_zero", "zero", "lo", "hi", "c_lo", "c_hi", "c_factor", "r_zero",
    "r_factor", "factor",
])  # fmt: skip
def depthwise8_kernel(
    x_ptr, w_ptr, y_ptr, start, scale, r_ptr, x_zero, zero, lo, hi, c_lo, c_hi, c_factor, r_zero, r_factor, factor,
    H, W, OH, OW, row_blocks, column_blocks,
    C: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DH: tl.constexpr, DW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, RES: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, BW: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """x: [N, H, W, C]; w: float32 [KH·KW, C]; start: int32, scale: float32 [C]; r, y: [N, OH, OW, C]."""
    pid = tl.program_id(0)
    n = pid // (row_blocks * column_blocks)
    first = pid // column_blocks % row_blocks * ROWS
    columns = pid % column_blocks * BW + tl.arange(0, BW)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    c_ok = c < C
    if WIDE:
        n = n.to(tl.int64)
    weights = ()
    if KH * KW <= 9:  # more would not stay in registers
        for t in tl.static_range(KH * KW):
            weights = weights + (tl.load(w_ptr + t * C + c, mask=c_ok, other=0.0),)
    sums = ()
    for _ in tl.static_range(ROWS):
        sums = sums + (tl.zeros((BW, BC), dtype=tl.float32),)
    for i in tl.static_range((ROWS - 1) * SH + (KH - 1) * DH + 1):
        iy = first * SH - PH + i
        row = x_ptr + ((n * H + iy) * W - PW) * C
        for j in tl.static_range(KW):
            ix = columns * SW - PW + j * DW
            ok = ((iy >= 0) & (iy < H) & (ix >= 0) & (ix < W))[:, None] & c_ok[None, :]
            at = (columns * SW + j * DW)[:, None] * C + c[None, :]
            x = tl.load(row + at, mask=ok, other=0).to(tl.float32) - x_zero
            x = tl.where(ok, x, 0.0)
            new = ()
            for r in tl.static_range(ROWS):
                if i >= r * SH and (i - r * SH) % DH == 0 and (i - r * SH) // DH < KH:
                    if KH * KW <= 9:
                        k = weights[(i - r * SH) // DH * KW + j]
                    else:
                        k = tl.load(w_ptr + ((i - r * SH) // DH * KW + j) * C + c, mask=c_ok, other=0.0)
                    new = new + (tl.fma(x, tl.broadcast_to(k[None, :], x.shape), sums[r]),)
                else:
                    new = new + (sums[r],)
            sums = new
    channels = tl.where(c_ok, c, 0)
    for r in tl.static_range(ROWS):
        offsets = ((n * OH + first + r) * OW + columns)[:, None] * C + c[None, :]
        mask = ((first + r < OH) & (columns < OW))[:, None] & c_ok[None, :]
        exact(
            sums[r].to(tl.int32), 0, channels, offsets, mask, y_ptr, start, scale, start, start, scale, start, scale, r_ptr,
            zero, lo, hi, c_lo, c_hi, c_factor, r_zero, r_factor, factor, False, RES, False, False, False,
        )  # fmt: skip


def constants(p: Problem, c: Config) -> dict[str, Any]:
    """What the kernel is compiled for."""
    w = p.window
    size = p.batch * p.channels * max(w.size[1] * w.size[2], w.pixels)
    return {
        "C": p.channels, "KH": w.kernel[1], "KW": w.kernel[2], "SH": w.stride[1], "SW": w.stride[2], "DH": w.dilation[1],
        "DW": w.dilation[2], "PH": w.pad[1], "PW": w.pad[2], "RES": p.end.residual, "WIDE": size >= 2**31,
        "ROWS": c.rows, "BW": c.block_w, "BC": c.block_c,
    }  # fmt: skip


def run(
    x: torch.Tensor, w: torch.Tensor, y: torch.Tensor, start: torch.Tensor, scale: torch.Tensor, residual: torch.Tensor | None,
    *, problem: Problem, config: Config, numbers: Numbers, x_zero: int,
) -> None:  # fmt: skip
    """x, residual, y: dense, channels last; w: lay_out_weights'; start: int32 [channels], the bias; scale: float32 [channels]."""
    p, c = problem, config
    _, oh, ow = p.window.out
    row_blocks, column_blocks = triton.cdiv(oh, c.rows), triton.cdiv(ow, c.block_w)
    programs = p.batch * row_blocks * column_blocks
    if programs == 0:
        return
    launch(depthwise8_kernel, (programs, triton.cdiv(p.channels, c.block_c)))(
        x, w, y, start, scale, residual, float(x_zero), *astuple(numbers)[:9], *p.window.size[1:], oh, ow, row_blocks, column_blocks,
        **constants(p, c), num_warps=c.warps, **FUSED,
    )  # fmt: skip
