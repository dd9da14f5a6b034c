# SPDX-License-Identifier: Apache-2.0
"""What implicit matrix products of convolutions are cut into: blocks, runs of k, and the tiles that suit Hopper (132
multiprocessors, 227 KB of shared memory). Shared by conv.py and conv8.py."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import triton

from fastinfer.cuda.kernels.conv_geometry import Window
from fastinfer.cuda.kernels.gemm_cost import BYTES, LAUNCH, PORT

MULTIPROCESSORS = 132  # of an H200; the autotuner knows better where it is not one
SHARED = 227 << 10
MAX_RUNS = 8


@dataclass(frozen=True)
class Product:
    """dtype: of the operands as they are multiplied; products: as in Precision, "half" for 16-bit types."""

    dtype: torch.dtype
    products: str
    batch: int
    window: Window
    groups: int
    cin: int  # per group
    cout: int  # per group

    @property
    def m(self) -> int:
        return self.batch * self.window.pixels

    @property
    def bands(self) -> int:
        """Sets of output columns with weights of their own."""
        return self.groups

    @property
    def k(self) -> int:
        return self.cin * self.window.taps

    @property
    def flops(self) -> float:
        return 2.0 * self.m * self.bands * self.cout * self.k

    @property
    def mode(self) -> str:
        if self.window.dense:
            return "dense"
        return "gather" if self.few and self.window.taps > 1 else "taps"

    @property
    def few(self) -> bool:
        """Channels for which a block within a tap would be mostly empty, or not begin at what a load takes."""
        return self.cin < 32 or self.cin % (16 // self.dtype.itemsize if self.dtype.itemsize > 1 else 4) != 0

    @property
    def heavy(self) -> bool:
        """The epilogue needs registers of its own."""
        return False

    @property
    def whole(self) -> bool:
        """k is not cut into runs."""
        return False

    @property
    def wide(self) -> bool:
        """Some offset passes 31 bits."""
        size = self.window.size
        x = size[0] * size[1] * size[2] * self.cin * self.groups
        return self.batch * max(x, self.window.pixels * self.cout * self.bands) >= 2**31

    @property
    def sample(self) -> int:
        """Rows that decide in what order sums are taken: those of one image, so that its bits are the same in any batch.
        Sums of integers have none, so there it is all of them."""
        return self.m if self.products == "int8" else self.window.pixels


@dataclass(frozen=True)
class Config:
    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int
    variant: str = "tiled"


def block_k(p: Product) -> int:
    """One for all configurations of a problem, so that runs end at the same k. 128 bytes: one swizzled row of shared memory."""
    most = 32 if p.dtype.itemsize == 4 else 128 // p.dtype.itemsize
    length = p.k if p.mode == "gather" else p.cin
    return max(32 if p.dtype.itemsize == 1 else 16, min(most, triton.next_power_of_2(length)))


def steps(p: Product) -> int:
    if p.mode == "gather":
        return triton.cdiv(p.k, block_k(p))
    return (p.k // p.cin) * triton.cdiv(p.cin, block_k(p))


def runs(p: Product) -> int:
    """Into how many runs k is cut: enough for one image to fill the chip with 64x64 tiles, at least 8 blocks each."""
    if p.whole:
        return 1
    tiles = triton.cdiv(p.sample, 64) * triton.cdiv(p.cout, 64) * p.groups
    most = min(MAX_RUNS, MULTIPROCESSORS // tiles, steps(p) // 8)
    return 1 << max(0, most.bit_length() - 1)


def shared_bytes(p: Product, c: Config) -> int:
    """Of the loads in flight; ieee float32 products have the same stages."""
    return c.stages * c.block_k * (c.block_m + c.block_n) * p.dtype.itemsize


# Rows, columns, warps, and the share of the arithmetic rate that a program of the shape may reach: wider tiles read fewer
# bytes of shared memory per product. Guesses to choose a default by; the autotuner measures.
_HALF = ((128, 256, 8, 1.0), (128, 128, 8, 0.9), (128, 64, 4, 0.75), (64, 128, 4, 0.7), (64, 64, 4, 0.55), (64, 32, 4, 0.35), (128, 32, 4, 0.45))  # fmt: skip
_GATHER = ((128, 64, 8, 0.4), (64, 64, 4, 0.4), (128, 32, 4, 0.25), (64, 32, 4, 0.25))
_IEEE = ((128, 64, 8, 1.0), (64, 64, 4, 0.9), (64, 32, 4, 0.7), (32, 32, 4, 0.5))
# Multiply-adds per second of a multiprocessor, of that order on Hopper. (Bytes and launches: gemm_cost.py.)
_EIGHT_RATE, _HALF_RATE, _TF32_RATE, _IEEE_RATE = 6e12, 3e12, 1.5e12, 2.5e11


def _ieee(p: Product) -> bool:
    return p.products == "ieee" and p.dtype == torch.float32


def _tiles(p: Product, bm: int, bn: int) -> int:
    return triton.cdiv(p.m, bm) * triton.cdiv(p.cout, bn) * p.bands


def _seconds(p: Product, bm: int, bn: int, share: float, split: bool) -> float:
    """An estimate, to compare configurations of one problem by."""
    cut = runs(p) if split else 1
    rate = _IEEE_RATE if _ieee(p) else {1: _EIGHT_RATE, 2: _HALF_RATE, 4: _TF32_RATE}[p.dtype.itemsize]
    programs, depth = _tiles(p, bm, bn) * cut, steps(p) * block_k(p) / cut
    each = triton.cdiv(programs, MULTIPROCESSORS)
    products, loaded = each * bm * bn * depth / (rate * share), (bm + bn) * depth * p.dtype.itemsize
    return max(products, each * loaded / PORT) + (LAUNCH + 8 * cut * p.m * p.bands * p.cout / BYTES if split else 0)


def _shapes(p: Product) -> list[tuple[int, int, int, float]]:
    rows = _IEEE if _ieee(p) else _GATHER if p.mode == "gather" else _HALF
    widest = max(32, triton.next_power_of_2(p.cout))
    return [r for r in rows if r[1] <= widest]


def _stages(p: Product, bm: int, bn: int) -> int:
    if _ieee(p):
        return 3
    each = block_k(p) * (bm + bn) * p.dtype.itemsize
    return max(2, min(4, steps(p), (SHARED - (32 << 10)) // each))


def _fits(p: Product, c: Config) -> bool:
    """128 accumulators of a thread leave no room for the sums of runs or a residual: it would spill. Sums of fp8 are held twice
    (each block's go to float32 registers)."""
    twice = p.heavy or (runs(p) > 1 and p.products != "int8")
    full = c.block_m * c.block_n >= (128 if p.products != "fp8" else 64) * 32 * c.warps
    return shared_bytes(p, c) <= SHARED and not (full and twice and (c.variant != "split" or p.products == "fp8"))


def candidates(p: Product) -> list[tuple[float, Config]]:
    """With estimates."""
    found = []
    for bm, bn, warps, share in _shapes(p):
        stages, tiles = _stages(p, bm, bn), _tiles(p, bm, bn)
        plain = Config(bm, bn, block_k(p), warps, stages)
        seconds = _seconds(p, bm, bn, share, False)
        found.append((seconds, plain))
        if stages > 3:
            found.append((seconds * 1.01, replace(plain, stages=3)))
        if tiles > 2 * MULTIPROCESSORS:
            found.append((seconds * 1.01, replace(plain, variant="persistent")))
        if runs(p) > 1:
            found.append((_seconds(p, bm, bn, share, True), replace(plain, variant="split")))
    return sorted((f for f in found if _fits(p, f[1])), key=lambda f: f[0])
