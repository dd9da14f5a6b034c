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

Why there is no Winograd here, by bytes and operations at 788 TFLOP/s, 4.3 TB/s of memory and 7.2 TB/s of the L2 (gemm_cost.py):
ResNet-50's 3x3 of 64 channels on 56², batch 32, has 7.4 GFLOP (9.4 us) on 26 MB (6 us): near both bounds at once. F(4x4) leaves
a quarter of the products, but transformed input and products are 2.25 times the maps, each written and read: 116 MB more, 27 us.
F(2x2): 4 times the maps, 205 MB, 48 us. On 7² and 512 channels the maps are small, but F(4x4) pads 7² to 8² (1.3 times the work)
and has 4 times the weights: 3 us of products, 4.4 us for 19 MB of weights, 2.6 us through the L2 and two more launches of 1.3 us,
for the 9.4 us that it replaces. U-Net's 32 channels on 256² at batch 1 are 1.5 us of products on 8.4 MB, 2 us: bound by memory
already. And in bfloat16 F(4x4) has 9 times the error (KERNELS: 2.2e-2 for 2.4e-3), F(2x2) 1.5 times. What bounds 3x3 of up to 64
channels besides is the L2: each tap loads its rows again, 9 times the map.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import triton

from fastinfer.cuda.kernels.conv_config import (
    MULTIPROCESSORS,
    SHARED,
    Config,
    Product,
    block_k,
    candidates,
    runs,
    shared_bytes,
    steps,
)
from fastinfer.cuda.kernels.conv_epilogue import Epilogue
from fastinfer.cuda.kernels.conv_geometry import Triple, Window
from fastinfer.cuda.kernels.conv_kernel import conv_kernel, conv_sum_kernel
from fastinfer.cuda.kernels.launch import launch

_PRECISION = {"ieee": "ieee", "tf32": "tf32", "half": "ieee"}

__all__ = ["SHARED", "Config", "Problem", "Window", "block_k", "configs", "default", "run", "runs", "shared_bytes", "steps", "workspace"]  # fmt: skip


@dataclass(frozen=True)
class Problem(Product):
    """dtype: also of residual and y. transposed: a transposed convolution with stride = kernel and no pads, `window` then being
    that of its gradient: size is y's, out is x's."""

    epilogue: Epilogue = field(default_factory=Epilogue)
    x_first: bool = False
    transposed: bool = False

    @property
    def bands(self) -> int:
        """Groups, or the taps of a transposed convolution."""
        return self.window.taps if self.transposed else self.groups

    @property
    def k(self) -> int:
        return self.cin if self.transposed else self.cin * self.window.taps

    @property
    def mode(self) -> str:
        if self.transposed:
            return "taps"
        return "gather" if self.x_first and not self.window.dense else super().mode

    @property
    def heavy(self) -> bool:
        return self.epilogue.residual != ""

    @property
    def whole(self) -> bool:
        return self.transposed


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


def default(p: Problem) -> Config:
    return candidates(p)[0][1]


def configs(p: Problem) -> list[Config]:
    """All give the same bits on one device: they differ in tiles, not in the order of k."""
    return [config for _, config in candidates(p)][:24]


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
    launch(conv_kernel, (programs, runs(p) if split else 1))(
        x, w, bias, residual, y, sums, e.alpha, e.beta, p.m, tiles, column_tiles, *images[0], *images[1],
        **constants(p, c), num_warps=c.warps, num_stages=c.stages,
    )  # fmt: skip
    if split:
        channels = p.bands * p.cout
        bn = min(128, triton.next_power_of_2(channels))
        launch(conv_sum_kernel, (triton.cdiv(p.m, 1024 // bn), triton.cdiv(channels, bn)))(
            sums, bias, residual, y, e.alpha, e.beta, p.m, CHANNELS=channels, SEGMENTS=runs(p),
            BIAS=e.bias, RES=e.residual, ACT=e.activation, BM=1024 // bn, BN=bn, num_warps=4,
        )  # fmt: skip
