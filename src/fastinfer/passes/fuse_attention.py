# SPDX-License-Identifier: Apache-2.0
"""Attention, written out in one of its many ways."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from . import attention_operands as operands
from . import dims as D
from . import pattern as P
from .algebra import product
from .attention_operands import K_LAYOUTS, QV_LAYOUTS, Operand
from .shapes import Shapes
from .simplify_shapes import literal_shape


def fuse_attention(model: ir.Model) -> bool:
    """matmul(softmax(scale · q·kᵀ + mask), v) → fastinfer.Attention(q, k, v, mask, scale)"""
    shapes = Shapes(model)
    return P.rewrite(model, lambda node: _rule(shapes, node))


@dataclass
class Scores:
    """What stands between the first product and the softmax."""

    product: ir.Node | None = None
    scale: float = 1.0
    added: list[ir.Value] = field(default_factory=list)
    filled: list[tuple[ir.Value, bool, float]] = field(default_factory=list)  # condition, value where true?, fill
    softcap: float = 0.0
    merged: bool = False  # behind a Reshape (B·N, S, T) → (B, N, S, T), where masks have merged heads too
    zero_empty: bool = False  # a NaN guard: rows without an open key give 0


def _rule(s: Shapes, node: ir.Node) -> bool:
    if not P.is_op(node, "MatMul") or not P.is_float(node.outputs[0]):
        return False
    softmax = _softmax(s, node.inputs[0])
    if softmax is None:
        return False
    scores = _scores(s, softmax.inputs[0])
    scores.zero_empty = P.producer(node.inputs[0], "Where") is not None
    if scores.product is None:
        return False
    q = operands.read(s, scores.product.inputs[0], QV_LAYOUTS, repeat=False)  # type: ignore[arg-type]
    k = operands.read(s, scores.product.inputs[1], K_LAYOUTS, repeat=True)  # type: ignore[arg-type]
    v = operands.read(s, node.inputs[1], QV_LAYOUTS, repeat=True)  # type: ignore[arg-type]
    if q is None or k is None or v is None or v.scale != 1.0:
        return False
    v = _same_heads(s, k, v, node) if k.heads != v.heads else v
    if v is None or not _fit(q, k, v) or not all(_broadcasts(s, m, q, k, v) for m in _masks(scores)):
        return False
    return _replace(s, node, q, k, v, scores)


def _softmax(s: Shapes, value: ir.Value | None) -> ir.Node | None:
    """The softmax over keys behind a NaN guard and a merge of batch and heads."""
    if value is None:
        return None
    guard = P.producer(value, "Where")
    if guard is not None:
        test = P.producer(guard.inputs[0], "IsNaN")
        if test is None or test.inputs[0] is not guard.inputs[2] or not P.is_scalar(guard.inputs[1], 0.0, 0.0):
            return None
        value = guard.inputs[2]
    view = P.producer(value, "Reshape")
    if view is not None and operands.merges_leading(s, view):
        value = view.inputs[0]
    softmax, rank = P.producer(value, "Softmax"), s.rank(value)
    return softmax if softmax is not None and rank and P.attr(softmax, "axis", -1) in (-1, rank - 1) else None


_NOTHING = -1e30  # an added constant below this closes a key as −inf does


def _scores(s: Shapes, value: ir.Value | None) -> Scores:
    found = Scores()
    while value is not None:
        node = value.producer()
        if node is None or node.domain:
            return found
        if node.op_type == "MatMul":
            found.product = node
            return found
        scaled, capped = operands.scaled(node), _softcap(found, value)
        if capped is not None:
            value = capped
        elif scaled is not None:
            value, found.scale = scaled[0], found.scale * scaled[1]
        elif node.op_type == "Add" and found.scale == 1.0 and not found.softcap:
            side = _towards_product(node.inputs[0], node.inputs[1])
            if side is None or not _unmerged(s, found, node.inputs[1 - side]):
                return found
            found.added.append(node.inputs[1 - side])  # type: ignore[arg-type]
            value = node.inputs[side]
        elif node.op_type == "Where" and found.scale == 1.0 and not found.softcap:
            step = _filled(node)
            if step is None or not _unmerged(s, found, step[1][0]):
                return found
            found.filled.append(step[1])
            value = step[0]
        elif node.op_type == "Max" and len(node.inputs) == 2 and (clamped := P.with_scalar(node, "Max")) is not None:
            if clamped[1] > _NOTHING:
                return found
            value = clamped[0]
        elif node.op_type == "Reshape" and _splits_leading(s, node):
            value, found.merged = node.inputs[0], True
        else:
            return found
    return found


def _unmerged(s: Shapes, found: Scores, mask: ir.Value | None) -> bool:
    """Whether a mask means the same before and after the split of (B·N): it has no such axis, or one of extent 1."""
    dims = None if mask is None else s.dims(mask)
    return not found.merged or (dims is not None and (len(dims) < 3 or D.is_one(dims[-3])))


def _softcap(found: Scores, value: ir.Value) -> ir.Value | None:
    """x of c · tanh(x / c)"""
    outer = product(value)
    function = P.producer(outer.factors[0], "Tanh") if len(outer.factors) == 1 else None
    if function is None or outer.number <= 0.0 or found.softcap or found.scale != 1.0:
        return None
    inner = product(function.inputs[0])  # type: ignore[arg-type]
    if len(inner.factors) != 1:
        return None
    found.softcap, found.scale = outer.number, inner.number * outer.number
    return inner.factors[0]


def _towards_product(*sides: ir.Value | None) -> int | None:
    """Which operand the scores come from: the one with a MatMul a few steps back."""
    distances = [_distance(v, 6) for v in sides]
    best = min(range(len(sides)), key=lambda i: distances[i])
    return best if distances[best] < 99 else None


def _distance(value: ir.Value | None, depth: int) -> int:
    node = None if value is None else value.producer()
    if node is None or not depth or node.domain:
        return 99
    if node.op_type == "MatMul":
        return 0
    if node.op_type in ("Add", "Mul", "Div", "Where", "Reshape", "Max", "Tanh"):
        return 1 + min((_distance(v, depth - 1) for v in node.inputs), default=99)
    return 99


def _filled(node: ir.Node) -> tuple[ir.Value, tuple[ir.Value, bool, float]] | None:
    """(scores, (condition, filled where true?, fill)) of where(condition, fill, scores)"""
    condition, a, b = node.inputs
    for scores, fill, where_true in ((b, a, True), (a, b, False)):
        number = P.scalar(fill)
        if number is not None and number <= -1e4 and scores is not None and condition is not None:
            return scores, (condition, where_true, number)
    return None


def _splits_leading(s: Shapes, node: ir.Node) -> bool:
    """Reshape (a·b, c, d) → (a, b, c, d)"""
    x, y = s.dims(node.inputs[0]), s.dims(node.outputs[0])
    return x is not None and y is not None and len(x) == 3 and len(y) == 4 and x == (D.mul(y[0], y[1]), y[2], y[3])


# --------------------------------------------------------------------------------------------------------- checking


def _same_heads(s: Shapes, k: Operand, v: Operand, node: ir.Node) -> Operand | None:
    """Only one of K and V was read through repeated heads: read V as it is."""
    return operands.read(s, node.inputs[1], QV_LAYOUTS, repeat=False)  # type: ignore[arg-type]


def _fit(q: Operand, k: Operand, v: Operand) -> bool:
    if k.size != q.size or v.heads != k.heads or v.rows != k.rows or q.batch != k.batch or q.batch != v.batch:
        return False
    if q.heads == k.heads:
        return True
    return isinstance(q.heads, int) and isinstance(k.heads, int) and k.heads > 0 and q.heads % k.heads == 0


def _masks(scores: Scores) -> list[ir.Value]:
    return [*scores.added, *(condition for condition, _, _ in scores.filled)]


def _broadcasts(s: Shapes, mask: ir.Value, q: Operand, k: Operand, v: Operand) -> bool:
    """The mask broadcasts to the scores and does not enlarge them.

    Keys need no check (the second product has k.rows = v.rows). Two different symbols are taken for equal, as the
    model is only valid where they are, or where one of them is 1 at run time: that is then refused by the kernel.
    """
    dims = s.dims(mask)
    if dims is None or len(dims) > 4:
        return False
    target = (q.batch, q.heads, q.rows)[4 - len(dims) :] if len(dims) > 1 else ()
    for d, t in zip(dims, target):
        symbolic = not isinstance(d, int) and not D.is_one(t)
        if d != t and not D.is_one(d) and not symbolic:
            return False
    return True


# ----------------------------------------------------------------------------------------------------------- result


def _replace(s: Shapes, node: ir.Node, q: Operand, k: Operand, v: Operand, scores: Scores) -> bool:
    out, layout, merged = _output(s, node)
    dims = (q.batch, q.heads, q.rows, v.size) if layout == "BNSH" else (q.batch, q.rows, q.heads, v.size)
    target = literal_shape(dims, s.dims(out) or ()) if merged else []
    anchor = out.producer()
    if target is None or anchor is None:
        return False
    mask = _mask(s, anchor, scores)
    attributes = {
        "q_layout": q.layout,
        "k_layout": k.layout,
        "v_layout": v.layout,
        "o_layout": layout,
        "scale": float(scores.scale * q.scale * k.scale),
        "softcap": scores.softcap or None,
        "zero_empty": int(scores.zero_empty) or None,
    }
    y = P.emit(anchor, "Attention", [q.value, k.value, v.value, mask], attributes, domain=P.DOMAIN).outputs[0]
    y.type = ir.TensorType(ir.DataType.FLOAT)
    y.shape = ir.Shape([d if isinstance(d, int) else None for d in dims])
    s.put(y, dims)
    if merged:  # the model goes on with (B·N, S, H)
        y = P.emit(anchor, "Reshape", [y, P.new_constant(anchor, np.array(target, np.int64))], like=out).outputs[0]
        s.alias(y, out)
    return P.replace(out, y)


def _output(s: Shapes, node: ir.Node) -> tuple[ir.Value, str, bool]:
    """How far the result can be taken: through the split of (B·N) and the transpose that brings the heads back."""
    out, merged = node.outputs[0], s.rank(node.outputs[0]) == 3
    if merged:
        reader = P.only_use(out)
        if reader is not None and reader.op_type == "Reshape" and not reader.domain and _splits_leading(s, reader):
            out, merged = reader.outputs[0], False
    reader = None if merged else P.only_use(out)
    if P.is_op(reader, "Transpose") and list(P.attr(reader, "perm") or ()) == [0, 2, 1, 3]:  # type: ignore[arg-type]
        return reader.outputs[0], "BSNH", False  # type: ignore[union-attr]
    return out, "BNSH", merged


def _mask(s: Shapes, anchor: ir.Node, scores: Scores) -> ir.Value | None:
    """One additive mask; each fill becomes where(condition, fill, 0). What is constant and hides nothing is left out."""
    parts = [mask for mask in scores.added if not _is_all(mask, 0)]
    for condition, where_true, fill in scores.filled:
        if _is_all(condition, not where_true):
            continue
        closed, opened = (P.new_constant(anchor, np.array(x, np.float32)) for x in (fill, 0.0))
        choice = [condition, closed, opened] if where_true else [condition, opened, closed]
        part = P.emit(anchor, "Where", choice).outputs[0]
        part.type, part.shape = ir.TensorType(ir.DataType.FLOAT), condition.shape
        s.alias(part, condition)
        parts.append(part)
    if not parts:
        return None
    total = parts[0]
    for part in parts[1:]:
        dims = s.broadcast([s.dims(total), s.dims(part)])
        total = P.emit(anchor, "Add", [total, part]).outputs[0]
        total.type = ir.TensorType(ir.DataType.FLOAT)
        total.shape = ir.Shape([d if isinstance(d, int) else None for d in dims or ()])
        s.put(total, dims)
    return total


def _is_all(value: ir.Value, x: float) -> bool:
    """A constant of nothing but x: exporters write the mask of a padding-free batch out (197 x 197 zeros in ViT-B/16)."""
    array = P.constant(value)
    return array is not None and bool((array == x).all())
