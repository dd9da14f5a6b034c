# SPDX-License-Identifier: Apache-2.0
"""What a matrix product is specialised to, its configurations, and how sums and tiles are shared out among programs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch

MULTIPROCESSORS = 132
SHARED = 227 << 10
SPLIT_UNIT = 256  # segments of k are multiples of it, and every block of k divides it


@dataclass(frozen=True)
class Problem:
    """c[z, m, n] = act(alpha·a[z]·b[z] + bias + beta·residual), see gemm_epilogue.py.

    dtype: of a and b as they are multiplied. products: "ieee", "tf32" (float32 operands), "half" (float16, bfloat16), "int8",
    "fp8" (e4m3; both with scales per row of a and per column of b). trans_a: a is [k, m]; trans_b: b is [n, k]. lda, ldb: from
    one row to the next in memory. batch: (extent, a's stride, b's stride) in elements, outermost first, at most two axes.
    rows: those of one sample, which alone may decide in which order sums are taken. residual_strides: over (z, m, n).
    any_order: m too may decide it, so that a row's last bits differ from batch to batch: more candidates."""

    m: int
    n: int
    k: int
    dtype: torch.dtype
    out: torch.dtype
    products: str
    lda: int
    ldb: int
    rows: int = 1
    trans_a: bool = False
    trans_b: bool = True
    batch: tuple[tuple[int, int, int], ...] = ()
    activation: str = ""
    bias: bool = False
    residual: str = ""
    residual_strides: tuple[int, int, int] = (0, 0, 0)
    any_order: bool = False

    @property
    def batches(self) -> int:
        return prod(extent for extent, _, _ in self.batch)

    @property
    def quantized(self) -> bool:
        return self.products in ("int8", "fp8")


@dataclass(frozen=True)
class Config:
    """variant: "tiled" (a program per tile), "persistent" (a program per multiprocessor, over tiles), "split_k" (a program per
    tile and segment of k, then a reduction), "stream_k" (gemm_stream.py). tma: operands come through tensor descriptors.
    programs: of "stream_k", how many share the tiles past the last full wave."""

    bm: int
    bn: int
    bk: int
    num_warps: int
    num_stages: int
    variant: str = "tiled"
    tma: bool = False
    group: int = 8
    programs: int = 0

    @property
    def per_thread(self) -> int:
        """Numbers of the tile that a thread holds."""
        return self.bm * self.bn // (32 * self.num_warps)

    @property
    def parts(self) -> int:
        """In how many parts a tile is finished and stored."""
        return 4 if self.per_thread > 64 and self.bn >= 128 else 1

    def __str__(self) -> str:
        return f"{self.bm}x{self.bn}x{self.bk} {self.variant}{' tma' if self.tma else ''}"


@lru_cache(maxsize=4096)
def segments(p: Problem) -> tuple[int, int]:
    """Into how many parts k is cut, and their length (0: all of k). From n, k and a sample's rows only, so that a row's sum has
    one order in every batch: enough for a lone sample to occupy the device, none below 512, since the reduction is a launch of
    its own, and in a big batch each segment drains the pipeline."""
    if p.batch or p.products == "ieee" and p.rows > 64:
        return 1, 0
    few = p.rows <= 16
    tiles = -(-p.n // 32) if few else -(-p.rows // 64) * -(-p.n // 64)
    wanted = min(MULTIPROCESSORS // max(tiles, 1), p.k // (2 * SPLIT_UNIT), 16)
    count = 1 << max(wanted, 1).bit_length() - 1
    if count == 1:
        return 1, 0
    length = -(-p.k // (count * SPLIT_UNIT)) * SPLIT_UNIT
    return -(-p.k // length), length


@dataclass(frozen=True)
class Stream:
    """How "stream_k" shares a problem: `full` tiles are computed whole, `rest` by `streams` programs, whose sums need `slots`
    tiles of workspace."""

    full: int
    rest: int
    streams: int
    slots: int


_LEAST = 512  # of k that a program takes at a time: less does not pay for a tile to the workspace and back


def stream(p: Problem, c: Config) -> Stream | None:
    """None where the variant is another, or there is nothing to share. Where there are segments they are shared, else blocks."""
    tiles = programs(p, c)
    rest = tiles % c.programs if c.variant == "stream_k" else 0
    if not rest or p.batch or p.k == 0:
        return None
    count = segments(p)[0]
    if count > 1:
        return Stream(tiles - rest, rest, min(c.programs, rest * count), rest * count)
    blocks = rest * -(-p.k // c.bk)
    streams = min(c.programs, -(-blocks * c.bk // max(_LEAST, c.bk)))
    return Stream(tiles - rest, rest, streams, streams + rest - 1)


def programs(p: Problem, c: Config) -> int:
    """Tiles of all products."""
    return -(-p.m // c.bm) * -(-p.n // c.bn) * p.batches


def workspace(p: Problem, c: Config) -> int:
    if c.variant == "split_k":
        return 4 * segments(p)[0] * p.m * p.n
    shared_tiles = stream(p, c)
    return 4 * shared_tiles.slots * c.bm * c.bn if shared_tiles else 0


def shared(p: Problem, c: Config) -> int:
    """Bytes of shared memory, at most: the stages of both operands, the tile (or part) on its way out, barriers."""
    stages = c.num_stages * (c.bm + c.bn) * c.bk * p.dtype.itemsize
    out = c.bm * c.bn // c.parts * (4 if c.variant == "split_k" else p.out.itemsize)
    return (stages + out if c.variant in ("persistent", "stream_k") else max(stages, out)) + 1024


def takes_tma(p: Problem) -> bool:
    """Rows must begin at multiples of 16 bytes, and nothing may be empty."""
    aligned = p.lda * p.dtype.itemsize % 16 == 0 and p.ldb * p.dtype.itemsize % 16 == 0
    return aligned and not p.batch and p.products != "ieee" and min(p.m, p.n, p.k) > 0
