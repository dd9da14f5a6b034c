# SPDX-License-Identifier: Apache-2.0
"""Which permuted order the readers of a value can use: what decides whether channels_last moves a transpose past it."""

from __future__ import annotations

import onnx_ir as ir

from . import pattern as P
from .layout import Layouts, Perm, channels_last_perm, identity, reshaped_perm
from .shape_rules_data import REDUCTIONS
from .shapes import Shapes

ELEMENTWISE = set(
    """Abs Add And Cast Ceil Celu Clip Cos Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf
    IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Sigmoid
    Sign Sin Softplus Softsign Sqrt Sub Sum Swish Tanh ThresholdedRelu Where Xor""".split()
)
QUANTIZATION = {"QuantizeLinear", "DequantizeLinear"}
CONVOLUTIONS = {"Conv", "ConvTranspose"}
SPATIAL = set(
    """MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool Resize InstanceNormalization GroupNormalization DepthToSpace
    SpaceToDepth""".split()
)
VIEWS = {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}
AXES_OR_AXIS = {*REDUCTIONS, "ArgMax", "ArgMin"}
ALONG_AXIS = {"Concat", "Split", "Softmax", "LogSoftmax"}
# Operators on rows (the last axis): operands that have the output's leading axes.
ROWWISE = {
    "MatMul": (0, 3),
    "LayerNormalization": (0,),
    "RMSNormalization": (0,),
    "SkipLayerNorm": (0, 1),
    "SkipRMSNorm": (0, 1),
}
DEPTH = 24  # how far ahead a reader that gains is looked for
LAYOUTS = ("q_layout", "k_layout", "v_layout")


class Readers:
    """Asks the readers of a value which order they would take it in."""

    def __init__(self, shapes: Shapes, graph: ir.Graph, layouts: Layouts):
        self.s, self.graph, self.at = shapes, graph, layouts
        self._wanted: dict[tuple[ir.Value, Perm], bool] = {}

    def gains(self, inputs: list[ir.Value], outputs: list[ir.Value], perm: Perm) -> bool:
        """Computing the outputs under `perm` costs no more transposes than computing them plainly."""
        if any(self.wants(o, perm, DEPTH) for o in outputs):
            return True
        # Otherwise one transpose moves from an input, that nobody else reads, to the output.
        full = [v for v in inputs if self.at.is_virtual(v)]
        return len(outputs) == 1 and bool(full) and all(len(v.uses()) == 1 for v in full)

    def wants(self, value: ir.Value, perm: Perm, depth: int = DEPTH) -> bool:
        """Some reader, directly or through operators that do not care, can use transpose(value, perm)."""
        key = (value, perm)
        if key not in self._wanted:
            self._wanted[key] = False  # cuts cycles through Loop-free graphs never met twice on a path
            self._wanted[key] = any(self._reader_wants(u.node, u.idx, value, perm, depth) for u in value.uses())
        return self._wanted[key]

    def _reader_wants(self, node: ir.Node, index: int, value: ir.Value, perm: Perm, depth: int) -> bool:
        if node.graph is not self.graph or depth == 0:
            return False
        op, rank = node.op_type, len(perm)
        if node.domain == P.DOMAIN:
            if op in CONVOLUTIONS:
                return index in (0, 3) and perm == channels_last_perm(rank)
            if op == "Attention":
                return index < 3 and relabelled(node, index, perm) is not None
        if op in ROWWISE:
            keeps = index in ROWWISE[op] and perm[-1] == rank - 1 and is_rowwise(self.s, node)
            return keeps and self.wants_all(node, perm, depth)
        if node.domain:
            return False
        if op == "Transpose" or op in AXES_OR_AXIS:
            return True
        if op == "Gather":
            after = gathered_perm(self.s, node, perm) if index == 0 else None
            return after is not None and self.wants(node.outputs[0], after, depth - 1)
        if op in SPATIAL:
            return index == 0 and perm == channels_last_perm(rank) and self.wants_all(node, perm, depth)
        if op in VIEWS:
            source, target = self.s.dims(value), self.s.dims(node.outputs[0])
            if index or source is None or target is None:
                return False
            after = reshaped_perm(source, target, perm)
            return after is not None and (identity(after) or self.wants(node.outputs[0], after, depth - 1))
        if is_elementwise(node) or op in ALONG_AXIS | {"Slice", "Pad"}:
            return self.s.rank(node.outputs[0]) == rank and self.wants_all(node, perm, depth)
        return False

    def wants_all(self, node: ir.Node, perm: Perm, depth: int = DEPTH) -> bool:
        return any(self.wants(o, perm, depth - 1) for o in node.outputs)


def is_elementwise(node: ir.Node) -> bool:
    if node.op_type in QUANTIZATION:  # by one scale
        scale = node.inputs[1]
        return P.is_constant(scale) and scale.const_value.size == 1  # type: ignore[union-attr]
    return node.op_type in ELEMENTWISE


def is_rowwise(shapes: Shapes, node: ir.Node) -> bool:
    """The node treats each row of its data alike."""
    if node.op_type == "MatMul":
        return shapes.rank(node.inputs[1]) == 2 and not P.attr(node, "transA", 0)
    rank = shapes.rank(node.inputs[0])
    return node.domain == P.DOMAIN or P.attr(node, "axis", -1) in (-1, (rank or 0) - 1)


def gathered_perm(shapes: Shapes, node: ir.Node, perm: Perm) -> Perm | None:
    """How the result of gathering one element or a list along an axis is permuted."""
    rank = shapes.rank(node.inputs[1])
    axis = P.attr(node, "axis", 0) % len(perm)
    if rank == 1:
        return perm
    rest = [a for a in perm if a != axis]
    return tuple(sorted(rest).index(a) for a in rest) if rank == 0 else None


def relabelled(node: ir.Node, index: int, perm: Perm) -> str | None:
    """The layout of an attention's permuted Q, K or V, if the operator has it."""
    layout = P.attr(node, LAYOUTS[index], "BNSH")
    moved = "".join(layout[i] for i in perm)
    return moved if moved in ("BNSH", "BSNH") or (moved == "BNHS" and index == 1) else None
