# SPDX-License-Identifier: Apache-2.0
"""Elementwise operators on one shape become one pass over memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx_ir as ir

from . import pattern as P
from .dims import Dims
from .pointwise_program import Program, cost, is_translatable
from .shapes import Shapes

MAX_INPUTS, MAX_OPS, MAX_LIVE = 16, 48, 12  # what the kernel holds, with room for its own splits


def fuse_pointwise(model: ir.Model) -> bool:
    """mul(add(x, y), sigmoid(z)) → fastinfer.Pointwise(x, y, z), if all results have the same full shape"""
    shapes = Shapes(model)
    changed = False
    for graph in list(P.graphs(model)):
        changed |= _fuse_graph(shapes, graph)
    return changed


@dataclass(eq=False)
class _Group:
    dims: Dims
    nodes: list[ir.Node] = field(default_factory=list)  # last first
    members: set[ir.Node] = field(default_factory=set)

    def has_room(self, node: ir.Node) -> bool:
        members = self.members | {node}
        costs = [cost(n) for n in members]
        read = {v for n in members for v in n.inputs if v is not None and v.producer() not in members}
        return sum(c[0] for c in costs) <= MAX_OPS and len(read) + sum(c[1] for c in costs) <= MAX_INPUTS

    def join(self, node: ir.Node) -> None:
        self.nodes.append(node)
        self.members.add(node)


def _fuse_graph(s: Shapes, graph: ir.Graph) -> bool:
    group_of: dict[ir.Node, _Group] = {}
    groups: list[_Group] = []
    for node in reversed(graph):
        if not is_translatable(node) or (dims := s.dims(node.outputs[0])) is None:
            continue
        group = _reading_group(node, dims, group_of)
        if group is None:
            group = _Group(dims)
            groups.append(group)
        group.join(node)
        group_of[node] = group
    changed = False
    for group in groups:
        if len(group.nodes) > 1:
            changed |= _emit(s, group)
    return changed


def _reading_group(node: ir.Node, dims: Dims, group_of: dict[ir.Node, _Group]) -> _Group | None:
    """The group that holds all readers of `node`, if it has the same shape and room."""
    value = node.outputs[0]
    if value.is_graph_output() or node.op_type == "QuantizeLinear":  # bytes saturate: where a program ends
        return None
    readers = {group_of.get(reader) for reader in value.consumers()}
    if len(readers) != 1:
        return None
    group = readers.pop()
    return group if group is not None and group.dims == dims and group.has_room(node) else None


def _emit(s: Shapes, group: _Group) -> bool:
    root = group.nodes[0]
    out = root.outputs[0]
    program = Program(root)
    for node in reversed(group.nodes):
        program.add(node)
    attributes = program.attributes([out])
    if root.op_type == "QuantizeLinear":
        attributes["output_type"] = int(out.dtype)  # type: ignore[arg-type]
    if len(program.inputs) > MAX_INPUTS or len(program.ops) > MAX_OPS or program.live() > MAX_LIVE or not program.ops:
        return False
    fused = P.emit(root, "Pointwise", program.inputs, attributes, domain=P.DOMAIN, like=out)
    s.alias(fused.outputs[0], out)
    return P.replace(out, fused.outputs[0])
