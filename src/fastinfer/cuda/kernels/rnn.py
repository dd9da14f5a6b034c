# SPDX-License-Identifier: Apache-2.0
"""The recurrence of an LSTM, a GRU or an RNN of few units, all steps in one launch.

Bound: latency. A program keeps 16 sequences' states in registers from the first step to the last, so a step costs four, three or
one products [16, H]·[H, H] whose matrices stay in the L2 and L1 caches, and no launch. The input's part of the gates, for all steps
at once, is a matrix product before (kernels/gemm.py). Sequences do not meet: results do not depend on the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from fastinfer.cuda.kernels import device as _device
from fastinfer.cuda.kernels.launch import launch
from fastinfer.cuda.kernels.pointwise_math import NAMES

_INTERPRETED: tl.constexpr = tl.constexpr(_device.INTERPRET)
_sigmoid, _tanh, _most = NAMES["_sigmoid"], NAMES["_tanh"], NAMES["_most"]
SEQUENCES = 16  # of a program: the fewest rows that tensor cores take
# Gates of a cell, in ONNX's order: i o f c; z r h; h. gru_after: the reset gate comes after the product (linear_before_reset).
GATES = {"lstm": 4, "gru": 3, "gru_after": 3, "rnn_tanh": 1, "rnn_relu": 1}


@dataclass(frozen=True)
class Problem:
    """cell: of GATES; direction: "forward", "reverse" or "bidirectional"; dtype: of R and the results; tf32: products of float32
    in tf32."""

    cell: str
    steps: int
    batch: int
    hidden: int
    direction: str
    dtype: torch.dtype
    tf32: bool

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1


@dataclass(frozen=True)
class Config:
    num_warps: int

    def __str__(self) -> str:
        return f"{self.num_warps}w"


def units(dtype: torch.dtype, tf32: bool) -> int:
    """At most so many: a matrix passes through registers on its way to a product. ptxas spills above, and with 4 warps; exact
    float32 products are no work for tensor cores and spill at 128."""
    return 64 if dtype == torch.float32 and not tf32 else 128


def configs(problem: Problem) -> list[Config]:
    return [Config(8)] if problem.dtype == torch.float32 else [Config(8), Config(16)]


def default(problem: Problem) -> Config:
    return Config(8)


def workspace(problem: Problem, config: Config) -> int:
    return 0


@triton.jit
def _product(r, h, g: tl.constexpr, H: tl.constexpr, HP: tl.constexpr, PRECISION: tl.constexpr):
    """h·r[g], r [.., H (of h), H]."""
    k, u = tl.arange(0, HP)[:, None], tl.arange(0, HP)[None, :]
    matrix = tl.load(r + (g * H * H + k * H + u), mask=(k < H) & (u < H), other=0)
    state = h.to(matrix.dtype)
    if _INTERPRETED:  # numpy has no bfloat16: the product would be that of the bits
        state, matrix = state.to(tl.float32), matrix.to(tl.float32)
    return tl.dot(state, matrix, input_precision=PRECISION)


@triton.jit
def _gate(gates, r, h, g: tl.constexpr, inside, H: tl.constexpr, HP: tl.constexpr, PRECISION: tl.constexpr):
    """gates[g] + h·r[g]."""
    return _product(r, h, g, H, HP, PRECISION) + tl.load(gates + g * H, mask=inside, other=0)


@triton.jit
def _cell(
    gates, r, bias, h, c, inside, CELL: tl.constexpr, BIAS: tl.constexpr, H: tl.constexpr, HP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The states after one step. gates: where the step's lie; bias: gru_after's within the reset."""
    if CELL == "lstm":
        i = _sigmoid(_gate(gates, r, h, 0, inside, H, HP, PRECISION))
        o = _sigmoid(_gate(gates, r, h, 1, inside, H, HP, PRECISION))
        f = _sigmoid(_gate(gates, r, h, 2, inside, H, HP, PRECISION))
        c = f * c + i * _tanh(_gate(gates, r, h, 3, inside, H, HP, PRECISION))
        h = o * _tanh(c)
    elif CELL == "rnn_tanh":
        h = _tanh(_gate(gates, r, h, 0, inside, H, HP, PRECISION))
    elif CELL == "rnn_relu":
        h = _most(_gate(gates, r, h, 0, inside, H, HP, PRECISION), 0.0)
    else:
        reset = _sigmoid(_gate(gates, r, h, 1, inside, H, HP, PRECISION))
        if CELL == "gru_after":
            state = _product(r, h, 2, H, HP, PRECISION)
            if BIAS:
                u = tl.arange(0, HP)[None, :]
                state += tl.load(bias + u, mask=u < H, other=0)
            new = tl.load(gates + 2 * H, mask=inside, other=0) + reset * state
        else:
            new = _gate(gates, r, reset * h, 2, inside, H, HP, PRECISION)
        new = _tanh(new)
        z = _sigmoid(_gate(gates, r, h, 0, inside, H, HP, PRECISION))  # last: fewer values live at once
        h = (1.0 - z) * new + z * h
    return h, c


@triton.jit
def _recurrence(
    gates, r, bias, lengths, h0, c0, y, y_h, y_c, steps, batch, CELL: tl.constexpr, GATES: tl.constexpr,
    REVERSE: tl.constexpr, D: tl.constexpr, H: tl.constexpr, HP: tl.constexpr, BT: tl.constexpr, BIAS: tl.constexpr,
    LENGTHS: tl.constexpr, START_H: tl.constexpr, START_C: tl.constexpr, Y: tl.constexpr, Y_H: tl.constexpr,
    Y_C: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """gates [steps, batch, D, GATES, H] and bias [D, H] float32; r [D, GATES, H, H]; lengths [batch]; states [D, batch, H];
    y [steps, D, batch, H], 0 behind a sequence's end."""
    d = tl.program_id(1)
    b = (tl.program_id(0) * BT + tl.arange(0, BT))[:, None]
    u = tl.arange(0, HP)[None, :]
    inside = (b < batch) & (u < H)
    state = (d * batch + b) * H + u
    h = tl.zeros((BT, HP), tl.float32)
    c = tl.zeros((BT, HP), tl.float32)
    if START_H:
        h = tl.load(h0 + state, mask=inside, other=0).to(tl.float32)
    if START_C:
        c = tl.load(c0 + state, mask=inside, other=0).to(tl.float32)
    length = tl.zeros((BT, 1), tl.int32) + steps
    if LENGTHS:
        length = tl.load(lengths + b, mask=b < batch, other=0)
    r += d * GATES * H * H
    for s in range(0, steps):
        t = s
        if REVERSE == 1:
            t = steps - 1 - s
        if REVERSE == 2:
            t = s + d * (steps - 1 - 2 * s)
        at = ((tl.cast(t, tl.int64) * batch + b) * D + d) * GATES * H + u
        new_h, new_c = _cell(gates + at, r, bias + d * H, h, c, inside, CELL, BIAS, H, HP, PRECISION)
        if LENGTHS:  # a sequence's states wait behind its end; backwards, until it begins
            h, c = tl.where(t < length, new_h, h), tl.where(t < length, new_c, c)
            new_h = tl.where(t < length, new_h, 0.0)
        else:
            h, c = new_h, new_c
        if Y:
            place = ((tl.cast(t, tl.int64) * D + d) * batch + b) * H + u
            tl.store(y + place, new_h.to(y.dtype.element_ty), mask=inside)
    if Y_H:
        tl.store(y_h + state, h.to(y_h.dtype.element_ty), mask=inside)
    if Y_C:
        tl.store(y_c + state, c.to(y_c.dtype.element_ty), mask=inside)


def run(
    gates: torch.Tensor, r: torch.Tensor, bias: torch.Tensor | None, lengths: torch.Tensor | None, h0: torch.Tensor | None,
    c0: torch.Tensor | None, y: torch.Tensor | None, y_h: torch.Tensor | None, y_c: torch.Tensor | None, problem: Problem,
    config: Config,
) -> None:  # fmt: skip
    p = problem
    some = [gates if t is None else t for t in (bias, lengths, h0, c0, y, y_h, y_c)]  # pointers that are not followed
    launch(_recurrence, (triton.cdiv(p.batch, SEQUENCES), p.directions))(
        gates, r, *some, p.steps, p.batch, CELL=p.cell, GATES=GATES[p.cell],
        REVERSE={"forward": 0, "reverse": 1}.get(p.direction, 2), D=p.directions, H=p.hidden,
        HP=max(triton.next_power_of_2(p.hidden), 16), BT=SEQUENCES, BIAS=bias is not None, LENGTHS=lengths is not None,
        START_H=h0 is not None, START_C=c0 is not None, Y=y is not None, Y_H=y_h is not None, Y_C=y_c is not None,
        PRECISION="tf32" if p.tf32 else "ieee", num_warps=config.num_warps, num_stages=1,
    )  # fmt: skip
