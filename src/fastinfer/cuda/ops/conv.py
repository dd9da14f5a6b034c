# SPDX-License-Identifier: Apache-2.0
"""Convolutions, channels last."""

from __future__ import annotations

import torch

from fastinfer.cuda.context import Binder, Declined, Handle, NodeContext
from fastinfer.cuda.kernels import conv, depthwise, gemm
from fastinfer.cuda.kernels.conv_epilogue import Epilogue, epilogue_of
from fastinfer.cuda.kernels.conv_geometry import Window, window_of
from fastinfer.cuda.ops import conv8 as bind8

# Elements of a model's input up to which a stem reads it as float32: that takes half as many registers again, and half the loads
# in flight, but no step of its own. Its bits are the same.
WIDE = 1 << 20
_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def _products(ctx: NodeContext, dtype: torch.dtype) -> str:
    """Of what is not computed in 8 bits (ops/conv8.py)."""
    return "half" if dtype != torch.float32 else "tf32" if ctx.precision.products == "tf32" else "ieee"


def _check(ctx: NodeContext) -> torch.dtype:
    dtype = ctx.desc(0).dtype
    if not ctx.attr("channels_last", 0):
        raise Declined("conv: data is channels first")
    if dtype not in _FLOATS:
        raise Declined(f"conv: {dtype}")
    if any(ctx.desc(i).dtype != dtype for i in (1, 3) if ctx.has(i)) or ctx.out_desc(0).dtype != dtype:
        raise Declined("conv: operands of several types")
    if len(ctx.desc(0).shape) > 5:
        raise Declined("conv: more than three spatial axes")
    return dtype


def _window(ctx: NodeContext, x_first: bool) -> Window:
    x, w, y = ctx.desc(0).shape, ctx.desc(1).shape, ctx.out_desc(0).shape
    size = x[2:] if x_first else x[1:-1]
    return window_of(
        size, y[1:-1], w[2:], ctx.attr("strides"), ctx.attr("dilations"), ctx.attr("pads"), ctx.attr("auto_pad", "NOTSET") or "NOTSET"
    )  # fmt: skip


def _epilogue(ctx: NodeContext, residual: bool) -> Epilogue:
    try:
        return epilogue_of(ctx.attr, ctx.has(2), residual)
    except KeyError as e:
        raise Declined(f"conv: activation {e}") from None


def _bias(ctx: NodeContext) -> Handle | None:
    return ctx.constant(2, "", None, torch.float32) if ctx.has(2) else None


def bind_conv(ctx: NodeContext) -> None:
    dtype, x_first = _check(ctx), bool(ctx.attr("x_channels_first", 0))
    window, groups = _window(ctx, x_first), int(ctx.attr("group", 1))
    cout, cin = ctx.desc(1).shape[:2]
    epilogue = _epilogue(ctx, ctx.has(3))
    if ctx.has(3) and ctx.desc(3).shape != ctx.out_desc(0).shape:
        raise Declined("conv: the residual is broadcast")
    if cin == 1 and groups > 1 and not x_first and depthwise.supported(window):
        return _bind_depthwise(
            ctx, depthwise.Problem(dtype, ctx.desc(0).shape[0], window, cout, cout // groups, epilogue)
        )
    if cin == 1 and groups > 1:
        ctx.refuse("depthwise: channels first, three axes or more than 49 taps")
    if ctx.precision.products in bind8.EIGHT_BITS and dtype != torch.float32 and ctx.out_desc(0).elements:
        why = bind8.refusal(ctx, window, groups, cin, cout, x_first)
        if not why:
            return bind8.bind(ctx, window, cin, cout, epilogue, _bias(ctx))
        ctx.refuse(f"{ctx.precision.products} convolution: {why}")
    if window.dense and groups == 1 and not x_first and ctx.out_desc(0).elements:
        return _bind_dense(ctx, window, cin, cout, epilogue)
    problem = conv.Problem(
        dtype, _products(ctx, dtype), ctx.desc(0).shape[0], window, groups, cin, cout // groups, epilogue, x_first
    )
    _bind_product(ctx, problem, ctx.input(3, wide=True) if ctx.has(3) else None)


def _bind_dense(ctx: NodeContext, window: Window, cin: int, cout: int, e: Epilogue) -> None:
    """1x1 on the same pixels is the matrix product [pixels, cin]·[cin, cout]: its tiles come by the copy engine. A sample's rows
    are its pixels."""
    w, bias, x, y = (
        ctx.constant(1, "1x1", lambda t: t.reshape(cout, cin)),
        _bias(ctx),
        ctx.input(0),
        ctx.output(0, wide=True),
    )
    m = ctx.desc(0).shape[0] * window.pixels
    problem = gemm.Problem(
        m, cout, cin, x.desc.dtype, y.desc.dtype, _products(ctx, x.desc.dtype), cin, cin, window.pixels, activation=e.activation,
        bias=bias is not None, residual=e.residual, residual_strides=(m * cout, cout, 1) if e.residual else (0, 0, 0),
    )  # fmt: skip
    config = ctx.choose(gemm, problem)
    room = gemm.workspace(problem, config)
    ctx.step(
        f"triton_gemm {problem.products} {config}", gemm.run, x, w, y, bias, ctx.input(3, wide=True) if e.residual else None,
        None, None, ctx.scratch((room // 4,), torch.float32) if room else None,
        flops=2.0 * m * cout * cin, problem=problem, config=config, act_alpha=e.alpha, act_beta=e.beta,
    )  # fmt: skip


def _bind_depthwise(ctx: NodeContext, problem: depthwise.Problem) -> None:
    w, bias = ctx.constant(1, "depthwise", depthwise.lay_out_weights), _bias(ctx)
    config = ctx.choose(depthwise, problem)
    ctx.step(
        f"triton_depthwise {config.rows}x{config.block_w}x{config.block_c}", depthwise.run,
        ctx.input(0), w, bias, ctx.input(3) if ctx.has(3) else None, ctx.output(0),
        flops=problem.flops, problem=problem, config=config,
    )  # fmt: skip


def _bind_product(ctx: NodeContext, problem: conv.Problem, residual: Handle | None) -> None:
    w = ctx.constant(1, conv.weight_layout(problem), lambda t: conv.lay_out_weights(t, problem))
    bias = _bias(ctx)
    config = ctx.choose(conv, problem)
    size = conv.workspace(problem, config)
    wide = problem.mode == "gather" and ctx.desc(0).elements <= WIDE
    ctx.step(
        f"triton_conv {problem.mode} {config.block_m}x{config.block_n}x{config.block_k} {config.variant}", conv.run,
        ctx.input(0, wide=wide), w, bias, residual, ctx.scratch((size,), torch.uint8) if size else None,
        ctx.output(0, wide=True),
        flops=problem.flops, problem=problem, config=config,
    )  # fmt: skip


def bind_conv_transpose(ctx: NodeContext) -> None:
    """Kernel = stride, no pads: every output pixel has one tap, so it is one product and a scatter of its columns."""
    dtype = _check(ctx)
    x, (_, cout, *kernel), y = ctx.desc(0).shape, ctx.desc(1).shape, ctx.out_desc(0).shape
    strides = list(ctx.attr("strides") or [1] * len(kernel))
    exact = strides == kernel and [k * e for k, e in zip(kernel, x[1:-1], strict=True)] == list(y[1:-1])
    if not exact or any(ctx.attr("pads") or ()) or any(d != 1 for d in ctx.attr("dilations") or ()):
        raise Declined("conv_transpose: the kernel is not the stride, or there are pads")
    if ctx.attr("group", 1) != 1 or len(kernel) > 2:
        raise Declined("conv_transpose: groups or three axes")
    window = window_of(y[1:-1], x[1:-1], kernel, strides)
    problem = conv.Problem(
        dtype, _products(ctx, dtype), x[0], window, 1, x[-1], cout, _epilogue(ctx, False), transposed=True
    )
    _bind_product(ctx, problem, None)


BINDERS: dict[tuple[str, str], Binder] = {
    ("fastinfer", "Conv"): bind_conv,
    ("fastinfer", "ConvTranspose"): bind_conv_transpose,
}
