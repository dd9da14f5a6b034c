# SPDX-License-Identifier: Apache-2.0
"""GELU written out, by erf and by tanh (two different functions: they are up to 5e-4 apart)."""

from __future__ import annotations

import math

import onnx_ir as ir

from . import pattern as P
from .algebra import is_polynomial, one_plus, product

_TANH_LINEAR = math.sqrt(2 / math.pi)
_TANH_CUBIC = 0.044715 * _TANH_LINEAR


def recognize_gelu(model: ir.Model) -> bool:
    """0.5·x·(1 + erf(x/√2)) → gelu(x); 0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³))) → gelu(x, approximate=tanh)"""
    return P.rewrite(model, _rule)


def _rule(node: ir.Node) -> bool:
    if not P.is_op(node, "Mul", "Div") or not P.is_float(node.outputs[0]):
        return False
    found = product(node.outputs[0])
    if abs(found.number - 0.5) > 1e-4 or len(found.factors) != 2:
        return False
    for x, bracket in (found.factors, found.factors[::-1]):
        inner = one_plus(bracket)
        approximate = None if inner is None else _kind(inner, x)
        if approximate is not None:
            gelu = P.emit(node, "Gelu", [x], {"approximate": approximate}, like=node.outputs[0])
            return P.replace(node.outputs[0], gelu.outputs[0])
    return False


def _kind(inner: ir.Value, x: ir.Value) -> str | None:
    function = P.producer(inner, "Erf", "Tanh")
    if function is None or function.inputs[0] is None:
        return None
    if function.op_type == "Erf":
        return "none" if is_polynomial(function.inputs[0], x, 0.0, math.sqrt(0.5)) else None
    return "tanh" if is_polynomial(function.inputs[0], x, 0.0, _TANH_LINEAR, 0.0, _TANH_CUBIC) else None
