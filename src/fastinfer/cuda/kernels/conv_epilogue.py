# SPDX-License-Identifier: Apache-2.0
"""The end of a convolution, act(y + bias + residual) or act(y + bias) + residual, in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl

# Names as in csrc/ops/activation.h, with the defaults of activation_alpha and activation_beta.
ACTIVATIONS: dict[str, tuple[float, float]] = {
    "": (0, 0), "relu": (0, 0), "clip": (-float("inf"), float("inf")), "leaky_relu": (0.01, 0), "sigmoid": (0, 0),
    "tanh": (0, 0), "silu": (0, 0), "gelu": (0, 0), "gelu_tanh": (0, 0), "hard_swish": (0, 0), "hard_sigmoid": (0.2, 0.5),
    "elu": (1, 0), "softplus": (0, 0), "mish": (0, 0), "quick_gelu": (1.702, 0),
}  # fmt: skip


@dataclass(frozen=True)
class Epilogue:
    """residual: "" (none), "before" the activation or "after" it."""

    bias: bool = False
    residual: str = ""
    activation: str = ""
    alpha: float = 0.0
    beta: float = 0.0


def epilogue_of(attr: Callable[[str, Any], Any], bias: bool, residual: bool) -> Epilogue:
    """From a fused node's attributes. Raises KeyError for an activation that is not in the table."""
    name = attr("activation", "")
    alpha, beta = ACTIVATIONS[name]
    where = ("after" if attr("residual_after", 0) else "before") if residual else ""
    return Epilogue(bias, where, name, float(attr("activation_alpha", alpha)), float(attr("activation_beta", beta)))


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _tanh(x):
    e = tl.exp(-2.0 * tl.abs(x))
    t = (1.0 - e) / (1.0 + e)
    return tl.where(x < 0, -t, t)


@triton.jit
def activate(x, alpha, beta, ACT: tl.constexpr):
    """ACT of float32 x. NaN stays NaN: comparisons choose the constants, never x."""
    if ACT == "relu":
        x = tl.where(x < 0, 0.0, x)
    elif ACT == "clip":
        x = tl.where(x < alpha, alpha, x)
        x = tl.where(x > beta, beta, x)
    elif ACT == "leaky_relu":
        x = tl.where(x < 0, x * alpha, x)
    elif ACT == "sigmoid":
        x = _sigmoid(x)
    elif ACT == "tanh":
        x = _tanh(x)
    elif ACT == "silu":
        x = x * _sigmoid(x)
    elif ACT == "gelu":
        x = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif ACT == "gelu_tanh":
        x = 0.5 * x * (1.0 + _tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))
    elif ACT == "hard_swish":
        gate = x * 0.16666666666666666 + 0.5
        gate = tl.where(gate < 0, 0.0, gate)
        x = x * tl.where(gate > 1, 1.0, gate)
    elif ACT == "hard_sigmoid":
        x = x * alpha + beta
        x = tl.where(x < 0, 0.0, x)
        x = tl.where(x > 1, 1.0, x)
    elif ACT == "elu":
        x = tl.where(x < 0, alpha * (tl.exp(x) - 1.0), x)
    elif ACT == "softplus":
        x = tl.where(x > 0, x, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(x)))
    elif ACT == "mish":
        # tanh(log(1 + e)) = (e² + 2e) / (e² + 2e + 2); beyond 20 it is 1 in float32
        e = tl.exp(tl.where(x > 20, 20.0, x))
        e = e * (e + 2.0)
        x = x * (e / (e + 2.0))
    elif ACT == "quick_gelu":
        x = x * _sigmoid(alpha * x)
    else:
        tl.static_assert(ACT == "", "unknown activation")
    return x


@triton.jit
def finish(acc, b_ptr, r_ptr, columns, offsets, mask, alpha, beta, BIAS: tl.constexpr, RES: tl.constexpr, ACT: tl.constexpr):  # fmt: skip
    """acc: float32 [rows, columns]; columns: indices into the bias (in range wherever mask holds in some row); offsets, mask:
    of the residual's elements."""
    if BIAS:
        acc += tl.load(b_ptr + columns).to(tl.float32)[None, :]
    if RES == "before":
        acc += tl.load(r_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    acc = activate(acc, alpha, beta, ACT)
    if RES == "after":
        acc += tl.load(r_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    return acc
