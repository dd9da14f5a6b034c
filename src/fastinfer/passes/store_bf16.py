# SPDX-License-Identifier: Apache-2.0
"""For precision="bf16" only: which intermediate values are kept in bfloat16, which halves their memory traffic."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from . import pattern as P
from .shapes import Shapes

# Data inputs of operators that only move values: those and the output have one type.
_MOVES = {"Reshape": (0,), "Transpose": (0,), "Squeeze": (0,), "Unsqueeze": (0,), "Slice": (0,), "Split": (0,),
          "Flatten": (0,), "Identity": (0,), "DepthToSpace": (0,), "SpaceToDepth": (0,)}  # fmt: skip
_POOLS = ("MaxPool", "AveragePool")


def store_bf16(model: ir.Model) -> bool:
    """cast(conv(x, w), float) → the same where all that reads y takes bfloat16: conv(x, w, output_dtype=bf16)"""
    shapes = Shapes(model)
    changed = False
    for group in _groups(model.graph):
        if any(v.uses() for v in group) and all(_fits(shapes, v) for v in group):
            changed |= bool([_narrow(value) for value in group])
    return changed


def _computes(node: ir.Node | None) -> bool:
    """A product that reads and writes either type, each operand by itself."""
    return (
        P.is_op(node, "Conv", "MatMul", "ConvTranspose", "Attention", domain=P.DOMAIN)
        and P.attr(node, "precision") == "bf16"  # type: ignore[arg-type]
        and not _is_grouped(node)  # type: ignore[arg-type]
    )


def _is_grouped(node: ir.Node) -> bool:
    return node.op_type == "Conv" and P.attr(node, "group", 1) > 1


def _carried(node: ir.Node) -> tuple[int, ...]:
    """The inputs that have one type with all outputs; () for what is no carrier."""
    if node.domain == P.DOMAIN:
        last = P.attr(node, "channels_last", 0) == 1
        if node.op_type in _POOLS and last and len(node.outputs) == 1:
            return (0,)
        if node.op_type in ("DepthToSpace", "SpaceToDepth"):
            return (0,)
        if node.op_type == "Resize" and P.attr(node, "mode", "nearest") == "nearest":
            return (0,) if P.attr(node, "coordinate_transformation_mode") != "tf_crop_and_resize" else ()
        if _is_grouped(node) and last and P.attr(node, "precision") == "bf16":
            return (0, 3) if P.get(node, 3) is not None else (0,)
        return ()
    if node.domain == "" and node.op_type == "Concat":
        return tuple(range(len(node.inputs)))
    return _MOVES.get(node.op_type, ()) if node.domain == "" else ()


def _groups(graph: ir.Graph) -> Iterator[list[ir.Value]]:
    """Float32 values of the graph, those together that must have one type."""
    leader: dict[ir.Value, ir.Value] = {}

    def find(v: ir.Value) -> ir.Value:
        while leader.setdefault(v, v) is not v:
            v = leader[v]
        return v

    for node in graph:
        joined = [v for i in _carried(node) if (v := node.inputs[i]) is not None]
        for v in [*joined, *node.outputs]:
            find(v)
        for v in [*joined[1:], *(node.outputs if joined else ())]:
            leader[find(v)] = find(joined[0])
    groups: dict[ir.Value, list[ir.Value]] = {}
    for v in leader:
        groups.setdefault(find(v), []).append(v)
    yield from groups.values()


def _fits(s: Shapes, value: ir.Value) -> bool:
    node = value.producer()
    if node is None or node.graph is None or not P.is_float(value) or value.is_graph_output():
        return False
    if not _computes(node) and not (_carried(node) and _whole_depthwise(s, node)):
        return False
    uses = value.uses()  # a graph inside an If or a Loop may be one that reads
    return all(use.node.graph is node.graph and _reads(s, use.node, use.idx) for use in uses)


def _reads(s: Shapes, node: ir.Node, index: int) -> bool:
    if _computes(node):
        return index in ((0, 1, 2) if node.op_type == "Attention" else (0, 3))
    return index in _carried(node) and _whole_depthwise(s, node)


def _whole_depthwise(s: Shapes, node: ir.Node) -> bool:
    """Of grouped convolutions only the depthwise ones without multiplier have a bfloat16 form with one type throughout."""
    if not _is_grouped(node):
        return True
    w = s.static(node.inputs[1])
    return w is not None and w[1] == 1 and w[0] == P.attr(node, "group", 1)


def _narrow(value: ir.Value) -> ir.Value:
    node = value.producer()
    value.type = ir.TensorType(ir.DataType.BFLOAT16)
    if node is not None and (_computes(node) or _is_grouped(node)):
        node.attributes["output_dtype"] = ir.AttrString("output_dtype", "bf16")
    return value
