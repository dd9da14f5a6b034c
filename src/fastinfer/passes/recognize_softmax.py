# SPDX-License-Identifier: Apache-2.0
"""Softmax written out."""

from __future__ import annotations

import onnx_ir as ir

from . import pattern as P
from .shape_rules import attribute_or_input


def recognize_softmax(model: ir.Model) -> bool:
    """exp(x − max(x)) / sum(exp(x − max(x))) → softmax(x)"""
    return P.rewrite(model, _rule)


def reduced_axes(node: ir.Node) -> list[int] | None:
    """The axes of a reduction that keeps its rank."""
    return attribute_or_input(node, "axes", 1) if P.attr(node, "keepdims", 1) else None


def _rule(node: ir.Node) -> bool:
    if not P.is_op(node, "Div"):
        return False
    exponential, total = P.producer(node.inputs[0], "Exp"), P.producer(node.inputs[1], "ReduceSum")
    if exponential is None or total is None or total.inputs[0] is not node.inputs[0]:
        return False
    axes = reduced_axes(total)
    if axes is None or len(axes) != 1:
        return False
    x = exponential.inputs[0]
    shifted = P.producer(x, "Sub")
    if shifted is not None:
        highest = P.producer(shifted.inputs[1], "ReduceMax")
        if highest is not None and highest.inputs[0] is shifted.inputs[0] and _same_axes(highest, axes, x):
            x = shifted.inputs[0]
    assert x is not None
    softmax = P.emit(node, "Softmax", [x], {"axis": axes[0]}, like=node.outputs[0])
    return P.replace(node.outputs[0], softmax.outputs[0])


def _same_axes(node: ir.Node, axes: list[int], x: ir.Value | None) -> bool:
    found = reduced_axes(node)
    if found == axes:
        return True
    rank = len(x.shape) if x is not None and x.shape is not None else None
    return rank is not None and found is not None and [a % rank for a in found] == [a % rank for a in axes]
