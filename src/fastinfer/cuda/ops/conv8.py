# SPDX-License-Identifier: Apache-2.0
"""Convolutions of float models in 8 bits (precision int8 and fp8): weights per output channel, once; activations with one scale
per sample, as they come."""

from __future__ import annotations

import torch

from fastinfer.cuda.context import Handle, NodeContext
from fastinfer.cuda.kernels import conv8, quantize_tensor
from fastinfer.cuda.kernels.conv_epilogue import Epilogue
from fastinfer.cuda.kernels.conv_geometry import Window
from fastinfer.cuda.kernels.quantize import quantize_weight
from fastinfer.cuda.kernels.requantize import scaled

EIGHT_BITS = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
# Products per input element from which on quantising pays. It reads the element twice (2 bytes each) and writes one, and saves
# one byte of the convolution's own reading: 4 bytes more, 1 ps of 4 TB/s. A product in 8 bits instead of 16 saves half of
# 2 operations at 790 TFLOP/s: 1.3 fs.
LEAST_PRODUCTS = 768


def refusal(ctx: NodeContext, window: Window, groups: int, cin: int, cout: int, x_first: bool) -> str:
    """Why a convolution stays in 16 bits; of one sample's shape alone, so that its bits do not depend on its batch."""
    if not ctx.is_constant(1):
        return "the weights are not constant"
    if groups != 1:
        return "groups: too few products for each activation"
    if x_first or cin < 16:
        return "few input channels: the first layer's pixels are read by element, and its k of tens has no sum to be fast at"
    size = window.size[0] * window.size[1] * window.size[2]
    products = window.taps * cout * window.pixels / max(size, 1)
    if products < LEAST_PRODUCTS:
        return f"{products:.0f} products for each activation: quantising it costs more than they save (under {LEAST_PRODUCTS})"
    return ""


def _weights(ctx: NodeContext, problem: conv8.Problem) -> tuple[Handle, Handle]:
    """Laid out, and float32 scales by output channel; both from float32."""

    def quantised(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        q, scale = quantize_weight(w.reshape(w.shape[0], -1), problem.dtype)
        return q.view(w.shape), scale

    name = f"{problem.products} {conv8.weight_layout(problem)}"
    w = ctx.constant(1, name, lambda w: conv8.lay_out_weights(quantised(w)[0], problem), torch.float32)
    return w, ctx.constant(1, f"{problem.products} conv8 scales", lambda w: quantised(w)[1], torch.float32)


def _activations(ctx: NodeContext, dtype: torch.dtype, name: str) -> tuple[Handle, Handle]:
    x = ctx.input(0)
    samples = x.desc.shape[0]
    problem = quantize_tensor.Problem(samples, x.desc.elements // samples, x.desc.dtype, dtype)
    config = ctx.choose(quantize_tensor, problem)
    q, scale = ctx.scratch(x.desc.shape, dtype), ctx.scratch((samples,), torch.float32)
    work = ctx.scratch((quantize_tensor.workspace(problem, config),), torch.uint8)
    ctx.step(f"triton_quantize {name}", quantize_tensor.run, x, q, scale, None, work, problem=problem, config=config)
    return q, scale


def bind(ctx: NodeContext, window: Window, cin: int, cout: int, epilogue: Epilogue, bias: Handle | None) -> None:
    """A convolution that was not refused. x: [n, spatial..., cin] in 16 bits."""
    name = ctx.precision.products
    dtype, (end, numbers) = EIGHT_BITS[name], scaled(epilogue)
    problem = conv8.Problem(dtype, name, ctx.desc(0).shape[0], window, 1, cin, cout, ctx.out_desc(0).dtype, end)
    w, w_scale = _weights(ctx, problem)
    q, scale = _activations(ctx, dtype, name)
    pad = None
    if problem.padded or problem.mode == "gather":
        size = conv8.pad_bytes(problem)
        pad = ctx.constant(
            1, f"no pad {size} {dtype}", lambda w: torch.zeros(size, dtype=dtype, device=w.device), torch.float32
        )
    config = ctx.choose(conv8, problem)
    room = conv8.workspace(problem, config)
    ctx.step(
        f"triton_conv8 {name} {problem.mode} {config.block_m}x{config.block_n}x{config.block_k} {config.variant}", conv8.run,
        q, w, pad, ctx.output(0), ctx.scratch((room,), torch.uint8) if room else None, None, w_scale, None, None, scale, None,
        bias, ctx.input(3) if epilogue.residual else None,
        flops=problem.flops, problem=problem, config=config, numbers=numbers,
    )  # fmt: skip
