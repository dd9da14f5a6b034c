# SPDX-License-Identifier: Apache-2.0
"""Zero padding in front of a convolution."""

from __future__ import annotations

import onnx_ir as ir

from . import pattern as P
from .shapes import Shapes


def fold_pad(model: ir.Model) -> bool:
    """conv(pad(x, p), w) → conv(x, w, pads + p), for zeros around the spatial axes"""
    shapes = Shapes(model)
    return P.rewrite(model, lambda node: _rule(shapes, node))


def _rule(s: Shapes, node: ir.Node) -> bool:
    if not P.is_op(node, "Conv") or P.attr(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID", ""):
        return False
    pad = P.producer(node.inputs[0], "Pad")
    rank = s.rank(node.inputs[0])
    amounts = _amounts(pad, rank) if pad is not None and rank is not None else None
    if pad is None or rank is None or amounts is None:
        return False
    begin, end = amounts
    if begin[:2] != [0, 0] or end[:2] != [0, 0] or min(begin + end) < 0:
        return False
    old = list(P.attr(node, "pads") or [0] * 2 * (rank - 2))
    attributes = {k: v for k, v in node.attributes.items() if k != "auto_pad"}
    attributes["pads"] = ir.AttrInt64s("pads", [a + b for a, b in zip(old, begin[2:] + end[2:])])
    inputs = [pad.inputs[0], *node.inputs[1:]]
    new = P.emit(node, "Conv", inputs, attributes, like=node.outputs[0]).outputs[0]
    s.alias(new, node.outputs[0])
    return P.replace(node.outputs[0], new)


def _amounts(pad: ir.Node, rank: int) -> tuple[list[int], list[int]] | None:
    """Zeros before and behind each axis."""
    pads, value = P.ints(P.get(pad, 1)), P.get(pad, 2)
    if pads is None or P.attr(pad, "mode", "constant") != "constant" or (value is not None and P.scalar(value) != 0.0):
        return None
    axes = P.ints(P.get(pad, 3)) if P.get(pad, 3) is not None else list(range(rank))
    if axes is None or len(pads) != 2 * len(axes):
        return None
    begin, end = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        begin[axis % rank], end[axis % rank] = pads[i], pads[i + len(axes)]
    return begin, end
