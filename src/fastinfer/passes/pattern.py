# SPDX-License-Identifier: Apache-2.0
"""Matching and rewriting on onnx_ir graphs: the few functions that every pass shares."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
import onnx_ir as ir

DOMAIN = "fastinfer"
MADE = "/fi."  # in names that passes make
ORIGINS = "fastinfer.origins"  # key of Node.meta
# Of the compilation at hand: names must not depend on what was compiled before, or beside it in another thread.
_serial: ContextVar[Iterator[int]] = ContextVar("serial", default=itertools.count())  # noqa: B039 (outside: any will do)


@contextlib.contextmanager
def own_names() -> Iterator[None]:
    """New names inside count from 0."""
    token = _serial.set(itertools.count())
    try:
        yield
    finally:
        _serial.reset(token)


# ------------------------------------------------------------------------------------------------------- looking


def graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph and every graph nested in it."""
    yield model.graph
    yield from model.graph.subgraphs()


def rewrite(model: ir.Model, rule: Callable[[ir.Node], bool]) -> bool:
    """Applies `rule` to every node of every graph, in order; a rule may rewrite around its node."""
    changed = False
    for graph in list(graphs(model)):
        for node in graph:
            changed |= bool(rule(node))
    return changed


def is_op(node: ir.Node | None, *op_types: str, domain: str = "") -> bool:
    return node is not None and node.op_type in op_types and node.domain == domain


def producer(value: ir.Value | None, *op_types: str, domain: str = "") -> ir.Node | None:
    """The node that computes `value`, if it is one of `op_types`."""
    node = None if value is None else value.producer()
    return node if is_op(node, *op_types, domain=domain) else None


def attr(node: ir.Node, name: str, default: Any = None) -> Any:
    attribute = node.attributes.get(name)
    return default if attribute is None or attribute.is_ref() else attribute.value


def get(node: ir.Node, index: int) -> ir.Value | None:
    """Input `index`, None when left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def is_constant(value: ir.Value | None) -> bool:
    """An initializer that no caller can override."""
    return (
        value is not None
        and value.const_value is not None
        and (value.is_initializer() or is_op(value.producer(), "Constant"))
        and not value.is_graph_input()
    )


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The value of a constant, else None."""
    return value.const_value.numpy() if is_constant(value) else None  # type: ignore[union-attr]


def scalar(value: ir.Value | None) -> float | None:
    """The number in a one-element numeric constant, else None."""
    if not is_constant(value) or value.const_value.size != 1:  # type: ignore[union-attr]
        return None
    array = constant(value)
    return float(array.reshape(())) if array is not None and array.dtype.kind in "fiu" else None


def ints(value: ir.Value | None) -> list[int] | None:
    """The elements of a constant of integers, else None."""
    array = constant(value)
    return None if array is None or array.dtype.kind not in "iu" else [int(i) for i in array.reshape(-1)]


def is_scalar(value: ir.Value | None, number: float, tolerance: float = 1e-5) -> bool:
    found = scalar(value)
    return found is not None and abs(found - number) <= tolerance * max(1.0, abs(number))


def commuted(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Both orders of a commutative node's two operands."""
    a, b = node.inputs
    if a is not None and b is not None:
        yield a, b
        yield b, a


def with_scalar(node: ir.Node | None, *op_types: str) -> tuple[ir.Value, float] | None:
    """(x, c) of a commutative node op(x, c) with a scalar constant c."""
    if is_op(node, *op_types):
        for x, c in commuted(node):  # type: ignore[arg-type]
            number = scalar(c)
            if number is not None:
                return x, number
    return None


def only_use(value: ir.Value) -> ir.Node | None:
    """The single node that reads `value` (once), or None; a graph output has another reader."""
    uses = value.uses()
    return next(iter(uses)).node if len(uses) == 1 and not value.is_graph_output() else None


def used_once(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT


# ------------------------------------------------------------------------------------------------------ rewriting


def fresh(hint: str | None) -> str:
    return f"{(hint or 'v').split(MADE)[0]}{MADE}{next(_serial.get())}"


def emit(
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    domain: str = "",
    like: ir.Value | None = None,
    outputs: int = 1,
) -> ir.Node:
    """A new node in front of `before`; its first output takes type and shape of `like`."""
    trimmed = list(inputs)
    while trimmed and trimmed[-1] is None:
        trimmed.pop()
    values = [ir.Value(name=fresh(like.name if like is not None else before.name)) for _ in range(outputs)]
    if like is not None:
        values[0].type, values[0].shape = like.type, like.shape
    node = ir.node(op_type, trimmed, _attributes(attributes), domain=domain, outputs=values, name=fresh(before.name))
    graph = before.graph
    assert graph is not None
    graph.insert_before(before, node)
    node.meta[ORIGINS] = origins(before)
    return node


def origins(node: ir.Node) -> dict[str, str]:
    """The model's own nodes that `node` stands for, name → operator; itself where no pass made it."""
    own = node.meta.get(ORIGINS)
    if own is not None:
        return dict(own)
    return {node.name or (node.outputs[0].name if node.outputs else "") or "": node.op_type}


def _attributes(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    typed = {}
    for name, value in (attributes or {}).items():
        if isinstance(value, ir.Attr):
            typed[name] = value
        elif isinstance(value, (list, tuple)) and not value:
            typed[name] = ir.AttrInt64s(name, [])
        elif value is not None:
            typed[name] = value
    return typed


def new_constant(near: ir.Node, array: np.ndarray, hint: str | None = None) -> ir.Value:
    """An initializer in the graph of `near`."""
    name = fresh(hint or near.name)
    value = ir.Value(name=name, const_value=ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name))
    value.type, value.shape = ir.TensorType(value.const_value.dtype), ir.Shape(array.shape)  # type: ignore[union-attr]
    graph = near.graph
    assert graph is not None
    graph.register_initializer(value)
    return value


def replace(old: ir.Value, new: ir.Value) -> bool:
    """All readers of `old` read `new`; graph outputs keep their names; what nobody reads any more is removed.

    Returns False, having done nothing, where a graph output would have to be renamed to another graph's input.
    """
    node = old.producer()
    if old.is_graph_output():
        graph = old.graph
        if new.is_graph_output() or new.is_graph_input() or new.is_initializer() or new.graph is not graph:
            return False
        name, dead = old.name, fresh("dead")
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        old.name, new.name = dead, name
        new.type, new.shape = old.type or new.type, old.shape if old.shape is not None else new.shape
    else:
        old.replace_all_uses_with(new)
    if node is not None:
        maker = new.producer()
        absorbed = remove_dead(node)
        if maker is not None and ORIGINS in maker.meta:  # a node that a pass made stands for what it replaces
            maker.meta[ORIGINS].update(absorbed)
    return True


def remove_dead(node: ir.Node) -> dict[str, str]:
    """Removes `node` and what only it needed, if nothing reads its outputs; returns the model's own nodes that
    went, as `origins`."""
    gone: dict[str, str] = {}
    stack = [node]
    while stack:
        node = stack.pop()
        if node.graph is None or any(o.uses() or o.is_graph_output() for o in node.outputs):
            continue
        inputs = [v for v in node.inputs if v is not None]
        for attribute in node.attributes.values():
            inputs.extend(captured_by(attribute))
            _detach(attribute)
        for i in range(len(node.inputs)):
            node.replace_input_with(i, None)
        gone.update(origins(node))
        node.graph.remove(node)
        stack.extend(p for p in (v.producer() for v in inputs) if p is not None)
    return gone


def nested_graphs(attribute: ir.Attr) -> Sequence[ir.Graph]:
    if attribute.is_ref():
        return ()
    if attribute.type == ir.AttributeType.GRAPH:
        return (attribute.as_graph(),)
    return attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else ()


def captured_by(attribute: ir.Attr) -> list[ir.Value]:
    """Values that the nodes of an attribute's graphs read (their own included)."""
    return [v for g in nested_graphs(attribute) for n in g.all_nodes() for v in n.inputs if v is not None]


def _detach(attribute: ir.Attr) -> None:
    for graph in nested_graphs(attribute):
        for node in graph.all_nodes():
            for i in range(len(node.inputs)):
                node.replace_input_with(i, None)


def make_names_unique(model: ir.Model) -> None:
    """Renames values of inner graphs and intermediate values whose name another value has already."""
    taken = {v.name for v in [*model.graph.inputs, *model.graph.outputs]}
    seen = {*model.graph.inputs, *model.graph.outputs}
    for graph in graphs(model):
        values = [*graph.initializers.values(), *(o for n in graph for o in n.outputs)]
        for value in values:
            if value in seen or value.name == "":
                continue
            seen.add(value)
            if value.name in taken:
                value.name = _untaken(value.name, taken)
            taken.add(value.name)


def _untaken(name: str | None, taken: set[str | None]) -> str:
    candidate = fresh(name)
    while candidate in taken:
        candidate = fresh(name)
    return candidate
