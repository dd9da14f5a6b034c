# SPDX-License-Identifier: Apache-2.0
"""LSTM, GRU and RNN with all of ONNX's attributes: a loop over time, gates and states in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastinfer.cuda.torch_ops.call import HALF, Call, TorchOp
from fastinfer.cuda.torch_ops.elementwise import hard_sigmoid, softplus
from fastinfer.cuda.torch_ops.matmul import matched
from fastinfer.errors import UnsupportedError

Fn = Callable[[Tensor], Tensor]
# name: (how many of alpha, beta it has, their defaults, fn(x, alpha, beta))
_FUNCTIONS: dict[str, tuple[int, float, float, Callable[[Tensor, float, float], Tensor]]] = {
    "sigmoid": (0, 0, 0, lambda x, a, b: torch.sigmoid(x)),
    "tanh": (0, 0, 0, lambda x, a, b: torch.tanh(x)),
    "relu": (0, 0, 0, lambda x, a, b: torch.relu(x)),
    "leakyrelu": (1, 0.01, 0, lambda x, a, b: torch.where(x < 0, a * x, x)),
    "thresholdedrelu": (1, 1, 0, lambda x, a, b: torch.where(x > a, x, torch.zeros_like(x))),
    "scaledtanh": (2, 1, 1, lambda x, a, b: a * torch.tanh(b * x)),
    "hardsigmoid": (2, 0.2, 0.5, lambda x, a, b: hard_sigmoid(x, a, b)),
    "elu": (1, 1, 0, lambda x, a, b: torch.where(x < 0, a * torch.expm1(x), x)),
    "softsign": (0, 0, 0, lambda x, a, b: F.softsign(x)),
    "softplus": (0, 0, 0, lambda x, a, b: softplus(x)),
    "affine": (2, 1, 0, lambda x, a, b: a * x + b),
}


def _activations(call: Call, count: int, defaults: list[str]) -> list[Fn]:
    """Each function that has a parameter takes the next of its list."""
    alphas, betas = iter(call.attr("activation_alpha") or ()), iter(call.attr("activation_beta") or ())
    made: list[Fn] = []
    for name in call.attr("activations") or defaults * count:
        if name.lower() not in _FUNCTIONS:
            raise UnsupportedError(f"activation '{name}'")
        n, a, b, fn = _FUNCTIONS[name.lower()]
        alpha = next(alphas, a) if n > 0 else a
        beta = next(betas, b) if n > 1 else b
        made.append(lambda x, fn=fn, alpha=alpha, beta=beta: fn(x, alpha, beta))  # type: ignore[misc]
    return made


@dataclass
class _Direction:
    """One direction's weights: w [G·H,I], r [G·H,H], bias of input and of state [G·H], peephole [3·H]."""

    w: Tensor
    r: Tensor
    wb: Tensor
    rb: Tensor
    peephole: Tensor | None
    fns: list[Fn]
    clip: float

    def bounded(self, x: Tensor) -> Tensor:
        return x.clamp(-self.clip, self.clip) if self.clip else x

    def of_state(self, h: Tensor) -> Tensor:
        a, b = matched(h, self.r)
        y = a @ b.T
        return y.float() if y.dtype in HALF else y


def _lstm_step(d: _Direction, gates: Tensor, h: Tensor, c: Tensor | None, call: Call) -> tuple[Tensor, Tensor | None]:
    assert c is not None
    i, o, f, g = (gates + d.of_state(h) + d.rb).chunk(4, -1)
    p_i, p_o, p_f = (0, 0, 0) if d.peephole is None else d.peephole.chunk(3)
    i = d.fns[0](d.bounded(i + p_i * c))
    f = 1 - i if call.attr("input_forget", 0) else d.fns[0](d.bounded(f + p_f * c))
    c = f * c + i * d.fns[1](d.bounded(g))
    return d.fns[0](d.bounded(o + p_o * c)) * d.fns[2](c), c


def _gru_step(d: _Direction, gates: Tensor, h: Tensor, c: Tensor | None, call: Call) -> tuple[Tensor, Tensor | None]:
    n = h.shape[-1]
    if call.attr("linear_before_reset", 0):
        state = d.of_state(h) + d.rb
        z, r = d.fns[0](d.bounded(gates[:, : 2 * n] + state[:, : 2 * n])).chunk(2, -1)
        new = gates[:, 2 * n :] + r * state[:, 2 * n :]
    else:
        whole = _Direction(d.w, d.r[: 2 * n], d.wb, d.rb, None, d.fns, d.clip)
        z, r = d.fns[0](d.bounded(gates[:, : 2 * n] + whole.of_state(h) + d.rb[: 2 * n])).chunk(2, -1)
        whole.r = d.r[2 * n :]
        new = gates[:, 2 * n :] + whole.of_state(r * h) + d.rb[2 * n :]
    new = d.fns[1](d.bounded(new))
    return (1 - z) * new + z * h, None


def _rnn_step(d: _Direction, gates: Tensor, h: Tensor, c: Tensor | None, call: Call) -> tuple[Tensor, Tensor | None]:
    return d.fns[0](d.bounded(gates + d.of_state(h) + d.rb)), None


_STEPS = {"LSTM": (_lstm_step, 4, ["Sigmoid", "Tanh", "Tanh"]), "GRU": (_gru_step, 3, ["Sigmoid", "Tanh"]),
          "RNN": (_rnn_step, 1, ["Tanh"])}  # fmt: skip


def _reversed(x: Tensor, lengths: Tensor | None) -> Tensor:
    """[T,B,…] backwards: each sequence within its length."""
    if lengths is None:
        return x.flip(0)
    t = torch.arange(x.shape[0], device=x.device)[:, None]
    at = torch.where(t < lengths, lengths - 1 - t, t)
    return x.gather(0, at[..., None].expand(x.shape))


def _one_direction(
    call: Call, d: _Direction, x: Tensor, h: Tensor, c: Tensor | None, lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Y [T,B,H], and the states after each sequence's last step. Beyond it Y is 0."""
    step = _STEPS[call.node["op"]][0]
    a, b = matched(x, d.w)
    gates = a @ b.T
    gates = (gates.float() if gates.dtype in HALF else gates) + d.wb
    rows = []
    for t in range(x.shape[0]):
        new_h, new_c = step(d, gates[t], h, c, call)
        if lengths is None:
            h, c = new_h, new_c
            rows.append(h)
            continue
        alive = (t < lengths)[:, None]
        h = torch.where(alive, new_h, h)
        c = None if new_c is None or c is None else torch.where(alive, new_c, c)
        rows.append(torch.where(alive, new_h, torch.zeros_like(new_h)))
    return torch.stack(rows) if rows else gates.new_zeros(0, *h.shape), h, c


def _recurrent(call: Call) -> list[Tensor | None]:
    """X [T,B,I] (layout 0), W, R, B, sequence_lens, initial_h, initial_c, P → Y [T,D,B,H], Y_h, Y_c [D,B,H]."""
    _, gates, defaults = _STEPS[call.node["op"]]
    first = bool(call.attr("layout", 0))
    x = call.x(0).transpose(0, 1) if first else call.x(0)
    w, r = call.x(1), call.x(2)
    count, hidden, batch = w.shape[0], r.shape[2], x.shape[1]
    fns, per = _activations(call, count, defaults), len(defaults)
    wide = torch.float32 if x.dtype in HALF else x.dtype
    lengths = call.x(4).to(torch.int64) if call.has(4) else None
    direction = call.attr("direction", "forward")
    if (lengths is None) is False and x.shape[0] == 0:
        lengths = None

    def state(i: int, k: int) -> Tensor:
        if not call.has(i):
            return torch.zeros(batch, hidden, dtype=wide, device=x.device)
        given = call.wide(i)
        return given[:, k] if first else given[k]

    ys, hs, cs = [], [], []
    for k in range(count):
        bias = call.wide(3)[k] if call.has(3) else torch.zeros(2 * gates * hidden, dtype=wide, device=x.device)
        peephole = call.wide(7)[k] if call.has(7) else None
        half = gates * hidden
        d = _Direction(
            w[k], r[k], bias[:half], bias[half:], peephole, fns[k * per : (k + 1) * per], call.attr("clip", 0.0) or 0.0
        )
        backwards = direction == "reverse" or k == 1
        c = state(6, k) if call.node["op"] == "LSTM" else None
        y, h, c = _one_direction(call, d, _reversed(x, lengths) if backwards else x, state(5, k), c, lengths)
        ys.append(_reversed(y, lengths) if backwards else y)
        hs.append(h)
        cs.append(c)
    kept, axis = call.x(0).dtype, 1 if first else 0
    y = torch.stack(ys, 1).to(kept)  # [T,D,B,H]
    outputs: list[Tensor | None] = [y.permute(2, 0, 1, 3) if first else y, torch.stack(hs, axis).to(kept)]
    if cs[0] is not None:
        outputs.append(torch.stack([c for c in cs if c is not None], axis).to(kept))
    return outputs


EXACT: dict[str, TorchOp] = {"LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent}
