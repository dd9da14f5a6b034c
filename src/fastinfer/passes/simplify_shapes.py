# SPDX-License-Identifier: Apache-2.0
"""Shape arithmetic that is known while compiling leaves the graph."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from . import pattern as P
from .dims import Dims
from .shapes import Shapes


def simplify_shapes(model: ir.Model) -> bool:
    """reshape(x, concat(shape(x)[:1], 12)) → reshape(x, [0, 12]); gather(shape(x), 1) → 7 when x is [n, 7]"""
    shapes = Shapes(model)
    return P.rewrite(model, lambda node: _known_value(shapes, node) or _reshape(shapes, node))


_DTYPES = {ir.DataType.INT64: np.int64, ir.DataType.INT32: np.int32, ir.DataType.BOOL: np.bool_}


def _known_value(s: Shapes, node: ir.Node) -> bool:
    if node.domain or len(node.outputs) != 1 or node.op_type == "Constant" or not node.outputs[0].uses():
        return False
    value = node.outputs[0]
    content, dims = s.content(value), s.static(value)
    if content is None or dims is None or value.dtype not in _DTYPES or value.is_graph_output():
        return False
    if not all(isinstance(d, int) for d in content):
        return False
    array: np.ndarray = np.array(content, _DTYPES[value.dtype]).reshape(dims)
    return P.replace(value, P.new_constant(node, array, value.name))


def _reshape(s: Shapes, node: ir.Node) -> bool:
    if not P.is_op(node, "Reshape") or P.is_constant(node.inputs[1]):
        return False
    content, source, out = s.content(node.inputs[1]), s.dims(node.inputs[0]), s.dims(node.outputs[0])
    if content is None or source is None or out is None or len(out) != len(content):
        return False
    target = literal_shape(source, out)
    if target is None:
        return False
    # With allowzero the computed target may hold a literal 0; the copied extent is that same 0.
    node.attributes.pop("allowzero", None)
    node.replace_input_with(1, P.new_constant(node, np.array(target, np.int64), node.outputs[0].name))
    return True


def literal_shape(source: Dims, out: Dims) -> list[int] | None:
    """A constant Reshape target that turns `source` into `out`: numbers, 0 for a copied extent, at most one −1.

    The element counts agree in a valid model, so the −1 is right whenever everything else is.
    """
    target: list[int] = []
    for i, d in enumerate(out):
        if isinstance(d, int) and d != 0:
            target.append(d)
        elif i < len(source) and source[i] == d:
            target.append(0)
        elif -1 not in target and not isinstance(d, int):
            target.append(-1)
        else:
            return None
    return target
