# SPDX-License-Identifier: Apache-2.0
"""Convolution, channels last: y = act(conv(x, w) + bias + residual), or act(conv(x, w) + bias) + residual.

An implicit matrix product (conv_kernel.py) of [output pixels, taps · channels] and [taps · channels, output channels] with
float32 sums, one rounding at the store. Bound: matrix units where channels ≥ 128 and pixels · batch fill the chip; weights'
bytes for 7² maps at batch 1; activations' bytes for 1x1 with few channels. Three ways through memory (Mode):

dense   1x1 on the same pixels: a plain matrix product, rows contiguous
taps    k in blocks of channels within a tap: each row of a tile is one contiguous run per block, mask per row
gather  k flat over taps and channels, for few channels (the stem) and for data channels first: address per element

Variants (Config.variant): "tiled", a program per tile; "persistent", a wave of programs over all tiles; "split", one program per
tile and run of k, partial sums in float32 to the workspace and a second launch that adds them. Batch 1 and batch 32 give the
same bits: how k is cut into runs (`runs`) depends on one image only, and "tiled" adds the same runs in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
import triton

from fastinfer.cuda.kernels.conv_epilogue import Epilogue
from fastinfer.cuda.kernels.conv_geometry import Triple, Window
from fastinfer.cuda.kernels.conv_kernel import conv_kernel, conv_sum_kernel

MULTIPROCESSORS = 132  # of an H200; the autotuner knows better where it is not one
SHARED = 227 << 10
MAX_RUNS = 8
_PRECISION = {"ieee": "ieee", "tf32": "tf32", "half": "ieee"}


@dataclass(frozen=True)
class Problem:
    """dtype: of x, w, residual and y; products: as in Precision, "half" for 16-bit types. transposed: a transposed convolution
    with stride = kernel and no pads, `window` then being that of its gradient: size is y's, out is x's."""

    dtype: torch.dtype
    products: str
    batch: int
    window: Window
    groups: int
    cin: int  # per group
    cout: int  # per group
    epilogue: Epilogue = field(default_factory=Epilogue)
    x_first: bool = False
    transposed: bool = False

    @property
    def m(self) -> int:
        return self.batch * self.window.pixels

    @property
    def bands(self) -> int:
        """Sets of output columns with weights of their own: groups, or the taps of a transposed convolution."""
        return self.window.taps if self.transposed else self.groups

    @property
    def k(self) -> int:
        return self.cin if self.transposed else self.cin * self.window.taps

    @property
    def flops(self) -> float:
        return 2.0 * self.m * self.bands * self.cout * self.k

    @property
    def mode(self) -> str:
        if self.transposed:
            return "taps"
        if self.window.dense:
            return "dense"
        few = self.cin < 32 or self.cin % (16 // self.dtype.itemsize) != 0
        return "gather" if self.x_first or (few and self.window.taps > 1) else "taps"

    @property
    def wide(self) -> bool:
        """Some offset passes 31 bits."""
        size = self.window.size
        x = size[0] * size[1] * size[2] * self.cin * self.groups
        return self.batch * max(x, self.window.pixels * self.cout * self.bands) >= 2**31


@dataclass(frozen=True)
class Config:
    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int
    variant: str = "tiled"


def block_k(p: Problem) -> int:
    """One for all configurations of a problem, so that runs end at the same k. 128 bytes: one swizzled row of shared memory."""
    most = 64 if p.dtype.itemsize == 2 else 32
    length = p.k if p.mode == "gather" else p.cin
    return max(16, min(most, triton.next_power_of_2(length)))


def steps(p: Problem) -> int:
    if p.mode == "gather":
        return triton.cdiv(p.k, block_k(p))
    return (p.k // p.cin) * triton.cdiv(p.cin, block_k(p))


def runs(p: Problem) -> int:
    """Into how many runs k is cut: enough for one image to fill the chip with 64x64 tiles, at least 8 blocks each."""
    if p.transposed:
        return 1
    tiles = triton.cdiv(p.window.pixels, 64) * triton.cdiv(p.cout, 64) * p.groups
    most = min(MAX_RUNS, MULTIPROCESSORS // tiles, steps(p) // 8)
    return 1 << max(0, most.bit_length() - 1)


def weight_k(p: Problem) -> int:
    """Elements from one output channel's weights to the next's: whole blocks in "gather", else whole 16 bytes."""
    return triton.cdiv(p.k, 64) * 64 if p.mode == "gather" else triton.cdiv(p.k, 8) * 8


def lay_out_weights(w: torch.Tensor, p: Problem) -> torch.Tensor:
    """[cout, cin, spatial...] → [cout, weight_k], k = (tap, channel); transposed, [cin, cout, kh, kw] → [taps · cout, weight_k]."""
    if p.transposed:
        rows = w.reshape(w.shape[0], w.shape[1], -1).permute(2, 1, 0).reshape(-1, w.shape[0])
    else:
        rows = w.reshape(w.shape[0], w.shape[1], -1).transpose(1, 2).reshape(w.shape[0], -1)
    out = rows.new_zeros(rows.shape[0], weight_k(p))
    out[:, : rows.shape[1]] = rows
    return out


def weight_layout(p: Problem) -> str:
    return f"conv {'transposed ' if p.transposed else ''}k{weight_k(p)}"


def shared_bytes(p: Problem, c: Config) -> int:
    """Of the loads in flight; ieee float32 products have the same stages."""
    return c.stages * c.block_k * (c.block_m + c.block_n) * p.dtype.itemsize


# Rows, columns, warps, and the share of the arithmetic rate that a program of the shape may reach: wider tiles read fewer
# bytes of shared memory per product. Guesses to choose a default by; the autotuner measures.
_HALF = ((128, 256, 8, 1.0), (128, 128, 8, 0.9), (128, 64, 4, 0.75), (64, 128, 4, 0.7), (64, 64, 4, 0.55), (64, 32, 4, 0.35), (128, 32, 4, 0.45))  # fmt: skip
_GATHER = ((128, 64, 8, 0.4), (64, 64, 4, 0.4), (128, 32, 4, 0.25), (64, 32, 4, 0.25))
_IEEE = ((128, 64, 8, 1.0), (64, 64, 4, 0.9), (64, 32, 4, 0.7), (32, 32, 4, 0.5))
# Multiply-adds per second of a multiprocessor, bytes per second of memory, seconds of one more launch: of that order on Hopper.
_HALF_RATE, _TF32_RATE, _IEEE_RATE, _BYTES_RATE, _LAUNCH = 3e12, 1.5e12, 2.5e11, 4e12, 2e-6


def _ieee(p: Problem) -> bool:
    return p.products == "ieee" and p.dtype == torch.float32


def _tiles(p: Problem, bm: int, bn: int) -> int:
    return triton.cdiv(p.m, bm) * triton.cdiv(p.cout, bn) * p.bands


def _seconds(p: Problem, bm: int, bn: int, share: float, split: bool) -> float:
    """An estimate, to compare configurations of one problem by."""
    cut = runs(p) if split else 1
    rate = _IEEE_RATE if _ieee(p) else _HALF_RATE if p.dtype.itemsize == 2 else _TF32_RATE
    waves = triton.cdiv(_tiles(p, bm, bn) * cut, MULTIPROCESSORS)
    products = waves * bm * bn * (steps(p) * block_k(p) / cut) / (rate * share)
    return products + (_LAUNCH + 8 * cut * p.m * p.bands * p.cout / _BYTES_RATE if split else 0)


def _shapes(p: Problem) -> list[tuple[int, int, int, float]]:
    rows = _IEEE if _ieee(p) else _GATHER if p.mode == "gather" else _HALF
    widest = max(32, triton.next_power_of_2(p.cout))
    return [r for r in rows if r[1] <= widest]


def _stages(p: Problem, bm: int, bn: int) -> int:
    if _ieee(p):
        return 3
    each = block_k(p) * (bm + bn) * p.dtype.itemsize
    return max(2, min(4, steps(p), (SHARED - (32 << 10)) // each))


def _fits(p: Problem, c: Config) -> bool:
    """128 accumulators of a thread leave no room for the sums of runs or a residual: it would spill."""
    twice = runs(p) > 1 or p.epilogue.residual != ""
    full = c.block_m * c.block_n >= 128 * 32 * c.warps
    return shared_bytes(p, c) <= SHARED and not (full and twice and c.variant != "split")


def _candidates(p: Problem) -> list[tuple[float, Config]]:
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


def default(p: Problem) -> Config:
    return _candidates(p)[0][1]


def configs(p: Problem) -> list[Config]:
    """All give the same bits on one device: they differ in tiles, not in the order of k."""
    return [config for _, config in _candidates(p)][:24]


def workspace(p: Problem, c: Config) -> int:
    return 4 * runs(p) * p.m * p.bands * p.cout if c.variant == "split" else 0


def _triples(p: Problem) -> tuple[Triple, Triple, Triple, Triple]:
    w, one, none = p.window, (1, 1, 1), (0, 0, 0)
    return (w.kernel, one, one, none) if p.transposed else (w.kernel, w.stride, w.dilation, w.pad)


def constants(p: Problem, c: Config) -> dict[str, Any]:
    """What the kernel is compiled for."""
    kernel, stride, dilation, pad = _triples(p)
    names = ("KD", "KH", "KW", "SD", "SH", "SW", "DD", "DH", "DW", "PD", "PH", "PW")
    e = p.epilogue
    return {
        "CIN": p.cin, "COUT": p.cout, "GROUPS": p.bands, "KP": weight_k(p),
        **dict(zip(names, (*kernel, *stride, *dilation, *pad), strict=True)),
        "MODE": p.mode, "X_FIRST": p.x_first, "SCATTER": p.transposed, "WIDE": p.wide,
        "DEEP": kernel[0] > 1 or pad[0] != 0, "BIAS": e.bias, "RES": e.residual, "ACT": e.activation,
        "PRECISION": _PRECISION[p.products], "SEGMENTS": runs(p), "SPLIT": c.variant == "split",
        "BM": c.block_m, "BN": c.block_n, "BK": c.block_k,
    }  # fmt: skip


def run(
    x: torch.Tensor, w: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None,
    partial: torch.Tensor | None, y: torch.Tensor, *, problem: Problem, config: Config,
) -> None:  # fmt: skip
    """x, residual, y: dense; w: lay_out_weights'; bias: float32; partial: of workspace() bytes for "split"."""
    p, c = problem, config
    if p.m == 0:
        return
    column_tiles = triton.cdiv(p.cout, c.block_n) * p.bands
    tiles = triton.cdiv(p.m, c.block_m) * column_tiles
    per_multiprocessor = 1 if c.warps == 8 else 2
    programs = min(tiles, MULTIPROCESSORS * per_multiprocessor) if c.variant == "persistent" else tiles
    split = c.variant == "split"
    e = p.epilogue
    images = (p.window.out, p.window.out) if p.transposed else (p.window.size, p.window.out)
    sums = partial.view(torch.float32) if split and partial is not None else y
    conv_kernel[programs, runs(p) if split else 1](
        x, w, bias, residual, y, sums, e.alpha, e.beta, p.m, tiles, column_tiles, *images[0], *images[1],
        **constants(p, c), num_warps=c.warps, num_stages=c.stages,
    )  # fmt: skip
    if split:
        channels = p.bands * p.cout
        bn = min(128, triton.next_power_of_2(channels))
        conv_sum_kernel[triton.cdiv(p.m, 1024 // bn), triton.cdiv(channels, bn)](
            sums, bias, residual, y, e.alpha, e.beta, p.m, CHANNELS=channels, SEGMENTS=runs(p),
            BIAS=e.bias, RES=e.residual, ACT=e.activation, BM=1024 // bn, BN=bn, num_warps=4,
        )  # fmt: skip
