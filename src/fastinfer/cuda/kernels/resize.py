# SPDX-License-Identifier: Apache-2.0
"""Resizing of images, channels last: nearest and linear over height and width. Bound by the bytes of y (and x, once).

Coordinates are fractions of integers, (o·a + b)/c for the output's o, so that no rounding of a float decides which pixel is the
nearest, and a linear weight has all its digits however large the image is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

from fastinfer.cuda.kernels.launch import launch


@dataclass(frozen=True)
class Axis:
    """Output o reads (o·a + b)/c of `size` inputs, within [0, size − 1]."""

    size: int
    out: int
    a: int
    b: int
    c: int


@dataclass(frozen=True)
class Problem:
    mode: str  # "nearest", "linear"
    dtype: torch.dtype
    batch: int
    channels: int
    height: Axis
    width: Axis


@dataclass(frozen=True)
class Config:
    block_p: int
    block_c: int
    warps: int
    variant: str = "tiled"


def axis_of(size: int, out: int, coordinates: str, rounding: str = "") -> Axis | None:
    """ONNX's coordinate_transformation_mode and, for nearest, nearest_mode, at the scale out/size; None for other modes, and for
    extents whose products pass 31 bits."""
    if size * out >= 2**28:
        return None
    if coordinates == "half_pixel" or (coordinates == "pytorch_half_pixel" and out > 1):
        a, b, c = 2 * size, size - out, 2 * out  # (o + 1/2)·size/out − 1/2
    elif coordinates == "asymmetric":
        a, b, c = size, 0, out
    elif coordinates == "align_corners" and out > 1:
        a, b, c = size - 1, 0, out - 1
    elif coordinates in ("align_corners", "pytorch_half_pixel"):
        a, b, c = 0, 0, 1
    else:
        return None
    rounded = {
        "": (a, b, c),
        "floor": (a, b, c),
        "ceil": (a, b + c - 1, c),
        "round_prefer_floor": (2 * a, 2 * b + c - 1, 2 * c),
        "round_prefer_ceil": (2 * a, 2 * b + c, 2 * c),
    }
    return Axis(size, out, *rounded[rounding]) if rounding in rounded else None


def configs(p: Problem) -> list[Config]:
    each = 16 // p.dtype.itemsize
    found = []
    for warps in (4, 8, 2):
        for threads in (8, 4, 16):
            block_c = min(threads * each, max(each, triton.next_power_of_2(p.channels)))
            found.append(Config(max(1, warps * 32 * each // block_c), block_c, warps))
    return list(dict.fromkeys(found))


def default(p: Problem) -> Config:
    return configs(p)[0]


def workspace(p: Problem, c: Config) -> int:
    return 0


@triton.jit
def _at(o, SIZE, a, b, c):
    """Whole pixel and fraction."""
    numerator = tl.maximum(o * a + b, 0)
    numerator = tl.minimum(numerator, (SIZE - 1) * c)
    whole = numerator // c
    return whole, (numerator - whole * c).to(tl.float32) / c


@triton.jit
def _load(x_ptr, n, y, x, H, W, c, mask, C: tl.constexpr):
    pixel = (n * H + y) * W + x
    return tl.load(x_ptr + pixel[:, None] * C + c[None, :], mask=mask, other=0.0)


@triton.jit(do_not_specialize=["M", "H", "W", "OH", "OW", "ha", "hb", "hc", "wa", "wb", "wc"])
def resize_kernel(x_ptr, y_ptr, M, H, W, OH, OW, ha, hb, hc, wa, wb, wc, C: tl.constexpr, LINEAR: tl.constexpr, WIDE: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):  # fmt: skip
    """x: [N, H, W, C]; y: [M = N·OH·OW, C]."""
    rows = tl.program_id(0) * BP + tl.arange(0, BP)  # 32 bits: four divisions per row
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    mask = (rows < M)[:, None] & (c < C)[None, :]
    n = rows // OW // OH
    h, fh = _at(rows // OW % OH, H, ha, hb, hc)
    w, fw = _at(rows % OW, W, wa, wb, wc)
    if WIDE:
        n = n.to(tl.int64)
        rows = rows.to(tl.int64)
    y = _load(x_ptr, n, h, w, H, W, c, mask, C)
    if LINEAR:
        h1, w1 = tl.minimum(h + 1, H - 1), tl.minimum(w + 1, W - 1)
        right = _load(x_ptr, n, h, w1, H, W, c, mask, C).to(tl.float32)
        low = _load(x_ptr, n, h1, w, H, W, c, mask, C).to(tl.float32)
        low_right = _load(x_ptr, n, h1, w1, H, W, c, mask, C).to(tl.float32)
        gh, gw = (1.0 - fh)[:, None], (1.0 - fw)[:, None]
        top = y.to(tl.float32) * gw + right * fw[:, None]
        y = top * gh + (low * gw + low_right * fw[:, None]) * fh[:, None]
    tl.store(y_ptr + rows[:, None] * C + c[None, :], y.to(y_ptr.dtype.element_ty), mask=mask)


def constants(p: Problem, c: Config) -> dict[str, Any]:
    """What the kernel is compiled for."""
    pixels = max(p.height.size * p.width.size, p.height.out * p.width.out)
    return {
        "C": p.channels, "LINEAR": p.mode == "linear", "WIDE": p.batch * pixels * p.channels >= 2**31, "BP": c.block_p,
        "BC": c.block_c,
    }  # fmt: skip


def run(x: torch.Tensor, y: torch.Tensor, *, problem: Problem, config: Config) -> None:
    p, c = problem, config
    m = p.batch * p.height.out * p.width.out
    if m == 0:
        return
    h, w = p.height, p.width
    launch(resize_kernel, (triton.cdiv(m, c.block_p), triton.cdiv(p.channels, c.block_c)))(
        x, y, m, h.size, w.size, h.out, w.out, h.a, h.b, h.c, w.a, w.b, w.c,
        **constants(p, c), num_warps=c.warps,
    )  # fmt: skip
