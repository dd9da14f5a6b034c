# SPDX-License-Identifier: Apache-2.0
"""Activations written out: sigmoid, SiLU / QuickGELU, hard sigmoid and swish, softplus, mish, ReLU."""

from __future__ import annotations

import onnx_ir as ir

from . import pattern as P
from .algebra import clip_bounds, is_polynomial, linear, one_plus, polynomial, product


def recognize_activations(model: ir.Model) -> bool:
    """x·sigmoid(a·x) → swish(x, a); x·tanh(softplus(x)) → mish(x); clip(x + 3, 0, 6)/6 → hard_sigmoid(x); ..."""
    return P.rewrite(model, _rule)


def _rule(node: ir.Node) -> bool:
    if node.domain or not node.outputs or not P.is_float(node.outputs[0]):
        return False
    rules = _RULES.get(node.op_type, ())
    return any(rule(node) for rule in rules)


def _become(node: ir.Node, op_type: str, x: ir.Value, **attributes: float) -> bool:
    new = P.emit(node, op_type, [x], attributes, like=node.outputs[0])
    return P.replace(node.outputs[0], new.outputs[0])


def _sigmoid(node: ir.Node) -> bool:
    """1 / (1 + exp(−x)) → sigmoid(x)"""
    if node.op_type == "Reciprocal":
        below = node.inputs[0]
    elif P.is_scalar(node.inputs[0], 1.0):
        below = node.inputs[1]
    else:
        return False
    exponential = P.producer(one_plus(below), "Exp")  # type: ignore[arg-type]
    negated = P.producer(exponential.inputs[0], "Neg") if exponential is not None else None
    return negated is not None and _become(node, "Sigmoid", negated.inputs[0])  # type: ignore[arg-type]


def _gated(node: ir.Node) -> bool:
    """x·sigmoid(a·x), x·tanh(softplus(x)), x·hard_sigmoid(x)"""
    found = product(node.outputs[0])
    if len(found.factors) != 2:
        return False
    for x, gate in (found.factors, found.factors[::-1]):
        function = gate.producer()
        if function is None or function.domain or not function.inputs or function.inputs[0] is None:
            continue
        inner = function.inputs[0]
        if _hard_swish(node, x, function, found.number):
            return True
        if abs(found.number - 1.0) > 1e-6:
            continue
        if function.op_type == "Sigmoid":
            slope = polynomial(inner, x)
            if slope is not None and len(slope) == 2 and slope[0] == 0.0:
                return _become(node, "Swish", x, alpha=slope[1])
        if function.op_type == "Tanh":
            softplus = P.producer(inner, "Softplus")
            if softplus is not None and softplus.inputs[0] is x:
                return _become(node, "Mish", x)
    return False


def _hard_swish(node: ir.Node, x: ir.Value, function: ir.Node, number: float) -> bool:
    """x·clip(x + 3, 0, 6)/6 → hard_swish(x)"""
    if function.op_type == "HardSigmoid" and function.inputs[0] is x:
        alpha, beta = P.attr(function, "alpha", 0.2), P.attr(function, "beta", 0.5)
        if abs(alpha - 1 / 6) < 1e-6 and abs(beta - 0.5) < 1e-6 and abs(number - 1) < 1e-6:
            return _become(node, "HardSwish", x)
        return False
    bounds = clip_bounds(function)
    if bounds is None or abs(number - 1 / 6) > 1e-6 or bounds[1:] != (0.0, 6.0):
        return False
    return is_polynomial(bounds[0], x, 3.0, 1.0) and _become(node, "HardSwish", x)


def _hard_sigmoid(node: ir.Node) -> bool:
    """clip(a·x + b, 0, c)/c → hard_sigmoid(x, a/c, b/c)"""
    found = product(node.outputs[0])
    bounds = clip_bounds(found.factors[0].producer()) if len(found.factors) == 1 else None
    if bounds is None or bounds[1] != 0.0 or abs(bounds[2] * found.number - 1.0) > 1e-6:
        return False
    x = _variable(bounds[0])
    line = linear(bounds[0], x)
    if line is None or line[0] == 0.0 or x is bounds[0]:
        return False
    return _become(node, "HardSigmoid", x, alpha=line[0] * found.number, beta=line[1] * found.number)


def _variable(value: ir.Value) -> ir.Value:
    """What a·x + b is a function of."""
    while P.is_op(value.producer(), "Add", "Sub", "Mul", "Div"):
        numbers = [v for v in value.producer().inputs if P.scalar(v) is None]  # type: ignore[union-attr]
        if len(numbers) != 1 or numbers[0] is None:
            break
        value = numbers[0]
    return value


def _softplus(node: ir.Node) -> bool:
    """log(1 + exp(x)) → softplus(x)"""
    inner = one_plus(node.inputs[0])  # type: ignore[arg-type]
    exponential = P.producer(inner, "Exp")
    return exponential is not None and _become(node, "Softplus", exponential.inputs[0])  # type: ignore[arg-type]


def _guarded_softplus(node: ir.Node) -> bool:
    """where(x > t, x, softplus(x)) → softplus(x) for t ≥ 15, where both are the same float"""
    condition, x, other = node.inputs
    softplus, comparison = P.producer(other, "Softplus"), P.producer(condition, "Greater")
    if softplus is None or comparison is None or softplus.inputs[0] is not x or comparison.inputs[0] is not x:
        return False
    threshold = P.scalar(comparison.inputs[1])
    return threshold is not None and threshold >= 15.0 and _become(node, "Softplus", x)  # type: ignore[arg-type]


def _relu(node: ir.Node) -> bool:
    """max(x, 0) → relu(x); clip(x, 0, ∞) → relu(x)"""
    if node.op_type == "Clip":
        bounds = clip_bounds(node)
        return bounds is not None and bounds[1] == 0.0 and bounds[2] >= 3.4e38 and _become(node, "Relu", bounds[0])
    if len(node.inputs) != 2:
        return False
    for x, zero in P.commuted(node):
        array = P.constant(zero)
        enlarges = array is None or array.ndim > 1 or not x.shape
        if P.is_scalar(zero, 0.0, 0.0) and not enlarges:
            return _become(node, "Relu", x)
    return False


_RULES = {
    "Mul": (_gated, _hard_sigmoid),
    "Div": (_sigmoid, _gated, _hard_sigmoid),
    "Clip": (_relu, _hard_sigmoid),
    "Reciprocal": (_sigmoid,),
    "Log": (_softplus,),
    "Where": (_guarded_softplus,),
    "Max": (_relu,),
}
