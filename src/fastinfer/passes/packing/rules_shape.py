# SPDX-License-Identifier: Apache-2.0
"""Rules for operators that name, move or select elements. A rule returns what its node's outputs are in the packed graph."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from .. import pattern
from .translate import Rule, Translation
from .values import (
    BATCH,
    LENGTH,
    ONE,
    BatchIndex,
    Extent,
    Extents,
    Form,
    Packed,
    Position,
    Refused,
    Stack,
    broadcast,
    form_of,  # fmt: skip
    product,
    words,
)

FAR = 1 << 30


def dims_of(p: Packed | None) -> Extents | None:
    """The integers of a value known from the shapes, or constant."""
    if p is None:
        return None
    if p.form is Form.dims:
        return p.ints
    ints = pattern.ints(p.origin)
    return None if ints is None or len(p.shape) > 1 else tuple(Extent(i) for i in ints)


def fixed_ints(p: Packed | None, what: str) -> list[int]:
    ints = pattern.ints(p.origin) if p is not None else None
    if ints is None:
        raise Refused(f"{what} is not constant")
    return ints


def dims(ints: Extents, shape: Extents | None = None) -> Packed:
    return Packed(Form.dims, (Extent(len(ints)),) if shape is None else shape, ints=ints, dtype=ir.DataType.INT64)


def axis_of(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise Refused(f"axis {axis} of rank {rank}")
    return axis % rank


# ------------------------------------------------------------------------------------------------- integers of shapes


def shape(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    rank = len(x[0].shape)
    clamp = lambda i: min(max(i + rank if i < 0 else i, 0), rank)  # noqa: E731
    return [dims(x[0].shape[clamp(pattern.attr(node, "start", 0)) : clamp(pattern.attr(node, "end", rank))])]


def arithmetic(t: Translation, node: ir.Node, x: list) -> Packed | None:
    """Add, Sub, Mul, Div of integers known from the shapes."""
    a, b = dims_of(x[0]), dims_of(x[1])
    if a is None or b is None or (len(a) != len(b) and 1 not in (len(a), len(b))):
        return None
    n = max(len(a), len(b))
    pairs = zip(a * (n // len(a)), b * (n // len(b)))
    rule = {"Add": lambda p, q: p.add(q), "Sub": lambda p, q: p.add(q, -1), "Mul": Extent.times, "Div": Extent.over}
    ints = tuple(rule[node.op_type](p, q) for p, q in pairs)
    return dims(ints, max(x[0].shape, x[1].shape, key=len))


# ------------------------------------------------------------------------------------------------------------ reshaping


def reshape_target(given: Extents, source: Extents, allow_zero: bool) -> Extents:
    out = [source[i] if e == Extent(0) and not allow_zero and i < len(source) else e for i, e in enumerate(given)]
    if Extent(-1) in out:
        rest = product(e for e in out if e != Extent(-1))
        out[out.index(Extent(-1))] = product(source).over(rest)
    if product(out) != product(source) and product(alone(out)) != product(alone(source)):
        raise Refused(f"reshapes {words(source)} to {words(out)}")
    return tuple(out)


def alone(shape: Iterable[Extent]) -> Extents:
    return tuple(Extent(e.c, 0, e.l) for e in shape)


def around(shape: Extents, form: Form) -> list[Extent]:
    """Products of the extents before, between and behind the axes that the form changes; these must stay as they are."""
    groups, counts = [ONE], shape if form is Form.sequence else alone(shape)
    for e in counts:
        if (e.b if form is Form.sequence else e.l) and e.c == 1:
            groups.append(ONE)
        else:
            groups[-1] = groups[-1].times(e)
    return groups


def packed_extents(shape: Extents, form: Form) -> list[int]:
    """`shape` as the packed value has it; -1 for the one extent that the call decides."""
    out, seen = [], 0
    for e in shape:
        seen += bool(e.l)
        varies = e.b if form is Form.sequence else e.l and (form is Form.token or seen == 2)
        out.append(-1 if varies else 1 if e.l or e.b else e.c)
    return out


def reshape(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    target = dims_of(x[1])
    if target is None:
        raise Refused("its target shape is neither constant nor known from the shapes")
    p = x[0]
    out = reshape_target(target, p.shape, bool(pattern.attr(node, "allowzero", 0)))
    if p.form is Form.dims:
        return [p.but(shape=out)]
    kept = [e for e in p.shape if e != ONE] == [e for e in out if e != ONE]
    if p.form is Form.ghost and kept and p.vary == p.shape:
        return [p.but(shape=out)]
    p = t.densify(p)
    if any(e.plus for e in out) or form_of(out) is not p.form or around(p.shape, p.form) != around(out, p.form):
        raise Refused(f"reshapes {words(p.shape)} to {words(out)}, which mixes the tokens of different sequences")
    value = t.op("Reshape", p.value, t.ints(*packed_extents(out, p.form)), allowzero=0)
    return [p.but(shape=out, value=value, content=p.content if kept else None, origin=None)]


def axes_input(node: ir.Node, x: list, rank: int) -> list[int] | None:
    return None if len(x) < 2 or x[1] is None else sorted(axis_of(a, rank) for a in fixed_ints(x[1], "the axes"))


def unsqueeze(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    p = x[0]
    rank = len(p.shape) + len(fixed_ints(x[1], "the axes"))
    axes = axes_input(node, x, rank) or []

    def grow(s: Extents) -> Extents:
        rest = iter(s)
        return tuple(ONE if i in axes else next(rest) for i in range(rank))

    value = None if p.value is None else t.op("Unsqueeze", p.value, t.ints(*axes))
    return [p.but(shape=grow(p.shape), vary=grow(p.vary), value=value, origin=None)]


def squeeze(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    p = x[0]
    axes = axes_input(node, x, len(p.shape))
    if axes is None:
        axes = [i for i, e in enumerate(p.shape) if e == ONE]
    if any(p.shape[a] != ONE for a in axes):
        raise Refused(f"squeezes an axis of {words(p.shape)} that is not 1 for every batch")
    cut = lambda s: tuple(e for i, e in enumerate(s) if i not in axes)  # noqa: E731
    value = None if p.value is None else t.op("Squeeze", p.value, t.ints(*axes))
    return [p.but(shape=cut(p.shape), vary=cut(p.vary), value=value, origin=None)]


def transpose(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    p = x[0] if x[0].form is Form.pair else t.densify(x[0])
    perm = list(pattern.attr(node, "perm", range(len(p.shape))[::-1]))
    if p.form is Form.pair and [i for i in perm if p.vary[i].l] != p.length_axes():
        raise Refused("exchanges the two axes along the sequence")
    move = lambda s: tuple(s[i] for i in perm)  # noqa: E731
    return [p.but(shape=move(p.shape), vary=move(p.vary), value=t.op("Transpose", p.value, perm=perm), origin=None)]


def expand(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    """Nothing is written: whoever needs the repeated elements makes them."""
    target = dims_of(x[1])
    if target is None:
        raise Refused("its target shape is neither constant nor known from the shapes")
    return [x[0].but(shape=broadcast([x[0].shape, target]), vary=broadcast([x[0].vary, (ONE,) * len(target)]),
                     value=x[0].value and t.at_rank(x[0], len(target)).value, origin=None)]  # fmt: skip


def constant_of_shape(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    target = dims_of(x[0])
    if target is None:
        raise Refused("its shape is neither constant nor known from the shapes")
    tensor = pattern.attr(node, "value")
    array = np.zeros(1, np.float32) if tensor is None else tensor.numpy()
    value = t.constant(array.reshape([1] * len(target)))
    return [Packed(Form.uniform, target, value, vary=(ONE,) * len(target), dtype=value.dtype)]


def range_(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    start, limit, step = (dims_of(p) for p in x)
    if start is None or limit is None or step != (ONE,) or not start[0].fixed:
        raise Refused("counts along something other than the sequence")
    plus = start[0].c + start[0].plus
    count = limit[0].add(Extent(-plus))
    dtype = node.outputs[0].dtype or ir.DataType.INT64
    if count == LENGTH:
        return [t.positions(plus, dtype)]
    if count == BATCH and plus == 0:
        return [Packed(Form.ghost, (BATCH,), content=BatchIndex(), dtype=dtype)]
    raise Refused(f"counts to {limit[0]}")


# ------------------------------------------------------------------------------------------------------------ selecting


def gather(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    data, index = x
    axis = axis_of(pattern.attr(node, "axis", 0), len(data.shape))
    picked = pattern.ints(index.origin)
    if data.form is Form.dims:
        if picked is None:
            raise Refused("picks from a shape by computed numbers")
        return [dims(tuple(data.ints[i] for i in picked), index.shape)]
    if data.form is Form.uniform and data.dense:
        if index.form in (Form.dims, Form.ghost):
            raise Refused("looks up by the length")
        around_ = lambda s: data.shape[:axis] + s + data.shape[axis + 1 :]  # noqa: E731
        (value,) = t.copy(node, [data.value, index.value], axis=axis)
        content = index.content if _counts_up(data.origin) else None
        return [index.but(shape=around_(index.shape), vary=around_(index.vary), value=value, dtype=data.dtype,
                          content=content, origin=None)]  # fmt: skip
    if picked is None:
        raise Refused("both the table and the indices depend on the inputs")
    data = t.densify(data)
    if data.shape[axis].l:
        if picked not in ([0], [-1]) or data.form is not Form.token:
            raise Refused(f"takes token {picked} of each sequence; only the first and the last have a packed form")
        return [t.pick(data, "first" if picked == [0] else "last", len(index.shape) == 1)]
    if data.shape[axis].b:
        raise Refused("takes entries along the batch")
    (value,) = t.copy(node, [data.value, index.value], axis=axis)
    return [
        data.but(shape=data.shape[:axis] + index.shape + data.shape[axis + 1 :], value=value, content=None, origin=None)
    ]


def _counts_up(table: ir.Value | None) -> bool:
    """Whether a table gives back the index, as buffers of position ids do."""
    array = pattern.constant(table)
    if array is None or array.dtype.kind not in "iu" or array.size != max(array.shape, default=1):
        return False
    return bool((array.reshape(-1) == np.arange(array.size)).all())


def gather_elements(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    data, index = x
    axis = axis_of(pattern.attr(node, "axis", 0), len(data.shape))
    index = t.densify(index) if index.form is not Form.ghost else index
    beside = [e for i, e in enumerate(index.vary) if i != axis] + [e for i, e in enumerate(data.vary) if i != axis]
    if data.form is not Form.uniform or index.form is not Form.token or any(e not in (ONE, BATCH) for e in beside):
        raise Refused("picks elements by other than one index per token")
    (value,) = t.copy(node, [data.value, index.value])
    return [index.but(value=value, dtype=data.dtype, content=index.content if _counts_up(data.origin) else None)]


def gather_nd(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    """data[batch index, position] is data; torch's exporter writes masks so."""
    data, index = x
    same = index.content == Stack((BatchIndex(), Position()))
    if not same or pattern.attr(node, "batch_dims", 0) != 0 or data.form is not Form.token or len(data.shape) < 2:
        raise Refused("picks by indices that are not those of the token itself")
    data, where = t.densify(data), index.shape[:-1]
    if data.shape[:2] != (BATCH, LENGTH) or sorted(map(str, where)) != sorted(
        map(str, (BATCH, LENGTH, *[ONE] * (len(where) - 2)))
    ):
        raise Refused(f"picks {words(where)} of {words(data.shape)}")
    out = where + data.shape[2:]
    value = t.op("Reshape", data.value, t.ints(*packed_extents(out, Form.token)), allowzero=0)
    return [data.but(shape=out, value=value, content=None)]


def _slice_axes(x: list, rank: int) -> list[tuple[int, Extent, Extent, int]]:
    """(axis, start, end, step) for each sliced axis."""
    starts, ends = dims_of(x[1]), dims_of(x[2])
    if starts is None or ends is None:
        raise Refused("its bounds are neither constant nor known from the shapes")
    axes = fixed_ints(x[3], "the axes") if len(x) > 3 and x[3] is not None else list(range(len(starts)))
    steps = fixed_ints(x[4], "the steps") if len(x) > 4 and x[4] is not None else [1] * len(starts)
    return [(axis_of(a, rank), s, e, k) for a, s, e, k in zip(axes, starts, ends, steps)]


def _slice_dims(p: Packed, bounds: list) -> list[Packed]:
    ((_, start, end, step),) = bounds
    if not (start.fixed and end.fixed):
        raise Refused("slices a shape by the length")
    return [dims(p.ints[slice(start.c + start.plus, min(end.c + end.plus, FAR), step)])]


def slice_(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    p = x[0]
    bounds = _slice_axes(x, len(p.shape))
    if p.form is Form.dims:
        return _slice_dims(p, bounds)
    if p.form is Form.uniform and any(e.l for _, _, e, _ in bounds):
        return [_slice_positions(t, p, bounds)]
    p = t.densify(p)
    for axis, start, end, step in bounds:
        whole = (
            start in (Extent(0), Extent(plus=-1))
            and step == 1
            and (end == p.shape[axis] or (end.fixed and end.c >= FAR))
        )
        if whole:
            continue
        if p.shape[axis].l:
            if p.form is not Form.token or (start, end, step) != (Extent(0), ONE, 1):
                raise Refused(f"cuts {start}:{end}:{step} out of each sequence; only the first token has a packed form")
            p = t.pick(p, "first", keep=True)
        elif not (p.shape[axis].fixed and start.fixed and end.fixed):
            raise Refused(f"cuts {start}:{end} out of axis {axis} of {words(p.shape)}")
        else:
            p = _slice_fixed(t, p, axis, start.c + start.plus, end.c + end.plus, step)
    return [p.but(content=None, origin=None)]


def _slice_fixed(t: Translation, p: Packed, axis: int, start: int, end: int, step: int) -> Packed:
    count = len(range(p.shape[axis].c)[slice(start, end, step)])
    value = t.op("Slice", p.value, t.ints(start), t.ints(end), t.ints(axis), t.ints(step))
    return p.but(shape=tuple(Extent(count) if i == axis else e for i, e in enumerate(p.shape)), value=value)


def _slice_positions(t: Translation, p: Packed, bounds: list) -> Packed:
    """A table's first L entries: entry i for the token at place i."""
    if len(bounds) != 1:
        raise Refused("slices a table along two axes")
    ((axis, start, end, step),) = bounds
    if not start.fixed or step != 1 or end.add(start, -1) != LENGTH or not p.dense:
        raise Refused(f"cuts {start}:{end}:{step} out of a table")
    plus = start.c + start.plus
    if plus < 0:
        raise Refused(f"cuts {start}:{end}:{step} out of a table")
    index = t.positions(plus)
    value = t.op("Gather", p.value, index.value, axis=axis)
    vary = tuple(LENGTH if i == axis else e for i, e in enumerate(p.shape))
    content = Position(plus) if _counts_up(p.origin) and p.shape[axis].c == product(p.shape).c else None
    return Packed(Form.token, vary, value, content=content, dtype=p.dtype)


def concat(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    lists = [dims_of(p) for p in x]
    if any(p.form is Form.dims for p in x):
        if any(i is None for i in lists):
            raise Refused("joins a shape with other numbers")
        return [dims(tuple(e for i in lists for e in i))]  # type: ignore[union-attr]
    rank = len(x[0].shape)
    axis = axis_of(pattern.attr(node, "axis", 0), rank)
    if axis == rank - 1 and all(p.content is not None and p.shape[-1] == ONE for p in x):
        shape_ = broadcast([p.shape[:-1] for p in x]) + (Extent(len(x)),)
        return [Packed(Form.ghost, shape_, content=Stack(tuple(p.content for p in x)), dtype=x[0].dtype)]
    x = [t.densify(p) for p in x]
    if not all(p.shape[axis].fixed for p in x):
        raise Refused("joins along the sequence or the batch")
    rest = [tuple(ONE if i == axis else e for i, e in enumerate(p.shape)) for p in x]
    if any(r != rest[0] or p.form is not x[0].form for r, p in zip(rest, x)):
        raise Refused(f"joins {' and '.join(words(p.shape) for p in x)}")
    total = Extent(sum(p.shape[axis].c for p in x))
    (value,) = t.copy(node, [p.value for p in x], axis=axis)
    return [x[0].but(shape=tuple(total if i == axis else e for i, e in enumerate(x[0].shape)), value=value, content=None,
                     origin=None)]  # fmt: skip


def split(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    p = t.densify(x[0])
    axis = axis_of(pattern.attr(node, "axis", 0), len(p.shape))
    if not p.shape[axis].fixed:
        raise Refused("splits the sequence or the batch")
    n = len(node.outputs)
    if len(x) > 1 and x[1] is not None:
        sizes = fixed_ints(x[1], "the sizes")
    else:
        size = -(-p.shape[axis].c // n)
        sizes = [min(size, p.shape[axis].c - i * size) for i in range(n)]
    values = t.copy(node, [p.value, *(q.value for q in x[1:] if q is not None)], axis=axis)
    shapes = [tuple(Extent(s) if i == axis else e for i, e in enumerate(p.shape)) for s in sizes]
    return [p.but(shape=s, value=v, content=None, origin=None) for s, v in zip(shapes, values)]


RULES: dict[tuple[str, str], Rule] = {
    ("", "Concat"): concat,
    ("", "ConstantOfShape"): constant_of_shape,
    ("", "Expand"): expand,
    ("", "Gather"): gather,
    ("", "GatherElements"): gather_elements,
    ("", "GatherND"): gather_nd,
    ("", "Range"): range_,
    ("", "Reshape"): reshape,
    ("", "Shape"): shape,
    ("", "Slice"): slice_,
    ("", "Split"): split,
    ("", "Squeeze"): squeeze,
    ("", "Transpose"): transpose,
    ("", "Unsqueeze"): unsqueeze,
}
