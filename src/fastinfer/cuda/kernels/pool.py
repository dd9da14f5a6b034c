# SPDX-License-Identifier: Apache-2.0
"""Pooling, channels last: largest or mean of each window, or of each image. Bound by the bytes of x and y.

Windows: a program makes a run of output pixels by a vector of channels, 16 bytes per thread and load; overlapping windows meet
in the L1. Whole images: a program sums a run of pixels; where an image has many, `runs` of them go to the workspace in float32
and a second launch adds them in order. How many depends on one image, so a batch has the bits of its samples alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from fastinfer.cuda.kernels import interpreter_range  # noqa: F401  (loops with bounds from memory)
from fastinfer.cuda.kernels.conv_geometry import Triple, Window
from fastinfer.cuda.kernels.launch import launch
from fastinfer.cuda.kernels.pointwise_math import NAMES

_most = NAMES["_most"]
MAX_RUNS = 16


@dataclass(frozen=True)
class Problem:
    """kind: "max" or "average". whole: the window is the image. pad_end: of the declared padding, which counts in a mean where
    count_pads is set."""

    kind: str
    dtype: torch.dtype
    batch: int
    channels: int
    window: Window
    whole: bool = False
    pad_end: Triple = (0, 0, 0)
    count_pads: bool = False


@dataclass(frozen=True)
class Config:
    block_p: int  # pixels: of the output, or of one step through a whole image
    block_c: int
    warps: int
    variant: str = "tiled"


def pixels(p: Problem) -> int:
    """Of one image of x."""
    return p.window.size[0] * p.window.size[1] * p.window.size[2]


def runs(p: Problem) -> int:
    """Of at least 256 pixels each."""
    return 1 << max(0, min(MAX_RUNS, pixels(p) // 256).bit_length() - 1)


def configs(p: Problem) -> list[Config]:
    each = 16 // p.dtype.itemsize
    found = []
    for warps in (4, 2, 8):
        for threads in (8, 4, 16):  # side by side on one pixel's channels
            block_c = min(threads * each, max(each, triton.next_power_of_2(p.channels)))
            found.append(Config(max(1, warps * 32 * each // block_c), block_c, warps))
    return list(dict.fromkeys(found if not p.whole else [c for c in found if c.block_p == found[0].block_p]))


def default(p: Problem) -> Config:
    return configs(p)[0]


def workspace(p: Problem, c: Config) -> int:
    cut = runs(p) if p.whole else 1
    return 4 * p.batch * cut * p.channels if cut > 1 else 0


@triton.jit
def _lowest(x_ptr):
    """What a maximum of nothing is, as on the CPU."""
    if x_ptr.dtype.element_ty == tl.uint8:
        return 0.0
    elif x_ptr.dtype.element_ty == tl.int8:
        return -128.0
    else:
        return -float("inf")


@triton.jit
def _tap(acc, count, x_ptr, base, z0, y0, x0, ok, c, c_ok, t, D, H, W, C: tl.constexpr, KIND: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr, ED: tl.constexpr, EH: tl.constexpr, EW: tl.constexpr, COUNT_PADS: tl.constexpr):  # fmt: skip
    dz, dy, dx = t // (KH * KW) * DD, t // KW % KH * DH, t % KW * DW
    z, y, x = z0 + dz, y0 + dy, x0 + dx
    inside = ok & (z >= 0) & (z < D) & (y >= 0) & (y < H) & (x >= 0) & (x < W)
    offsets = base + (((dz * H + dy) * W) + dx) * C
    mask = inside[:, None] & c_ok[None, :]
    if KIND == "max":
        value = tl.load(x_ptr + offsets[:, None] + c[None, :], mask=mask, other=0).to(tl.float32)
        acc = tl.maximum(acc, tl.where(mask, value, _lowest(x_ptr)), propagate_nan=tl.PropagateNan.ALL)
    else:
        acc += tl.load(x_ptr + offsets[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)
        if COUNT_PADS:
            count += ((z < D + ED) & (y < H + EH) & (x < W + EW)).to(tl.float32)
        else:
            count += inside.to(tl.float32)
    return acc, count


@triton.jit(do_not_specialize=["M", "D", "H", "W", "OD", "OH", "OW"])
def pool_kernel(
    x_ptr, y_ptr, M, D, H, W, OD, OH, OW, C: tl.constexpr, KIND: tl.constexpr,
    KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr, PD: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    ED: tl.constexpr, EH: tl.constexpr, EW: tl.constexpr, COUNT_PADS: tl.constexpr, WIDE: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """x: [N, D, H, W, C]; y: [M = N·OD·OH·OW, C]."""
    rows = tl.program_id(0) * BP + tl.arange(0, BP)  # 32 bits: four divisions per row
    ok = rows < M
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    c_ok = c < C
    rest = rows // OW
    z0 = rest // OH % OD * SD - PD
    y0 = rest % OH * SH - PH
    x0 = rows % OW * SW - PW
    n = rest // OH // OD
    if WIDE:
        n = n.to(tl.int64)
        rows = rows.to(tl.int64)
    base = (((n * D + z0) * H + y0) * W + x0) * C
    count = tl.zeros((BP,), dtype=tl.float32)
    if KIND == "max":
        acc = tl.full((BP, BC), _lowest(x_ptr), dtype=tl.float32)
    else:
        acc = tl.zeros((BP, BC), dtype=tl.float32)
    if KD * KH * KW <= 27:  # all loads of a window in flight
        for t in tl.static_range(KD * KH * KW):
            acc, count = _tap(acc, count, x_ptr, base, z0, y0, x0, ok, c, c_ok, t, D, H, W, C, KIND, KH, KW, DD, DH, DW, ED, EH, EW, COUNT_PADS)  # fmt: skip
    else:
        for t in tl.range(KD * KH * KW):
            acc, count = _tap(acc, count, x_ptr, base, z0, y0, x0, ok, c, c_ok, t, D, H, W, C, KIND, KH, KW, DD, DH, DW, ED, EH, EW, COUNT_PADS)  # fmt: skip
    if KIND == "average":
        acc = acc / tl.where(ok, count, 1.0)[:, None]
    tl.store(y_ptr + rows[:, None] * C + c[None, :], acc.to(y_ptr.dtype.element_ty), mask=ok[:, None] & c_ok[None, :])


@triton.jit(do_not_specialize=["PIXELS", "divisor"])
def whole_kernel(x_ptr, y_ptr, PIXELS, divisor, C: tl.constexpr, RUNS: tl.constexpr, KIND: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """x: [N, PIXELS, C]; y: [N · RUNS, C], sums over divisor or maxima. Program (n · RUNS + run, block of channels)."""
    pid = tl.program_id(0).to(tl.int64)
    length = (PIXELS + RUNS - 1) // RUNS
    first = pid % RUNS * length
    last = tl.minimum(first + length, PIXELS)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    if KIND == "max":
        acc = tl.full((BP, BC), -float("inf"), dtype=tl.float32)
    else:
        acc = tl.zeros((BP, BC), dtype=tl.float32)
    for at in tl.range(first, last, BP):
        rows = at + tl.arange(0, BP)
        mask = (rows < last)[:, None] & (c < C)[None, :]
        offsets = (pid // RUNS * PIXELS + rows)[:, None] * C + c[None, :]
        if KIND == "max":
            value = tl.load(x_ptr + offsets, mask=mask, other=-float("inf")).to(tl.float32)
            acc = tl.maximum(acc, value, propagate_nan=tl.PropagateNan.ALL)
        else:
            acc += tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    if KIND == "max":
        y = tl.reduce(acc, 0, _most)  # tl.max would lose NaN
    else:
        y = tl.sum(acc, axis=0) / divisor
    tl.store(y_ptr + pid * C + c, y.to(y_ptr.dtype.element_ty), mask=c < C)


def window_constants(p: Problem, c: Config) -> dict[str, object]:
    """What pool_kernel is compiled for."""
    w = p.window
    names = ("KD", "KH", "KW", "SD", "SH", "SW", "DD", "DH", "DW", "PD", "PH", "PW", "ED", "EH", "EW")
    values = (*w.kernel, *w.stride, *w.dilation, *w.pad, *p.pad_end)
    return {
        "C": p.channels, "KIND": p.kind, **dict(zip(names, values, strict=True)), "COUNT_PADS": p.count_pads,
        "WIDE": p.batch * max(pixels(p), w.pixels) * p.channels >= 2**31,
        "BP": c.block_p, "BC": c.block_c,
    }  # fmt: skip


def run(x: torch.Tensor, partial: torch.Tensor | None, y: torch.Tensor, *, problem: Problem, config: Config) -> None:
    """x, y: dense; partial: of workspace() bytes, or None for 0."""
    p, c = problem, config
    columns = triton.cdiv(p.channels, c.block_c)
    if not p.whole:
        m = p.batch * p.window.pixels
        if m:
            launch(pool_kernel, (triton.cdiv(m, c.block_p), columns))(
                x, y, m, *p.window.size, *p.window.out, **window_constants(p, c), num_warps=c.warps
            )
        return
    if p.batch == 0:
        return
    n, cut, mean = pixels(p), runs(p), p.kind == "average"
    to = y if cut == 1 or partial is None else partial.view(torch.float32)
    shape = {"C": p.channels, "KIND": p.kind, "BC": c.block_c, "num_warps": c.warps}
    launch(whole_kernel, (p.batch * cut, columns))(
        x, to, n, float(n if mean and cut == 1 else 1), RUNS=cut, BP=c.block_p, **shape
    )
    if cut > 1:
        launch(whole_kernel, (p.batch, columns))(to, y, cut, float(n if mean else 1), RUNS=1, BP=cut, **shape)
