# SPDX-License-Identifier: Apache-2.0
"""Sequences of different lengths one behind the other: where each lies, found by every program from the lengths in device
memory, so that one captured graph serves every batch of a bucket; and reductions over each sequence's tokens.

    Y[o, s, i] = fold over the tokens t of sequence s of X[o, t, i]

Tokens behind the last sequence belong to nobody. Lengths are data: what does not fit into the tokens is cut off. An empty
sequence's reduction is that of no numbers, as on the CPU: sums 0, the least and the greatest number the other way round (−inf, +inf
or an integer's end), means NaN (of integers 0). Bound: reading X once; a sequence's sum runs over its own tokens in blocks from its first, so its
bits are those that it has alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from fastinfer.cuda.kernels import interpreter_range  # noqa: F401  (loops with bounds from memory)
from fastinfer.cuda.kernels.launch import launch


@triton.jit
def locate(lengths_ptr, sequences, tokens, index, GROUP: tl.constexpr, BM: tl.constexpr, CHUNK: tl.constexpr):
    """The index-th block of BM rows where every token is GROUP rows and no block spans two sequences.

    Gives (first token, rows' tokens, keys, block within the sequence, pairs before). Blocks after the last sequence's
    cover the tokens that belong to nobody: keys 0.
    """
    done = 0  # blocks, tokens and pairs of the chunks before
    before = 0
    pairs = tl.full([], 0, tl.int64)
    first = 0
    length = 0
    block = 0
    start = tl.full([], 0, tl.int64)
    for s in range(0, sequences, CHUNK):
        ids = s + tl.arange(0, CHUNK)
        n = tl.load(lengths_ptr + ids, mask=ids < sequences, other=0)
        n = tl.minimum(tl.maximum(n, 0), tokens).to(tl.int32)
        at = tl.minimum(tl.cumsum(n.to(tl.int64), 0) - n + before, tokens).to(tl.int32)
        n = tl.minimum(n, tokens - at)
        blocks = (n * GROUP + BM - 1) // BM
        ends = tl.cumsum(blocks, 0) + done
        squares = n.to(tl.int64) * n
        square_ends = tl.cumsum(squares, 0) + pairs
        hit = (index < ends) & (index >= ends - blocks)
        first += tl.sum(tl.where(hit, at, 0), 0)
        length += tl.sum(tl.where(hit, n, 0), 0)
        block += tl.sum(tl.where(hit, index - ends + blocks, 0), 0)
        start += tl.sum(tl.where(hit, square_ends - squares, 0), 0)
        done += tl.sum(blocks, 0)
        before += tl.sum(n, 0)
        pairs += tl.sum(squares, 0)
    beyond = index >= done
    first = tl.where(beyond, before, first)
    block = tl.where(beyond, index - done, block)
    return first, tl.where(beyond, tokens - before, length), tl.where(beyond, 0, length), block, start


def blocks_of(tokens: int, sequences: int, group: int, rows: int) -> int:
    """At most so many blocks does locate() know, however the tokens are shared out: Σ⌈n/rows⌉ over sequences + 1 parts."""
    return min(-(-tokens * group // rows) + sequences, tokens * group)


@dataclass(frozen=True)
class Problem:
    """X [outer, tokens, inner] of dtype, with `sequences` lengths → Y [outer, sequences, inner]."""

    dtype: torch.dtype
    reduction: str  # sum, mean, max, min
    inner: int


@dataclass(frozen=True)
class Config:
    tokens: int  # of one step
    inner: int
    num_warps: int


def configs(problem: Problem) -> list[Config]:
    width = min(triton.next_power_of_2(problem.inner), 128)
    return [Config(t, w, 4) for w in sorted({width, max(width // 2, 16)}) for t in (16, 32, 64)]


def default(problem: Problem) -> Config:
    """64 columns of 2 or 4 bytes are one or two full lines; 32 tokens keep enough loads in flight."""
    return Config(32, max(16, min(triton.next_power_of_2(problem.inner), 64)), 4)


def workspace(problem: Problem, config: Config) -> int:
    return 0


@triton.jit
def _prefix(lengths_ptr, sequences, tokens, sequence, CHUNK: tl.constexpr):
    """First token and length of one sequence."""
    before = tl.full([], 0, tl.int64)
    for s in range(0, sequence, CHUNK):
        ids = s + tl.arange(0, CHUNK)
        before += tl.sum(tl.maximum(tl.load(lengths_ptr + ids, mask=ids < sequence, other=0), 0).to(tl.int64), 0)
    first = tl.minimum(before, tokens)
    length = tl.maximum(tl.load(lengths_ptr + sequence).to(tl.int64), 0)
    return first, tl.minimum(length, tokens - first)


@triton.jit
def _reduce_kernel(
    x_ptr, lengths_ptr, y_ptr, sequences, tokens, inner,
    REDUCTION: tl.constexpr, IDENTITY: tl.constexpr, STEP: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    sequence = tl.program_id(0)
    columns = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    outer = tl.program_id(2).to(tl.int64)
    kept = columns < inner
    first, length = _prefix(lengths_ptr, sequences, tokens, sequence, CHUNK)
    dtype: tl.constexpr = tl.float32 if x_ptr.dtype.element_ty.is_floating() else x_ptr.dtype.element_ty
    total = tl.full([STEP, WIDTH], IDENTITY, dtype)
    base = x_ptr + (outer * tokens + first) * inner
    for t in range(0, length, STEP):
        at = t + tl.arange(0, STEP)
        inside = (at < length)[:, None] & kept[None, :]
        x = tl.load(base + at[:, None].to(tl.int64) * inner + columns[None, :], mask=inside, other=0).to(dtype)
        if REDUCTION == "max":
            total = tl.where(inside & ((x > total) | (x != x)), x, total)
        elif REDUCTION == "min":
            total = tl.where(inside & ((x < total) | (x != x)), x, total)
        else:
            total += x
    if REDUCTION == "max":
        y = tl.max(total, 0)
        y = tl.where(tl.max((total != total).to(tl.int32), 0) > 0, tl.sum(total, 0), y)  # NaN stays
    elif REDUCTION == "min":
        y = tl.min(total, 0)
        y = tl.where(tl.max((total != total).to(tl.int32), 0) > 0, tl.sum(total, 0), y)
    else:
        y = tl.sum(total, 0)
    if REDUCTION == "mean":
        if dtype == tl.float32:
            y = tl.div_rn(y, length.to(tl.float32) + tl.zeros_like(y))  # of nothing: NaN
        else:
            y = y // tl.maximum(length, 1)
    to = y_ptr + (outer * sequences + sequence) * inner + columns
    tl.store(to, y.to(y_ptr.dtype.element_ty), mask=kept)


def run(x: torch.Tensor, lengths: torch.Tensor, y: torch.Tensor, *, problem: Problem, config: Config) -> None:
    """x [outer, tokens, inner], lengths int64 [sequences], y [outer, sequences, inner], all dense; outer may be more axes."""
    if y.numel() == 0:
        return
    sequences, inner = lengths.shape[0], problem.inner
    outer = y.numel() // (sequences * inner)
    tokens = x.numel() // (outer * inner)
    grid = (sequences, triton.cdiv(inner, config.inner), outer)
    launch(_reduce_kernel, grid)(
        x, lengths, y, sequences, tokens, inner,
        REDUCTION=problem.reduction, IDENTITY=_identity(problem), STEP=config.tokens, WIDTH=config.inner, CHUNK=256,
        num_warps=config.num_warps,
    )  # fmt: skip


def _identity(problem: Problem) -> float | int:
    if problem.reduction not in ("max", "min"):
        return 0
    lowest = problem.reduction == "max"
    if problem.dtype.is_floating_point:
        return float("-inf") if lowest else float("inf")
    info = torch.iinfo(problem.dtype)
    return info.min if lowest else info.max
