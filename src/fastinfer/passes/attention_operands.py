# SPDX-License-Identifier: Apache-2.0
"""Reading Q, K, V of an attention back through scaling, head transposes, batch merging and repeated heads."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from . import dims as D
from . import pattern as P
from .dims import Dims
from .shapes import Shapes

# perm such that operand = transpose(base, perm), for the operand's logical order (B, N, S, H)
QV_LAYOUTS = {(0, 1, 2, 3): "BNSH", (0, 2, 1, 3): "BSNH"}
# K enters the product as (B, N, H, S)
K_LAYOUTS = {(0, 1, 3, 2): "BNSH", (0, 2, 3, 1): "BSNH", (0, 1, 2, 3): "BNHS"}


@dataclass
class Operand:
    value: ir.Value
    layout: str
    scale: float
    batch: D.Dim  # B
    heads: D.Dim  # N of this operand, possibly fewer than the queries'
    rows: D.Dim  # S
    size: D.Dim  # H


def read(s: Shapes, value: ir.Value, layouts: dict[tuple[int, ...], str], repeat: bool) -> Operand | None:
    """The deepest value that `value` is a scaled, transposed, (head-)repeated view of."""
    rank = s.rank(value)
    if rank not in (3, 4):
        return None
    logical: list[int] = list(range(rank))  # operand axis i is axis logical[i] of `value`
    merged, repeated, scale = rank == 3, False, 1.0
    best: Operand | None = None
    while True:
        if not merged and len(logical) == 4 and tuple(logical) in layouts:
            best = _operand(s, value, layouts[tuple(logical)], scale)
        node = value.producer()
        if node is None or node.domain:
            return best
        step = scaled(node)
        if step is not None:
            value, scale = step[0], scale * step[1]
        elif node.op_type == "Transpose":
            perm = list(P.attr(node, "perm") or range(len(logical))[::-1])
            logical, value = [perm[i] for i in logical], node.inputs[0]  # type: ignore[assignment]
        elif merged and merges_leading(s, node):
            # (B·N, r, c) → (B, N, r, c): the merged axis must still lead.
            if logical[0] != 0:
                return best
            logical, merged = [0, 1, logical[1] + 1, logical[2] + 1], False
            value = node.inputs[0]  # type: ignore[assignment]
        elif repeat and not merged and not repeated and (source := _repeated(s, value, logical)) is not None:
            value, repeated = source, True
        else:
            return best


def scaled(node: ir.Node) -> tuple[ir.Value, float] | None:
    if node.op_type == "Mul":
        return P.with_scalar(node, "Mul")
    if node.op_type == "Div" and (divisor := P.scalar(node.inputs[1])):
        return node.inputs[0], 1.0 / divisor  # type: ignore[return-value]
    return None


def merges_leading(s: Shapes, node: ir.Node) -> bool:
    """Reshape (a, b, c, d) → (a·b, c, d)"""
    if node.op_type != "Reshape":
        return False
    x, y = s.dims(node.inputs[0]), s.dims(node.outputs[0])
    return x is not None and y is not None and len(x) == 4 and len(y) == 3 and y == (D.mul(x[0], x[1]), x[2], x[3])


def _repeated(s: Shapes, value: ir.Value, logical: list[int]) -> ir.Value | None:
    """x of reshape(expand(unsqueeze(x))) where each head is repeated n times (repeat_kv, repeat_interleave)"""
    view = P.producer(value, "Reshape")
    wide = P.producer(view.inputs[0], "Expand") if view is not None else None
    narrow = P.producer(wide.inputs[0], "Unsqueeze", "Reshape") if wide is not None else None
    if view is None or wide is None or narrow is None or narrow.inputs[0] is None:
        return None
    out, five, one = s.dims(view.outputs[0]), s.dims(wide.outputs[0]), s.dims(wide.inputs[0])
    x = s.dims(narrow.inputs[0])
    heads = logical[1]
    if x is None or out is None or five is None or one is None or len(five) != 5 or len(one) != 5 or len(x) != 4:
        return None
    at = heads + 1  # the new axis, behind the heads
    inserted = (*x[:at], 1, *x[at:])
    if one != inserted or out != (*five[:heads], D.mul(five[heads], five[at]), *five[at + 1 :]):
        return None
    same = all(a == b for i, (a, b) in enumerate(zip(five, inserted)) if i != at)
    return narrow.inputs[0] if same else None


def _operand(s: Shapes, value: ir.Value, layout: str, scale: float) -> Operand | None:
    dims: Dims | None = s.dims(value)
    if dims is None:
        return None
    at = {letter: i for i, letter in enumerate(layout)}
    return Operand(value, layout, scale, dims[0], dims[at["N"]], dims[at["S"]], dims[at["H"]])
