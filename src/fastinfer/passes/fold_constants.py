# SPDX-License-Identifier: Apache-2.0
"""Constant folding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx.reference.ops import load_op

from . import pattern as P
from .shapes import Shapes

# What folding may add to a model on top of the bytes it replaces.
GROWTH = 1 << 20
RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
# Not folded: dequantised weights are four times as large; onnx.reference takes seconds for the others on real weights.
_KEPT = RANDOM | set(
    """DequantizeLinear Conv ConvTranspose ConvInteger DeformConv LSTM GRU RNN Attention Resize MaxPool AveragePool
    LpPool GridSample NonMaxSuppression If Loop Scan Constant Dropout""".split()
)
# The output may be larger than the inputs: its size has to be known before anything is computed.
_ENLARGING = set("""ConstantOfShape Expand Tile Range OneHot EyeLike Pad Gather GatherND GatherElements""".split())
_BROADCASTING = set(
    """Add Sub Mul Div Pow Mod Where Max Min Sum Mean MatMul Gemm Einsum Equal Less Greater And Or""".split()
)


def fold_constants(model: ir.Model) -> bool:
    """op(constants) → constant"""
    changed = P.rewrite(model, _lift)
    shapes = Shapes(model)
    return P.rewrite(model, lambda node: _fold(shapes, node)) or changed


def _lift(node: ir.Node) -> bool:
    """Constant() → initializer"""
    if not P.is_op(node, "Constant"):
        return False
    tensor = _constant_tensor(node)
    if tensor is None or node.graph is None:
        return False
    value = ir.Value(name=P.fresh(node.outputs[0].name), const_value=tensor)
    value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape)
    tensor.name = value.name
    node.graph.register_initializer(value)
    if not P.replace(node.outputs[0], value):
        node.graph.initializers.pop(str(value.name))
        return False
    return True


def _constant_tensor(node: ir.Node) -> Any:
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            return None
        if name == "value":
            return attribute.as_tensor()
        if name in ("value_int", "value_ints"):
            return ir.tensor(np.array(attribute.value, np.int64))
        if name in ("value_float", "value_floats"):
            return ir.tensor(np.array(attribute.value, np.float32))
        if name == "value_string":
            return ir.tensor(attribute.value)
        if name == "value_strings":
            return ir.tensor(list(attribute.value))
    return None


def _fold(shapes: Shapes, node: ir.Node) -> bool:
    if node.domain or node.op_type in _KEPT or any(v is not None and not P.is_constant(v) for v in node.inputs):
        return False
    if (
        not node.outputs
        or any(o.is_graph_output() for o in node.outputs)
        or any(map(P.nested_graphs, node.attributes.values()))
    ):
        return False
    shapes.infer(node)
    given = sum(v.const_value.nbytes for v in node.inputs if v is not None and v.const_value is not None)
    if node.op_type in _ENLARGING | _BROADCASTING and not _small(shapes, node, given):
        return False
    results = evaluate(node, shapes.model.graph.opset_imports.get("", 26))
    if results is None or sum(r.nbytes for r in results) > GROWTH + given * (2 if node.op_type == "Cast" else 1):
        return False
    for old, array in zip(node.outputs, results):
        if old.uses():
            P.replace(old, P.new_constant(node, array, old.name))
    return True


def _small(shapes: Shapes, node: ir.Node, given: int) -> bool:
    extents = [shapes.static(o) for o in node.outputs]
    return None not in extents and 8 * sum(math.prod(e) for e in extents if e is not None) <= GROWTH + 2 * given


def evaluate(node: ir.Node, opset: int) -> list[np.ndarray] | None:
    """The outputs of a node whose inputs are constants, or None where onnx.reference cannot say."""
    arguments = [P.constant(v) for v in node.inputs]
    try:
        operator = load_op("", node.op_type, opset)
        run = operator(
            ir.to_proto(node), {"log": lambda *_: None, "opsets": {"": opset}, "verbose": 0, "new_ops": None}
        )
        with np.errstate(all="ignore"):
            results = run.run(*arguments)
    except Exception:
        return None
    if not all(isinstance(r, (np.ndarray, np.generic)) for r in results):
        return None
    arrays = [np.asarray(r) for r in results]
    return arrays if all(a.dtype.kind in "fiubc" or a.dtype.kind == "V" for a in arrays) else None
