# SPDX-License-Identifier: Apache-2.0
"""What torch's exporter lacks: translations of operators of our own, and module parts that export in another form.

Recurrent layers are custom operators while exporting: traced through, torch would unroll them over the example's length.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor

# ------------------------------------------------------------------------------------------------- operators


@torch.library.custom_op("fastinfer::lstm", mutates_args=())
def lstm(
    x: Tensor,
    state: list[Tensor],
    weights: list[Tensor],
    biases: bool,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.lstm(x, tuple(state), weights, biases, layers, 0.0, False, bidirectional, batch_first)


@lstm.register_fake
def _lstm_shapes(x, state, weights, biases, layers, bidirectional, batch_first):
    hidden = state[0].shape[-1]
    return (
        x.new_empty(*x.shape[:-1], hidden * (1 + bidirectional)),
        torch.empty_like(state[0]),
        torch.empty_like(state[1]),
    )


@torch.library.custom_op("fastinfer::gru", mutates_args=())
def gru(
    x: Tensor, state: Tensor, weights: list[Tensor], biases: bool, layers: int, bidirectional: bool, batch_first: bool
) -> tuple[Tensor, Tensor]:
    return torch.gru(x, state, weights, biases, layers, 0.0, False, bidirectional, batch_first)


@gru.register_fake
def _gru_shapes(x, state, weights, biases, layers, bidirectional, batch_first):
    return x.new_empty(*x.shape[:-1], state.shape[-1] * (1 + bidirectional)), torch.empty_like(state)


class _TracedRnn:
    """Stands for torch._VF inside torch.nn.modules.rnn: padded lstm and gru become the operators above."""

    def __init__(self, original: Any) -> None:
        self._original = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def lstm(self, x: Tensor, second: Any, *rest: Any) -> Any:
        if isinstance(second, Tensor) or any(state.shape[-1] != second[1].shape[-1] for state in second):
            return self._original.lstm(x, second, *rest)  # packed sequences; projections
        weights, biases, layers, _, _, bidirectional, batch_first = rest
        return lstm(x, list(second), list(weights), biases, layers, bidirectional, batch_first)

    def gru(self, x: Tensor, second: Any, *rest: Any) -> Any:
        if len(rest) != 7:  # packed sequences have one argument more in front
            return self._original.gru(x, second, *rest)
        weights, biases, layers, _, _, bidirectional, batch_first = rest
        return gru(x, second, list(weights), biases, layers, bidirectional, batch_first)


# ---------------------------------------------------------------------------------------------- translations


def _translate_lstm(x, state, weights, biases, layers, bidirectional, batch_first):
    from onnxscript.function_libs.torch_lib.ops.core import aten_lstm

    return aten_lstm(x, state, weights, biases, layers, 0.0, False, bidirectional, batch_first)


def _translate_gru(x, state, weights, biases, layers, bidirectional, batch_first):
    from onnxscript.function_libs.torch_lib.ops.core import aten_gru

    return aten_gru(x, state, weights, biases, layers, 0.0, False, bidirectional, batch_first)


def _translate_all_true(x):
    from onnxscript import opset18 as op

    smallest = op.ReduceMin(op.Cast(op.Reshape(x, op.Constant(value_ints=[-1])), to=6), keepdims=0)
    return op.Cast(smallest, to=9)


def _translate_grouped_matmul(x, weight, ends):
    """Rows ends[e-1]..ends[e] of x, times weight[e], for every expert e."""
    from onnxscript import opset18 as op
    from torch.onnx._internal.exporter._torchlib.ops.hop import call_op

    experts = weight.shape[0]
    zero = op.Constant(value_ints=[0])
    ends = op.Cast(ends, to=7)
    starts = op.Concat(zero, op.Slice(ends, zero, op.Constant(value_ints=[-1]), zero), axis=0)
    parts = call_op("Split", x, op.Sub(ends, starts), axis=0, _num_outputs=experts)
    matrices = [op.Gather(weight, op.Constant(value_int=i), axis=0) for i in range(experts)]
    return op.Concat(*map(op.MatMul, parts, matrices), axis=0)


def translation_table() -> dict[Callable, Callable]:
    """torch operator → function that writes ONNX, for torch.onnx.export."""
    table: dict[Callable, Callable] = {
        torch.ops.fastinfer.lstm.default: _translate_lstm,
        torch.ops.fastinfer.gru.default: _translate_gru,
        torch.ops.aten._is_all_true.default: _translate_all_true,
    }
    if hasattr(torch.ops, "transformers") and hasattr(torch.ops.transformers, "grouped_mm_fallback"):
        table[torch.ops.transformers.grouped_mm_fallback.default] = _translate_grouped_matmul
    return table


# -------------------------------------------------------------------------------------------------- adaptations


@contextlib.contextmanager
def adapted_modules() -> Iterator[None]:
    """While exporting: recurrent layers as operators, Mamba's recurrence as a scan."""
    with contextlib.ExitStack() as stack:
        rnn = torch.nn.modules.rnn
        stack.enter_context(mock.patch.object(rnn, "_VF", _TracedRnn(rnn._VF)))
        mamba = sys.modules.get("transformers.models.mamba.modeling_mamba")
        if mamba is not None and hasattr(mamba, "mamba_selective_scan"):
            stack.enter_context(mock.patch.object(mamba, "mamba_selective_scan", _selective_scan))
        yield


def _selective_scan(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    **_: Any,
) -> Any:
    """h_t = exp(A·dt_t)·h_{t-1} + dt_t·B_t·x_t;  y_t = C_t·h_t + D·x_t;  times silu(z). (Mamba, arXiv 2312.00752.)

    hidden_states, dt, z: [batch, channels, length]; A: [channels, states]; B, C: [batch, states, length]; D: [channels].
    """
    from torch._higher_order_ops.scan import scan

    if delta_bias is not None:
        dt = dt + delta_bias.to(dt.dtype)[..., None]
    if delta_softplus:
        dt = torch.nn.functional.softplus(dt)
    steps = dt.permute(2, 0, 1)[..., None]
    decay = torch.exp(steps * A)
    added = steps * B.permute(2, 0, 1)[:, :, None, :].float() * hidden_states.permute(2, 0, 1)[..., None].float()

    def step(state: Tensor, given: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        state = given[0] * state + given[1]
        return state, state.clone()

    start = torch.zeros_like(added[0])
    last, states = scan(step, start, (decay, added))
    y = (states.to(hidden_states.dtype) * C.permute(2, 0, 1)[:, :, None, :]).sum(-1).permute(1, 2, 0)
    if D is not None:
        y = y + hidden_states * D[None, :, None]
    if z is not None:
        y = y * torch.nn.functional.silu(z)
    return (y, last) if return_last_state else y
