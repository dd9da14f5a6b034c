# SPDX-License-Identifier: Apache-2.0
# mypy: disable-error-code="assignment, var-annotated"
# (tuples that grow while a loop is unrolled)
"""Depthwise convolution, channels last: y[n, h, w, c] = act(Σ x[n, h·s + i·d − p, w·s + j·d − p, c / multiplier] · k[i, j, c] + …).

Bound by the bytes of x and y in device memory: at 3x3 each output is 9 multiply-adds for 4 bytes. A program makes `rows` output
rows of a run of pixels and channels and reads each input row once per horizontal tap for all of them: 4 rows of 3x3 are 4.5
loads per output, not 9, which the L1 serves beside the memory. Channels are the vector: 16 bytes per thread and load.
Sums run over taps in row-major order, whatever the configuration: all configurations give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import triton
import triton.language as tl

from fastinfer.cuda.kernels.conv_epilogue import Epilogue, finish
from fastinfer.cuda.kernels.conv_geometry import Window
from fastinfer.cuda.kernels.launch import launch

MULTIPROCESSORS = 132


@dataclass(frozen=True)
class Problem:
    """dtype: of x, w, residual and y; channels: of y, multiplier of them from each of x's."""

    dtype: torch.dtype
    batch: int
    window: Window
    channels: int
    multiplier: int = 1
    epilogue: Epilogue = field(default_factory=Epilogue)

    @property
    def flops(self) -> float:
        return 2.0 * self.batch * self.window.pixels * self.channels * self.window.taps


@dataclass(frozen=True)
class Config:
    rows: int  # output rows of a program
    block_w: int  # output pixels of a row
    block_c: int
    warps: int
    variant: str = "rows"


def supported(w: Window) -> bool:
    """Two axes, up to 49 taps (they are unrolled)."""
    return w.kernel[0] == 1 and w.size[0] == w.out[0] == 1 and w.pad[0] == 0 and w.taps <= 49


def lay_out_weights(w: torch.Tensor) -> torch.Tensor:
    """[channels, 1, kh, kw] → [kh · kw, channels]"""
    return w.reshape(w.shape[0], -1).t()


def _programs(p: Problem, c: Config) -> int:
    _, oh, ow = p.window.out
    return p.batch * triton.cdiv(oh, c.rows) * triton.cdiv(ow, c.block_w) * triton.cdiv(p.channels, c.block_c)


def configs(p: Problem) -> list[Config]:
    """The first is the default: most rows, if there are still two programs for each multiprocessor."""
    each = 16 // p.dtype.itemsize  # channels of a thread
    block_c = min(8 * each, max(each, triton.next_power_of_2(p.channels)))
    found = []
    for rows in (4, 2, 1):
        if rows > p.window.out[1] or (rows == 4 and p.window.taps > 9):
            continue
        for warps, pixels in ((4, 2), (4, 1), (2, 1), (8, 1)):
            if rows * pixels <= 4:  # 32 sums and 36 weights of a thread; twice that spills
                found.append(Config(rows, max(1, warps * 32 * each // block_c) * pixels, block_c, warps))
    fits = [c for c in found if c.block_w < 2 * p.window.out[2] or c.warps == 2]
    fills = [c for c in fits if _programs(p, c) >= 2 * MULTIPROCESSORS]
    return list(dict.fromkeys([*fills, *sorted(fits, key=lambda c: -_programs(p, c))]))


def default(p: Problem) -> Config:
    return configs(p)[0]


def workspace(p: Problem, c: Config) -> int:
    return 0


@triton.jit(do_not_specialize=["H", "W", "OH", "OW", "row_blocks", "column_blocks", "alpha", "beta"])
def depthwise_kernel(
    x_ptr, w_ptr, b_ptr, r_ptr, y_ptr, alpha, beta, H, W, OH, OW, row_blocks, column_blocks,
    C: tl.constexpr, MULTIPLIER: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DH: tl.constexpr, DW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    BIAS: tl.constexpr, RES: tl.constexpr, ACT: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, BW: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """x: [N, H, W, C / MULTIPLIER]; w: [KH·KW, C]; b: float32 [C]; r, y: [N, OH, OW, C]."""
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
            weights = weights + (tl.load(w_ptr + t * C + c, mask=c_ok, other=0.0).to(tl.float32),)
    sums = ()
    for _ in tl.static_range(ROWS):
        sums = sums + (tl.zeros((BW, BC), dtype=tl.float32),)
    for i in tl.static_range((ROWS - 1) * SH + (KH - 1) * DH + 1):
        iy = first * SH - PH + i
        row = x_ptr + ((n * H + iy) * W - PW) * (C // MULTIPLIER)
        for j in tl.static_range(KW):
            ix = columns * SW - PW + j * DW
            ok = ((iy >= 0) & (iy < H) & (ix >= 0) & (ix < W))[:, None] & c_ok[None, :]
            at = (columns * SW + j * DW)[:, None] * (C // MULTIPLIER) + (c // MULTIPLIER)[None, :]
            x = tl.load(row + at, mask=ok, other=0.0).to(tl.float32)
            new = ()
            for r in tl.static_range(ROWS):
                if i >= r * SH and (i - r * SH) % DH == 0 and (i - r * SH) // DH < KH:
                    if KH * KW <= 9:
                        k = weights[(i - r * SH) // DH * KW + j]
                    else:
                        k = tl.load(w_ptr + ((i - r * SH) // DH * KW + j) * C + c, mask=c_ok, other=0.0).to(tl.float32)
                    new = new + (sums[r] + x * k[None, :],)
                else:
                    new = new + (sums[r],)
            sums = new
    channels = tl.where(c_ok, c, 0)
    for r in tl.static_range(ROWS):
        offsets = ((n * OH + first + r) * OW + columns)[:, None] * C + c[None, :]
        mask = ((first + r < OH) & (columns < OW))[:, None] & c_ok[None, :]
        y = finish(sums[r], b_ptr, r_ptr, channels, offsets, mask, alpha, beta, BIAS, RES, ACT)
        tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=mask)


def constants(p: Problem, c: Config) -> dict[str, Any]:
    """What the kernel is compiled for."""
    w, e = p.window, p.epilogue
    size = p.batch * max(w.size[1] * w.size[2] * p.channels // p.multiplier, w.pixels * p.channels)
    return {
        "C": p.channels, "MULTIPLIER": p.multiplier, "KH": w.kernel[1], "KW": w.kernel[2], "SH": w.stride[1], "SW": w.stride[2],
        "DH": w.dilation[1], "DW": w.dilation[2], "PH": w.pad[1], "PW": w.pad[2],
        "BIAS": e.bias, "RES": e.residual, "ACT": e.activation, "WIDE": size >= 2**31,
        "ROWS": c.rows, "BW": c.block_w, "BC": c.block_c,
    }  # fmt: skip


def run(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None, y: torch.Tensor, *,
    problem: Problem, config: Config,
) -> None:  # fmt: skip
    """x, residual, y: dense, channels last; w: lay_out_weights'; bias: float32."""
    p, c = problem, config
    _, oh, ow = p.window.out
    row_blocks, column_blocks = triton.cdiv(oh, c.rows), triton.cdiv(ow, c.block_w)
    programs = p.batch * row_blocks * column_blocks
    if programs == 0:
        return
    launch(depthwise_kernel, (programs, triton.cdiv(p.channels, c.block_c)))(
        x, w, bias, residual, y, p.epilogue.alpha, p.epilogue.beta, *p.window.size[1:], oh, ow, row_blocks, column_blocks,
        **constants(p, c), num_warps=c.warps,
    )  # fmt: skip
