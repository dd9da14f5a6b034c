# SPDX-License-Identifier: Apache-2.0
"""Activations in 8 bits, with one scale per row: q = x / scale, scale = max|x| / (127 or 448).

Bound by memory: a row is read once, kept in registers, and written at a quarter or half of its size. Rows past 16384 columns
are read twice, the second time out of L2. A row of zeros has scale 1; one with a NaN has scale NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from fastinfer.cuda.kernels import interpreter_range as interpreter_range
from fastinfer.cuda.kernels.launch import launch

MOST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}  # the largest number of each type
_WHOLE = 16384  # columns that a row may have to stay in registers: 64 of float32 in each of 256 threads


@dataclass(frozen=True)
class Problem:
    rows: int
    columns: int
    dtype: torch.dtype
    out: torch.dtype


@dataclass(frozen=True)
class Config:
    """block: columns at a time."""

    block: int
    num_warps: int


def default(p: Problem) -> Config:
    block = min(max(triton.next_power_of_2(p.columns), 16), _WHOLE if p.columns <= _WHOLE else 4096)
    return Config(block, max(1, min(8, block // 256)))


def configs(p: Problem) -> list[Config]:
    first = default(p)
    return [first] + [
        Config(first.block, w) for w in (1, 2, 4, 8, 16) if w != first.num_warps and 32 * w <= first.block
    ]


def workspace(p: Problem, c: Config) -> int:
    return 0


@triton.jit
def _rounded(x, q):
    """x in the type q: to nearest even. 1.5·2²³ added and taken away leaves a float32 without its fraction."""
    if q == tl.int8:
        x = (x + 12582912.0) - 12582912.0
        y = tl.minimum(tl.maximum(x, -127.0), 127.0).to(tl.int8)
    else:
        y = tl.minimum(tl.maximum(x, -448.0), 448.0).to(q)
    return y


@triton.jit
def _quantize(x, q, scale, columns, MOST: tl.constexpr, BLOCK: tl.constexpr, ONCE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    x += row * columns
    q += row * columns
    if ONCE:
        v = tl.load(x + at, mask=at < columns, other=0.0).to(tl.float32)
        most = tl.max(tl.abs(v), 0)
        bad = tl.max((v != v).to(tl.int32), 0)
    else:
        far, nans = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.int32)
        for start in range(0, columns, BLOCK):
            v = tl.load(x + start + at, mask=start + at < columns, other=0.0).to(tl.float32)
            far = tl.maximum(far, tl.abs(v))
            nans |= (v != v).to(tl.int32)
        most, bad = tl.max(far, 0), tl.max(nans, 0)
    inverse = tl.where(most > 1e-30, MOST / most, 1.0)
    unit = tl.where(most > 1e-30, most * (1.0 / MOST), 1.0)
    tl.store(scale + row, tl.where(bad > 0, float("nan"), unit))
    if ONCE:
        tl.store(q + at, _rounded(v * inverse, q.dtype.element_ty), mask=at < columns)
    else:
        for start in range(0, columns, BLOCK):
            inside = start + at < columns
            v = tl.load(x + start + at, mask=inside, other=0.0).to(tl.float32)
            tl.store(q + start + at, _rounded(v * inverse, q.dtype.element_ty), mask=inside)


def run(x: torch.Tensor, q: torch.Tensor, scale: torch.Tensor, *, problem: Problem, config: Config) -> None:
    """x: [rows, columns]; q: the same in int8 or float8_e4m3fn; scale: float32 [rows]."""
    p = problem
    launch(_quantize, (p.rows,))(
        x, q, scale, p.columns, MOST[p.out], config.block, p.columns <= config.block, num_warps=config.num_warps
    )


def quantize_weight(w: torch.Tensor, out: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """w: [n, k] → the same in `out` and float32 [n] scales, each the weight's own: once per program, on the device."""
    most = w.float().abs().amax(dim=1) if w.shape[1] else torch.zeros(w.shape[0], device=w.device)
    scale = torch.where(most > 1e-30, most / MOST[out], torch.ones_like(most))
    q = (w.float() / scale[:, None]).clamp(-MOST[out], MOST[out])
    return (q.round() if out == torch.int8 else q).to(out), scale
