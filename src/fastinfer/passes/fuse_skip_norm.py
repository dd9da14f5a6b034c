# SPDX-License-Identifier: Apache-2.0
"""Residual sums in front of a norm."""

from __future__ import annotations

import onnx_ir as ir

from . import pattern as P
from .shapes import Shapes


def fuse_skip_norm(model: ir.Model) -> bool:
    """layer_norm(x + r) → fastinfer.SkipLayerNorm(x, r), with the sum as second output where it is read elsewhere"""
    shapes = Shapes(model)
    return P.rewrite(model, lambda node: _rule(shapes, node))


def _rule(s: Shapes, node: ir.Node) -> bool:
    if not P.is_op(node, "LayerNormalization", "RMSNormalization") or len(node.outputs) != 1:
        return False
    x = node.inputs[0]
    rank, total = s.rank(x), P.producer(x, "Add")
    if total is None or x is None or rank is None or P.attr(node, "axis", -1) not in (-1, rank - 1):
        return False
    if not P.is_float(x) or total.graph is not node.graph:
        return False
    a, b = total.inputs
    if a is None or b is None or not s.same(a, b):
        return False
    extra = None
    for value, other in P.commuted(total):  # x + bias + r
        inner = P.producer(value, "Add")
        if inner is not None and P.used_once(value):
            for inside, bias in P.commuted(inner):
                if s.same(inside, x) and s.static(bias) == (s.dims(x) or (None,))[-1:] and extra is None:
                    a, b, extra = inside, other, bias
    layer = node.op_type == "LayerNormalization"
    scale, bias_input = node.inputs[1], P.get(node, 2)
    if s.dims(scale) != (s.dims(x) or ())[-1:]:
        return False
    inputs = [a, b, scale, bias_input, extra] if layer else [a, b, scale, extra]
    wanted = not P.used_once(x)
    # Placed where the sum was: everything it reads is there, and so are all readers of the sum behind it.
    place = total if _available(inputs, total) else node
    if place is node and wanted:
        return False
    fused = P.emit(
        place, "SkipLayerNorm" if layer else "SkipRMSNorm", inputs, {"epsilon": P.attr(node, "epsilon", 1e-5)},
        domain=P.DOMAIN, like=node.outputs[0], outputs=2 if wanted else 1,
    )  # fmt: skip
    s.alias(fused.outputs[0], node.outputs[0])
    if wanted:
        fused.outputs[1].type, fused.outputs[1].shape = x.type, x.shape
        s.alias(fused.outputs[1], x)
        old = x
        P.replace(node.outputs[0], fused.outputs[0])
        return P.replace(old, fused.outputs[1])
    return P.replace(node.outputs[0], fused.outputs[0])


def _available(inputs: list[ir.Value | None], place: ir.Node) -> bool:
    """All inputs exist before `place`: they are constants, or operands of the sum."""
    direct = {id(v) for v in place.inputs}
    direct |= {id(v) for p in place.predecessors() for v in p.inputs}
    return all(v is None or v.producer() is None or id(v) in direct for v in inputs)
