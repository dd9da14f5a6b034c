# SPDX-License-Identifier: Apache-2.0
"""float16 and bfloat16 models are computed in float32, which is what every kernel and every recogniser speaks.

What the model's types show is rounded: outputs of the model, of its subgraphs, and what leaves for an operator that has
to see the type. In between results keep float32, as in ONNX Runtime's CPU provider, so they are nearer to the exact ones
than the model's own arithmetic, and what overflows float16 on the way (65504) does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from . import pattern as P
from .shapes import Shapes

HALF = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}

# They move or compare elements, which is exact in either type: float32 only where the data is float32 already.
_MOVES = set(
    """Identity Reshape Flatten Squeeze Unsqueeze Transpose Slice Split Concat Gather GatherElements GatherND Expand Tile
    Pad ScatterElements ScatterND TensorScatter Where Shape Size IsNaN Trilu DepthToSpace SpaceToDepth Compress Dropout
    ReverseSequence CenterCropPad NonZero Unique Hardmax ArgMax ArgMin TopK OneHot Range Equal Less LessOrEqual Greater
    GreaterOrEqual Neg Abs Sign Max Min""".split()
)
# The result's type is the input's or an attribute's, or the operator holds tensors whose type the model states.
_FIXED = set(
    """If Loop Scan Constant ConstantOfShape EyeLike RandomNormal RandomNormalLike RandomUniform RandomUniformLike
    Bernoulli Multinomial BitCast Optional OptionalGetElement OptionalHasElement SequenceAt SequenceConstruct
    SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap SplitToSequence ConcatFromSequence""".split()
)
_TYPE_ATTRIBUTES = ("dtype", "output_dtype", "output_datatype")
_CONTRIB = set(
    """Attention BiasGelu DequantizeLinear EmbedLayerNormalization FastGelu FusedConv FusedGemm FusedMatMul Gelu
    GemmFastGelu GroupQueryAttention MatMulNBits MultiHeadAttention QuantizeLinear QuickGelu RotaryEmbedding
    SimplifiedLayerNormalization SkipLayerNormalization SkipSimplifiedLayerNormalization""".split()
)


def widen_half(model: ir.Model) -> bool:
    """f(x) → half(f(float32(x))) for half-precision x; float32(half(y)) → y for a computed y"""
    values = (v for g in P.graphs(model) for v in [*g.inputs, *g.initializers.values(), *_results(g)])
    Shapes(model)  # element types of intermediate values
    if not any(v.dtype in HALF for v in values):
        return False
    wide: dict[ir.Value, ir.Value] = {}
    return any([_Widening(graph, wide).run() for graph in list(P.graphs(model))])


def _results(graph: ir.Graph) -> list[ir.Value]:
    return [v for n in graph for v in n.outputs]


def _is_half(value: ir.Value | None) -> bool:
    return value is not None and value.dtype in HALF


class _Widening:
    """One graph. wide: half values whose float32 original is at hand, in this graph or around it."""

    def __init__(self, graph: ir.Graph, wide: dict[ir.Value, ir.Value]) -> None:
        self.graph = graph
        self.wide = wide
        self.casts: dict[ir.Value, ir.Value] = {}  # made here for half values that have no original
        self.rounded: list[ir.Node] = []  # conversions back that may turn out to have no reader

    def run(self) -> bool:
        nodes = list(self.graph)
        changed = False
        for node in nodes:
            if node.graph is None:  # dead since one of the rewrites before it
                continue
            if P.is_op(node, "CastLike") and _is_half(P.get(node, 1)):
                node = self.like_to_cast(node)
            if P.is_op(node, "Cast"):
                changed |= self.cast(node)
            elif self.wanted(node):
                self.widen(node)
                changed = True
        for rounded in self.rounded:
            P.remove_dead(rounded)
        return changed

    def like_to_cast(self, node: ir.Node) -> ir.Node:
        like, y = node.inputs[1], node.outputs[0]
        cast = P.emit(node, "Cast", node.inputs[:1], {"to": int(like.dtype)}, like=y)  # type: ignore[union-attr,arg-type]
        P.replace(y, cast.outputs[0])
        return cast

    def wanted(self, node: ir.Node) -> bool:
        given = [v for v in node.inputs if v is not None]
        if not any(map(_is_half, [*given, *node.outputs])):
            return False
        if any(v.dtype is None or not isinstance(v.type, ir.TensorType) for v in given):
            return False
        if node.domain:
            return node.domain == "com.microsoft" and node.op_type in _CONTRIB
        if node.op_type in _FIXED or any(P.attr(node, name) for name in _TYPE_ATTRIBUTES):
            return False
        return node.op_type not in _MOVES or any(v in self.wide for v in given)

    def widened(self, value: ir.Value | None, node: ir.Node) -> ir.Value | None:
        """The value in float32, for a reader in the place of `node`."""
        if value is None or not _is_half(value):
            return value
        found = self.wide.get(value) or self.casts.get(value)
        if found is None:
            array = P.constant(value)
            if array is not None:
                found = P.new_constant(node, array.astype(np.float32), value.name)
            else:
                found = P.emit(node, "Cast", [value], {"to": int(ir.DataType.FLOAT)}, like=value).outputs[0]
                found.type = ir.TensorType(ir.DataType.FLOAT)
            self.casts[value] = found
        return found

    def widen(self, node: ir.Node) -> None:
        inputs = [self.widened(v, node) for v in node.inputs]
        attributes = dict(node.attributes)
        if P.attr(node, "softmax_precision") in (int(t) for t in HALF):
            attributes.pop("softmax_precision")
        new = P.emit(node, node.op_type, inputs, attributes, domain=node.domain, outputs=len(node.outputs))
        self.take_outputs(node, new.outputs)

    def take_outputs(self, node: ir.Node, new: Sequence[ir.Value]) -> None:
        for old, value in zip(list(node.outputs), new):
            value.type, value.shape = old.type, old.shape
            if old.name == "" and not old.uses():
                value.name = ""
                continue
            if _is_half(old):
                value.type = ir.TensorType(ir.DataType.FLOAT)
                cast = P.emit(node, "Cast", [value], {"to": int(old.dtype)}, like=old)  # type: ignore[arg-type]
                self.rounded.append(cast)
                self.wide[cast.outputs[0]] = value
                value = cast.outputs[0]
            P.replace(old, value)
        if node.graph is not None:
            P.remove_dead(node)

    def cast(self, node: ir.Node) -> bool:
        """A conversion that the model itself holds."""
        x, y = node.inputs[0], node.outputs[0]
        if x is None or x.dtype is None:
            return False
        if _is_half(y):
            if x in self.wide:
                self.wide[y] = self.wide[x]
            elif _is_computed(x):
                self.wide[y] = x
            return False
        if not _is_half(x):
            return False
        original = self.wide.get(x)
        if y.dtype == ir.DataType.FLOAT:
            if original is None:
                self.casts.setdefault(x, y)
                return False
            return P.replace(y, original)
        if original is not None:
            node.replace_input_with(0, original)
        return original is not None


def _is_computed(value: ir.Value) -> bool:
    """A float32 result of arithmetic. What comes in, or was a constant or an integer, is rounded where the model says so:
    the largest float32 becomes infinity there."""
    node = value.producer()
    return (
        value.dtype == ir.DataType.FLOAT
        and node is not None
        and node.domain in ("", P.DOMAIN, "com.microsoft")
        and node.op_type not in _MOVES | _FIXED | {"Cast", "CastLike"}
    )
