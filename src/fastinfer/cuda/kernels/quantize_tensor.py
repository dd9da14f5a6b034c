# SPDX-License-Identifier: Apache-2.0
"""Activations in 8 bits, with one scale per sample (or for the whole tensor), in two launches.

range     for each sample and chunk the smallest and largest element, zero among them (NaN counts as neither)
quantise  each program takes its sample's range from the chunks' and writes its elements:
  "scaled"   q = x · (most / max|x|), most = 127 (int8) or 448 (e4m3); scale = max|x| / most, 1 where all are 0
  "linear"   ONNX's DynamicQuantizeLinear: scale = (high − low) / 255 (1/255 where both are 0), zero = round(−low / scale),
             q = clamp(round(x / scale) + zero, 0, 255), NaN gives 0. Divisions are IEEE's: the CPU's bits.

Bound by memory: x is read twice, the second time out of the L2 where it fits (60 MB), and written at half or a quarter of its
size. Largest and smallest have no order, so a sample's bits do not depend on chunks or on its batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from fastinfer.cuda.kernels.launch import launch
from fastinfer.cuda.kernels.quantize import MOST
from fastinfer.cuda.kernels.requantize import FUSED, around

MULTIPROCESSORS = 132
MAX_CHUNKS = 1024  # of a sample: what every program of the second launch reads again


@dataclass(frozen=True)
class Problem:
    """samples: of `elements` each; dtype: of x; out: int8 or float8_e4m3fn ("scaled"), uint8 ("linear")."""

    samples: int
    elements: int
    dtype: torch.dtype
    out: torch.dtype

    @property
    def form(self) -> str:
        return "linear" if self.out == torch.uint8 else "scaled"


@dataclass(frozen=True)
class Config:
    """block: elements at a time; blocks: of a chunk."""

    block: int
    blocks: int
    num_warps: int


def chunks(p: Problem, c: Config) -> int:
    return max(1, triton.cdiv(p.elements, c.block * c.blocks))


def default(p: Problem) -> Config:
    return configs(p)[0]


def configs(p: Problem) -> list[Config]:
    """The first is the default: the largest chunks that still give each multiprocessor two."""
    block = max(256, min(2048, triton.next_power_of_2(p.elements)))
    least = triton.next_power_of_2(triton.cdiv(max(p.elements, 1), block * MAX_CHUNKS))
    found = [
        Config(block, least * n, block // 512 or 1) for n in (8, 4, 2, 1) if n == 1 or block * least * n <= p.elements
    ]
    full = [c for c in found if chunks(p, c) * p.samples >= 2 * MULTIPROCESSORS]
    return list(dict.fromkeys([*full, *reversed(found)]))


def workspace(p: Problem, c: Config) -> int:
    return 8 * p.samples * chunks(p, c)


@triton.jit
def range_kernel(x, ranges, elements, CHUNKS: tl.constexpr, BLOCK: tl.constexpr, BLOCKS: tl.constexpr):
    """ranges: float32 [2, samples, CHUNKS]: −low, high."""
    sample, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    x += sample * elements
    at = chunk * (BLOCK * BLOCKS) + tl.arange(0, BLOCK)
    low, high = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for _ in tl.range(BLOCKS):
        v = tl.load(x + at, mask=at < elements, other=0.0).to(tl.float32)
        low, high = tl.where(v < low, v, low), tl.where(v > high, v, high)
        at += BLOCK
    to = ranges + sample * CHUNKS + chunk
    tl.store(to, tl.max(-low, 0))
    tl.store(to + tl.num_programs(0) * CHUNKS, tl.max(high, 0))


@triton.jit
def quantise_kernel(
    x, q, scale, zero, ranges, elements, MOST: tl.constexpr, FORM: tl.constexpr,
    CHUNKS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """scale: float32 (or a type it is rounded to), zero: uint8 ("linear"), one for each sample. WIDTH: CHUNKS rounded up to a power of two."""
    sample, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    of = tl.arange(0, WIDTH)
    ranges += sample * CHUNKS
    low = -tl.max(tl.load(ranges + of, mask=of < CHUNKS, other=0.0), 0)
    high = tl.max(tl.load(ranges + tl.num_programs(0) * CHUNKS + of, mask=of < CHUNKS, other=0.0), 0)
    x += sample * elements
    q += sample * elements
    at = chunk * (BLOCK * BLOCKS) + tl.arange(0, BLOCK)
    if FORM == "linear":
        unit = tl.div_rn(tl.where(high == low, 1.0, high - low), 255.0)
        unit = unit.to(scale.dtype.element_ty).to(tl.float32)  # as whoever multiplies by it will read it
        point = around(tl.div_rn(-low, unit), 0.0, 255.0)
        if chunk == 0:
            tl.store(scale + sample, unit)
            tl.store(zero + sample, point.to(tl.int32).to(tl.uint8))
        for _ in tl.range(BLOCKS):
            v = tl.load(x + at, mask=at < elements, other=0.0).to(tl.float32)
            v = around(tl.div_rn(v, tl.zeros_like(v) + unit), -point, 255.0 - point) + point
            tl.store(q + at, v.to(tl.int32).to(tl.uint8), mask=at < elements)
            at += BLOCK
    else:
        most = tl.maximum(-low, high)
        some = most > 1e-30
        if chunk == 0:
            tl.store(scale + sample, tl.where(some, most * (1.0 / MOST), 1.0))
        inverse = tl.where(some, MOST / most, 1.0)
        for _ in tl.range(BLOCKS):
            v = tl.load(x + at, mask=at < elements, other=0.0).to(tl.float32) * inverse
            if q.dtype.element_ty == tl.int8:
                r = around(v, -127.0, 127.0).to(tl.int32).to(tl.int8)
            else:
                r = tl.minimum(tl.maximum(v, -448.0), 448.0).to(q.dtype.element_ty)
            tl.store(q + at, r, mask=at < elements)
            at += BLOCK


def run(
    x: torch.Tensor, q: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, work: torch.Tensor, *,
    problem: Problem, config: Config,
) -> None:  # fmt: skip
    """x, q: [samples, elements] in any shape; scale: float32 [samples]; zero: uint8 [samples] ("linear"); work: workspace() bytes."""
    p, c = problem, config
    if p.samples == 0:
        return
    count = chunks(p, c)  # along the grid's second axis, which ends at 65535
    ranges = work.view(torch.float32)
    options = {"BLOCK": c.block, "BLOCKS": c.blocks, "num_warps": c.num_warps, **FUSED}
    launch(range_kernel, (p.samples, count))(x, ranges, p.elements, CHUNKS=count, **options)
    launch(quantise_kernel, (p.samples, count))(
        x, q, scale, zero, ranges, p.elements, MOST=MOST.get(p.out, 255.0), FORM=p.form, CHUNKS=count,
        WIDTH=max(16, triton.next_power_of_2(count)), **options,
    )  # fmt: skip
