# SPDX-License-Identifier: Apache-2.0
"""Pointwise programs: any straight-line expression over broadcast operands in one pass over memory.

Bound: bytes (each input read once, each output written once) as long as the arithmetic stays under about 50 instructions an
element on an H200 (132 SMs x 128 lanes x 1.7 GHz over 4.3 TB/s, float32 in and out). So: 16-byte loads of contiguous operands,
several independent loads in flight, index arithmetic once per row instead of once per element, float32 inside, one rounding
at the store. An operand that is the same along the columns is read once per row.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import triton

from fastinfer.cuda.kernels import pointwise_source as S
from fastinfer.cuda.kernels.launch import launch
from fastinfer.cuda.kernels.pointwise_source import Program
from fastinfer.cuda.kernels.pointwise_walk import Walk

COPY = Program(("i",), ("copy",), (0, -1, -1), (0,))
CAST = Program(("f",), ("copy",), (0, -1, -1), (0,))
_RAW = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# What rounds to whole numbers must get the CPU's bits: no product and sum become one operation (requantize.FUSED).
ROUNDS = frozenset(("quantize", "round", "floor", "ceil"))
BYTES = {torch.uint8: (0.0, 255.0), torch.int8: (-128.0, 127.0)}
HALVES = {t: torch.finfo(t).max for t in (torch.float16, torch.bfloat16)}


@dataclass(frozen=True)
class Problem:
    """dtypes: of the tensors, inputs that are not scalars, then outputs; walk: over the same. bounded: finite results beyond a
    half's range become its largest number (else they become infinite); 8-bit types always saturate."""

    program: Program
    walk: Walk
    dtypes: tuple[torch.dtype, ...]
    bounded: bool = False

    @functools.cached_property
    def form(self) -> S.Form:
        outputs = self.dtypes[len(self.dtypes) - len(self.program.outputs) :]
        kinds = self.program.output_kinds()
        limits = {**BYTES, **(HALVES if self.bounded else {})}
        return S.form_of(self.walk, tuple(limits.get(t) if k == "f" else None for t, k in zip(outputs, kinds)))


@dataclass(frozen=True)
class Config:
    """block: elements per program (a power of two)."""

    block: int
    num_warps: int

    def __str__(self) -> str:
        return f"{self.block}/{self.num_warps}"


def _lanes(problem: Problem) -> int:
    """Elements of a 16-byte access of the narrowest operand."""
    return 16 // min(t.itemsize for t in problem.dtypes)


def configs(problem: Problem) -> list[Config]:
    """Elements per thread from one 16-byte access to four."""
    smallest = 128 * min(_lanes(problem), 8)
    most = 4096 if len(problem.dtypes) <= 4 else 2048
    found = [
        Config(block, warps)
        for warps in (4, 8)
        for block in (smallest // 2, smallest, 2 * smallest, 4 * smallest)
        if 32 * warps <= block <= most
    ]
    return [default(problem), *(c for c in found if c != default(problem))]


def default(problem: Problem) -> Config:
    """One 16-byte access per thread and operand; less where that would leave SMs of an H200 without work."""
    lanes = min(max(_lanes(problem), 4), 8)
    block = 128 * lanes
    while block > 256 and problem.walk.elements < 2 * 132 * block:
        block //= 2
    return Config(block, block // (32 * lanes))


def workspace(problem: Problem, config: Config) -> int:
    return 0


def tile(problem: Problem, config: Config) -> tuple[int, int]:
    """(rows, columns) of a program's block."""
    cols = min(triton.next_power_of_2(problem.walk.extents[-1]), config.block)
    return config.block // cols, cols


def run(*tensors: torch.Tensor, problem: Problem, config: Config, scalars: tuple[float, ...] = ()) -> None:
    """tensors: inputs that are not scalars, then outputs, all walked as problem.walk says; scalars: in the inputs' order."""
    walk, form = problem.walk, problem.form
    if walk.elements == 0:
        return
    if len(walk.extents) == 1:
        grid, shape = triton.cdiv(walk.elements, config.block), {"BLOCK": config.block}
    else:
        rows, cols = tile(problem, config)
        inner = walk.extents[-1]
        grid = triton.cdiv(walk.elements // inner, rows) * triton.cdiv(inner, cols)
        shape = {"ROWS": rows, "COLS": cols}
    kernel = S.kernel(problem.program, form)
    launch(kernel, (grid,))(*tensors, *scalars, *S.numbers(walk, form), **shape, **options(problem, config))


def options(problem: Problem, config: Config) -> dict[str, Any]:
    """Of the compiler."""
    return {"num_warps": config.num_warps, "enable_fp_fusion": ROUNDS.isdisjoint(problem.program.ops)}


def raw(t: torch.Tensor) -> torch.Tensor:
    """Its bits as integers."""
    return t.view(_RAW[t.dtype.itemsize])


def copy_problem(walk: Walk, itemsize: int) -> Problem:
    """Elements of 1, 2, 4 or 8 bytes from one place (walk's operand 0) to another (1)."""
    return Problem(COPY, walk, (_RAW[itemsize],) * 2)


def cast_problem(walk: Walk, source: torch.dtype, target: torch.dtype) -> Problem:
    """Float numbers from one place (walk's operand 0) to another (1)."""
    return Problem(CAST, walk, (source, target), bounded=True)


def copy(x: torch.Tensor, y: torch.Tensor, problem: Problem, config: Config) -> None:
    run(raw(x), raw(y), problem=problem, config=config)
