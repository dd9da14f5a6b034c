# SPDX-License-Identifier: Apache-2.0
"""LSTM: the input's product for all steps, then the recurrence in one launch."""

from __future__ import annotations

import torch

from fastinfer.cuda.context import Binder, Declined, Handle, NodeContext
from fastinfer.cuda.kernels import gemm, rnn
from fastinfer.cuda.kernels.gemm_shape import matmul_shape


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _check(ctx: NodeContext, hidden: int) -> None:
    dtype = ctx.desc(0).dtype
    most = rnn.units(dtype, ctx.precision.products == "tf32")
    names = [_text(a).lower() for a in ctx.attr("activations") or ()]
    reasons = {
        f"{dtype}": dtype not in (torch.float32, torch.bfloat16, torch.float16),
        f"{hidden} units; at most {most}": hidden > most,
        "activations": names not in ([], ["sigmoid", "tanh", "tanh"], ["sigmoid", "tanh", "tanh"] * 2),
        "clip, input_forget or layout": any(ctx.attr(k, 0) for k in ("clip", "input_forget", "layout")),
        "lengths or peepholes": ctx.has(4) or ctx.has(7),
        "W, R or B is not constant": not all(ctx.is_constant(i) for i in (1, 2, 3) if ctx.has(i)),
    }
    if found := [why for why, holds in reasons.items() if holds]:
        raise Declined(found[0])


def bind_lstm(ctx: NodeContext) -> None:
    directions, hidden = ctx.desc(2).shape[0], ctx.desc(2).shape[2]
    _check(ctx, hidden)
    steps, batch, depth = ctx.desc(0).shape
    dtype = ctx.desc(0).dtype
    if steps * batch * depth == 0:
        raise Declined("nothing to do")
    outputs = [ctx.output(j) if ctx.wants(j) else None for j in range(3)]
    starts = [ctx.input(i) if ctx.has(i) else None for i in (5, 6)]
    tf32 = ctx.precision.products == "tf32"
    gates = _gates(ctx, directions * 4 * hidden, tf32)
    r = ctx.constant(2, "lstm_r", lambda w: w.reshape(directions, 4, hidden, hidden).mT)
    problem = rnn.Problem(steps, batch, hidden, _text(ctx.attr("direction", "forward")), dtype, tf32)
    config = ctx.choose(rnn, problem)
    ctx.step(
        f"triton_lstm {config}", rnn.run, gates, r, *starts, *outputs, problem=problem, config=config,
        flops=8.0 * steps * batch * directions * hidden * hidden,
    )  # fmt: skip


def _gates(ctx: NodeContext, n: int, tf32: bool) -> Handle:
    """X·Wᵀ + (both biases), [steps, batch, directions, 4, hidden] in float32."""
    steps, batch, depth = ctx.desc(0).shape
    dtype = ctx.desc(0).dtype
    shape = matmul_shape((steps, batch, depth), (n, depth), False, True)
    w = ctx.constant(1, "lstm_w", lambda w: w.reshape(n, depth))
    bias = None
    if ctx.has(3):
        half = n // ctx.desc(3).shape[0]
        bias = ctx.constant(3, "lstm_b", lambda b: (b[:, :half].float() + b[:, half:].float()).reshape(-1).to(b.dtype))
    gates = ctx.scratch((steps, batch, n), torch.float32)
    products = "half" if dtype != torch.float32 else "tf32" if tf32 else "ieee"
    problem = gemm.Problem(
        shape.m, n, depth, dtype, torch.float32, products, depth, depth, shape.rows, False, True, shape.batch, "",
        bias is not None, "", (0, 0, 0),
    )  # fmt: skip
    config = ctx.choose(gemm, problem)
    room = gemm.workspace(problem, config)
    work = ctx.scratch((room // 4,), torch.float32) if room else None
    ctx.step(
        f"triton_gemm {products} {config}", gemm.run, ctx.input(0), w, gates, bias, None, None, None, work,
        flops=2.0 * shape.m * n * depth, problem=problem, config=config,
        alpha=1.0, beta=1.0, act_alpha=0.0, act_beta=0.0,
    )  # fmt: skip
    return gates


BINDERS: dict[tuple[str, str], Binder] = {("", "LSTM"): bind_lstm, ("fastinfer", "LSTM"): bind_lstm}
