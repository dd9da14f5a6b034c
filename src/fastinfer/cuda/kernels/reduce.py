# SPDX-License-Identifier: Apache-2.0
"""Reductions of [outer, length, inner] over the middle, and ArgMax and ArgMin.

Bound: bytes, each element read once. A program makes KEPT results; tile [KEPT, BLOCK] is read along whichever side is contiguous.
Accumulators are as large as a tile and are folded once at the end, so that the order in which an output's elements are added
follows from `length` and `inner` alone, never from how many outputs there are. Long reductions go in two stages for the same
reason at every outer: chunks of fixed length into a workspace, then the chunks' results.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl

from fastinfer.cuda.kernels import device as _device  # noqa: F401  before triton: it says whether triton interprets
from fastinfer.cuda.kernels.launch import launch
from fastinfer.cuda.kernels.pointwise_walk import LIMIT

SUM, MAX, MIN, PROD, LOG_SUM_EXP = range(5)
_COMBINE = {SUM: "sum", MAX: "max", MIN: "min", PROD: "prod", LOG_SUM_EXP: "log_sum_exp"}
# ONNX's name after "Reduce": (before: 0 as it is, 1 |x|, 2 x²; combination; after: 0 as it is, 1 over the length, 2 sqrt, 3 log)
OPS = {
    "Sum": (0, SUM, 0), "Mean": (0, SUM, 1), "L1": (1, SUM, 0), "L2": (2, SUM, 2), "SumSquare": (2, SUM, 0), "LogSum": (0, SUM, 3),
    "Max": (0, MAX, 0), "Min": (0, MIN, 0), "Prod": (0, PROD, 0), "LogSumExp": (0, LOG_SUM_EXP, 0),
}  # fmt: skip
_ACCUMULATORS = {torch.int32: tl.int32, torch.int64: tl.int64, torch.int8: tl.int32, torch.uint8: tl.int32}
_LIMITS = {tl.int32: (-(2**31), 2**31 - 1), tl.int64: (-(2**63), 2**63 - 1)}


@dataclass(frozen=True)
class Problem:
    """op: a name of OPS, "ArgMax" or "ArgMin". last: of equals, Arg* takes the last."""

    op: str
    outer: int
    length: int
    inner: int
    dtype: torch.dtype
    last: bool = False

    @property
    def chunk(self) -> int:
        """Elements of a first stage; `length` where there is but one."""
        most, size = (16384, 4096) if self.inner == 1 else (512, 256)
        return size if self.length >= most and not self.op.startswith("Arg") else max(self.length, 1)

    @property
    def chunks(self) -> int:
        return -(-self.length // self.chunk) or 1

    @property
    def wide(self) -> bool:
        return self.outer * self.length * self.inner >= LIMIT


@dataclass(frozen=True)
class Config:
    kept: int
    block: int
    num_warps: int

    def __str__(self) -> str:
        return f"{self.kept}x{self.block}"


def configs(problem: Problem) -> list[Config]:
    """Those that add in the default's order differ in warps only where a row stays in one thread's hands; so few are safe."""
    return [default(problem)]


def default(problem: Problem) -> Config:
    """Follows from length and inner alone (the order of additions does). Along rows: 1024 elements a program, a row being one
    or several. Along columns: 32 of them 64 deep where one step then does (7x7 pooling: 24 programs for 768 channels of one
    image), else 64 of them 32 deep."""
    length = triton.next_power_of_2(max(problem.chunk, 1))
    if problem.inner == 1:
        block = min(length, 1024)
        return Config(max(1024 // block, 1), block, 4)
    kept = min(triton.next_power_of_2(problem.inner), 32 if length <= 64 else 64)
    return Config(kept, min(length, max(2048 // kept, 1)), 4)


def workspace(problem: Problem, config: Config) -> int:
    """Results of the first stage, at the accumulator's 4 or 8 bytes."""
    size = 8 if problem.dtype == torch.int64 else 4
    return 0 if problem.chunks == 1 else size * problem.outer * problem.chunks * problem.inner


@triton.jit
def _times(a, b):
    return a * b


@triton.jit
def _largest(v, IDENTITY: tl.constexpr, FLOAT: tl.constexpr):
    """Along axis 1; a NaN wins."""
    if FLOAT:
        bad = tl.max((v != v).to(tl.int32), 1)
        m = tl.max(tl.where(v != v, IDENTITY, v), 1)
        return tl.where(bad > 0, float("nan"), m)
    return tl.max(v, 1)


@triton.jit
def _finite(m):
    return tl.where(tl.abs(m) == float("inf"), 0.0, m)


@triton.jit
def _kept(n, length, inner, chunk, chunks, KEPT: tl.constexpr, WIDE: tl.constexpr):
    """Of this program's results: which they are, where their elements start, their chunk's first, which exist."""
    k = tl.program_id(0) * KEPT + tl.arange(0, KEPT)
    if WIDE:
        k = tl.program_id(0).to(tl.int64) * KEPT + tl.arange(0, KEPT)
    rest = k // inner
    start = (rest // chunks) * length * inner + k % inner
    return k, start[:, None], (rest % chunks * chunk)[:, None], (k < n)[:, None]


@triton.jit
def _reduce(
    x, y, n, length, inner, chunk, chunks, count, BEFORE: tl.constexpr, COMBINE: tl.constexpr, AFTER: tl.constexpr,
    IDENTITY: tl.constexpr, ACC: tl.constexpr, KEPT: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    k, start, first, exists = _kept(n, length, inner, chunk, chunks, KEPT, WIDE)
    FLOAT: tl.constexpr = ACC == tl.float32
    acc = tl.full((KEPT, BLOCK), IDENTITY, ACC)
    total = tl.zeros((KEPT, BLOCK), tl.float32)
    for at in range(0, chunk, BLOCK):
        step = at + tl.arange(0, BLOCK)[None, :]
        inside = exists & (step < chunk) & (first + step < length)
        v = tl.load(x + (start + (first + step) * inner), mask=inside, other=0).to(ACC)
        if BEFORE == 1:
            v = tl.abs(v)
        if BEFORE == 2:
            v = v * v
        v = tl.where(inside, v, IDENTITY)
        if COMBINE == 0:
            acc = acc + v
        if COMBINE == 1:
            acc = tl.maximum(acc, v, propagate_nan=tl.PropagateNan.ALL)
        if COMBINE == 2:
            acc = tl.minimum(acc, v, propagate_nan=tl.PropagateNan.ALL)
        if COMBINE == 3:
            acc = acc * v
        if COMBINE == 4:
            m = tl.maximum(acc, v, propagate_nan=tl.PropagateNan.ALL)
            total = total * tl.exp(acc - _finite(m)) + tl.exp(v - _finite(m))
            acc = m
    if COMBINE == 0:
        r = tl.sum(acc, 1)
    if COMBINE == 1:
        r = _largest(acc, IDENTITY, FLOAT)
    if COMBINE == 2:
        r = -_largest(-acc, -IDENTITY, FLOAT) if FLOAT else tl.min(acc, 1)
    if COMBINE == 3:
        r = tl.reduce(acc, 1, _times)
    if COMBINE == 4:
        m = _largest(acc, IDENTITY, FLOAT)
        r = tl.log(tl.sum(total * tl.exp(acc - _finite(m)[:, None]), 1)) + _finite(m)
    if AFTER == 1:
        r = tl.div_rn(r, tl.zeros_like(r) + count)
    if AFTER == 2:
        r = tl.sqrt_rn(r)
    if AFTER == 3:
        r = tl.log(r)
    tl.store(y + k, r.to(y.dtype.element_ty), mask=k < n)


@triton.jit
def _arg(
    x, y, n, length, inner, MINIMUM: tl.constexpr, LAST: tl.constexpr, IDENTITY: tl.constexpr, ACC: tl.constexpr,
    KEPT: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The first NaN, as numpy has it, else the first or last of the greatest. MINIMUM reverses the order: -v, or ~v of integers."""
    NONE: tl.constexpr = 2147483647
    k, start, _, exists = _kept(n, length, inner, length, 1, KEPT, WIDE)
    best = tl.full((KEPT, BLOCK), IDENTITY, ACC)
    where = tl.full((KEPT, BLOCK), NONE, tl.int32)
    bad = tl.full((KEPT, BLOCK), NONE, tl.int32)
    for at in range(0, length, BLOCK):
        step = at + tl.arange(0, BLOCK)[None, :]
        inside = exists & (step < length)
        v = tl.load(x + (start + step * inner), mask=inside, other=0).to(ACC)
        if MINIMUM:
            v = -v if ACC == tl.float32 else -1 - v
        bad = tl.minimum(bad, tl.where(inside & (v != v), step, NONE))
        better = (v > best) | (where == NONE)
        if LAST:
            better = (v >= best) | (where == NONE)
        better = better & inside & (v == v)
        best = tl.where(better, v, best)
        where = tl.where(better, step, where)
    found = (best == tl.max(best, 1)[:, None]) & (where != NONE)
    r = tl.max(tl.where(found, where, -1), 1) if LAST else tl.min(tl.where(found, where, NONE), 1)
    first_bad = tl.min(bad, 1)
    tl.store(y + k, tl.where(first_bad != NONE, first_bad, r).to(tl.int64), mask=k < n)


def _identity(combine: int, acc: tl.dtype) -> float | int:
    if combine in (SUM, PROD):
        return int(combine == PROD)
    if acc == tl.float32:
        return float("inf") if combine == MIN else float("-inf")
    return _LIMITS[acc][combine == MIN]


def run(x: torch.Tensor, y: torch.Tensor, work: torch.Tensor | None, problem: Problem, config: Config) -> None:
    """work: the first stage's results where there are two, float32 or int64."""
    p = problem
    n, acc = p.outer * p.inner, _ACCUMULATORS.get(x.dtype, tl.float32)
    if p.op.startswith("Arg"):
        low = p.op == "ArgMin"
        launch(_arg, (triton.cdiv(n, config.kept),))(
            x, y, n, p.length, p.inner, MINIMUM=low, LAST=p.last, IDENTITY=_identity(MAX, acc), ACC=acc,
            KEPT=config.kept, BLOCK=config.block, WIDE=p.wide, num_warps=config.num_warps,
        )  # fmt: skip
        return
    before, combine, after = OPS[p.op]
    if p.chunks > 1:
        assert work is not None
        _launch(x, work, p, config, (before, combine, 0), acc, p.length)
        rest = replace(p, length=p.chunks)
        _launch(work, y, rest, default(rest), (0, combine, after), acc, p.length)
    else:
        _launch(x, y, p, config, (before, combine, after), acc, p.length)


def _launch(
    x: torch.Tensor, y: torch.Tensor, p: Problem, config: Config, how: tuple[int, int, int], acc: tl.dtype, count: int
) -> None:  # fmt: skip
    """One stage; count: of the elements of a result, for means."""
    last = y.numel() == p.outer * p.inner
    chunk, chunks = (max(p.length, 1), 1) if last else (p.chunk, p.chunks)
    n = p.outer * p.inner * chunks
    launch(_reduce, (triton.cdiv(n, config.kept),))(
        x, y, n, p.length, p.inner, chunk, chunks, float(count), BEFORE=how[0], COMBINE=how[1], AFTER=how[2],
        IDENTITY=_identity(how[1], acc), ACC=acc, KEPT=config.kept, BLOCK=config.block, WIDE=p.wide, num_warps=config.num_warps,
    )  # fmt: skip
