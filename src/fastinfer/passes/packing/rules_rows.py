# SPDX-License-Identifier: Apache-2.0
"""Rules for graphs of one shape per row, [B, fixed extents]: operators whose entry b along the batch reads entry b alone.

They only decide: the values that they make are never run.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from .. import pattern
from .rules_shape import axis_of, concat, dims_of, gather_nd
from .rules_token import attention, matmul
from .translate import Rule, Translation
from .values import BATCH, ONE, BatchIndex, Extent, Extents, Form, Packed, Refused, Stack, broadcast, words


def _row(p: Packed | None, axis: int) -> bool:
    """One entry per row along `axis`, or the same for all rows."""
    if p is None:
        return True
    if p.form is Form.uniform:
        return True
    return p.form is Form.sequence and p.dense and axis < len(p.shape) and p.shape[axis] == BATCH


def _made(node: ir.Node, index: int, shape: Extents) -> Packed:
    output = node.outputs[index]
    return Packed(Form.sequence, shape, ir.Value(name=output.name), dtype=output.dtype)


def _shape_of(output: ir.Value, axis: int) -> Extents:
    """What shape inference found, with the batch at `axis`."""
    extents = [] if output.shape is None else list(output.shape)
    if len(extents) <= axis or not all(isinstance(d, int) for i, d in enumerate(extents) if i != axis):
        raise Refused("has an output of unknown shape")
    return tuple(BATCH if i == axis else Extent(int(d)) for i, d in enumerate(extents))  # type: ignore[arg-type]


def batch_at(axis: int, *outputs: int, rows: tuple[int, ...] = (0,)) -> Rule:
    """The batch lies at `axis` of the inputs `rows`, of the outputs at `outputs` (default: `axis`); other inputs are the
    same for all rows."""

    def rule(t: Translation, node: ir.Node, x: list) -> list[Packed]:
        for i, p in enumerate(x):
            if not (_row(p, axis) if i in rows else p is None or p.form is Form.uniform):
                raise Refused(f"reads input {i} of {words(p.shape)}")
        at = outputs or (axis,) * len(node.outputs)
        used = [i for i, o in enumerate(node.outputs) if o.uses() or o.is_graph_output() or i == 0]
        ghost = Packed(Form.ghost, ())
        return [_made(node, i, _shape_of(o, at[i])) if i in used else ghost for i, o in enumerate(node.outputs)]

    return rule


def batch_norm(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    if pattern.attr(node, "training_mode", 0):
        raise Refused("takes its statistics from the batch")
    return batch_at(0)(t, node, x)


def resize(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    if len(x) > 3 and x[3] is not None:  # sizes name the batch, too
        x = [*x[:3], None]
    return batch_at(0)(t, node, x)


def flatten(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    p = t.densify(x[0])
    axis = pattern.attr(node, "axis", 1)
    if p.form is not Form.sequence or axis != 1 or p.shape[0] != BATCH:
        raise Refused(f"flattens {words(p.shape)} at axis {axis}")
    total = 1
    for e in p.shape[1:]:
        total *= e.c
    return [_made(node, 0, (BATCH, Extent(total)))]


def recurrent(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    """[T, B, F] → [T, D, B, H], [D, B, H], [D, B, H]"""
    states = [p for p in x[5:7] if p is not None]
    shared = [p for i, p in enumerate(x) if i not in (0, 5, 6) and p is not None]
    if pattern.attr(node, "layout", 0) or len(x[0].shape) != 3 or (len(x) > 4 and x[4] is not None):
        raise Refused("has its batch in front, or lengths")
    if not all(_row(p, 1) for p in (x[0], *states)) or any(p.form is not Form.uniform for p in shared):
        raise Refused(f"runs along axis 0 of {words(x[0].shape)}")
    directions, hidden = x[2].shape[0], x[2].shape[2]
    last = (directions, BATCH, hidden)
    return [_made(node, i, last if i else (x[0].shape[0], directions, BATCH, hidden)) for i in range(len(node.outputs))]


def attend(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    if any(p is not None and not _row(p, 0) for p in x[:3]) or any(p is not None and p.form is Form.ghost for p in x):
        return attention(t, node, x)
    if len(x) > 3 and x[3] is not None:
        mask = x[3]
        if mask.form is Form.sequence and not (len(mask.shape) == 4 and mask.vary[0] == BATCH):
            raise Refused(f"has a mask of {words(mask.shape)}")
    q = x[0].shape
    layouts = [pattern.attr(node, f"{name}_layout", "BNSH") for name in "qo"]
    sequence, heads = (q[2], q[1]) if layouts[0] == "BNSH" else (q[1], q[2])
    middle = (heads, sequence) if layouts[1] == "BNSH" else (sequence, heads)
    return [_made(node, 0, (q[0], *middle, x[2].shape[3]))]


def product(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    """Stacks of matrices, one or more per row."""
    a, b = x[:2]
    plain = all(p.form is Form.sequence and p.dense and len(p.shape) > 2 for p in (a, b))
    if not plain or any(p is not None for p in x[2:]):
        return matmul(t, node, x)
    left, right = (p.shape[-2:][::-1] if pattern.attr(node, flag, 0) else p.shape[-2:]
                   for p, flag in ((a, "transA"), (b, "transB")))  # fmt: skip
    lead = broadcast([a.shape[:-2], b.shape[:-2]])
    if lead.count(BATCH) != 1 or not all(e.fixed for e in (*left, *right)):
        raise Refused(f"multiplies {words(a.shape)} by {words(b.shape)}")
    return [_made(node, 0, (*lead, left[0], right[1]))]


def join(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    """Also indices [row's own number, anything equal for all rows]."""
    last = axis_of(pattern.attr(node, "axis", 0), len(x[0].shape)) == len(x[0].shape) - 1
    if (
        last
        and isinstance(x[0].content, BatchIndex)
        and all(p.form is Form.uniform and p.shape[-1] == ONE for p in x[1:])
    ):
        shape = (*broadcast([p.shape[:-1] for p in x]), Extent(len(x)))
        return [Packed(Form.ghost, shape, content=Stack((BatchIndex(), *[None] * (len(x) - 1))))]
    return concat(t, node, x)


def pick(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    data, index = x
    own = isinstance(index.content, Stack) and isinstance(index.content.parts[0], BatchIndex)
    if not own or pattern.attr(node, "batch_dims", 0) or not _row(data, 0) or index.shape[:-1].count(BATCH) != 1:
        return gather_nd(t, node, x)
    return [_made(node, 0, index.shape[:-1] + data.shape[index.shape[-1].c :])]


def shape_of_constant(t: Translation, node: ir.Node, x: list) -> list[Packed]:
    """Range with constant bounds."""
    bounds = [dims_of(p) for p in x]
    if any(b is None or not b[0].fixed for b in bounds):
        from .rules_shape import range_

        return range_(t, node, x)
    start, limit, step = (b[0].c + b[0].plus for b in bounds if b is not None)
    return [Packed(Form.uniform, (Extent(len(range(start, limit, step))),), ir.Value(name="range"))]


FIRST = """Conv ConvTranspose MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool InstanceNormalization
    GroupNormalization LRN DepthToSpace SpaceToDepth""".split()
_rules: dict[tuple[str, str], Callable] = {
    **{("", op): batch_at(0) for op in FIRST},
    **{(pattern.DOMAIN, op): batch_at(0) for op in FIRST},
    **{(pattern.DOMAIN, op): batch_at(0, rows=(0, 3)) for op in ("Conv", "ConvTranspose")},
    **{("", op): recurrent for op in ("LSTM", "GRU", "RNN")},
    ("", "BatchNormalization"): batch_norm,
    ("", "Concat"): join,
    ("", "Flatten"): flatten,
    ("", "GatherND"): pick,
    ("", "MatMul"): product,
    ("", "Range"): shape_of_constant,
    ("", "Resize"): resize,
    (pattern.DOMAIN, "Resize"): resize,
    (pattern.DOMAIN, "Attention"): attend,
    (pattern.DOMAIN, "MatMul"): product,
}
RULES: dict[tuple[str, str], Rule] = _rules
