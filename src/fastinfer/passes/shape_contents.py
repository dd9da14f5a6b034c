# SPDX-License-Identifier: Apache-2.0
"""Shape arithmetic: the contents of small integer tensors, followed through the operators that exporters compute shapes with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from . import dims as D
from . import pattern as P
from .dims import Dim
from .shape_rules import MAX_CONTENT
from .shape_rules_data import shape_slice

if TYPE_CHECKING:
    from .shapes import Shapes


def set_content(s: Shapes, node: ir.Node) -> None:
    """Follows the contents of small integer tensors through `node`."""
    out = _content(s, node) if node.domain == "" and node.op_type in _FOLLOWED else None
    if out is not None and len(out) <= MAX_CONTENT:
        s._content[node.outputs[0]] = out
        dims = s.dims(node.outputs[0])
        if dims is None or (len(dims) == 1 and not isinstance(dims[0], int)):
            s.put(node.outputs[0], (len(out),) if dims is None or dims else ())


_FOLLOWED = set(
    """Shape Size Gather Concat Unsqueeze Squeeze Reshape Identity Cast Slice Add Sub Mul Div Min Max Where Equal
    Not ConstantOfShape ReduceProd Expand Neg Mod Split Constant Greater Less""".split()
)
_ARITHMETIC = {"Add": D.add, "Sub": D.sub, "Mul": D.mul, "Min": D.minimum, "Max": D.maximum}


def _content(s: Shapes, node: ir.Node) -> list[Dim] | None:
    op = node.op_type
    if op == "Shape":
        x = s.dims(node.inputs[0])
        return None if x is None else list(shape_slice(node, x))
    if op == "Size":
        size = s.elements(node.inputs[0])
        return None if size is None else [size]
    if op == "Constant":
        return s.content(node.outputs[0])
    x0 = s.content(P.get(node, 0))
    if op == "ConstantOfShape":
        fill = P.attr(node, "value")
        if x0 is None or len(x0) > 1 or not all(isinstance(d, int) and d <= MAX_CONTENT for d in x0) or fill is None:
            return None
        number = fill.numpy().reshape(-1)[0]
        return [int(number)] * (int(x0[0]) if x0 else 1) if number.dtype.kind in "iub" else None  # type: ignore[arg-type]
    if x0 is None or (s.rank(node.outputs[0]) or 0) > 1:
        return None
    if op in ("Unsqueeze", "Squeeze", "Reshape", "Identity"):
        return list(x0)
    if op == "Cast":
        return list(x0) if ir.DataType(P.attr(node, "to")) in _KEPT else None
    if op == "Neg":
        return [D.mul(d, -1) for d in x0]
    if op == "Not":
        return [1 - d for d in x0] if all(isinstance(d, int) for d in x0) else None  # type: ignore[operator]
    if op == "ReduceProd":
        return [D.product(x0)]
    if op == "Expand":
        target = s.content(node.inputs[1])
        if len(x0) == 1 and target is not None and len(target) == 1 and isinstance(target[0], int):
            return x0 * target[0] if target[0] <= MAX_CONTENT else None
        return None
    return _content_of_many(s, node, x0)


_KEPT = {ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL}


def _content_of_many(s: Shapes, node: ir.Node, x0: list[Dim]) -> list[Dim] | None:
    op = node.op_type
    if op == "Gather":
        index = s.content(node.inputs[1])
        if index is None or not all(isinstance(i, int) and -len(x0) <= i < len(x0) for i in index):
            return None
        return [x0[i] for i in index]  # type: ignore[index]
    if op == "Slice":
        limits = [P.ints(P.get(node, i)) for i in (1, 2)]
        steps = P.ints(P.get(node, 4)) if P.get(node, 4) is not None else [1]
        if limits[0] is None or limits[1] is None or steps is None:
            return None
        return x0[slice(limits[0][0], limits[1][0] if limits[1][0] > -(2**31) else None, steps[0])]
    if op == "Split":
        return None
    contents = [s.content(v) for v in node.inputs]
    parts = [p for p in contents if p is not None]
    if len(parts) != len(contents):
        return None
    if op == "Concat":
        return [d for p in parts for d in p]
    length = max(len(p) for p in parts)
    if any(len(p) not in (1, length) for p in parts):
        return None
    rows = [p * length if len(p) == 1 else p for p in parts]
    out = [_elementwise(op, [r[i] for r in rows]) for i in range(length)]
    return None if None in out else out  # type: ignore[return-value]


def _elementwise(op: str, x: list[Dim]) -> Dim | None:
    if op in _ARITHMETIC:
        result = x[0]
        for d in x[1:]:
            result = _ARITHMETIC[op](result, d)
        return result
    if op in ("Div", "Mod"):
        if all(isinstance(d, int) for d in x):
            return _divide(op, *x)  # type: ignore[arg-type]
        # ONNX divides towards zero, which is the floor only for operands that cannot be negative.
        if op == "Div" and D.at_least(x[0], 0) and D.at_least(x[1], 0) and x[1] != 0:
            return D.floor_div(x[0], x[1])
        return D.opaque(op, *x)
    if op == "Where":
        if isinstance(x[0], int):
            return x[1] if x[0] else x[2]
        return x[1] if x[1] == x[2] else None
    if op == "Equal":
        difference = D.sub(x[0], x[1])
        if isinstance(difference, int):
            return int(difference == 0)
        return 0 if D.at_least(difference, 1) or D.at_least(D.mul(difference, -1), 1) else None
    if op in ("Greater", "Less"):
        difference = D.sub(x[0], x[1]) if op == "Greater" else D.sub(x[1], x[0])
        if D.at_least(difference, 1):
            return 1
        return 0 if D.at_least(D.mul(difference, -1), 0) else None
    return None


def _divide(op: str, a: int, b: int) -> int | None:
    if not b:
        return None
    quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)  # towards zero
    return quotient if op == "Div" else a % b
