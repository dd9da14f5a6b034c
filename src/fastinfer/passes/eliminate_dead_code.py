# SPDX-License-Identifier: Apache-2.0
"""Dead code."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from . import pattern as P


def eliminate_dead_code(model: ir.Model) -> bool:
    """unused(x) → nothing"""
    changed = False
    for graph in reversed(list(P.graphs(model))):  # inner graphs first: they free what they captured
        for node in reversed(graph):
            before = len(graph)
            P.remove_dead(node)
            changed |= len(graph) != before
            if node.graph is not None:
                changed |= _drop_optional_outputs(node)
        for value in list(graph.initializers.values()):
            if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                graph.initializers.pop(str(value.name))
                changed = True
    return changed


def _drop_optional_outputs(node: ir.Node) -> bool:
    if len(node.outputs) < 2 or not onnx.defs.has(node.op_type, node.domain):
        return False
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    formal = onnx.defs.get_schema(node.op_type, node.domain).outputs
    changed = False
    for i in range(len(node.outputs) - 1, 0, -1):
        value = node.outputs[i]
        if i >= len(formal) or formal[i].option != optional or value.uses() or value.is_graph_output():
            continue
        if i == len(node.outputs) - 1:
            node.resize_outputs(i)
            changed = True
        elif value.name:
            value.name = ""
            changed = True
    return changed
