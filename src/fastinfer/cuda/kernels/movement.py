# SPDX-License-Identifier: Apache-2.0
"""Elements from one place to another: strided copies, transposes by tiles, padding. Bits are moved as integers, unless
the two places are of different types (movement.run, at a model's ends).

Bound: bytes, read once and written once. A walk whose last dimension is contiguous on both sides is a pass of the pointwise
generator (16-byte accesses); one that is contiguous along different dimensions on its two sides goes through tiles that are read
along one and written along the other (Triton changes the layout in shared memory between).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from fastinfer.cuda.kernels import device as _device  # noqa: F401  before triton: it says whether triton interprets
from fastinfer.cuda.kernels.launch import launch
from fastinfer.cuda.kernels.pointwise import HALVES, raw
from fastinfer.cuda.kernels.pointwise_math import NAMES
from fastinfer.cuda.kernels.pointwise_walk import Walk

OUTER = 3  # dimensions around a tile
LEAST = 512  # elements of a tile; smaller ones are left to a strided copy, whose misses the L1 cache takes
RANK = 4  # of what is padded, collapsed
MODES = {"constant": 0, "edge": 1, "reflect": 2, "wrap": 3}


_bounded = NAMES["_bounded"]

# ------------------------------------------------------------------------------------------------------------- transposes


@dataclass(frozen=True)
class Problem:
    """ni: extent of the dimension that is contiguous in x; nj: of that in y; xj, yi: their strides on the other side; outer: up
    to three of (extent, stride in x, stride in y)."""

    itemsize: int
    ni: int
    nj: int
    xj: int
    yi: int
    outer: tuple[tuple[int, int, int], ...]
    wide: bool


@dataclass(frozen=True)
class Config:
    """A tile of bi (contiguous in x) by bj (contiguous in y)."""

    bi: int
    bj: int
    num_warps: int

    def __str__(self) -> str:
        return f"{self.bi}x{self.bj}"


def transpose_problem(walk: Walk, itemsize: int) -> Problem | None:
    """None where it is no such walk (operands: x, y)."""
    xs, ys = walk.strides
    last = len(walk.extents) - 1
    if last < 1 or any(walk.offsets) or xs[last] in (0, 1) or ys[last] != 1 or 1 not in xs:
        return None
    i = xs.index(1)
    outer = [(walk.extents[d], xs[d], ys[d]) for d in range(last) if d != i]
    if len(outer) > OUTER or walk.extents[i] * walk.extents[last] < LEAST:
        return None
    outer = [(1, 0, 0)] * (OUTER - len(outer)) + outer
    return Problem(itemsize, walk.extents[i], walk.extents[last], xs[last], ys[i], tuple(outer), walk.wide)


def configs(problem: Problem) -> list[Config]:
    pairs = [(32, 32), (64, 32), (32, 64), (64, 64), (128, 32), (32, 128)]
    ni, nj = triton.next_power_of_2(problem.ni), triton.next_power_of_2(problem.nj)
    found = [Config(a, b, w) for a, b in pairs if a <= max(ni, 32) and b <= max(nj, 32) for w in (4, 8)]
    return [default(problem), *(c for c in found if c != default(problem))]


def default(problem: Problem) -> Config:
    """Tiles of 64x64 (8 KB of 16-bit elements, 16 KB of float32): both sides move whole 128-byte lines. A narrow side gives its
    room to the other."""
    ni, nj = triton.next_power_of_2(problem.ni), triton.next_power_of_2(problem.nj)
    bi, bj = min(ni, 64), min(nj, 64)
    while bi * bj < 2048 and bi < min(ni, 512):
        bi *= 2
    while bi * bj < 2048 and bj < min(nj, 512):
        bj *= 2
    return Config(bi, bj, 4)


def workspace(problem: Problem, config: Config) -> int:
    return 0


@triton.jit
def _transpose(
    x, y, ni, nj, xj, yi, e1, e2, x0, x1, x2, y0, y1, y2, BI: tl.constexpr, BJ: tl.constexpr, WIDE: tl.constexpr,
    MOST: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    across = tl.cdiv(nj, BJ)
    down = tl.cdiv(ni, BI)
    i = (pid // across) % down * BI + tl.arange(0, BI)
    j = pid % across * BJ + tl.arange(0, BJ)
    o = pid // (across * down)
    if WIDE:
        i, j, o = i.to(tl.int64), j.to(tl.int64), o.to(tl.int64)
    o2 = o % e2
    o1 = o // e2 % e1
    o0 = o // (e1 * e2)
    inside = (i < ni)[:, None] & (j < nj)[None, :]
    v = tl.load(x + (o0 * x0 + o1 * x1 + o2 * x2) + (i[:, None] + j[None, :] * xj), mask=inside)
    if MOST != 0.0:
        v = _bounded(v.to(tl.float32), MOST)
    tl.store(y + (o0 * y0 + o1 * y1 + o2 * y2) + (i[:, None] * yi + j[None, :]), v.to(y.dtype.element_ty), mask=inside)


def run(x: torch.Tensor, y: torch.Tensor, problem: Problem, config: Config) -> None:
    """Both of one type, or floats that are converted on the way; halves saturate."""
    p, same = problem, x.dtype == y.dtype
    extents, xo, yo = zip(*p.outer)
    tiles = triton.cdiv(p.ni, config.bi) * triton.cdiv(p.nj, config.bj) * extents[0] * extents[1] * extents[2]
    launch(_transpose, (tiles,))(
        raw(x) if same else x, raw(y) if same else y, p.ni, p.nj, p.xj, p.yi, extents[1], extents[2], *xo, *yo,
        BI=config.bi, BJ=config.bj, WIDE=p.wide, MOST=0.0 if same else HALVES.get(y.dtype, 0.0), num_warps=config.num_warps,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- padding


@triton.jit
def _source(i, n, before, MODE: tl.constexpr):
    """(where output coordinate i comes from, whether it comes from anywhere). Constants: no clamp, as the mask guards the load and
    neighbours must stay neighbours for vectors."""
    c = i - before
    inside = (c >= 0) & (c < n)
    if MODE == 2:
        c = tl.where(c < 0, -c, c)
        c = tl.where(c >= n, 2 * (n - 1) - c, c)
    if MODE == 3:
        c = tl.where(c < 0, c + n, c)
        c = tl.where(c >= n, c - n, c)
    if MODE != 0:
        c = tl.minimum(tl.maximum(c, 0), n - 1)
        inside = c >= 0
    return c, inside


@triton.jit
def _pad(
    x, y, rows, e1, e2, e3, n0, n1, n2, n3, b0, b1, b2, b3, value, MODE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr
):  # fmt: skip
    blocks = tl.cdiv(e3, COLS)
    pid = tl.program_id(0)
    row = ((pid // blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    col = (pid % blocks * COLS + tl.arange(0, COLS))[None, :]
    c0, in0 = _source(row // (e1 * e2), n0, b0, MODE)
    c1, in1 = _source(row // e2 % e1, n1, b1, MODE)
    c2, in2 = _source(row % e2, n2, b2, MODE)
    c3, in3 = _source(col, n3, b3, MODE)
    written = (row < rows) & (col < e3)
    v = tl.load(x + (((c0 * n1 + c1) * n2 + c2) * n3 + c3), mask=written & in0 & in1 & in2 & in3, other=0)
    v = tl.where(in0 & in1 & in2 & in3, v, value)
    tl.store(y + (row * e3 + col), v.to(y.dtype.element_ty), mask=written)


def pad(
    x: torch.Tensor, y: torch.Tensor, extents: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...], mode: str, value: int
) -> None:  # fmt: skip
    """x has four extents, y those plus before and after (negative: cut). value: its bits as an integer of the type's size.
    Reflections may be one extent less one long, wraps one extent."""
    out = [a + b + n for a, b, n in zip(before, after, extents)]
    rows = out[0] * out[1] * out[2]
    cols = min(triton.next_power_of_2(out[3]), 512)
    height = max(1024 // cols, 1)
    launch(_pad, (triton.cdiv(rows, height) * triton.cdiv(out[3], cols),))(
        raw(x), raw(y), rows, *out[1:], *extents, *before, value, MODE=MODES[mode], ROWS=height, COLS=cols, num_warps=4,
    )  # fmt: skip
