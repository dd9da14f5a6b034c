# SPDX-License-Identifier: Apache-2.0
"""Shape rules of operators that move or reduce data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx_ir as ir

from . import dims as D
from . import pattern as P
from .dims import Dim, Dims
from .shape_rules import Result, Rule, attribute_or_input, registrar

if TYPE_CHECKING:
    from .shapes import Shapes

RULES: dict[tuple[str, str], Rule] = {}
shape_rule = registrar(RULES)

REDUCTIONS = """ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
    ReduceSumSquare""".split()


@shape_rule(*REDUCTIONS)
def _reduce(s: Shapes, node: ir.Node) -> Result:
    x = s.dims(node.inputs[0])
    if x is None:
        return [None]
    keep = P.attr(node, "keepdims", 1)
    axes = attribute_or_input(node, "axes", 1)
    if axes is None and P.get(node, 1) is not None:
        return [tuple(s.fresh() for _ in x)] if keep else [None]
    if not axes:
        if P.attr(node, "noop_with_empty_axes", 0):
            return [x]
        axes = list(range(len(x)))
    axes = [a % len(x) for a in axes]
    return [tuple(1 if i in axes else d for i, d in enumerate(x) if keep or i not in axes)]


@shape_rule("ArgMax", "ArgMin")
def _arg(s: Shapes, node: ir.Node) -> Result:
    x = s.dims(node.inputs[0])
    if x is None:
        return [None]
    axis, keep = P.attr(node, "axis", 0) % len(x), P.attr(node, "keepdims", 1)
    return [tuple(1 if i == axis else d for i, d in enumerate(x) if keep or i != axis)]


def resolve_reshape(source: Dims | None, target: list[Dim], allow_zero: bool) -> Dims | None:
    """The extents of Reshape to `target` (entries may be 0 or −1), None where −1 cannot be said."""
    out: list[Dim | None] = []
    for i, d in enumerate(target):
        if isinstance(d, int) and d == 0 and not allow_zero:
            if source is None or i >= len(source):
                return None
            out.append(source[i])
        else:
            out.append(None if isinstance(d, int) and d == -1 else d)
    if None not in out:
        return tuple(out)  # type: ignore[arg-type]
    if source is None:
        return None
    at, rest = out.index(None), list(source)
    known: list[Dim] = []
    for e in out:  # cancel equal factors first: [B, S, 768] to [B, -1] needs no division by a sum
        if e is not None and e in rest and not D.is_one(e):
            rest.remove(e)
        elif e is not None:
            known.append(e)
    missing = D.exact_div(D.product(rest), D.product(known)) if D.product(known) != 0 else None
    if missing is None:
        missing = D.opaque("rest", D.product(rest), D.product(known))
    out[at] = missing
    return tuple(out)  # type: ignore[arg-type]


@shape_rule("Reshape")
def _reshape(s: Shapes, node: ir.Node) -> Result:
    target = s.content(node.inputs[1])
    if target is None:
        length = s.dims(node.inputs[1])
        if length is not None and len(length) == 1 and isinstance(length[0], int):
            return [tuple(s.fresh() for _ in range(length[0]))]
        return [None]
    out = resolve_reshape(s.dims(node.inputs[0]), target, bool(P.attr(node, "allowzero", 0)))
    return [out if out is not None else tuple(s.fresh() for _ in target)]


@shape_rule("Flatten")
def _flatten(s: Shapes, node: ir.Node) -> Result:
    x = s.dims(node.inputs[0])
    if x is None:
        return [(s.fresh(), s.fresh())]
    axis = P.attr(node, "axis", 1)
    axis = axis + len(x) if axis < 0 else axis
    return [(D.product(x[:axis]), D.product(x[axis:]))]


@shape_rule("Squeeze")
def _squeeze(s: Shapes, node: ir.Node) -> Result:
    x = s.dims(node.inputs[0])
    axes = attribute_or_input(node, "axes", 1)
    if x is None or (axes is None and P.get(node, 1) is not None):
        return [None]
    if axes is None:
        if not all(isinstance(d, int) for d in x):
            return [None]
        return [tuple(d for d in x if d != 1)]
    dropped = {a % len(x) for a in axes}
    return [tuple(d for i, d in enumerate(x) if i not in dropped)]


@shape_rule("Unsqueeze")
def _unsqueeze(s: Shapes, node: ir.Node) -> Result:
    x = s.dims(node.inputs[0])
    axes = attribute_or_input(node, "axes", 1)
    if x is None or axes is None:
        return [None]
    rank = len(x) + len(axes)
    at = {a % rank for a in axes}
    rest = iter(x)
    return [tuple(1 if i in at else next(rest) for i in range(rank))]


@shape_rule("Transpose")
def _transpose(s: Shapes, node: ir.Node) -> Result:
    x = s.dims(node.inputs[0])
    if x is None:
        return [None]
    perm = P.attr(node, "perm") or range(len(x) - 1, -1, -1)
    return [tuple(x[i] for i in perm)]


@shape_rule("Concat")
def _concat(s: Shapes, node: ir.Node) -> Result:
    shapes = [s.dims(v) for v in node.inputs]
    if any(x is None for x in shapes):
        return [None]
    first = shapes[0]
    assert first is not None
    axis = P.attr(node, "axis") % len(first)
    total: Dim = 0
    for x in shapes:
        total = D.add(total, x[axis])  # type: ignore[index]
    # Off the axis all inputs agree, so a number known of any of them holds for all.
    out = [next((x[i] for x in shapes if isinstance(x[i], int)), first[i]) for i in range(len(first))]  # type: ignore[index]
    out[axis] = total
    return [tuple(out)]


@shape_rule("Split")
def _split(s: Shapes, node: ir.Node) -> Result:
    x = s.dims(node.inputs[0])
    if x is None:
        return [None] * len(node.outputs)
    axis, n = P.attr(node, "axis", 0) % len(x), len(node.outputs)
    sizes = list(P.attr(node, "split") or []) or s.content(P.get(node, 1))
    if sizes is None:
        if P.get(node, 1) is not None:
            sizes = [s.fresh() for _ in range(n)]
        else:
            chunk = D.ceil_div(x[axis], n)
            sizes = [chunk] * (n - 1) + [D.sub(x[axis], D.mul(chunk, n - 1))]
    return [tuple(sizes[k] if i == axis else d for i, d in enumerate(x)) for k in range(n)]


def slice_extent(s: Shapes, d: Dim, start: Dim, end: Dim, step: int) -> Dim:
    """The number of elements of d[start:end:step]."""
    if isinstance(d, int) and isinstance(start, int) and isinstance(end, int):
        return len(range(*slice(start, end if end > -(2**31) else None, step).indices(d)))
    if step < 1 or not isinstance(start, int):
        return D.sub(end, start) if step == 1 and D.at_least(D.sub(d, end), 0) and end != start else s.fresh()
    if isinstance(end, int):
        if end >= 2**31 - 1:
            end = d
        elif end < 0:
            end = D.add(d, end)
        elif start >= 0:
            return D.ceil_div(D.sub(D.minimum(end, d), start), step) if start == 0 else s.fresh()
    if start < 0:
        return -start if step == 1 and end == d and isinstance(d, int) and d >= -start else s.fresh()
    if end != d and not D.at_least(D.sub(d, end), 0):
        return s.fresh() if start else D.ceil_div(D.minimum(end, d), step)
    # d[start:] of a symbolic extent could be empty when start > d; valid graphs do not do that to shapes they rely on.
    return D.ceil_div(D.sub(end, start), step)


@shape_rule("Slice")
def _slice(s: Shapes, node: ir.Node) -> Result:
    x = s.dims(node.inputs[0])
    if x is None:
        return [None]
    starts, ends = s.content(P.get(node, 1)), s.content(P.get(node, 2))
    axes = P.ints(P.get(node, 3)) if P.get(node, 3) is not None else None
    steps = P.ints(P.get(node, 4)) if P.get(node, 4) is not None else None
    if axes is None and (P.get(node, 3) is not None or starts is None):
        return [tuple(s.fresh() for _ in x)]
    axes = [a % len(x) for a in (axes if axes is not None else range(len(starts or ())))]
    out = list(x)
    for i, axis in enumerate(axes):
        if starts is None or ends is None or (steps is None and P.get(node, 4) is not None):
            out[axis] = s.fresh()
        else:
            out[axis] = slice_extent(s, x[axis], starts[i], ends[i], steps[i] if steps else 1)
    return [tuple(out)]


@shape_rule("Pad")
def _pad(s: Shapes, node: ir.Node) -> Result:
    x, pads = s.dims(node.inputs[0]), s.content(P.get(node, 1))
    if x is None:
        return [None]
    axes = list(range(len(x)))
    if P.get(node, 3) is not None:
        given = P.ints(P.get(node, 3))
        if given is None:
            return [tuple(s.fresh() for _ in x)]
        axes = [a % len(x) for a in given]
    out = list(x)
    for i, axis in enumerate(axes):
        out[axis] = s.fresh() if pads is None else D.add(x[axis], D.add(pads[i], pads[i + len(axes)]))
    return [tuple(out)]


@shape_rule("Expand")
def _expand(s: Shapes, node: ir.Node) -> Result:
    x, target = s.dims(node.inputs[0]), s.content(node.inputs[1])
    if target is None:
        length = s.static(node.inputs[1])
        if x is None or length is None:
            return [None]
        return [tuple(s.fresh() for _ in range(max(len(x), length[0])))]
    return [s.broadcast([x, tuple(target)])]


@shape_rule("Tile")
def _tile(s: Shapes, node: ir.Node) -> Result:
    x, repeats = s.dims(node.inputs[0]), s.content(node.inputs[1])
    if x is None:
        return [None]
    return [tuple(s.fresh() if repeats is None else D.mul(d, repeats[i]) for i, d in enumerate(x))]


@shape_rule("Gather")
def _gather(s: Shapes, node: ir.Node) -> Result:
    x, indices = s.dims(node.inputs[0]), s.dims(node.inputs[1])
    if x is None or indices is None:
        return [None]
    axis = P.attr(node, "axis", 0) % len(x)
    return [x[:axis] + indices + x[axis + 1 :]]


@shape_rule("GatherElements")
def _gather_elements(s: Shapes, node: ir.Node) -> Result:
    return [s.dims(node.inputs[1])]


@shape_rule("GatherND")
def _gather_nd(s: Shapes, node: ir.Node) -> Result:
    x, indices = s.dims(node.inputs[0]), s.dims(node.inputs[1])
    batch = P.attr(node, "batch_dims", 0)
    if x is None or indices is None or not isinstance(indices[-1], int):
        return [None]
    return [indices[:-1] + x[batch + indices[-1] :]]


@shape_rule("Shape")
def _shape(s: Shapes, node: ir.Node) -> Result:
    x = s.dims(node.inputs[0])
    return [(s.fresh() if x is None else len(shape_slice(node, x)),)]


def shape_slice(node: ir.Node, x: Dims) -> Dims:
    return x[slice(P.attr(node, "start", 0), P.attr(node, "end"))]


@shape_rule("Size")
def _size(s: Shapes, node: ir.Node) -> Result:
    return [()]


@shape_rule("ConstantOfShape")
def _constant_of_shape(s: Shapes, node: ir.Node) -> Result:
    target = s.content(node.inputs[0])
    if target is not None:
        return [tuple(target)]
    length = s.static(node.inputs[0])
    return [None if length is None else tuple(s.fresh() for _ in range(length[0]))]


@shape_rule("Range")
def _range(s: Shapes, node: ir.Node) -> Result:
    start, limit, delta = (s.content(v) for v in node.inputs)
    if start and limit and delta and delta[0] == 1:
        return [(D.sub(limit[0], start[0]),)]
    numbers = [P.scalar(v) for v in node.inputs]
    if None not in numbers and numbers[2]:
        return [(max(0, math.ceil((numbers[1] - numbers[0]) / numbers[2])),)]  # type: ignore[operator]
    return [(s.fresh(),)]


@shape_rule("TopK")
def _top_k(s: Shapes, node: ir.Node) -> Result:
    x, k = s.dims(node.inputs[0]), s.content(node.inputs[1])
    if x is None:
        return [None, None]
    axis = P.attr(node, "axis", -1) % len(x)
    out = tuple((k[0] if k else s.fresh()) if i == axis else d for i, d in enumerate(x))
    return [out, out]


@shape_rule("NonZero")
def _non_zero(s: Shapes, node: ir.Node) -> Result:
    rank = s.rank(node.inputs[0])
    return [(s.fresh() if rank is None else rank, s.fresh())]


@shape_rule("Constant")
def _constant(s: Shapes, node: ir.Node) -> Result:
    value = node.outputs[0].const_value
    return [None if value is None else tuple(int(d) for d in value.shape)]  # type: ignore[arg-type]
