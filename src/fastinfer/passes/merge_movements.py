# SPDX-License-Identifier: Apache-2.0
"""Chains of Reshape and Transpose become at most one of each."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from . import dims as D
from . import pattern as P
from .dims import Dim, Dims
from .layout import identity
from .shapes import Shapes
from .simplify_shapes import literal_shape

MOVEMENTS = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
_LONGEST = 12


def merge_movements(model: ir.Model) -> bool:
    """transpose(reshape(transpose(x))) → reshape(transpose(reshape(x))) with one transpose, or none"""
    shapes = Shapes(model)
    return P.rewrite(model, lambda node: _rule(shapes, node, ("result", "merged")))


def expose_heads(model: ir.Model) -> bool:
    """merge_movements that keeps the axes of the result apart: heads, rows and channels as fuse_attention reads them"""
    shapes = Shapes(model)
    return P.rewrite(model, lambda node: _rule(shapes, node, ("result",)))


class _Atom:
    """A part of an axis that stays together; split when a reshape cuts through it."""

    def __init__(self, extent: Dim):
        self.extent = extent
        self.parts: list[_Atom] = []

    def leaves(self) -> list[_Atom]:
        return [leaf for part in self.parts for leaf in part.leaves()] if self.parts else [self]


def _leaves(atoms: list[_Atom]) -> list[_Atom]:
    return [leaf for atom in atoms for leaf in atom.leaves()]


def _rule(s: Shapes, node: ir.Node, grains: tuple[str, ...]) -> bool:
    if not P.is_op(node, *MOVEMENTS) or s.dims(node.outputs[0]) is None:
        return False
    readers = node.outputs[0].consumers()
    if readers and all(P.is_op(r, *MOVEMENTS) for r in readers) and not node.outputs[0].is_graph_output():
        return False  # the end of the chain is further on
    chain = [node]
    while len(chain) < _LONGEST and (before := P.producer(chain[0].inputs[0], *MOVEMENTS)) is not None:
        chain.insert(0, before)
    while len(chain) > 1:
        found = _compose(s, chain)
        if found is not None:
            return _emit(s, chain, *found, grains)
        chain.pop(0)
    return False


def _compose(s: Shapes, chain: list[ir.Node]) -> tuple[list[_Atom], list[list[_Atom]]] | None:
    """(atoms in the source's order, atoms of each axis of the result)"""
    dims = s.dims(chain[0].inputs[0])
    if dims is None:
        return None
    source = [_Atom(d) for d in dims]
    axes = [[atom] for atom in source]
    for node in chain:
        target = s.dims(node.outputs[0])
        if target is None:
            return None
        if node.op_type == "Transpose":
            perm = P.attr(node, "perm") or range(len(axes))[::-1]
            axes = [axes[i] for i in perm]
        else:
            regrouped = _regroup([leaf for axis in axes for leaf in _leaves(axis)], target)
            if regrouped is None:
                return None
            axes = regrouped
    result = [[leaf for leaf in _leaves(axis) if not D.is_one(leaf.extent)] for axis in axes]
    return [leaf for leaf in _leaves(source) if not D.is_one(leaf.extent)], result


def _regroup(atoms: list[_Atom], target: Dims) -> list[list[_Atom]] | None:
    rest = [a for a in atoms if not D.is_one(a.extent)]
    out: list[list[_Atom]] = []
    for extent in target:
        group: list[_Atom] = []
        missing = extent
        while not D.is_one(missing):
            if not rest:
                return None
            atom = rest.pop(0)
            fits = D.exact_div(missing, atom.extent)
            if fits is None:
                left = D.exact_div(atom.extent, missing)
                if left is None:
                    return None
                atom.parts = [_Atom(missing), _Atom(left)]
                atom, other = atom.parts
                rest.insert(0, other)
                fits = 1
            group.append(atom)
            missing = fits
        out.append(group)
    return None if rest else out


def _emit(
    s: Shapes, chain: list[ir.Node], source: list[_Atom], axes: list[list[_Atom]], grains: tuple[str, ...]
) -> bool:
    x, out = chain[0].inputs[0], chain[-1].outputs[0]
    inner, target = s.dims(x), s.dims(out)
    assert x is not None and inner is not None and target is not None
    # With the result's axes kept apart the transpose may end in the wanted shape; merged, it has fewer axes to walk.
    plans = [_plan(source, axes, grain, inner, target) for grain in grains]
    steps, shapes = min((p for p in plans if p is not None), key=lambda p: len(p[0]), default=(None, []))
    if steps is None:
        return False
    before = sum(n.op_type == "Transpose" for n in chain)
    after = sum(op == "Transpose" for op, _ in steps)
    if after > before or len(steps) > len(chain) or (len(steps) == len(chain) and after == before):
        return False
    return _write(s, chain[-1], x, steps, shapes)


Steps = list[tuple[str, list[int]]]


def _plan(
    source: list[_Atom], axes: list[list[_Atom]], grain: str, inner: Dims, target: Dims
) -> tuple[Steps, list[Dims]] | None:
    """Reshape, Transpose, Reshape (each if needed), and the extents after each step."""
    runs, perm = _runs(source, axes, grain)
    split = tuple(D.product(a.extent for a in run) for run in runs)
    moved = tuple(split[i] for i in perm)
    if identity(perm):
        split = moved = inner
    steps: Steps = []
    shapes: list[Dims] = []
    for before, after in ((inner, split), (moved, target)):
        if after is target and not identity(perm):
            steps.append(("Transpose", list(perm)))
            shapes.append(moved)
        if before != after:
            shape = literal_shape(before, after)
            if shape is None:
                return None
            steps.append(("Reshape", shape))
            shapes.append(after)
    return steps, shapes


def _runs(source: list[_Atom], axes: list[list[_Atom]], grain: str) -> tuple[list[list[_Atom]], list[int]]:
    """Neighbours that stay neighbours form one axis: all ("merged"), or within an axis of the "result"."""
    order = [atom for axis in axes for atom in axis]
    at = {id(a): i for i, a in enumerate(order)}
    axis_of = {id(a): i for i, axis in enumerate(axes) for a in axis}
    runs: list[list[_Atom]] = []
    for atom in source:
        last = runs[-1][-1] if runs else None
        joins = last is not None and at[id(atom)] == at[id(last)] + 1
        if joins and (grain == "merged" or axis_of[id(atom)] == axis_of[id(last)]):
            runs[-1].append(atom)
        else:
            runs.append([atom])
    perm = sorted(range(len(runs)), key=lambda i: at[id(runs[i][0])])
    return runs, perm


def _write(s: Shapes, node: ir.Node, x: ir.Value, steps: Steps, shapes: list[Dims]) -> bool:
    out, value = node.outputs[0], x
    for i, ((op, numbers), dims) in enumerate(zip(steps, shapes)):
        inputs, attributes = [value], {"perm": numbers}
        if op == "Reshape":
            inputs, attributes = [value, P.new_constant(node, np.array(numbers, np.int64))], {}
        value = P.emit(node, op, inputs, attributes, like=out if i == len(steps) - 1 else None).outputs[0]
        value.type = out.type
        if value.shape is None:
            value.shape = ir.Shape([d if isinstance(d, int) else None for d in dims])
        s.put(value, dims)
    return P.replace(out, value) or P.replace(out, P.emit(node, "Identity", [value], like=out).outputs[0])
