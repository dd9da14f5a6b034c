# SPDX-License-Identifier: Apache-2.0
"""Convolutions and products with constant weights in 8 bits, channels last: u8 or s8 activations by s8 weights with exact int32
sums, or e4m3 by e4m3 with float32 sums (conv8_kernel.py); how they end is said in requantize.py.

Modes and variants are conv.py's. A product [m, k]·[k, n] is a 1x1 convolution of m pixels ("dense"). Bound: the matrix units at
twice the rate of 16-bit types where channels ≥ 256; else the bytes of activations, of which there are half as many. An unsigned
left operand costs a trip through registers (64 bytes of each thread per block of 128x128x128: about a tenth of the block's
matrix instructions' time, under which it runs).

Integer sums have no order, so any tile, variant and batch gives the same bits. Sums of e4m3 are taken in runs of k as in conv.py.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, field
from typing import Any

import torch
import triton

from fastinfer.cuda.kernels.conv8_kernel import conv8_kernel, conv8_sum_kernel
from fastinfer.cuda.kernels.conv_config import (
    MULTIPROCESSORS,
    Config,
    Product,
    block_k,
    candidates,
    runs,
)
from fastinfer.cuda.kernels.launch import launch
from fastinfer.cuda.kernels.requantize import FUSED, End, Numbers

__all__ = [
    "Config",
    "Problem",
    "block_k",
    "configs",
    "default",
    "lay_out_weights",
    "pad_bytes",
    "run",
    "weight_layout",
    "workspace",
]


@dataclass(frozen=True)
class Problem(Product):
    """dtype: of x (uint8, int8, float8_e4m3fn); products: "int8" or "fp8"; out: of y."""

    out: torch.dtype = torch.uint8
    end: End = field(default_factory=End)

    @property
    def heavy(self) -> bool:
        return True

    @property
    def whole(self) -> bool:
        return self.end.row_sums

    @property
    def padded(self) -> bool:
        """Some tap may lie outside the image."""
        w = self.window
        axes = zip(w.size, w.out, w.kernel, w.stride, w.dilation, w.pad, strict=True)
        return any(p > 0 or (o - 1) * s - p + (k - 1) * d >= size for size, o, k, s, d, p in axes)


def default(p: Problem) -> Config:
    return candidates(p)[0][1]


def configs(p: Problem) -> list[Config]:
    return [config for _, config in candidates(p)][:24]


def workspace(p: Problem, c: Config) -> int:
    return 4 * runs(p) * p.m * p.groups * p.cout if c.variant == "split" else 0


def pad_bytes(p: Problem) -> int:
    """Of the row that taps outside the image read."""
    return triton.cdiv(p.cin, block_k(p)) * block_k(p)


def lay_out_weights(w: torch.Tensor, p: Problem) -> torch.Tensor:
    """[cout, cin, spatial...] → [cout, whole blocks of (tap, channel)], zeros in what a block has too many."""
    rows = w.reshape(w.shape[0], w.shape[1], -1).transpose(1, 2)
    if p.mode == "gather":
        rows = rows.reshape(rows.shape[0], 1, -1)
    wide = torch.zeros(
        *rows.shape[:2], triton.cdiv(rows.shape[2], block_k(p)) * block_k(p), dtype=torch.uint8, device=w.device
    )
    wide[:, :, : rows.shape[2]] = rows.contiguous().view(torch.uint8)
    return wide.view(w.dtype).reshape(w.shape[0], -1)


def weight_layout(p: Problem) -> str:
    return f"conv8 {'flat ' if p.mode == 'gather' else ''}{block_k(p)}"


def constants(p: Problem, c: Config) -> dict[str, Any]:
    """What the kernel is compiled for."""
    w, e = p.window, p.end
    names = ("KD", "KH", "KW", "SD", "SH", "SW", "DD", "DH", "DW", "PD", "PH", "PW")
    return {
        "CIN": p.cin, "COUT": p.cout, "GROUPS": p.groups,
        **dict(zip(names, (*w.kernel, *w.stride, *w.dilation, *w.pad), strict=True)),
        "MODE": p.mode, "PADDED": p.padded, "WIDE": p.wide, "DEEP": w.kernel[0] > 1 or w.pad[0] != 0,
        "PRODUCTS": p.products, "ROW_SUMS": e.row_sums, "SEGMENTS": segments(p, c), "SPLIT": c.variant == "split",
        **ends(p), "BM": c.block_m, "BN": c.block_n, "BK": c.block_k,
    }  # fmt: skip


def ends(p: Problem) -> dict[str, Any]:
    e = p.end
    return {"FORM": e.form, "BIAS": e.bias, "RES": e.residual, "ACT": e.activation, "DYNAMIC": e.dynamic, "FLIP": p.dtype == torch.uint8}  # fmt: skip


def segments(p: Problem, c: Config) -> int:
    """Runs of k: integers need none unless it is split."""
    return runs(p) if c.variant == "split" or p.products != "int8" else 1


def run(
    x: torch.Tensor, w: torch.Tensor, pad: torch.Tensor | None, y: torch.Tensor, partial: torch.Tensor | None,
    start: torch.Tensor | None, scale: torch.Tensor | None, sums: torch.Tensor | None, zeros: torch.Tensor | None,
    a_scale: torch.Tensor | None, a_zero: torch.Tensor | None, bias: torch.Tensor | None, residual: torch.Tensor | None, *,
    problem: Problem, config: Config, numbers: Numbers,
) -> None:  # fmt: skip
    """x, residual, y: dense; w: lay_out_weights'; pad: pad_bytes() of x's zero point; partial: of workspace() bytes for "split".

    Exact ends: start int32 [n] (bias − za·sums, or bias where dynamic), scale float32 [n], sums int32 [n] (over k of w − zb) where
    dynamic, zeros int32 [n] (zb) with row_sums, za and zb as the bytes are multiplied: 128 less than those of u8. a_scale, a_zero:
    of one element. Scaled ends: scale float32 [n], a_scale float32 [batch]."""
    p, c = problem, config
    if p.m == 0:
        return
    column_tiles = triton.cdiv(p.cout, c.block_n) * p.groups
    tiles = triton.cdiv(p.m, c.block_m) * column_tiles
    per_multiprocessor = 1 if c.warps == 8 else 2
    programs = min(tiles, MULTIPROCESSORS * per_multiprocessor) if c.variant == "persistent" else tiles
    split = c.variant == "split"
    sums_to = (
        partial.view(torch.int32 if p.products == "int8" else torch.float32) if split and partial is not None else y
    )
    values = (start, scale, sums, zeros, a_scale, a_zero, bias, residual, *astuple(numbers))
    launch(conv8_kernel, (programs, runs(p) if split else 1))(
        x, w, x if pad is None else pad, y, sums_to, *values, p.m, tiles, column_tiles, *p.window.size, *p.window.out,
        **constants(p, c), num_warps=c.warps, num_stages=c.stages, **FUSED,
    )  # fmt: skip
    if split:
        channels = p.groups * p.cout
        bn = min(128, triton.next_power_of_2(channels))
        launch(conv8_sum_kernel, (triton.cdiv(p.m, 1024 // bn), triton.cdiv(channels, bn)))(
            sums_to, y, *values, p.m, p.window.pixels, CHANNELS=channels, SEGMENTS=runs(p), PRODUCTS=p.products, **ends(p),
            BM=1024 // bn, BN=bn, num_warps=4, **FUSED,
        )  # fmt: skip
