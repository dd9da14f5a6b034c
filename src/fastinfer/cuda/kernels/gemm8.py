# SPDX-License-Identifier: Apache-2.0
"""Products of two quantised activations, exactly: c[z] = end(Σ (a[z] − za)·(b[z] − zb)), with requantize.py's exact end.

Bytes of either sign and zero points on both sides: sums over a's rows and b's columns are taken beside the product,
S = Σ a'b' − za'·Σ b' − zb'·Σ a' + k·za'·zb', all in int32 (a', za': 128 less than bytes of u8). Integer sums have no order: any
tile gives the same bits. Bound by the bytes of a and b: the products of attention are small (64 columns, or k = 64).
(Where b is constant, conv8.py does without the sums.)
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, field
from typing import Any

import torch
import triton
import triton.language as tl

from fastinfer.cuda.kernels import interpreter_range  # noqa: F401  (loops with bounds from memory)
from fastinfer.cuda.kernels.launch import launch
from fastinfer.cuda.kernels.requantize import FUSED, End, Numbers, exact, signed

MULTIPROCESSORS = 132


@dataclass(frozen=True)
class Problem:
    """a: [z, m, k] of dtype; b: [z, k, n], or [z, n, k] if trans_b, of b_dtype; c: [z, m, n] of out. batch: (extent, a's stride,
    b's stride) in elements, outermost first, at most two axes."""

    m: int
    n: int
    k: int
    dtype: torch.dtype
    b_dtype: torch.dtype
    out: torch.dtype
    trans_b: bool = False
    batch: tuple[tuple[int, int, int], ...] = ()
    end: End = field(default_factory=End)

    @property
    def batches(self) -> int:
        count = 1
        for extent, _, _ in self.batch:
            count *= extent
        return count

    @property
    def flops(self) -> float:
        return 2.0 * self.batches * self.m * self.n * self.k


@dataclass(frozen=True)
class Config:
    bm: int
    bn: int
    bk: int
    num_warps: int
    num_stages: int


def configs(p: Problem) -> list[Config]:
    """The first is the default: the biggest tile that is not mostly empty and gives three quarters of the multiprocessors one."""
    bk = max(32, min(128, triton.next_power_of_2(p.k)))
    shapes = ((128, 128, 8), (128, 64, 4), (64, 128, 4), (64, 64, 4), (64, 32, 4), (32, 32, 4))
    fits = [Config(bm, bn, bk, warps, 3) for bm, bn, warps in shapes if bm < 2 * max(p.m, 32) and bn < 2 * max(p.n, 32)]
    full = [c for c in fits if _programs(p, c) >= MULTIPROCESSORS * 3 // 4]
    return list(dict.fromkeys([*full, *reversed(fits)]))


def default(p: Problem) -> Config:
    return configs(p)[0]


def workspace(p: Problem, c: Config) -> int:
    return 0


def _programs(p: Problem, c: Config) -> int:
    return triton.cdiv(p.m, c.bm) * triton.cdiv(p.n, c.bn) * p.batches


@triton.jit(do_not_specialize=[
    "m", "za", "zb", "inner", "a_outer", "a_inner", "b_outer", "b_inner", "zero", "lo", "hi", "c_lo", "c_hi", "c_factor", "r_zero",
    "r_factor", "factor",
])  # fmt: skip
def gemm8_kernel(
    a, b, c, start, scale, r, za, zb, zero, lo, hi, c_lo, c_hi, c_factor, r_zero, r_factor, factor,
    m, n, k, inner, a_outer, a_inner, b_outer, b_inner,
    TRANS_B: tl.constexpr, A_FLIP: tl.constexpr, B_FLIP: tl.constexpr, EVEN_K: tl.constexpr, RES: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """A tile per program. start: int32, scale: float32 [n]. Rows and columns past the end are the last one again."""
    tiles_n = tl.cdiv(n, BN)
    tiles = tl.cdiv(m, BM) * tiles_n
    z = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    rm, rn, rk = tile // tiles_n * BM + tl.arange(0, BM), tile % tiles_n * BN + tl.arange(0, BN), tl.arange(0, BK)
    mask = (rm < m)[:, None] & (rn < n)[None, :]
    rows, columns = tl.minimum(rm, m - 1), tl.minimum(rn, n - 1)
    outer, within = tl.cast(z // inner, tl.int64), tl.cast(z % inner, tl.int64)
    a_at = a + outer * a_outer + within * a_inner + rows.to(tl.int64)[:, None] * k + rk[None, :]
    b_at = b + outer * b_outer + within * b_inner
    if TRANS_B:
        b_at = b_at + columns.to(tl.int64)[None, :] * k + rk[:, None]
    else:
        b_at = b_at + rk.to(tl.int64)[:, None] * n + columns[None, :]
    acc = tl.zeros((BM, BN), tl.int32)
    of_rows, of_columns = tl.zeros((BM,), tl.int32), tl.zeros((BN,), tl.int32)
    for first in range(0, k, BK):
        inside = rk < k - first
        if EVEN_K:
            x, y = signed(tl.load(a_at), A_FLIP), signed(tl.load(b_at), B_FLIP)
        else:
            x = tl.where(inside[None, :], signed(tl.load(a_at, mask=inside[None, :], other=0), A_FLIP), 0)
            y = tl.where(inside[:, None], signed(tl.load(b_at, mask=inside[:, None], other=0), B_FLIP), 0)
        of_rows += tl.sum(x.to(tl.int32), 1)
        of_columns += tl.sum(y.to(tl.int32), 0)
        acc = tl.dot(x, y, acc, out_dtype=tl.int32)
        a_at += BK
        b_at += BK if TRANS_B else BK * n
    acc += k * za * zb - za * of_columns[None, :] - zb * of_rows[:, None]
    offsets = (tl.cast(z, tl.int64) * m + rows)[:, None] * n + columns[None, :]
    exact(
        acc, 0, columns, offsets, mask, c, start, scale, start, start, scale, start, scale, r,
        zero, lo, hi, c_lo, c_hi, c_factor, r_zero, r_factor, factor, False, RES, False, False, False,
    )  # fmt: skip


def constants(p: Problem, c: Config) -> dict[str, Any]:
    return {
        "TRANS_B": p.trans_b, "A_FLIP": p.dtype == torch.uint8, "B_FLIP": p.b_dtype == torch.uint8, "EVEN_K": p.k % c.bk == 0,
        "RES": p.end.residual, "BM": c.bm, "BN": c.bn, "BK": c.bk,
    }  # fmt: skip


def run(
    a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, start: torch.Tensor, scale: torch.Tensor, residual: torch.Tensor | None, *,
    problem: Problem, config: Config, numbers: Numbers, za: int, zb: int,
) -> None:  # fmt: skip
    """start: int32 [n], the bias or zeros; scale: float32 [n]; za, zb: of the bytes as they are multiplied."""
    p, f = problem, config
    if p.m * p.n * p.batches == 0:
        return
    (_, a_outer, b_outer), (inner, a_inner, b_inner) = [(1, 0, 0)] * (2 - len(p.batch)) + list(p.batch)
    launch(gemm8_kernel, (_programs(p, f),))(
        a, b, c, start, scale, residual, za, zb, *astuple(numbers)[:9], p.m, p.n, p.k, inner, a_outer, a_inner, b_outer, b_inner,
        **constants(p, f), num_warps=f.num_warps, num_stages=f.num_stages, **FUSED,
    )  # fmt: skip
