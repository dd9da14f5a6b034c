# SPDX-License-Identifier: Apache-2.0
"""Shifted windows, merged patches: several copies of whole rows become one Gather of rows."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from . import pattern as P
from .shapes import Shapes

_COPIES = ("Slice", "Concat", "Transpose")
_VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten")
_LARGEST = 1 << 22  # elements whose way is followed
_NARROWEST = 16  # elements of a row: shorter ones are cheaper to copy in lines than to look up


def gather_rows(model: ir.Model) -> bool:
    """transpose(reshape(concat(slice(x), slice(x)))) → reshape(gather(reshape(x, [−1, c]), rows)), for static shapes

    The copies are followed on the numbers 0, 1, 2, ... in place of x, so any mixture of them is understood that leaves
    runs of c elements, x's last axis, together.
    """
    shapes = Shapes(model)
    return P.rewrite(model, lambda node: _rule(shapes, node))


def _rule(s: Shapes, node: ir.Node) -> bool:
    if not _moves(node) or any(_moves(r) for r in node.outputs[0].consumers()):
        return False
    found = _region(node)
    if found is None:
        return False
    source, region = found
    dims, out = s.static(source), s.static(node.outputs[0])
    if dims is None or out is None or len(dims) < 2 or dims[-1] < _NARROWEST or not 0 < math.prod(dims) <= _LARGEST:
        return False
    rows = _rows(s, source, region, dims)
    if rows is None or math.prod(out) != len(rows) * dims[-1]:
        return False
    width, old = dims[-1], node.outputs[0]
    flat = _reshape(s, node, source, (math.prod(dims) // width, width), old)
    index = P.new_constant(node, rows.astype(np.int64))
    moved = P.emit(node, "Gather", [flat, index], {"axis": 0}).outputs[0]
    _describe(s, moved, (len(rows), width), old)
    return P.replace(old, _reshape(s, node, moved, out, old))


def _moves(node: ir.Node) -> bool:
    return P.is_op(node, *_COPIES, *_VIEWS)


def _region(end: ir.Node) -> tuple[ir.Value, list[ir.Node]] | None:
    """(the one value that everything comes from, the nodes from it to `end`); None for a single copy"""
    region, inside = [end], {end}
    grown = True
    while grown:
        grown = False
        for value in [v for n in region for v in _data(n)]:
            node = value.producer()
            if node is None or node in inside or not _moves(node) or value.is_graph_output():
                continue
            if node.graph is end.graph and all(reader in inside for reader in value.consumers()):
                region.append(node)
                inside.add(node)
                grown = True
    sources = {id(v): v for n in region for v in _data(n) if v.producer() not in inside}
    if len(sources) != 1 or sum(P.is_op(n, *_COPIES) for n in region) < 2:
        return None
    return next(iter(sources.values())), region


def _data(node: ir.Node) -> list[ir.Value]:
    return [v for v in (node.inputs if node.op_type == "Concat" else node.inputs[:1]) if v is not None]


def _rows(s: Shapes, source: ir.Value, region: list[ir.Node], dims: tuple[int, ...]) -> np.ndarray | None:
    """Which row of the source each row of the result is."""
    known: dict[int, np.ndarray] = {id(source): np.arange(math.prod(dims), dtype=np.int64).reshape(dims)}
    waiting = list(region)
    while waiting:
        ready = [n for n in waiting if all(id(v) in known for v in _data(n))]
        for node in ready:
            result = _follow(s, node, [known[id(v)] for v in _data(node)])
            if result is None or result.shape != s.static(node.outputs[0]):
                return None
            known[id(node.outputs[0])] = result
            waiting.remove(node)
        if not ready:
            return None
    runs: np.ndarray = known[id(region[0].outputs[0])].reshape(-1)
    if runs.size == 0 or runs.size % dims[-1]:
        return None
    runs = runs.reshape(-1, dims[-1])
    together = (runs[:, 0] % dims[-1] == 0).all() and (runs == runs[:, :1] + np.arange(dims[-1])).all()
    return runs[:, 0] // dims[-1] if together else None


def _follow(s: Shapes, node: ir.Node, arrays: list[np.ndarray]) -> np.ndarray | None:
    x = arrays[0]
    if node.op_type == "Concat":
        return np.concatenate(arrays, P.attr(node, "axis"))
    if node.op_type == "Transpose":
        return x.transpose(P.attr(node, "perm"))
    if node.op_type == "Slice":
        return _sliced(node, x)
    target = s.static(node.outputs[0])
    return x.reshape(target) if target is not None and math.prod(target) == x.size else None


def _sliced(node: ir.Node, x: np.ndarray) -> np.ndarray | None:
    starts, ends = P.ints(P.get(node, 1)), P.ints(P.get(node, 2))
    if starts is None or ends is None:
        return None
    axes, steps = list(range(len(starts))), [1] * len(starts)
    if P.get(node, 3) is not None:
        axes = P.ints(P.get(node, 3))  # type: ignore[assignment]
    if P.get(node, 4) is not None:
        steps = P.ints(P.get(node, 4))  # type: ignore[assignment]
    if axes is None or steps is None or min(steps) < 1:
        return None
    cut = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps):
        cut[axis] = slice(start, end, step)
    return x[tuple(cut)]


def _reshape(s: Shapes, node: ir.Node, value: ir.Value, target: tuple[int, ...], like: ir.Value) -> ir.Value:
    shape = P.new_constant(node, np.array(target, np.int64))
    y = P.emit(node, "Reshape", [value, shape]).outputs[0]
    _describe(s, y, target, like)
    return y


def _describe(s: Shapes, value: ir.Value, dims: tuple[int, ...], like: ir.Value) -> None:
    value.type, value.shape = like.type, ir.Shape(list(dims))
    s.put(value, dims)
