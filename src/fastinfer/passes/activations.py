# SPDX-License-Identifier: Apache-2.0
"""Activation nodes as the attributes of fused operators, and the chain add-activation behind a linear operator."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from . import pattern as P
from .algebra import clip_bounds
from .shapes import Shapes

_PLAIN = {
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "HardSwish": "hard_swish",
    "Softplus": "softplus",
    "Mish": "mish",
}


@dataclass
class Activation:
    name: str
    alpha: float | None = None
    beta: float | None = None


def activation_of(node: ir.Node | None) -> Activation | None:
    """The node as an activation of its first input."""
    if node is None or node.domain or not node.inputs:
        return None
    op = node.op_type
    if op in _PLAIN:
        return Activation(_PLAIN[op])
    if op in ("Relu", "Clip"):
        bounds = clip_bounds(node)
        if bounds is None:
            return None
        low, high = bounds[1], bounds[2]
        return Activation("relu") if low == 0.0 and high >= 3.4e38 else Activation("clip", low, high)
    if op == "LeakyRelu":
        return Activation("leaky_relu", P.attr(node, "alpha", 0.01))
    if op == "PRelu":
        slope = P.scalar(node.inputs[1])
        return None if slope is None else Activation("leaky_relu", slope)
    if op == "Elu":
        return Activation("elu", P.attr(node, "alpha", 1.0))
    if op == "HardSigmoid":
        return Activation("hard_sigmoid", P.attr(node, "alpha", 0.2), P.attr(node, "beta", 0.5))
    if op == "Gelu":
        return Activation("gelu_tanh" if P.attr(node, "approximate", "none") == "tanh" else "gelu")
    if op == "Swish":
        alpha = P.attr(node, "alpha", 1.0)
        return Activation("silu") if alpha == 1.0 else Activation("quick_gelu", alpha)
    return None


@dataclass
class Epilogue:
    """What follows a linear operator: y → act(y + R), or act(y) + R."""

    out: ir.Value
    activation: Activation | None = None
    residual: ir.Value | None = None
    residual_after: int = 0

    def attributes(self) -> dict[str, object]:
        out: dict[str, object] = {}
        if self.activation is not None:
            out = {
                "activation": self.activation.name,
                "activation_alpha": self.activation.alpha,
                "activation_beta": self.activation.beta,
            }
        if self.residual_after:
            out["residual_after"] = 1
        return {k: v for k, v in out.items() if v is not None}


def follow(s: Shapes, value: ir.Value, residuals: bool = True) -> Epilogue:
    """The longest add-activation chain on `value` that nothing else reads in between."""
    found = Epilogue(value)
    while (reader := P.only_use(found.out)) is not None and reader.graph is value.graph:
        if found.activation is None and (activation := activation_of(reader)) is not None:
            if reader.inputs[0] is not found.out or not s.same(found.out, reader.outputs[0]):
                break
            found.activation = activation
        elif residuals and found.residual is None and P.is_op(reader, "Add"):
            other = next(b for a, b in P.commuted(reader) if a is found.out)
            if not s.same(other, found.out) or not P.is_float(other):
                break
            found.residual, found.residual_after = other, int(found.activation is not None)
        else:
            break
        found.out = reader.outputs[0]
    return found
