# SPDX-License-Identifier: Apache-2.0
"""Stems read images as they come."""

from __future__ import annotations

import math

import onnx_ir as ir

from . import pattern as P
from .layout import channels_last_perm
from .shapes import Shapes

_MOST = 4  # channels: the kernels interleave up to as many in registers
_MOST_WEIGHTS = 1 << 16  # above (16x16 patches of ViT) a row of pixels is too little work for them, and a copy is made


def read_planes(model: ir.Model) -> bool:
    """conv(transpose(x, [0, 2, 3, 1]), w) → conv(x, w) with x_channels_first=1, for up to 4 channels"""
    shapes = Shapes(model)
    return P.rewrite(model, lambda node: _rule(shapes, node))


def _rule(s: Shapes, node: ir.Node) -> bool:
    if not P.is_op(node, "Conv", domain=P.DOMAIN) or P.attr(node, "channels_last", 0) != 1:
        return False
    move = P.producer(node.inputs[0], "Transpose")
    if move is None or move.inputs[0] is None or len(move.outputs[0].uses()) != 1 or move.outputs[0].is_graph_output():
        return False
    w = s.static(node.inputs[1])
    if (
        w is None
        or len(w) != 4
        or P.attr(node, "group", 1) != 1
        or w[1] > _MOST
        or w[3] < 2
        or w[1] < 2
        or math.prod(w) > _MOST_WEIGHTS
    ):
        return False
    if tuple(P.attr(move, "perm") or ()) != channels_last_perm(4) or move.graph is not node.graph:
        return False
    if (P.attr(node, "dilations") or [1, 1])[1] != 1 or min(P.attr(node, "pads") or [0]) < 0:
        return False
    attributes = {**dict(node.attributes), "x_channels_first": 1}
    old = node.outputs[0]
    new = P.emit(node, "Conv", [move.inputs[0], *node.inputs[1:]], attributes, domain=P.DOMAIN, like=old).outputs[0]
    s.alias(new, old)
    return P.replace(old, new)
