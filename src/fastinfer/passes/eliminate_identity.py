# SPDX-License-Identifier: Apache-2.0
"""Operators that return their input, and data movements that merge into one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from . import pattern as P
from .shape_rules_data import resolve_reshape
from .shapes import Shapes


def eliminate_identity(model: ir.Model) -> bool:
    """identity(x) → x; transpose(transpose(x)) → transpose(x); reshape(reshape(x)) → reshape(x)"""
    shapes = Shapes(model)

    def rule(node: ir.Node) -> bool:
        if node.domain or not node.outputs:
            return False
        x = _forwarded(shapes, node)
        if x is not None and not any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
            return P.replace(node.outputs[0], x)
        return _merge_transposes(shapes, node) or _merge_reshapes(shapes, node)

    return P.rewrite(model, rule)


def _forwarded(s: Shapes, node: ir.Node) -> ir.Value | None:
    """The input that `node` returns unchanged, if it does."""
    x = P.get(node, 0)
    if x is None:
        return None
    op = node.op_type
    if op == "Identity":
        return x
    if op == "Dropout":
        training = P.get(node, 2)
        return x if training is None or (P.constant(training) is not None and not P.constant(training).any()) else None  # type: ignore[union-attr]
    if op == "Cast":
        return x if x.dtype is not None and x.dtype == ir.DataType(P.attr(node, "to")) else None
    if op in ("Concat", "Sum", "Max", "Min", "Mean"):
        return x if len(node.inputs) == 1 else None
    if op in ("Add", "Sub", "Mul", "Div", "Pow", "And", "Or"):
        return _neutral(s, node)
    if op == "Pad":
        pads = P.ints(P.get(node, 1))
        return x if pads is not None and not any(pads) else None
    if op == "Transpose":
        perm = P.attr(node, "perm")
        return x if perm is not None and list(perm) == list(range(len(perm))) else None
    if op == "Slice":
        steps = P.ints(P.get(node, 4)) if P.get(node, 4) is not None else [1]
        return x if steps is not None and all(k == 1 for k in steps) and s.same(x, node.outputs[0]) else None
    if op in ("Reshape", "Expand", "Tile", "Flatten", "Squeeze", "Unsqueeze"):
        return x if s.same(x, node.outputs[0]) else None
    if op == "Resize":
        return x if s.same(x, node.outputs[0]) and P.get(node, 1) is None and _plain_resize(node) else None
    return None


def _plain_resize(node: ir.Node) -> bool:
    return P.attr(node, "coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize"


def _neutral(s: Shapes, node: ir.Node) -> ir.Value | None:
    neutral = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1, "Pow": 1, "And": 1, "Or": 0}[node.op_type]
    a, b = node.inputs
    pairs = [(a, b), (b, a)] if node.op_type in ("Add", "Mul", "And", "Or") else [(a, b)]
    for x, c in pairs:
        array = P.constant(c)
        if array is None or x is None or array.dtype.kind not in "fiub" or array.size > 4096 or array.size == 0:
            continue
        if np.all(array == neutral) and s.same(x, node.outputs[0]):
            return x
    return None


def _merge_transposes(s: Shapes, node: ir.Node) -> bool:
    first = P.producer(P.get(node, 0), "Transpose") if node.op_type == "Transpose" else None
    if first is None:
        return False
    rank = s.rank(node.inputs[0])
    inner, outer = P.attr(first, "perm"), P.attr(node, "perm")
    if rank is None and inner is None and outer is None:
        return False
    length = len(inner or outer or range(rank or 0))
    inner, outer = inner or range(length)[::-1], outer or range(length)[::-1]
    perm = [inner[i] for i in outer]
    x, old = first.inputs[0], node.outputs[0]
    assert x is not None
    if perm == list(range(length)):
        return P.replace(old, x)
    new = P.emit(node, "Transpose", [x], {"perm": perm}, like=old).outputs[0]
    s.alias(new, old)
    return P.replace(old, new)


_VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


def _merge_reshapes(s: Shapes, node: ir.Node) -> bool:
    """reshape(view(x), shape) → reshape(x, shape'), where shape' means the same seen from x"""
    first = P.producer(P.get(node, 0), *_VIEWS) if node.op_type == "Reshape" else None
    if first is None or first.inputs[0] is None:
        return False
    x, old = first.inputs[0], node.outputs[0]
    wanted, source, target = s.dims(old), s.dims(x), P.ints(P.get(node, 1))
    if wanted is not None and wanted == source:
        return P.replace(old, x)
    if target is None or P.attr(node, "allowzero", 0):
        return False
    if 0 in target:  # a copied extent: say it as a number, or show that it means the same from x
        if wanted is None or source is None:
            return False
        target = [w if t == 0 and isinstance(w, int) else t for t, w in zip(target, wanted)]
        if 0 in target and resolve_reshape(source, list(target), False) != wanted:
            return False
    shape = P.new_constant(node, np.array(target, np.int64), node.outputs[0].name)
    new = P.emit(node, "Reshape", [x, shape], like=old).outputs[0]
    s.alias(new, old)
    return P.replace(old, new)
