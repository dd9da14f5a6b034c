# SPDX-License-Identifier: Apache-2.0
"""Group and instance norms, channels last: x [batch, space, groups·c], one mean and variance per (batch, group) over space·c:

    y = (x − mean)·rstd·scale + bias        scale, bias [groups·c]

Variants: "held" (a group in registers, one launch) and "parts" (three launches: mean and Σ(x − mean)² of pieces of the space
per channel; their combination per group by Chan, Golub and LeVeque's formula; the result). Means are taken before squares
everywhere, float32. Bound: memory, x read once or twice. Pieces depend on the space and channels, not on the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from fastinfer.cuda.kernels import interpreter_range  # noqa: F401  (loops with bounds from memory)
from fastinfer.cuda.kernels.launch import launch

PIECES = 64  # of the space, at most


@dataclass(frozen=True)
class Problem:
    dtype: torch.dtype
    space: int
    groups: int
    c: int  # channels of a group

    @property
    def channels(self) -> int:
        return self.groups * self.c


@dataclass(frozen=True)
class Config:
    variant: str
    space: int
    channels: int
    num_warps: int


def configs(problem: Problem) -> list[Config]:
    found = [default(problem)]
    width = triton.next_power_of_2(problem.channels)
    found += [Config("parts", s, min(w, width), 4) for s in (16, 32, 64) for w in (32, 64, 128)]
    held = _held(problem)
    if held[0] * held[1] <= 16384:
        found += [Config("held", *held, w) for w in (2, 4, 8, 16)]
    return list(dict.fromkeys(found))[:24]


def _held(problem: Problem) -> tuple[int, int]:
    return triton.next_power_of_2(problem.space), triton.next_power_of_2(problem.c)


def default(problem: Problem) -> Config:
    """held reads runs of c numbers: from 8 on (16 bytes of bfloat16) whole sectors are used."""
    space, c = _held(problem)
    if space * c <= 8192 and problem.c >= 8:
        return Config("held", space, c, max(1, min(8, space * c // 512)))
    return Config("parts", 32, min(64, triton.next_power_of_2(problem.channels)), 4)


def _piece(problem: Problem, config: Config) -> tuple[int, int]:
    """Rows of a piece, a multiple of the block's, and the number of pieces."""
    each = triton.cdiv(triton.cdiv(problem.space, PIECES), config.space) * config.space
    return each, triton.cdiv(problem.space, each)


def workspace(problem: Problem, config: Config, batch: int = 1) -> int:
    """Bytes: mean and squares of every piece and channel, then mean and 1/deviation of every group, float32."""
    if config.variant == "held":
        return 0
    return 8 * batch * (_piece(problem, config)[1] * problem.channels + problem.groups)


@triton.jit
def _held_kernel(
    x_ptr, scale_ptr, bias_ptr, y_ptr, epsilon, SPACE: tl.constexpr, GROUPS: tl.constexpr, C: tl.constexpr,
    BS: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    batch, group = (tl.program_id(0) // GROUPS).to(tl.int64), tl.program_id(0) % GROUPS
    row, column = tl.arange(0, BS)[:, None], tl.arange(0, BC)[None, :]
    inside = (row < SPACE) & (column < C)
    channel = group * C + column
    at = (batch * SPACE + row) * (GROUPS * C) + channel
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    x = tl.where(inside, x - tl.sum(x) / (SPACE * C), 0.0)
    x *= 1.0 / tl.sqrt_rn(tl.sum(x * x) / (SPACE * C) + epsilon)
    scale = tl.load(scale_ptr + channel, mask=column < C, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + channel, mask=column < C, other=0.0).to(tl.float32)
    tl.store(y_ptr + at, (x * scale + bias).to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _pieces_kernel(x_ptr, part_ptr, space, channels, each, pieces, BS: tl.constexpr, BC: tl.constexpr):
    batch, piece = (tl.program_id(0) // pieces).to(tl.int64), tl.program_id(0) % pieces
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    end = tl.minimum((piece + 1) * each, space)
    x_ptr += batch * space * channels
    mean = tl.zeros([BC], tl.float32)
    squares = tl.zeros([BC], tl.float32)
    for start in range(piece * each, end, BS):
        row = start + tl.arange(0, BS)[:, None]
        inside = (row < end) & (channel < channels)[None, :]
        x = tl.load(x_ptr + row.to(tl.int64) * channels + channel[None, :], mask=inside, other=0.0).to(tl.float32)
        n = tl.minimum(end - start, BS).to(tl.float32)
        own = tl.sum(x, 0) / n
        x = tl.where(inside, x - own[None, :], 0.0)
        before = (start - piece * each).to(tl.float32)
        away = own - mean
        mean += away * (n / (before + n))
        squares += tl.sum(x * x, 0) + away * away * (before * n / (before + n))
    to = part_ptr + (tl.program_id(0).to(tl.int64) * channels + channel) * 2
    tl.store(to, mean, mask=channel < channels)
    tl.store(to + 1, squares, mask=channel < channels)


@triton.jit
def _combine_kernel(
    part_ptr, group_ptr, epsilon, space, each, pieces, GROUPS: tl.constexpr, C: tl.constexpr, BP: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    batch, group = (tl.program_id(0) // GROUPS).to(tl.int64), tl.program_id(0) % GROUPS
    piece = tl.arange(0, BP)[:, None]
    n = tl.where(piece < pieces, tl.minimum(each, space - piece * each), 0).to(tl.float32)
    rows = part_ptr + ((batch * pieces + piece) * GROUPS + group) * C * 2
    count = space * 1.0 * C  # space may be a constexpr, which has no .to()
    sums = tl.zeros([BP, BC], tl.float32)
    for start in range(0, C, BC):
        column = start + tl.arange(0, BC)[None, :]
        sums += n * tl.load(rows + column * 2, mask=(piece < pieces) & (column < C), other=0.0)
    mean = tl.sum(sums) / count
    squares = tl.zeros([BP, BC], tl.float32)
    for start in range(0, C, BC):
        column = start + tl.arange(0, BC)[None, :]
        inside = (piece < pieces) & (column < C)
        away = tl.load(rows + column * 2, mask=inside, other=0.0) - mean
        squares += tl.where(inside, tl.load(rows + column * 2 + 1, mask=inside, other=0.0) + n * away * away, 0.0)
    to = group_ptr + tl.program_id(0) * 2
    tl.store(to, mean)
    tl.store(to + 1, 1.0 / tl.sqrt_rn(tl.sum(squares) / count + epsilon))


@triton.jit
def _apply_kernel(
    x_ptr, scale_ptr, bias_ptr, group_ptr, y_ptr, space, blocks, GROUPS: tl.constexpr, C: tl.constexpr,
    BS: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    batch, block = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks
    channel = tl.program_id(1) * BC + tl.arange(0, BC)[None, :]
    row = block * BS + tl.arange(0, BS)[:, None]
    there = channel < GROUPS * C
    of = group_ptr + (batch * GROUPS + channel // C) * 2
    mean = tl.load(of, mask=there, other=0.0)
    scale = tl.load(of + 1, mask=there, other=0.0) * tl.load(scale_ptr + channel, mask=there, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + channel, mask=there, other=0.0).to(tl.float32)
    at = (batch * space + row) * (GROUPS * C) + channel
    inside = (row < space) & there
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(y_ptr + at, ((x - mean) * scale + bias).to(y_ptr.dtype.element_ty), mask=inside)


def run(
    x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, y: torch.Tensor, room: torch.Tensor | None, *,
    problem: Problem, config: Config, epsilon: float,
) -> None:  # fmt: skip
    """x, y: dense [batch, space, channels]. room: float32, of workspace() bytes."""
    p, c = problem, config
    if x.numel() == 0:
        return
    batch = x.numel() // (p.space * p.channels)
    if c.variant == "held":
        launch(_held_kernel, (batch * p.groups,))(
            x, scale, bias, y, epsilon, SPACE=p.space, GROUPS=p.groups, C=p.c, BS=c.space, BC=c.channels,
            num_warps=c.num_warps,
        )  # fmt: skip
        return
    assert room is not None
    each, pieces = _piece(p, c)
    parts, of_groups = room[: 2 * batch * pieces * p.channels], room[2 * batch * pieces * p.channels :]
    wide = triton.cdiv(p.channels, c.channels)
    launch(_pieces_kernel, (batch * pieces, wide))(
        x, parts, p.space, p.channels, each, pieces, BS=c.space, BC=c.channels, num_warps=c.num_warps
    )
    launch(_combine_kernel, (batch * p.groups,))(
        parts, of_groups, epsilon, p.space, each, pieces, GROUPS=p.groups, C=p.c,
        BP=triton.next_power_of_2(pieces), BC=min(64, triton.next_power_of_2(p.c)), num_warps=1 if p.c == 1 else 4,
    )  # fmt: skip
    blocks = triton.cdiv(p.space, c.space)
    launch(_apply_kernel, (batch * blocks, wide))(
        x, scale, bias, of_groups, y, p.space, blocks, GROUPS=p.groups, C=p.c, BS=c.space, BC=c.channels,
        num_warps=c.num_warps,
    )  # fmt: skip
