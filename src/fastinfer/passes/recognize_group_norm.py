# SPDX-License-Identifier: Apache-2.0
"""Group normalisation, as exporters write it through instance normalisation."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from . import pattern as P
from .recognize_norm import _scale_and_bias
from .shapes import Shapes


def recognize_group_norm(model: ir.Model) -> bool:
    """reshape(instance_norm(reshape(x, [n, g, −1])), shape(x)) · w + b → group_norm(x, w, b, groups=g)"""
    shapes = Shapes(model)
    return P.rewrite(model, lambda node: _rule(shapes, node))


def _rule(s: Shapes, node: ir.Node) -> bool:
    norm = P.producer(node.inputs[0], "InstanceNormalization") if P.is_op(node, "Reshape") else None
    split = P.producer(norm.inputs[0], "Reshape") if norm is not None else None
    if norm is None or split is None or split.inputs[0] is None:
        return False
    x = split.inputs[0]
    dims, inner = s.dims(x), s.dims(norm.inputs[0])
    if dims is None or inner is None or len(dims) < 3 or len(inner) < 3 or s.dims(node.outputs[0]) != dims:
        return False
    groups, channels = inner[1], dims[1]
    if inner[0] != dims[0] or not isinstance(groups, int) or not isinstance(channels, int) or channels % groups:
        return False
    scale, bias = P.constant(norm.inputs[1]), P.constant(norm.inputs[2])
    if scale is None or bias is None:
        return False
    weight, shift = np.repeat(scale, channels // groups), np.repeat(bias, channels // groups)
    out, w, b = _scale_and_bias(s, node.outputs[0], [channels], 1)
    if w is not None:
        weight, shift = weight * w, shift * w
    if b is not None:
        shift = shift + b
    anchor = out.producer()
    assert anchor is not None
    inputs = [x, P.new_constant(anchor, weight), P.new_constant(anchor, shift)]
    attributes = {"num_groups": groups, "epsilon": P.attr(norm, "epsilon", 1e-5)}
    y = P.emit(anchor, "GroupNormalization", inputs, attributes, like=out).outputs[0]
    s.alias(y, out)
    return P.replace(out, y)
