# SPDX-License-Identifier: Apache-2.0
"""Integer products and convolutions of quantised models, exactly as the CPU computes them: QConv, QMatMul, their QLinear and
Integer forms and com.microsoft's, on kernels/conv8.py where B is constant,
else on kernels/gemm8.py; depthwise convolutions on kernels/depthwise8.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from fastinfer.cuda.context import Binder, Declined, Handle, NodeContext
from fastinfer.cuda.kernels import conv8, depthwise8, gemm8, quantize_tensor
from fastinfer.cuda.kernels.conv_geometry import Window, window_of
from fastinfer.cuda.kernels.gemm_shape import MatMulShape, matmul_shape
from fastinfer.cuda.kernels.requantize import End
from fastinfer.cuda.ops.quantized_ends import (
    Ends,
    Inputs,
    b_zeros,
    columns_of,
    ends_of,
    signed_weights,
    table,
    zero_point,
)

_FUSED = Inputs(0, 3, 1, 4, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13)
_QLINEAR = Inputs(0, 3, 1, 4, 2, 5, 6, 7)
_INTEGER = Inputs(0, 1, a_zero=2, b_zero=3)


def _product(
    ctx: NodeContext, i: Inputs, problem: conv8.Problem, ends: Ends, w: Handle, x: Handle, y: Handle, name: str = "triton_conv8"
) -> None:  # fmt: skip
    tensors = list(ends.tensors)
    pad = None
    if problem.padded or problem.mode == "gather":
        zero = zero_point(ctx, i.a_zero, "x's zero point") % 256
        size = conv8.pad_bytes(problem)
        pad = ctx.constant(
            i.b, f"pad {zero} {size} {problem.dtype}",
            lambda w: torch.full((size,), zero, dtype=torch.uint8, device=w.device).view(problem.dtype),
        )  # fmt: skip
    config = ctx.choose(conv8, problem)
    room = conv8.workspace(problem, config)
    ctx.step(
        f"{name} {problem.mode} {config.block_m}x{config.block_n}x{config.block_k} {config.variant}", conv8.run,
        x, w, pad, y, ctx.scratch((room,), torch.uint8) if room else None, *tensors,
        flops=problem.flops, problem=problem, config=config, numbers=ends.numbers,
    )  # fmt: skip


def _weights(ctx: NodeContext, i: Inputs, problem: conv8.Problem, turn: bool) -> Handle:
    """turn: from [k, n]."""

    def make(w: torch.Tensor) -> torch.Tensor:
        rows = signed_weights(w)
        rows = rows.mT if turn else rows
        return conv8.lay_out_weights(rows if rows.ndim > 2 else rows.unsqueeze(-1), problem)

    return ctx.constant(i.b, f"{conv8.weight_layout(problem)} {turn}", make)


# ----------------------------------------------------------------------------------------------------------- products


def _bind_matmul(ctx: NodeContext, i: Inputs, trans_a: bool = False, trans_b: bool = False) -> None:
    a, b = ctx.desc(i.a), ctx.desc(i.b)
    a_shape, trans_a = a.shape, trans_a and len(a.shape) > 1
    if trans_a:
        a_shape = (*a_shape[:-2], a_shape[-1], a_shape[-2])
    shape = matmul_shape(a_shape, b.shape, False, trans_b)
    if shape.k == 0 or ctx.out_desc(0).elements == 0:
        raise Declined("an empty product")
    weights = ctx.is_constant(i.b) and len(b.shape) == 2
    bind = _by_weights if weights else _by_activations
    bind(ctx, i, shape, trans_b, lambda: _turned(ctx, ctx.input(i.a), a_shape, _swap) if trans_a else ctx.input(i.a))


def _by_weights(ctx: NodeContext, i: Inputs, shape: MatMulShape, trans_b: bool, a: Callable[[], Handle]) -> None:
    ends = ends_of(ctx, i, shape.n, 0 if trans_b else 1)
    problem = _dense(shape, ctx.desc(i.a).dtype, ctx.out_desc(0).dtype, ends.end)
    w = _weights(ctx, i, problem, not trans_b)
    _product(ctx, i, problem, ends, w, a(), ctx.output(0), "triton_gemm8")


def _dense(s: MatMulShape, dtype: torch.dtype, out: torch.dtype, end: End) -> conv8.Problem:
    """A product as a 1x1 convolution: a sample's rows are its pixels."""
    size = (1, 1, s.rows)
    return conv8.Problem(dtype, "int8", s.m // s.rows, Window(size, size, (1, 1, 1)), 1, s.k, s.n, out, end)


def _by_activations(ctx: NodeContext, i: Inputs, shape: MatMulShape, trans_b: bool, a: Callable[[], Handle]) -> None:
    """B comes with the data, or in a batch: zero points known, one for each operand."""
    end, numbers, bias, scales = columns_of(ctx, i, shape.n)
    zeros = set(b_zeros(ctx, i, shape.n).tolist())
    beside = next((j for j in (i.b_scale, i.b_zero, i.a_scale, i.a_zero, i.b) if j >= 0 and ctx.is_constant(j)), -1)
    if (
        end.dynamic
        or end.bias
        or len(zeros) > 1
        or len(shape.batch) > 2
        or beside < 0
        or shape.k * max(shape.m, shape.n) >= 2**31
    ):
        raise Declined(
            "an integer product of activations: zero points by column or with the data, a float bias, or three batch axes"
        )
    problem = gemm8.Problem(
        shape.m,
        shape.n,
        shape.k,
        ctx.desc(i.a).dtype,
        ctx.desc(i.b).dtype,
        ctx.out_desc(0).dtype,
        trans_b,
        shape.batch,
        end,
    )
    config = ctx.choose(gemm8, problem)
    za = zero_point(ctx, i.a_zero, "A's zero point") - (128 if problem.dtype == torch.uint8 else 0)
    ctx.step(
        f"triton_gemm8 {config.bm}x{config.bn}x{config.bk}", gemm8.run, a(), ctx.input(i.b), ctx.output(0),
        table(ctx, bias.astype(np.int32), beside), table(ctx, scales, beside),
        ctx.input(i.residual) if end.residual else None, ctx.scratch((gemm8.workspace(problem, config),), torch.uint8),
        flops=problem.flops, problem=problem, config=config, numbers=numbers, za=za, zb=zeros.pop(),
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------------- by the data


def _range_step(ctx: NodeContext, q: Handle, scale: Handle, zero: Handle) -> None:
    """Input 0 as bytes by its range."""
    x = ctx.input(0)
    problem = quantize_tensor.Problem(1, x.desc.elements, x.desc.dtype, torch.uint8)
    config = ctx.choose(quantize_tensor, problem)
    work = ctx.scratch((quantize_tensor.workspace(problem, config),), torch.uint8)
    ctx.step("triton_quantize linear", quantize_tensor.run, x, q, scale, zero, work, problem=problem, config=config)


def _bind_dynamic_quantize(ctx: NodeContext) -> None:
    scale = ctx.output(1) if ctx.wants(1) else ctx.scratch((1,), torch.float32)
    zero = ctx.output(2) if ctx.wants(2) else ctx.scratch((1,), torch.uint8)
    _range_step(ctx, ctx.output(0), scale, zero)


def _bind_dynamic_matmul(ctx: NodeContext) -> None:
    """A float, B, B's scale, B's zero point, bias."""
    i = Inputs(0, 1, b_scale=2, b_zero=3, bias=4)
    a, b = ctx.desc(0), ctx.desc(1)
    if not ctx.is_constant(1) or len(b.shape) != 2 or 0 in (*a.shape, *b.shape):
        raise Declined("B is not a constant matrix, or something is empty")
    shape = matmul_shape(a.shape, b.shape)
    scale, zero = ctx.scratch((1,), torch.float32), ctx.scratch((1,), torch.uint8)
    ends = ends_of(ctx, i, shape.n, 1, (scale, zero))
    q = ctx.scratch(a.shape, torch.uint8)
    problem = _dense(shape, torch.uint8, ctx.out_desc(0).dtype, ends.end)
    w = _weights(ctx, i, problem, True)
    _range_step(ctx, q, scale, zero)
    _product(ctx, i, problem, ends, w, q, ctx.output(0), "triton_gemm8")


def _bind_qmatmul(ctx: NodeContext) -> None:
    _bind_matmul(
        ctx,
        replace(_FUSED, bias=14, factor=ctx.attr("alpha", 1.0)),
        bool(ctx.attr("transA", 0)),
        bool(ctx.attr("transB", 0)),
    )


def _bind_qgemm(ctx: NodeContext) -> None:
    """com.microsoft's: the bias comes before y's scale."""
    i = Inputs(0, 3, 1, 4, 2, 5, 7, 8, 6, factor=ctx.attr("alpha", 1.0))
    _bind_matmul(ctx, i, bool(ctx.attr("transA", 0)), bool(ctx.attr("transB", 0)))


def _matmul(i: Inputs) -> Binder:
    return lambda ctx: _bind_matmul(ctx, i)


# ------------------------------------------------------------------------------------------------------- convolutions


def _window(ctx: NodeContext, x: tuple[int, ...], y: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
    auto = ctx.attr("auto_pad", "NOTSET") or "NOTSET"
    return window_of(x, y, kernel, ctx.attr("strides"), ctx.attr("dilations"), ctx.attr("pads"), auto)


def _last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[0], *shape[2:], shape[1]


def _bind_conv(ctx: NodeContext, i: Inputs) -> None:
    x, w, y = ctx.desc(i.a), ctx.desc(i.b), ctx.out_desc(0)
    last = bool(ctx.attr("channels_last", 0))
    if not ctx.is_constant(i.b):
        raise Declined("an integer convolution whose weights are not constant")
    if len(x.shape) > 5 or y.elements == 0 or w.elements == 0:
        raise Declined("an integer convolution over more than three axes, or empty")
    ends = ends_of(ctx, i, w.shape[0], 0)
    if ends.end.dynamic:
        raise Declined("an integer convolution whose x has scale or zero point with the data")
    groups = int(ctx.attr("group", 1))
    size, out = (x.shape, y.shape) if last else (_last(x.shape), _last(y.shape))
    problem = conv8.Problem(
        x.dtype, "int8", x.shape[0], _window(ctx, size[1:-1], out[1:-1], w.shape[2:]), groups, w.shape[1], w.shape[0] // groups,
        y.dtype, ends.end,
    )  # fmt: skip
    given, made = ctx.input(i.a), ctx.output(0)
    if not last:
        given, made = _turned(ctx, given, size, _to_last), ctx.scratch(out, y.dtype)
    if groups == w.shape[0] and problem.cin == 1 and depthwise8.supported(problem.window):
        _depthwise(ctx, i, problem, given, made)
    else:
        _product(ctx, i, problem, ends, _weights(ctx, i, problem, False), given, made)
    if not last:
        ctx.step("torch_copy", _to_first, made, ctx.output(0))


def _depthwise(ctx: NodeContext, i: Inputs, p: conv8.Problem, x: Handle, y: Handle) -> None:
    end, numbers, bias, scales = columns_of(ctx, i, p.groups)
    problem = depthwise8.Problem(p.dtype, p.out, p.batch, p.window, p.groups, end)
    zeros = b_zeros(ctx, i, p.groups) + (128 if ctx.desc(i.b).dtype == torch.uint8 else 0)
    w = ctx.constant(
        i.b, f"depthwise8 {zeros.tobytes().hex() if zeros.any() else 0}",
        lambda w: depthwise8.lay_out_weights(w, torch.from_numpy(zeros).to(w.device)),
    )  # fmt: skip
    config = ctx.choose(depthwise8, problem)
    ctx.step(
        f"triton_depthwise8 {config.rows}x{config.block_w}x{config.block_c}", depthwise8.run,
        x, w, y, table(ctx, bias.astype(np.int32), i.b), table(ctx, scales, i.b), ctx.input(i.residual) if end.residual else None,
        flops=problem.flops, problem=problem, config=config, numbers=numbers,
        x_zero=zero_point(ctx, i.a_zero, "x's zero point"),
    )  # fmt: skip


def _turned(
    ctx: NodeContext, x: Handle, shape: tuple[int, ...], copy: Callable[[torch.Tensor, torch.Tensor], None]
) -> Handle:
    turned = ctx.scratch(shape, x.desc.dtype)
    ctx.step("torch_copy", copy, x, turned)
    return turned


def _swap(x: torch.Tensor, y: torch.Tensor) -> None:
    y.copy_(x.mT)


def _to_last(x: torch.Tensor, y: torch.Tensor) -> None:
    y.copy_(x.movedim(1, -1))


def _to_first(x: torch.Tensor, y: torch.Tensor) -> None:
    y.copy_(x.movedim(-1, 1))


def _conv(i: Inputs) -> Callable[[NodeContext], None]:
    return lambda ctx: _bind_conv(ctx, i)


BINDERS: dict[tuple[str, str], Binder] = {
    ("fastinfer", "QMatMul"): _bind_qmatmul,
    ("fastinfer", "QConv"): _conv(_FUSED),
    ("", "QLinearMatMul"): _matmul(_QLINEAR),
    ("", "MatMulInteger"): _matmul(_INTEGER),
    ("", "QLinearConv"): _conv(replace(_QLINEAR, int_bias=8)),
    ("", "ConvInteger"): _conv(_INTEGER),
    ("", "DynamicQuantizeLinear"): _bind_dynamic_quantize,
    ("com.microsoft", "DynamicQuantizeMatMul"): _bind_dynamic_matmul,
    ("com.microsoft", "QLinearConv"): _conv(replace(_QLINEAR, int_bias=8)),
    ("com.microsoft", "QGemm"): _bind_qgemm,
    ("com.microsoft", "MatMulIntegerToFloat"): _matmul(Inputs(0, 1, 2, 3, 4, 5, bias=6)),
}
