# SPDX-License-Identifier: Apache-2.0
"""Gather, GatherElements and GatherND: rows of a tensor by index. Bits are moved as integers.

Bound: bytes (the gathered rows read, the result written, the indices read once). Negative indices count from the end. An index
out of range reads the nearest end instead: ONNX calls it an error, and a kernel inside a graph has nobody to tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from fastinfer.cuda.kernels import device as _device  # noqa: F401  before triton: it says whether triton interprets
from fastinfer.cuda.kernels.launch import launch
from fastinfer.cuda.kernels.pointwise import raw
from fastinfer.cuda.kernels.pointwise_walk import LIMIT, Walk

KEYS, RANK = 4, 4  # of GatherND's index tuples; of GatherElements' collapsed dimensions


@dataclass(frozen=True)
class Problem:
    """y[o, k, :] = x[o, index[k], :] with x [outer, extents..., inner]; per: rows of the result per outer index; nd: GatherND, the
    index of row r of the result being a tuple at r, else one number at r % per."""

    itemsize: int
    outer: int
    extents: tuple[int, ...]
    per: int
    inner: int
    nd: bool

    @property
    def wide(self) -> bool:
        size = self.outer * self.inner
        for e in self.extents:
            size *= e
        return max(size, self.outer * self.per * self.inner) >= LIMIT


@dataclass(frozen=True)
class Config:
    rows: int
    cols: int
    num_warps: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols}"


def configs(problem: Problem) -> list[Config]:
    cols = triton.next_power_of_2(problem.inner)
    found = [
        Config(max(block // min(cols, c), 1), min(cols, c), 4)
        for block in (512, 1024, 2048, 4096)
        for c in sorted({min(cols, c) for c in (512, 1024)})
        if block >= min(cols, c)
    ]
    return [default(problem), *(c for c in found if c != default(problem))]


def default(problem: Problem) -> Config:
    """About 16 bytes per thread; embedding rows of 768 bf16 are one program each."""
    cols = min(triton.next_power_of_2(problem.inner), 1024)
    return Config(max(512 // cols, 1), cols, 4)


def workspace(problem: Problem, config: Config) -> int:
    return 0


@triton.jit
def _wrapped(index, extent):
    return tl.minimum(tl.maximum(tl.where(index < 0, index + extent, index), 0), extent - 1)


@triton.jit
def _gather(
    x, index, y, rows, per, inner, d0, d1, d2, d3, KEYS: tl.constexpr, ND: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    blocks = tl.cdiv(inner, COLS)
    pid = tl.program_id(0)
    row = pid // blocks * ROWS + tl.arange(0, ROWS)[:, None]
    col = (pid % blocks * COLS + tl.arange(0, COLS))[None, :]
    if WIDE:
        row = row.to(tl.int64)
    valid = row < rows
    at = row // per
    key = row * KEYS if ND else row % per
    for k in tl.static_range(KEYS):
        extent = d0 if k == 0 else d1 if k == 1 else d2 if k == 2 else d3
        i = _wrapped(tl.load(index + key + k, mask=valid, other=0), extent)
        at = at * extent + i.to(at.dtype)
    inside = valid & (col < inner)
    tl.store(y + (row * inner + col), tl.load(x + (at * inner + col), mask=inside), mask=inside)


def run(x: torch.Tensor, index: torch.Tensor, y: torch.Tensor, problem: Problem, config: Config) -> None:
    p = problem
    rows = p.outer * p.per
    extents = (*p.extents, *(1,) * (KEYS - len(p.extents)))
    launch(_gather, (triton.cdiv(rows, config.rows) * triton.cdiv(p.inner, config.cols),))(
        raw(x), index, raw(y), rows, p.per, p.inner, *extents, KEYS=len(p.extents), ND=p.nd,
        ROWS=config.rows, COLS=config.cols, WIDE=p.wide, num_warps=config.num_warps,
    )  # fmt: skip


@triton.jit
def _elements(x, index, y, n, extent, step, e1, e2, e3, s0, s1, s2, s3, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    if WIDE:
        i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    k = _wrapped(tl.load(index + i, mask=inside, other=0), extent).to(i.dtype)
    at = k * step + i % e3 * s3 + i // e3 % e2 * s2 + i // (e2 * e3) % e1 * s1 + i // (e1 * e2 * e3) * s0
    tl.store(y + i, tl.load(x + at, mask=inside), mask=inside)


def elements(x: torch.Tensor, index: torch.Tensor, y: torch.Tensor, walk: Walk, extent: int, step: int) -> None:
    """GatherElements. walk: over index and x, x standing still along the axis, whose extent and stride are given; at most four
    dimensions."""
    missing = RANK - len(walk.extents)
    extents, strides = (1,) * missing + walk.extents, (0,) * missing + walk.strides[1]
    wide = walk.wide or x.numel() >= LIMIT
    launch(_elements, (triton.cdiv(walk.elements, 512),))(
        raw(x), index, raw(y), walk.elements, extent, step, *extents[1:], *strides, BLOCK=512, WIDE=wide, num_warps=4
    )
