# SPDX-License-Identifier: Apache-2.0
"""LSTM, GRU and RNN: the input's product for all steps, then the recurrence in one launch."""

from __future__ import annotations

import torch

from fastinfer.cuda.context import Binder, Declined, Handle, NodeContext
from fastinfer.cuda.kernels import gemm, rnn
from fastinfer.cuda.kernels.gemm_shape import matmul_shape

_ACTIVATIONS = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _cell(ctx: NodeContext) -> str:
    """Raises Declined."""
    op, names = ctx.node["op"], [_text(a).lower() for a in ctx.attr("activations") or ()]
    wanted = ["relu"] if op == "RNN" and names[:1] == ["relu"] else _ACTIVATIONS[op]
    if names not in ([], wanted, wanted * 2):
        raise Declined("activations")
    if op == "GRU":
        return "gru_after" if ctx.attr("linear_before_reset", 0) else "gru"
    return "lstm" if op == "LSTM" else f"rnn_{wanted[0]}"


def _check(ctx: NodeContext, hidden: int) -> None:
    dtype = ctx.desc(0).dtype
    most = rnn.units(dtype, ctx.precision.products == "tf32")
    reasons = {
        f"{dtype}": dtype not in (torch.float32, torch.bfloat16, torch.float16),
        f"{hidden} units; at most {most}": hidden > most,
        "clip, input_forget or layout": any(ctx.attr(k, 0) for k in ("clip", "input_forget", "layout")),
        "peepholes": ctx.has(7),
        "W, R or B is not constant": not all(ctx.is_constant(i) for i in (1, 2, 3) if ctx.has(i)),
    }
    if found := [why for why, holds in reasons.items() if holds]:
        raise Declined(found[0])


def bind_recurrence(ctx: NodeContext) -> None:
    """X [steps, batch, depth], W, R, B?, lengths?, initial h?, initial c? → Y, Y_h, Y_c."""
    directions, hidden = ctx.desc(2).shape[0], ctx.desc(2).shape[2]
    _check(ctx, hidden)
    cell = _cell(ctx)
    steps, batch, depth = ctx.desc(0).shape
    dtype = ctx.desc(0).dtype
    if steps * batch * depth == 0:
        raise Declined("nothing to do")
    outputs = [ctx.output(j) if ctx.wants(j) else None for j in range(3)]
    given = [ctx.input(i) if ctx.has(i) else None for i in (4, 5, 6)]
    tf32 = ctx.precision.products == "tf32"
    n_gates = rnn.GATES[cell]
    gates = _gates(ctx, cell, directions * n_gates * hidden, tf32)
    r = ctx.constant(2, f"{cell}_r", lambda w: w.reshape(directions, n_gates, hidden, hidden).mT)
    bias = None
    if cell == "gru_after" and ctx.has(3):
        bias = ctx.constant(3, "gru_after_bias", lambda b: b[:, -hidden:], torch.float32)
    problem = rnn.Problem(cell, steps, batch, hidden, _text(ctx.attr("direction", "forward")), dtype, tf32)
    config = ctx.choose(rnn, problem)
    ctx.step(
        f"triton_{ctx.node['op'].lower()} {config}", rnn.run, gates, r, bias, *given, *outputs, problem=problem,
        config=config, flops=2.0 * n_gates * steps * batch * directions * hidden * hidden,
    )  # fmt: skip


def _gates(ctx: NodeContext, cell: str, n: int, tf32: bool) -> Handle:
    """X·Wᵀ + the biases that stand beside it, [steps, batch, directions, gates, hidden] in float32."""
    steps, batch, depth = ctx.desc(0).shape
    dtype = ctx.desc(0).dtype
    shape = matmul_shape((steps, batch, depth), (n, depth), False, True)
    w = ctx.constant(1, "rnn_w", lambda w: w.reshape(n, depth))
    bias = ctx.constant(3, f"{cell}_b", lambda b: _biases(cell, b).reshape(-1), torch.float32) if ctx.has(3) else None
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


def _biases(cell: str, b: torch.Tensor) -> torch.Tensor:
    """B [directions, 2·gates·hidden] → that of the gates; gru_after's last one of the state is within the reset."""
    of_input, of_state = b.chunk(2, 1)
    if cell == "gru_after":
        of_state = of_state.clone()
        of_state[:, of_state.shape[1] // 3 * 2 :] = 0
    return of_input + of_state


BINDERS: dict[tuple[str, str], Binder] = {
    (domain, op): bind_recurrence for op in _ACTIVATIONS for domain in ("", "fastinfer")
}
