# SPDX-License-Identifier: Apache-2.0
"""Common subexpressions and equal small constants."""

from __future__ import annotations

from collections.abc import Hashable

import onnx_ir as ir

from . import pattern as P
from .fold_constants import RANDOM

_SMALL = 4096  # bytes up to which constants are compared by content


def eliminate_common_subexpressions(model: ir.Model) -> bool:
    """f(x), f(x) → let y = f(x) in y, y"""
    changed = False
    for graph in P.graphs(model):
        changed |= _merge_constants(graph)
        seen: dict[Hashable, ir.Node] = {}
        for node in graph:
            key = _key(node)
            if key is None:
                continue
            first = seen.setdefault(key, node)
            if first is not node and len(first.outputs) == len(node.outputs):
                changed |= _merge(first, node)
    return changed


def _merge(first: ir.Node, node: ir.Node) -> bool:
    if any(b.is_graph_output() and a.is_graph_output() for a, b in zip(first.outputs, node.outputs)):
        return False
    pairs = list(zip(first.outputs, node.outputs))
    for a, b in pairs:
        if a.shape is None:
            a.shape = b.shape
        P.replace(b, a)
    return True


def _key(node: ir.Node) -> Hashable | None:
    if node.domain == "" and node.op_type in RANDOM or not node.outputs:
        return None
    if node.op_type == "Dropout":
        return None
    attributes = []
    for name, attribute in sorted(node.attributes.items()):
        value = _attribute_key(attribute)
        if value is None:
            return None
        attributes.append((name, value))
    inputs = tuple(0 if v is None else id(v) for v in node.inputs)
    return (node.domain, node.op_type, node.overload, len(node.outputs), inputs, tuple(attributes))


def _attribute_key(attribute: ir.Attr) -> Hashable | None:
    if attribute.is_ref():
        return None
    kind = ir.AttributeType
    if attribute.type == kind.TENSOR:
        tensor = attribute.as_tensor()
        return _tensor_key(tensor) if tensor.nbytes <= _SMALL else None
    if attribute.type in (kind.FLOAT, kind.INT, kind.STRING):
        return (int(attribute.type), repr(attribute.value))
    if attribute.type in (kind.FLOATS, kind.INTS, kind.STRINGS):
        return (int(attribute.type), repr(tuple(attribute.value)))
    return None


def _tensor_key(tensor: ir.TensorProtocol) -> Hashable:
    strings = tensor.dtype == ir.DataType.STRING
    data = repr(tensor.numpy().tolist()) if strings else tensor.tobytes()
    return (int(tensor.dtype), tuple(tensor.shape), data)


def _merge_constants(graph: ir.Graph) -> bool:
    changed = False
    seen: dict[Hashable, ir.Value] = {}
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or value.is_graph_input() or value.is_graph_output() or not value.uses():
            continue
        if tensor.dtype == ir.DataType.STRING or tensor.nbytes > _SMALL:
            continue
        first = seen.setdefault(_tensor_key(tensor), value)
        if first is not value:
            P.replace(value, first)
            changed = True
    return changed
