# SPDX-License-Identifier: Apache-2.0
"""Values under permuted axes: who exists in which order, and how to get it in another one.

A value's *twin* (t, perm) is a value t = transpose(value, perm). A *virtual* value has a twin and is not computed itself;
what still reads it at the end gets one Transpose (or a Reshape, where only extents of 1 move).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from . import dims as D
from . import pattern as P
from .dims import Dim, Dims
from .shapes import Shapes
from .simplify_shapes import literal_shape

Perm = tuple[int, ...]


def channels_last_perm(rank: int) -> Perm:
    return (0, *range(2, rank), 1)


def inverse(perm: Sequence[int]) -> Perm:
    out = [0] * len(perm)
    for i, p in enumerate(perm):
        out[p] = i
    return tuple(out)


def identity(perm: Sequence[int]) -> bool:
    return list(perm) == list(range(len(perm)))


class Layouts:
    """The twins of one graph's values."""

    def __init__(self, shapes: Shapes):
        self.shapes = shapes
        self.twins: dict[ir.Value, tuple[ir.Value, Perm]] = {}
        self.superseded: dict[ir.Node, None] = {}
        self._relaid: dict[tuple[ir.Value, Perm, int], ir.Value] = {}

    def is_virtual(self, value: ir.Value) -> bool:
        return value in self.twins and value.producer() in self.superseded

    def supersede(self, node: ir.Node, twins: Sequence[tuple[ir.Value, ir.Value, Perm]]) -> None:
        """`node` is replaced by what makes these (old value, twin, perm)."""
        self.superseded[node] = None
        for old, twin, perm in twins:
            self.describe(twin, old, perm)
            self.twins[old] = (twin, perm)

    def describe(self, twin: ir.Value, like: ir.Value, perm: Perm) -> None:
        """Type and shape of `twin` = transpose(like, perm)."""
        dims = self.shapes.dims(like)
        twin.type = like.type
        if dims is not None:
            moved = tuple(dims[i] for i in perm)
            self.shapes.put(twin, moved)
            twin.shape = ir.Shape([d if isinstance(d, int) else None for d in moved])

    # ------------------------------------------------------------------------------------------------- producing

    def permuted(self, value: ir.Value, perm: Perm, before: ir.Node) -> ir.Value:
        """transpose(value, perm), from its twin where it has one; remembered."""
        twin = self.twins.get(value)
        if twin is not None and twin[1] == perm:
            return twin[0]
        if identity(perm) and not self.is_virtual(value):
            return value
        if twin is not None:
            # twin = transpose(value, q); axis perm[i] of value stands at q⁻¹[perm[i]] of the twin.
            at = inverse(twin[1])
            source, steps = twin[0], tuple(at[i] for i in perm)
        else:
            source, steps = value, perm
        out = self._move(source, steps, before)
        self.describe(out, value, perm)
        if twin is None:
            self.twins[value] = (out, perm)
        return out

    def _move(self, source: ir.Value, perm: Perm, before: ir.Node) -> ir.Value:
        dims = self.shapes.dims(source)
        if dims is not None and keeps_order(dims, perm):
            target = literal_shape(dims, tuple(dims[i] for i in perm))
            if target is not None:
                shape = P.new_constant(before, np.array(target, np.int64))
                return P.emit(before, "Reshape", [source, shape]).outputs[0]
        return P.emit(before, "Transpose", [source], {"perm": list(perm)}).outputs[0]

    def operand(self, value: ir.Value, perm: Perm, before: ir.Node) -> ir.Value | None:
        """An operand that numpy-broadcasts to data of len(perm) axes, for the permuted data."""
        rank, dims = len(perm), self.shapes.dims(value)
        if dims is None or len(dims) > rank:
            return None
        if all(D.is_one(d) for d in dims):
            return value
        if P.is_constant(value):
            return self._relaid_constant(value, perm, before)
        if len(dims) < rank:
            lead = rank - len(dims)
            axes = P.new_constant(before, np.arange(lead, dtype=np.int64))
            wide = P.emit(before, "Unsqueeze", [value, axes]).outputs[0]
            wide.type = value.type
            self.shapes.put(wide, (*([1] * lead), *dims))
            wide.shape = ir.Shape([1] * lead + [d if isinstance(d, int) else None for d in dims])
            value = wide
        return self.permuted(value, perm, before)

    def _relaid_constant(self, value: ir.Value, perm: Perm, before: ir.Node) -> ir.Value:
        key = (value, perm, id(before.graph))
        if key not in self._relaid:
            array = P.constant(value)
            assert array is not None
            wide = array.reshape((1,) * (len(perm) - array.ndim) + array.shape).transpose(perm)
            self._relaid[key] = P.new_constant(before, np.ascontiguousarray(wide), value.name)
        return self._relaid[key]

    # ------------------------------------------------------------------------------------------------- finishing

    def finish(self) -> bool:
        """Removes superseded nodes; virtual values that are still read are computed from their twins."""
        for node in reversed(list(self.superseded)):
            if node.graph is None:
                continue
            for value in node.outputs:
                if value in self.twins and (value.uses() or value.is_graph_output()):
                    twin, perm = self.twins[value]
                    plain = self._move(twin, inverse(perm), node)
                    plain.type, plain.shape = value.type, value.shape
                    self.shapes.alias(plain, value)
                    P.replace(value, plain)
            if node.graph is not None:
                P.remove_dead(node)
        return bool(self.superseded)


def keeps_order(dims: Sequence[Dim], perm: Sequence[int]) -> bool:
    """Only axes of extent 1 change places: the same bytes."""
    moved = [i for i in perm if not D.is_one(dims[i])]
    return moved == sorted(moved)


def group_axes(source: Dims, target: Dims) -> list[tuple[list[int], list[int]]] | None:
    """Which axes of a reshape belong together: [(source axes, target axes)], extents of 1 left out."""
    a = [i for i, d in enumerate(source) if not D.is_one(d)]
    b = [i for i, d in enumerate(target) if not D.is_one(d)]
    groups: list[tuple[list[int], list[int]]] = []
    while a and b:
        left, right = [a.pop(0)], [b.pop(0)]
        while (x := D.product(source[i] for i in left)) != (y := D.product(target[i] for i in right)):
            # The side whose product divides the other's grows.
            if a and D.exact_div(y, x) is not None:
                left.append(a.pop(0))
            elif b and D.exact_div(x, y) is not None:
                right.append(b.pop(0))
            else:
                return None
        groups.append((left, right))
    return None if a or b else groups


def reshaped_perm(source: Dims, target: Dims, perm: Perm) -> Perm | None:
    """perm' with reshape(transpose(x, perm)) = transpose(reshape(x), perm'), if a reshape can do that."""
    groups = group_axes(source, target)
    if groups is None:
        return None
    order = [i for i in perm if not D.is_one(source[i])]
    by_first = {left[0]: (left, right) for left, right in groups}
    out: list[int] = []
    while order:
        if order[0] not in by_first:
            return None
        left, right = by_first[order[0]]
        if order[: len(left)] != left:
            return None
        order = order[len(left) :]
        out += right
    return _with_ones(out, target)


def _with_ones(order: list[int], target: Dims) -> Perm:
    """Axes of extent 1 are put behind the axis that they follow, or in front."""
    out = list(order)
    for i, d in enumerate(target):
        if D.is_one(d):
            out.insert(out.index(i - 1) + 1 if i else 0, i)
    return tuple(out)
