# SPDX-License-Identifier: Apache-2.0
"""For precision="bf16" only: which products may be taken of operands rounded to bfloat16."""

from __future__ import annotations

import onnx_ir as ir

from . import pattern as P
from .shapes import Shapes


def allow_bf16(model: ir.Model) -> bool:
    """conv(x, w), matmul(x, w), lstm(x, w, r) with constant weights, attention(q, k, v) → the same with precision=bf16: sums
    stay float32"""
    shapes = Shapes(model)
    return P.rewrite(model, lambda node: _rule(shapes, node))


def _rule(s: Shapes, node: ir.Node) -> bool:
    if P.is_op(node, "MatMul"):
        return _plain_matmul(s, node)
    if P.is_op(node, "LSTM", "GRU", "RNN"):
        return _recurrent(node)
    if P.is_op(node, "Attention", domain=P.DOMAIN):
        return _permit(node)
    if not P.is_op(node, "MatMul", "Conv", "ConvTranspose", domain=P.DOMAIN):
        return False
    return P.is_constant(P.get(node, 1)) and P.is_float(node.inputs[1]) and _permit(node)


def _permit(node: ir.Node) -> bool:
    if P.attr(node, "precision") is not None:
        return False
    node.attributes["precision"] = ir.AttrString("precision", "bf16")
    return True


def _recurrent(node: ir.Node) -> bool:
    if not all(P.is_constant(v) and P.is_float(v) for v in node.inputs[1:3]):
        return False
    node.domain = P.DOMAIN
    node.attributes["precision"] = ir.AttrString("precision", "bf16")
    return True


def _plain_matmul(s: Shapes, node: ir.Node) -> bool:
    a, b = node.inputs
    if not P.is_constant(b) or not P.is_float(b) or s.rank(b) != 2 or a is None or not s.rank(a):
        return False
    y = node.outputs[0]
    fused = P.emit(node, "MatMul", [a, b], {"precision": "bf16"}, domain=P.DOMAIN, like=y).outputs[0]
    s.alias(fused, y)
    return P.replace(y, fused)
