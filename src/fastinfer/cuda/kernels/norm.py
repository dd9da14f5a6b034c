# SPDX-License-Identifier: Apache-2.0
"""Norms of rows, per row of n:

    s = x + r + xbias;   layer: y = (s − mean)·rstd·scale + bias,   rms: y = s·rstd·scale

Statistics are float32 in two passes: the variance is the mean of (s − mean)², never E[s²] − E[s]². A row of up to 16384 is
held in registers, so x is read once; longer rows are read again from L2 (three times for layer norm, twice for RMS).
Bound: memory. Several short rows share a program; how many depends on n only, so a row's bits do not depend on the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from fastinfer.cuda.kernels import interpreter_range  # noqa: F401  (loops with bounds from memory)
from fastinfer.cuda.kernels.launch import launch

HELD = 16384  # numbers of a row in registers: 16 warps hold 32 each


@dataclass(frozen=True)
class Problem:
    """scale, bias: "row" ([n]), "one" (a number) or "none"; residual, xbias, total: whether given, whether s is wanted."""

    dtype: torch.dtype
    n: int
    rms: bool
    scale: str = "row"
    bias: str = "none"
    residual: bool = False
    xbias: bool = False
    total: bool = False


@dataclass(frozen=True)
class Config:
    variant: str  # "held" or "looped"
    rows: int
    columns: int
    num_warps: int


def configs(problem: Problem) -> list[Config]:
    found = [default(problem)]
    if problem.n <= HELD:
        columns = triton.next_power_of_2(problem.n)
        for rows in (1, 2, 4, 8, 16):
            if rows == 1 or rows * columns <= 8192:
                found += [
                    Config("held", rows, columns, w) for w in (1, 2, 4, 8) if 2 <= rows * columns // (32 * w) <= 64
                ]
    if problem.n > 2048:
        found += [Config("looped", 1, c, c // 512) for c in (2048, 4096, 8192) if c <= problem.n]
    return list(dict.fromkeys(found))[:24]


def default(problem: Problem) -> Config:
    """About 1024 numbers of a program's warps at 8 numbers (16 bytes of bfloat16) per thread and load."""
    if problem.n > HELD:
        return Config("looped", 1, 4096, 8)
    columns = triton.next_power_of_2(problem.n)
    rows = max(1, min(1024 // columns, 16))
    return Config("held", rows, columns, max(1, min(16, rows * columns // 256)))


def workspace(problem: Problem, config: Config) -> int:
    return 0


@triton.jit
def _sum_of(x_ptr, r_ptr, xbias_ptr, at, r_at, column, inside, RESIDUAL: tl.constexpr, XBIAS: tl.constexpr):
    s = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    if RESIDUAL:
        s += tl.load(r_ptr + r_at, mask=inside, other=0.0).to(tl.float32)
    if XBIAS:
        s += tl.load(xbias_ptr + column, mask=inside, other=0.0).to(tl.float32)
    return s


@triton.jit
def _scaled(s, scale_ptr, bias_ptr, column, inside, SCALE: tl.constexpr, BIAS: tl.constexpr):
    if SCALE == "row":
        s *= tl.load(scale_ptr + column, mask=inside, other=0.0).to(tl.float32)
    elif SCALE == "one":
        s *= tl.load(scale_ptr).to(tl.float32)
    if BIAS == "row":
        s += tl.load(bias_ptr + column, mask=inside, other=0.0).to(tl.float32)
    elif BIAS == "one":
        s += tl.load(bias_ptr).to(tl.float32)
    return s


@triton.jit
def _held_kernel(
    x_ptr, r_ptr, xbias_ptr, scale_ptr, bias_ptr, y_ptr, total_ptr, epsilon, rows, r_rows, N: tl.constexpr,
    RMS: tl.constexpr, SCALE: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, XBIAS: tl.constexpr,
    TOTAL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    inside = (row < rows) & (column < N)
    at = row * N + column
    s = _sum_of(x_ptr, r_ptr, xbias_ptr, at, row % r_rows * N + column, column, inside, RESIDUAL, XBIAS)
    if TOTAL:
        tl.store(total_ptr + at, s.to(total_ptr.dtype.element_ty), mask=inside)
    if not RMS:
        mean = tl.sum(s, 1) / N
        s = tl.where(inside, s - mean[:, None], 0.0)
    variance = tl.sum(s * s, 1) / N
    s *= (1.0 / tl.sqrt_rn(variance + epsilon))[:, None]
    y = _scaled(s, scale_ptr, bias_ptr, column, inside, SCALE, BIAS)
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _looped_kernel(
    x_ptr, r_ptr, xbias_ptr, scale_ptr, bias_ptr, y_ptr, total_ptr, epsilon, rows, r_rows, N: tl.constexpr,
    RMS: tl.constexpr, SCALE: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, XBIAS: tl.constexpr,
    TOTAL: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * N
    r_ptr += row % r_rows * N
    y_ptr += row * N
    total_ptr += row * N
    mean = 0.0
    if not RMS:
        sums = tl.zeros([COLUMNS], tl.float32)
        for start in range(0, N, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            sums += _sum_of(x_ptr, r_ptr, xbias_ptr, column, column, column, column < N, RESIDUAL, XBIAS)
        mean = tl.sum(sums, 0) / N
    squares = tl.zeros([COLUMNS], tl.float32)
    for start in range(0, N, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        s = _sum_of(x_ptr, r_ptr, xbias_ptr, column, column, column, column < N, RESIDUAL, XBIAS) - mean
        squares += tl.where(column < N, s * s, 0.0)
    rstd = 1.0 / tl.sqrt_rn(tl.sum(squares, 0) / N + epsilon)
    for start in range(0, N, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        inside = column < N
        s = _sum_of(x_ptr, r_ptr, xbias_ptr, column, column, column, inside, RESIDUAL, XBIAS)
        if TOTAL:
            tl.store(total_ptr + column, s.to(total_ptr.dtype.element_ty), mask=inside)
        y = _scaled((s - mean) * rstd, scale_ptr, bias_ptr, column, inside, SCALE, BIAS)
        tl.store(y_ptr + column, y.to(y_ptr.dtype.element_ty), mask=inside)


def run(
    x: torch.Tensor, r: torch.Tensor | None, xbias: torch.Tensor | None, scale: torch.Tensor | None,
    bias: torch.Tensor | None, y: torch.Tensor, total: torch.Tensor | None, *, problem: Problem, config: Config,
    epsilon: float,
) -> None:  # fmt: skip
    """x, y, total: dense, rows of n one after the other; r: as many rows or fewer, which repeat."""
    if x.numel() == 0:
        return
    p, c = problem, config
    rows = x.numel() // p.n
    r_rows = r.numel() // p.n if r is not None else 1
    given = [x if t is None else t for t in (r, xbias, scale, bias)]
    flags = dict(
        N=p.n, RMS=p.rms, SCALE=p.scale, BIAS=p.bias, RESIDUAL=p.residual, XBIAS=p.xbias, TOTAL=p.total,
        COLUMNS=c.columns, num_warps=c.num_warps,
    )  # fmt: skip
    to = y if total is None else total
    if c.variant == "looped":
        launch(_looped_kernel, (rows,))(x, *given, y, to, epsilon, rows, r_rows, **flags)
    else:
        launch(_held_kernel, (triton.cdiv(rows, c.rows),))(
            x, *given, y, to, epsilon, rows, r_rows, ROWS=c.rows, **flags
        )
