# SPDX-License-Identifier: Apache-2.0
"""Matrix products with their epilogues: MatMul, Gemm and their fused form, all on kernels/gemm.py."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastinfer.cuda.context import Binder, Declined, Handle, NodeContext
from fastinfer.cuda.kernels import gemm, quantize
from fastinfer.cuda.kernels.gemm_epilogue import ACTIVATIONS
from fastinfer.cuda.kernels.gemm_shape import MatMulShape, matmul_shape
from fastinfer.cuda.precision import Precision

_EIGHT_BITS = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


@dataclass(frozen=True)
class Form:
    """What the operators differ in. Inputs 0 and 1 are A and B; bias, addend and residual are inputs, or -1."""

    trans_a: bool = False
    trans_b: bool = False
    alpha: float = 1.0
    beta: float = 1.0
    activation: str = ""
    act: tuple[float, float] = (0.0, 0.0)
    bias: int = -1  # [n]
    addend: int = -1  # broadcasts to [m, n], times beta: Gemm's C
    residual: int = -1  # Y's shape
    residual_after: bool = False


@dataclass(frozen=True)
class _Operands:
    """Of one product, in gemm.run's order but for c and work."""

    a: Handle
    b: Handle
    bias: Handle | None
    residual: Handle | None
    strides: tuple[int, int, int]
    a_scale: Handle | None = None
    b_scale: Handle | None = None


def bind_matmul(ctx: NodeContext) -> None:
    _bind(ctx, Form())


def bind_gemm(ctx: NodeContext) -> None:
    if len(ctx.desc(0).shape) != 2 or len(ctx.desc(1).shape) != 2:
        raise Declined("Gemm of what are no matrices")
    _bind(ctx, Form(bool(ctx.attr("transA", 0)), bool(ctx.attr("transB", 0)), ctx.attr("alpha", 1.0), ctx.attr("beta", 1.0),
                    addend=2))  # fmt: skip


def bind_fastinfer_matmul(ctx: NodeContext) -> None:
    name = ctx.attr("activation", "")
    if name not in ACTIVATIONS:
        raise Declined(f"activation '{name}'")
    alpha, beta = ACTIVATIONS[name]
    _bind(ctx, Form(
        bool(ctx.attr("transA", 0)), bool(ctx.attr("transB", 0)), ctx.attr("alpha", 1.0), 1.0, name,
        (ctx.attr("activation_alpha", alpha), ctx.attr("activation_beta", beta)), bias=2, residual=3,
        residual_after=bool(ctx.attr("residual_after", 0)),
    ))  # fmt: skip


def _bind(ctx: NodeContext, form: Form) -> None:
    a, b = ctx.desc(0), ctx.desc(1)
    if a.dtype not in (torch.float32, torch.float16, torch.bfloat16) or a.dtype != b.dtype:
        raise Declined(f"products of {a.dtype} and {b.dtype}")
    shape = matmul_shape(a.shape, b.shape, form.trans_a, form.trans_b)
    if len(shape.batch) > 2:
        raise Declined(f"batch axes of {a.shape} and {b.shape} that come to {len(shape.batch)}")
    bias, residual, strides = _addends(ctx, form, shape)
    c = ctx.output(0, wide=True)
    if c.desc.elements == 0:
        return
    eight = _eight_bits(ctx, form, shape)
    if eight:
        trans_a, trans_b = False, True
        operands = _quantized(ctx, form, shape, eight, bias, residual, strides)
    else:
        trans_a = form.trans_a and len(a.shape) > 1
        b_handle, trans_b = _weights(ctx, form)
        operands = _Operands(ctx.input(0), b_handle, bias, residual, strides)
    products = products_of(ctx.precision, a.dtype) if eight is None else ctx.precision.products
    m, n, k = shape.m, shape.n, shape.k
    problem = gemm.Problem(
        m, n, k, eight or a.dtype, c.desc.dtype, products, m if trans_a else k, k if trans_b else n, shape.rows,
        trans_a, trans_b, shape.batch, form.activation, bias is not None,
        "" if residual is None else "after" if form.residual_after else "before", strides,
    )  # fmt: skip
    _launch(ctx, form, shape, problem, operands, c)


def _launch(ctx: NodeContext, form: Form, shape: MatMulShape, problem: gemm.Problem, o: _Operands, c: Handle) -> None:
    config = ctx.choose(gemm, problem)
    room = gemm.workspace(problem, config)
    work = None
    if room:
        work = ctx.scratch((room // 4,), torch.int32 if problem.products == "int8" else torch.float32)
    ctx.step(
        f"triton_gemm {problem.products} {config}", gemm.run, o.a, o.b, c, o.bias, o.residual, o.a_scale, o.b_scale, work,
        flops=2.0 * shape.batches * shape.m * shape.n * shape.k, problem=problem, config=config,
        alpha=float(form.alpha), beta=float(form.beta), act_alpha=float(form.act[0]), act_beta=float(form.act[1]),
    )  # fmt: skip


def products_of(precision: Precision, dtype: torch.dtype) -> str:
    """Of operands as they are stored."""
    if dtype != torch.float32:
        return "half"
    return "tf32" if precision.products == "tf32" else "ieee"


def _weights(ctx: NodeContext, form: Form) -> tuple[Handle, bool]:
    """B, and whether it is [n, k]: constants always are, since 8-bit and tf32 products need k contiguous, and a row of it is
    what a tile copies."""
    vector = len(ctx.desc(1).shape) == 1
    if vector or form.trans_b or not ctx.is_constant(1):
        return ctx.input(1), vector or form.trans_b
    return ctx.constant(1, "gemm_nk", lambda w: w.mT), True


def _eight_bits(ctx: NodeContext, form: Form, shape: MatMulShape) -> torch.dtype | None:
    """What to multiply in, if it is 8 bits."""
    eight = _EIGHT_BITS.get(ctx.precision.products)
    if eight is None:
        return None
    why = ""
    if not ctx.is_constant(1):
        why = "B is not constant"
    elif form.trans_a and len(ctx.desc(0).shape) > 1:
        why = "A is transposed"
    elif shape.batch or shape.k == 0:
        why = "B is a batch of matrices" if shape.batch else "k is 0"
    if why:
        ctx.refuse(f"{ctx.precision.products} product: {why}")
        return None
    return eight


def _quantized(
    ctx: NodeContext, form: Form, shape: MatMulShape, dtype: torch.dtype, bias: Handle | None, residual: Handle | None,
    strides: tuple[int, int, int],
) -> _Operands:  # fmt: skip
    """A in 8 bits by rows as it comes, B by columns once per program, from float32."""
    name, swap = ctx.precision.products, not (form.trans_b or len(ctx.desc(1).shape) == 1)

    def rows(w: torch.Tensor) -> torch.Tensor:
        return (w.mT if swap else w).reshape(shape.n, shape.k)

    b = ctx.constant(1, f"gemm_{name}{swap}", lambda w: quantize.quantize_weight(rows(w), dtype)[0], torch.float32)
    b_scale = ctx.constant(
        1, f"gemm_{name}_scale{swap}", lambda w: quantize.quantize_weight(rows(w), dtype)[1], torch.float32
    )
    x = ctx.input(0)
    a, a_scale = ctx.scratch((shape.m, shape.k), dtype), ctx.scratch((shape.m,), torch.float32)
    problem = quantize.Problem(shape.m, shape.k, x.desc.dtype, dtype)
    ctx.step(
        f"triton_quantize {name}", quantize.run, x, a, a_scale, problem=problem, config=ctx.choose(quantize, problem)
    )
    return _Operands(a, b, bias, residual, strides, a_scale, b_scale)


def _addends(ctx: NodeContext, form: Form, s: MatMulShape) -> tuple[Handle | None, Handle | None, tuple[int, int, int]]:
    """Bias, residual and the residual's strides over (batch, m, n)."""
    bias, residual, strides = None, None, (0, 0, 0)
    if form.bias >= 0 and ctx.has(form.bias):
        given = ctx.desc(form.bias)
        if given.elements != s.n or not given.shape or given.shape[-1] != s.n:
            raise Declined(f"a bias of shape {given.shape} for {s.n} columns")
        bias = ctx.input(form.bias)
    if form.residual >= 0 and ctx.has(form.residual):
        if ctx.desc(form.residual).shape != ctx.out_desc(0).shape:
            raise Declined(f"a residual of shape {ctx.desc(form.residual).shape} for {ctx.out_desc(0).shape}")
        residual, strides = ctx.input(form.residual, wide=True), (s.m * s.n, s.n, 1)
    if form.addend >= 0 and ctx.has(form.addend) and form.beta != 0:
        shape = (1, 1, *ctx.desc(form.addend).shape)[-2:]
        if len(ctx.desc(form.addend).shape) > 2 or shape[0] not in (1, s.m) or shape[1] not in (1, s.n):
            raise Declined(f"C of shape {ctx.desc(form.addend).shape} for {(s.m, s.n)}")
        c = ctx.input(form.addend)
        if shape == (1, s.n) and form.beta == 1:
            bias = c
        else:
            residual, strides = c, (0, shape[1] if shape[0] > 1 else 0, 1 if shape[1] > 1 else 0)
    return bias, residual, strides


BINDERS: dict[tuple[str, str], Binder] = {
    ("", "MatMul"): bind_matmul,
    ("", "Gemm"): bind_gemm,
    ("fastinfer", "MatMul"): bind_fastinfer_matmul,
}
