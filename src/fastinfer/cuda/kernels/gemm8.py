# SPDX-License-Identifier: Apache-2.0
"""Products of two quantised activations, exactly: c[z] = end(Σ (a[z] − za)·(b[z] − zb)), with requantize.py's exact end.

Bytes of either sign and zero points on both sides: S = Σ a'b' − za'·Σ b' − zb'·Σ a' + k·za'·zb', all in int32 (a', za': 128 less
than bytes of u8). Two launches first write a' as rows and b' as columns of whole blocks of s8, and their sums: matrix units take s8
with k contiguous from shared memory only, and taking 128 off, turning or summing beside the product needs each byte in a register
of its own. Integer sums have no order: any tile gives the same bits. Bound by the bytes of a and b, read, written and read again:
the products of attention are small (64 columns, or k = 64) and lie in the L2. (Where b is constant, conv8.py does without.)
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


def block_k(p: Problem) -> int:
    return max(32, min(128, triton.next_power_of_2(p.k)))


def row_bytes(p: Problem) -> int:
    """Of the signed copies: whole blocks, zeros past k."""
    return triton.cdiv(p.k, block_k(p)) * block_k(p)


def configs(p: Problem) -> list[Config]:
    """The first is the default: the biggest tile that is not mostly empty and gives three quarters of the multiprocessors one."""
    shapes = [(128, 128, 8), (128, 64, 4), (64, 128, 4), (64, 64, 4), (64, 32, 4)]
    if p.end.residual:
        shapes = shapes[3:]  # the end of more than 32 numbers per thread would spill
    fits = [
        Config(bm, bn, block_k(p), warps, 3)
        for bm, bn, warps in shapes
        if bm < 2 * max(p.m, 64) and bn < 2 * max(p.n, 32)
    ]
    full = [c for c in fits if _programs(p, c) >= MULTIPROCESSORS * 3 // 4]
    return list(dict.fromkeys([*full, *reversed(fits)]))


def default(p: Problem) -> Config:
    return configs(p)[0]


def _stored(p: Problem) -> tuple[int, int]:
    """Matrices of a and of b: an operand may be shared along a batch axis."""
    counts = [1, 1]
    for extent, *strides in p.batch:
        for i in (0, 1):
            counts[i] *= extent if strides[i] else 1
    return counts[0], counts[1]


def workspace(p: Problem, c: Config) -> int:
    of_a, of_b = _stored(p)
    return (row_bytes(p) + 4) * (of_a * p.m + of_b * p.n)


def _programs(p: Problem, c: Config) -> int:
    return triton.cdiv(p.m, c.bm) * triton.cdiv(p.n, c.bn) * p.batches


@triton.jit(do_not_specialize=["rows"])
def signed_kernel(x, copy, sums, rows, k, n, row_bytes, FLIP: tl.constexpr, DOWN: tl.constexpr, BR: tl.constexpr, BK: tl.constexpr):  # fmt: skip
    """copy: s8 [rows, row_bytes] of x: [rows, k], or (DOWN) the columns of matrices [k, n], rows = matrices · n, and zeros;
    sums: int32 [rows]."""
    row, at = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR), tl.arange(0, BK)
    ok = row < rows
    total = tl.zeros((BR,), tl.int32)
    for first in range(0, row_bytes, BK):
        inside = ok[:, None] & (first + at < k)[None, :]
        if DOWN:
            from_ = x + (row // n * k * n + row % n)[:, None] + (first + at)[None, :] * n
        else:
            from_ = x + row[:, None] * k + (first + at)[None, :]
        v = tl.where(inside, signed(tl.load(from_, mask=inside, other=0), FLIP), 0)
        tl.store(copy + row[:, None] * row_bytes + (first + at)[None, :], v, mask=ok[:, None])
        total += tl.sum(v.to(tl.int32), 1)
    tl.store(sums + row, total, mask=ok)


@triton.jit(do_not_specialize=[
    "m", "k", "za", "zb", "inner", "a_outer", "a_inner", "b_outer", "b_inner", "zero", "lo", "hi", "c_lo", "c_hi", "c_factor",
    "r_zero", "r_factor", "factor",
])  # fmt: skip
def gemm8_kernel(
    a, b, c, start, scale, r, a_sums, b_sums, za, zb, zero, lo, hi, c_lo, c_hi, c_factor, r_zero, r_factor, factor,
    m, n, k, row_bytes, inner, a_outer, a_inner, b_outer, b_inner, RES: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """A tile per program. a, b: signed copies; *_outer, *_inner: strides in rows. start: int32, scale: float32 [n]. Rows and columns
    past the end are the last one again."""
    tiles_n = tl.cdiv(n, BN)
    tiles = tl.cdiv(m, BM) * tiles_n
    z = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    rm, rn, rk = tile // tiles_n * BM + tl.arange(0, BM), tile % tiles_n * BN + tl.arange(0, BN), tl.arange(0, BK)
    mask = (rm < m)[:, None] & (rn < n)[None, :]
    rows, columns = tl.minimum(rm, m - 1), tl.minimum(rn, n - 1)
    outer, within = tl.cast(z // inner, tl.int64), tl.cast(z % inner, tl.int64)
    a_row, b_row = outer * a_outer + within * a_inner, outer * b_outer + within * b_inner
    a_at = a + (a_row + rows)[:, None] * row_bytes + rk[None, :]
    b_at = b + (b_row + columns)[None, :] * row_bytes + rk[:, None]
    acc = tl.zeros((BM, BN), tl.int32)
    for _ in range(0, row_bytes, BK):
        acc = tl.dot(tl.load(a_at), tl.load(b_at), acc, out_dtype=tl.int32)
        a_at += BK
        b_at += BK
    of_rows, of_columns = tl.load(a_sums + a_row + rows), tl.load(b_sums + b_row + columns)
    acc += (k * za * zb - za * of_columns)[None, :] - (zb * of_rows)[:, None]
    offsets = (tl.cast(z, tl.int64) * m + rows)[:, None] * n + columns[None, :]
    exact(
        acc, 0, columns, offsets, mask, c, start, scale, start, start, scale, start, scale, r,
        zero, lo, hi, c_lo, c_hi, c_factor, r_zero, r_factor, factor, False, RES, False, False, False,
    )  # fmt: skip


def constants(p: Problem, c: Config) -> dict[str, Any]:
    return {"RES": p.end.residual, "BM": c.bm, "BN": c.bn, "BK": c.bk}


def run(
    a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, start: torch.Tensor, scale: torch.Tensor, residual: torch.Tensor | None,
    work: torch.Tensor, *, problem: Problem, config: Config, numbers: Numbers, za: int, zb: int,
) -> None:  # fmt: skip
    """start: int32 [n], the bias or zeros; scale: float32 [n]; za, zb: of the bytes as they are multiplied; work: workspace() bytes."""
    p, f = problem, config
    if p.m * p.n * p.batches == 0:
        return
    (_, a_outer, b_outer), (inner, a_inner, b_inner) = [(1, 0, 0)] * (2 - len(p.batch)) + list(p.batch)
    of_a, of_b = _stored(p)
    size, rows_a, rows_b = row_bytes(p), of_a * p.m, of_b * p.n
    a8, b8 = work[: rows_a * size].view(torch.int8), work[rows_a * size : (rows_a + rows_b) * size].view(torch.int8)
    sums = work[(rows_a + rows_b) * size :].view(torch.int32)
    blocks: dict[str, Any] = {"BR": 32, "BK": 32, "num_warps": 4}
    launch(signed_kernel, (triton.cdiv(rows_a, 32),))(
        a, a8, sums, rows_a, p.k, 1, size, FLIP=p.dtype == torch.uint8, DOWN=False, **blocks
    )
    launch(signed_kernel, (triton.cdiv(rows_b, 32),))(
        b, b8, sums[rows_a:], rows_b, p.k, p.n, size, FLIP=p.b_dtype == torch.uint8, DOWN=not p.trans_b, **blocks
    )
    strides = [stride // p.k for stride in (a_outer, a_inner, b_outer, b_inner)]
    launch(gemm8_kernel, (_programs(p, f),))(
        a8, b8, c, start, scale, residual, sums, sums[rows_a:], za, zb, *astuple(numbers)[:9], p.m, p.n, p.k, size, inner, *strides,
        **constants(p, f), num_warps=f.num_warps, num_stages=f.num_stages, **FUSED,
    )  # fmt: skip
