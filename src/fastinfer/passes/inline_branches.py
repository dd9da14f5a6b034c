# SPDX-License-Identifier: Apache-2.0
"""Branches whose condition is known."""

from __future__ import annotations

import onnx_ir as ir

from . import pattern as P


def inline_branches(model: ir.Model) -> bool:
    """if(true) { a } else { b } → a"""
    changed = False
    # An inlined branch may hold the next one.
    while P.rewrite(model, _rule):
        changed = True
    return changed


def _rule(node: ir.Node) -> bool:
    condition = P.constant(P.get(node, 0)) if P.is_op(node, "If") else None
    if condition is None or condition.size != 1 or node.graph is None:
        return False
    branch = P.attr(node, "then_branch" if condition.reshape(()) else "else_branch")
    if len(branch.outputs) != len(node.outputs) or not all(_movable(v, branch) for v in branch.outputs):
        return False
    results = list(branch.outputs)
    branch.outputs.clear()
    _move(branch, node)
    for old, new in zip(node.outputs, results):
        if new.name == old.name:
            old.name = P.fresh(old.name)
        new.type, new.shape = new.type or old.type, new.shape if new.shape is not None else old.shape
        if not P.replace(old, new):
            P.replace(old, P.emit(node, "Identity", [new], like=old).outputs[0])
    return True


def _movable(value: ir.Value, branch: ir.Graph) -> bool:
    """Computed in the branch, once among its outputs."""
    node = value.producer()
    return node is not None and node.graph is branch and sum(v is value for v in branch.outputs) == 1


def _move(branch: ir.Graph, node: ir.Node) -> None:
    graph = node.graph
    assert graph is not None
    for value in list(branch.initializers.values()):
        branch.initializers.pop(str(value.name))
        value.name = P.fresh(value.name)
        graph.register_initializer(value)
    nodes = list(branch)
    branch.remove(nodes)
    for inner in nodes:
        for value in inner.outputs:
            if value.name:
                value.name = P.fresh(value.name)
    graph.insert_before(node, nodes)
