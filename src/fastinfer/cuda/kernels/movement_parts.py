# SPDX-License-Identifier: Apache-2.0
"""Concat and Split: up to eight parts in one launch. A part is a block of columns of a matrix; each program copies a tile of one."""

from __future__ import annotations

import functools
import hashlib
import linecache
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import triton
import triton.language as tl

from fastinfer.cuda.kernels.launch import launch
from fastinfer.cuda.kernels.pointwise import raw
from fastinfer.cuda.kernels.pointwise_source import unit

MOST = 8  # parts of a launch


@dataclass(frozen=True)
class Problem:
    """The whole is rows x ld; part p is its columns [starts[p], starts[p] + cols[p])."""

    itemsize: int
    rows: int
    ld: int
    starts: tuple[int, ...]
    cols: tuple[int, ...]
    join: bool  # parts to the whole, else the whole to parts


@dataclass(frozen=True)
class Config:
    rows: int
    cols: int
    num_warps: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols}"


def problem_of(itemsize: int, rows: int, cols: list[int], join: bool) -> list[Problem]:
    """One for each launch."""
    starts = [0, *accumulate(cols)]
    live = [p for p in range(len(cols)) if cols[p]]
    return [
        Problem(itemsize, rows, starts[-1], tuple(starts[p] for p in some), tuple(cols[p] for p in some), join)
        for some in (live[at : at + MOST] for at in range(0, len(live), MOST))
    ]


def configs(problem: Problem) -> list[Config]:
    wide = triton.next_power_of_2(max(problem.cols))
    found = [
        Config(max(block // cols, 1), cols, 4)
        for block in (1024, 2048, 4096)
        for cols in sorted({min(wide, block, c) for c in (64, 256, 1024)})
    ]
    return [default(problem), *(c for c in found if c != default(problem))]


def default(problem: Problem) -> Config:
    cols = min(triton.next_power_of_2(max(problem.cols)), 1024)
    return Config(max(2048 // cols, 1), cols, 4)


def workspace(problem: Problem, config: Config) -> int:
    return 0


@triton.jit
def _move(x, ldx, y, ldy, tile, rows, cols, ROWS: tl.constexpr, COLS: tl.constexpr):
    across = tl.cdiv(cols, COLS)
    row = ((tile // across).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    col = (tile % across * COLS + tl.arange(0, COLS))[None, :]
    inside = (row < rows) & (col < cols)
    tl.store(y + (row * ldy + col), tl.load(x + (row * ldx + col), mask=inside), mask=inside)


def source(units: tuple[int, ...], unit_ld: int, join: bool) -> str:
    """units: of each part's start and columns, as pointwise_source.unit has it."""
    n = range(len(units) // 2)
    parts, starts, cols = [f"p{k}" for k in n], [f"s{k}" for k in n], [f"n{k}" for k in n]
    head = f"def parts({', '.join([*parts, 'whole', 'rows', 'ld', *starts, *cols])}, ROWS: tl.constexpr, COLS: tl.constexpr):"
    lines = [f"{a} = {a} * {u}" for a, u in zip(["ld", *starts, *cols], [unit_ld, *units]) if u in (4, 8)]
    lines += ["tile = tl.program_id(0)", "down = tl.cdiv(rows, ROWS)", "e0 = 0"]
    lines += [f"e{k + 1} = e{k} + down * tl.cdiv(n{k}, COLS)" for k in n]
    for k in n:
        part, whole = f"p{k}, n{k}", f"whole + s{k}, ld"
        ends = f"{part}, {whole}" if join else f"{whole}, {part}"
        lines.append(f"if (tile >= e{k}) & (tile < e{k + 1}):")
        lines.append(f"    _move({ends}, tile - e{k}, rows, n{k}, ROWS, COLS)")
    return "\n".join([head, *("    " + line for line in lines), ""])


@functools.lru_cache(maxsize=1024)
def kernel(units: tuple[int, ...], unit_ld: int, join: bool) -> Any:
    text = source(units, unit_ld, join)
    file = f"<fastinfer parts {hashlib.sha256(text.encode()).hexdigest()[:16]}>"
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    scope: dict[str, Any] = {"tl": tl, "_move": _move, "__name__": "fastinfer.cuda.kernels.generated"}
    exec(compile(text, file, "exec"), scope)
    return triton.jit(scope["parts"])


def run(*tensors: torch.Tensor, problem: Problem, config: Config) -> None:
    """tensors: the parts, then the whole."""
    p = problem
    numbers = (*p.starts, *p.cols)
    units, unit_ld = tuple(unit(v) for v in numbers), unit(p.ld)
    tiles = triton.cdiv(p.rows, config.rows) * sum(triton.cdiv(c, config.cols) for c in p.cols)
    given = [v // u if u in (4, 8) else v for v, u in zip((p.ld, *numbers), (unit_ld, *units))]
    launch(kernel(units, unit_ld, p.join), (tiles,))(
        *(raw(t) for t in tensors), p.rows, *given, ROWS=config.rows, COLS=config.cols, num_warps=config.num_warps
    )
