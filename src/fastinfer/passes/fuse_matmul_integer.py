# SPDX-License-Identifier: Apache-2.0
"""Dynamically quantized products: MatMulInteger with what scales its sums."""

from __future__ import annotations

import onnx_ir as ir

from . import pattern as P
from .shapes import Shapes


def fuse_matmul_integer(model: ir.Model) -> bool:
    """cast(MatMulInteger(a, b, za, zb)) · (sa · sb) + bias → QMatMul(a, b, sa, sb, za, zb, bias) with a float result"""
    shapes = Shapes(model)
    return P.rewrite(model, lambda node: _fuse(shapes, node))


def _fuse(s: Shapes, node: ir.Node) -> bool:
    if not P.is_op(node, "MatMulInteger") or len(node.inputs) < 4 or any(v is None for v in node.inputs):
        return False
    a, b, za, zb = node.inputs
    cast = P.only_use(node.outputs[0])
    scaled = P.only_use(cast.outputs[0]) if P.is_op(cast, "Cast") else None  # type: ignore[union-attr]
    if not P.is_op(scaled, "Mul") or not P.is_float(cast.outputs[0]):  # type: ignore[union-attr]
        return False
    factor = next(v for v, other in P.commuted(scaled) if other is cast.outputs[0])  # type: ignore[arg-type, union-attr]
    scales = _scales(s, P.producer(factor, "Mul"), b)
    if scales is None or scaled.graph is not node.graph or s.dims(za) not in ((), (1,)):  # type: ignore[union-attr]
        return False
    if s.dims(zb) not in ((), (1,), (_columns(s, b),)):
        return False
    out, bias = scaled.outputs[0], None  # type: ignore[union-attr]
    add = P.only_use(out)
    if P.is_op(add, "Add") and add.graph is node.graph:  # type: ignore[union-attr]
        other = next((v for v, x in P.commuted(add) if x is out), None)  # type: ignore[arg-type]
        if P.is_constant(other) and P.is_float(other) and s.dims(other) == (_columns(s, b),):
            out, bias = add.outputs[0], other  # type: ignore[union-attr]
    inputs = [a, scales[0], za, b, scales[1], zb, *[None] * 8, bias]
    anchor = out.producer()
    assert anchor is not None
    new = P.emit(anchor, "QMatMul", inputs, domain=P.DOMAIN, like=out).outputs[0]
    s.alias(new, out)
    return P.replace(out, new)


def _columns(s: Shapes, b: ir.Value | None) -> object:
    dims = s.dims(b)
    return dims[-1] if dims is not None and len(dims) == 2 and P.is_constant(b) else None


def _scales(s: Shapes, node: ir.Node | None, b: ir.Value | None) -> tuple[ir.Value, ir.Value] | None:
    """(a's, b's) of their product: one number, and a constant of one number or one per column."""
    n = _columns(s, b)
    if node is None or n is None:
        return None
    for one, columns in P.commuted(node):
        single, spread = s.dims(one) in ((), (1,)), s.dims(columns) in ((), (1,), (n,))
        if single and spread and P.is_constant(columns) and P.is_float(one) and P.is_float(columns):
            return one, columns
    return None
