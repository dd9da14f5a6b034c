# SPDX-License-Identifier: Apache-2.0
"""Softmax and log-softmax along one axis of [outer, n, inner], float32 inside:

    y = exp(x − max) / Σ exp(x − max),   log: y = x − max − log Σ exp(x − max)

Variants: "rows" (inner = 1, a row in registers, read once), "long" (inner = 1, rows of any length, read twice: a running
maximum and sum per lane first), "columns" (inner > 1: blocks along n of neighbouring columns, read twice, so that loads
are of whole lines). Bound: memory. A row of −inf is NaN. The order of sums depends on n and inner only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from fastinfer.cuda.kernels import interpreter_range  # noqa: F401  (loops with bounds from memory)
from fastinfer.cuda.kernels.launch import launch

HELD = 16384


@dataclass(frozen=True)
class Problem:
    dtype: torch.dtype
    n: int
    inner: int
    log: bool = False


@dataclass(frozen=True)
class Config:
    variant: str
    along: int  # of n
    across: int  # rows or columns of a program
    num_warps: int


def configs(problem: Problem) -> list[Config]:
    found = [default(problem)]
    n = triton.next_power_of_2(problem.n)
    if problem.inner == 1 and problem.n <= HELD:
        for rows in (1, 2, 4, 8, 16):
            if rows == 1 or rows * n <= 8192:
                found += [Config("rows", n, rows, w) for w in (1, 2, 4, 8) if 1 <= rows * n // (32 * w) <= 64]
    elif problem.inner == 1:
        found += [Config("long", c, 1, c // 512) for c in (2048, 4096, 8192)]
    else:
        found += [Config("columns", max(1, min(n, 4096 // w)), w, 4) for w in (16, 32, 64, 128)]
    return list(dict.fromkeys(found))[:24]


def default(problem: Problem) -> Config:
    n = triton.next_power_of_2(problem.n)
    if problem.inner > 1:
        width = min(64, triton.next_power_of_2(problem.inner))
        return Config("columns", min(n, 2048 // width), width, 4)
    if problem.n > HELD:
        return Config("long", 4096, 1, 8)
    rows = max(1, min(1024 // n, 16))
    return Config("rows", n, rows, max(1, min(16, rows * n // 256)))


def workspace(problem: Problem, config: Config) -> int:
    return 0


@triton.jit
def _rows_kernel(x_ptr, y_ptr, rows, N: tl.constexpr, LOG: tl.constexpr, ALONG: tl.constexpr, ROWS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, ALONG)[None, :]
    inside = (row < rows) & (column < N)
    x = tl.load(x_ptr + row * N + column, mask=inside, other=float("-inf")).to(tl.float32)
    x -= tl.where(row < rows, tl.max(x, 1)[:, None], 0.0)
    p = tl.exp(x)
    total = tl.sum(p, 1)[:, None]
    y = x - tl.log(total) if LOG else p / total
    tl.store(y_ptr + row * N + column, y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _blocks_kernel(
    x_ptr, y_ptr, n, inner, LOG: tl.constexpr, ALONG: tl.constexpr, ACROSS: tl.constexpr
):  # fmt: skip
    """Columns of [outer, n, inner]; inner 1: a row. Every lane keeps a maximum and a sum of its own."""
    blocks = tl.cdiv(inner, ACROSS)
    outer = (tl.program_id(0) // blocks).to(tl.int64)
    column = tl.program_id(0) % blocks * ACROSS + tl.arange(0, ACROSS)[None, :]
    x_ptr += outer * n * inner + column
    y_ptr += outer * n * inner + column
    top = tl.full([ALONG, ACROSS], float("-inf"), tl.float32)
    total = tl.zeros([ALONG, ACROSS], tl.float32)
    for start in range(0, n, ALONG):
        k = start + tl.arange(0, ALONG)[:, None].to(tl.int64)
        x = tl.load(x_ptr + k * inner, mask=(k < n) & (column < inner), other=float("-inf")).to(tl.float32)
        higher = tl.maximum(top, x)
        origin = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(top - origin) + tl.exp(x - origin)
        top = higher
    whole = tl.max(top, 0)[None, :]
    total = tl.sum(total * tl.exp(tl.where(top == float("-inf"), top, top - whole)), 0)[None, :]
    for start in range(0, n, ALONG):
        k = start + tl.arange(0, ALONG)[:, None].to(tl.int64)
        inside = (k < n) & (column < inner)
        x = tl.load(x_ptr + k * inner, mask=inside, other=float("-inf")).to(tl.float32) - whole
        y = x - tl.log(total) if LOG else tl.exp(x) / total
        tl.store(y_ptr + k * inner, y.to(y_ptr.dtype.element_ty), mask=inside)


def run(x: torch.Tensor, y: torch.Tensor, *, problem: Problem, config: Config) -> None:
    """x, y: dense [outer, n, inner]."""
    if x.numel() == 0:
        return
    p, c = problem, config
    outer = x.numel() // (p.n * p.inner)
    if c.variant == "rows":
        grid = (triton.cdiv(outer, c.across),)
        launch(_rows_kernel, grid)(x, y, outer, N=p.n, LOG=p.log, ALONG=c.along, ROWS=c.across, num_warps=c.num_warps)
        return
    grid = (outer * triton.cdiv(p.inner, c.across),)
    launch(_blocks_kernel, grid)(x, y, p.n, p.inner, LOG=p.log, ALONG=c.along, ACROSS=c.across, num_warps=c.num_warps)
