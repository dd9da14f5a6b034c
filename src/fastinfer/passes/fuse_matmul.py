# SPDX-License-Identifier: Apache-2.0
"""Matrix products take transposes, scaling, bias, residual and activation in."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from . import dims as D
from . import pattern as P
from .activations import follow
from .shapes import Shapes
from .simplify_shapes import literal_shape


def unflatten_matmul(model: ir.Model) -> bool:
    """matmul(reshape(x, [−1, k]), w) → reshape(matmul(x, w), [−1, n]), for a constant w"""
    shapes = Shapes(model)
    return P.rewrite(model, lambda node: _unflatten(shapes, node))


def fuse_matmul(model: ir.Model) -> bool:
    """relu(alpha · aᵀ·b + bias + r) → fastinfer.MatMul(a, b, bias, r, transA, alpha, activation=relu)"""
    shapes = Shapes(model)
    return P.rewrite(model, lambda node: _rule(shapes, node))


def _unflatten(s: Shapes, node: ir.Node) -> bool:
    if not P.is_op(node, "MatMul", "Gemm"):
        return False
    view = P.producer(node.inputs[0], "Reshape", "Flatten")
    source = s.dims(view.inputs[0]) if view is not None else None
    flat, out = s.dims(node.inputs[0]), s.dims(node.outputs[0])
    if view is None or source is None or flat is None or out is None or len(flat) != 2 or len(source) < 3:
        return False
    lead = next((i for i in range(2, len(source)) if D.product(source[i:]) == flat[-1]), None)
    if lead is None or not P.is_constant(node.inputs[1]) or s.rank(node.inputs[1]) != 2:
        return False
    if not isinstance(out[-1], int) or (node.op_type == "Gemm" and not _plain_gemm(s, node, out[-1])):
        return False
    x, w, old = view.inputs[0], node.inputs[1], node.outputs[0]
    if lead != len(source) - 1:
        source = (*source[:lead], flat[-1])
        target = literal_shape(s.dims(x) or (), source)
        if target is None:
            return False
        x = P.emit(node, "Reshape", [x, P.new_constant(node, np.array(target, np.int64))]).outputs[0]
        _describe(s, x, source, old)
    if P.attr(node, "transB", 0):
        w = P.emit(node, "Transpose", [w], {"perm": [1, 0]}).outputs[0]
        w.type = ir.TensorType(ir.DataType.FLOAT)
        s.put(w, [flat[-1], out[-1]])
    y = P.emit(node, "MatMul", [x, w], like=None).outputs[0]
    wide = (*source[:-1], out[-1])
    _describe(s, y, wide, old)
    if P.get(node, 2) is not None:
        y = P.emit(node, "Add", [y, node.inputs[2]]).outputs[0]
        _describe(s, y, wide, old)
    flat_shape = P.new_constant(node, np.array([-1, out[-1]], np.int64))
    flattened = P.emit(node, "Reshape", [y, flat_shape], like=old).outputs[0]
    s.alias(flattened, old)
    return P.replace(old, flattened)


def _plain_gemm(s: Shapes, node: ir.Node, n: int) -> bool:
    bias = s.static(P.get(node, 2)) if P.get(node, 2) is not None else ()
    return (
        P.attr(node, "alpha", 1.0) == 1.0
        and P.attr(node, "beta", 1.0) == 1.0
        and not P.attr(node, "transA", 0)
        and bias in ((), (n,), (1,), (1, n))
        and P.is_float(node.outputs[0])
    )


def _describe(s: Shapes, value: ir.Value, dims: D.Dims, like: ir.Value) -> None:
    value.type = like.type
    value.shape = ir.Shape([d if isinstance(d, int) else None for d in dims])
    s.put(value, dims)


def _rule(s: Shapes, node: ir.Node) -> bool:
    if not P.is_float(node.outputs[0] if node.outputs else None):
        return False
    if P.is_op(node, "Gemm"):
        start = _gemm(s, node)
    elif P.is_op(node, "MatMul") or P.is_op(node, "FusedMatMul", domain="com.microsoft"):
        start = _matmul(s, node)
    else:
        return False
    return start is not None and start.finish(s)


class _Product:
    """A fastinfer.MatMul in the making."""

    def __init__(self, node: ir.Node, a: ir.Value, b: ir.Value, trans_a: bool, trans_b: bool, alpha: float):
        self.node, self.a, self.b, self.out = node, a, b, node.outputs[0]
        self.trans_a, self.trans_b, self.alpha = trans_a, trans_b, alpha
        self.bias: ir.Value | None = None
        self.views: list[ir.Node] = []  # Reshapes of the leading axes, moved behind the product

    def finish(self, s: Shapes) -> bool:
        if self.bias is None:
            self._scale()
        self._bias(s)
        chain = follow(s, self.out, residuals=not self.views)
        plain = (
            not (self.trans_a or self.trans_b or self.alpha != 1.0 or self.bias) and chain.out is self.node.outputs[0]
        )
        if plain and P.is_op(self.node, "MatMul"):
            return False
        anchor = chain.out.producer()
        assert anchor is not None
        attributes = {**chain.attributes(), "transA": int(self.trans_a) or None, "transB": int(self.trans_b) or None}
        if self.alpha != 1.0:
            attributes["alpha"] = float(self.alpha)
        like = self.node.outputs[0] if self.views else chain.out
        inputs = [self.a, self.b, self.bias, chain.residual]
        y = P.emit(anchor, "MatMul", inputs, attributes, domain=P.DOMAIN, like=like).outputs[0]
        s.alias(y, like)
        for view in self.views:
            old = view.outputs[0]
            y = P.emit(anchor, view.op_type, [y, *view.inputs[1:]], dict(view.attributes), like=old).outputs[0]
            s.alias(y, old)
        return P.replace(chain.out, y)

    def _scale(self) -> None:
        """y · c → alpha"""
        while (reader := P.only_use(self.out)) is not None and P.is_op(reader, "Mul", "Div"):
            if reader.op_type == "Mul":
                found = P.with_scalar(reader, "Mul")
                factor = found[1] if found is not None else None
            else:
                divisor = P.scalar(reader.inputs[1])
                factor = 1.0 / divisor if divisor and reader.inputs[0] is self.out else None
            if factor is None or not _same_rank(reader, self.out):
                return
            self.alpha *= factor
            self.out = reader.outputs[0]

    def _bias(self, s: Shapes) -> None:
        """y + bias, also behind a Reshape of the leading axes"""
        if self.bias is not None:
            return
        out = self.out
        views: list[ir.Node] = []
        while (reader := P.only_use(out)) is not None and reader.graph is self.node.graph:
            if P.is_op(reader, "Add"):
                other = next(b for a, b in P.commuted(reader) if a is out)
                if not self._is_bias(s, other, out, bool(views)):
                    return
                self.bias, self.out, self.views = other, reader.outputs[0], views
                return
            if (
                not P.is_op(reader, "Reshape")
                or reader.inputs[0] is not out
                or not _keeps_last(s, out, reader.outputs[0])
            ):
                return
            views.append(reader)
            out = reader.outputs[0]

    def _is_bias(self, s: Shapes, value: ir.Value, out: ir.Value, moved: bool) -> bool:
        dims, target = s.dims(value), s.dims(out)
        if dims is None or target is None or not dims or dims[-1] != target[-1] or D.is_one(dims[-1]):
            return False
        if not all(D.is_one(d) for d in dims[:-1]) or len(dims) > len(target) or not P.is_float(value):
            return False
        return not moved or (len(dims) == 1 and P.is_constant(value))


def _same_rank(reader: ir.Node, value: ir.Value) -> bool:
    """The scalar operand must not add axes."""
    other = [v for v in reader.inputs if v is not value]
    rank = len(value.shape) if value.shape is not None else 0
    return all(v is not None and v.const_value is not None and len(v.const_value.shape) <= rank for v in other)


def _keeps_last(s: Shapes, before: ir.Value, after: ir.Value) -> bool:
    x, y = s.dims(before), s.dims(after)
    return x is not None and y is not None and len(x) > 0 and len(y) > 0 and x[-1] == y[-1] and isinstance(x[-1], int)


def _gemm(s: Shapes, node: ir.Node) -> _Product | None:
    a, b, c = node.inputs[0], node.inputs[1], P.get(node, 2)
    alpha, beta = P.attr(node, "alpha", 1.0), P.attr(node, "beta", 1.0)
    out = s.dims(node.outputs[0])
    if a is None or b is None or out is None:
        return None
    product = _Product(node, a, b, bool(P.attr(node, "transA", 0)), bool(P.attr(node, "transB", 0)), alpha)
    if c is None or beta == 0.0:
        return product
    if beta != 1.0:
        values = P.constant(c)
        if values is None:
            return None
        dims = s.dims(c)
        c = P.new_constant(node, (values.astype(np.float64) * beta).astype(np.float32))
        s.put(c, dims)
    dims = s.dims(c)
    if dims in ((out[1],), (1, out[1])):
        product.bias = c
    elif P.is_constant(c) and c.const_value.size == 1 and isinstance(out[1], int):  # type: ignore[union-attr]
        product.bias = P.new_constant(node, np.full(out[1], P.scalar(c), np.float32))
        s.put(product.bias, [out[1]])
    else:
        return None
    return product


def _matmul(s: Shapes, node: ir.Node) -> _Product | None:
    if node.domain and any(P.attr(node, name, 0) for name in ("transBatchA", "transBatchB")):
        return None
    sides = []
    for i, name in ((0, "transA"), (1, "transB")):
        value = node.inputs[i]
        rank = s.rank(value)
        if value is None or rank is None or rank < 2:
            return None
        swapped = bool(P.attr(node, name, 0))
        transpose = P.producer(value, "Transpose")
        if transpose is not None and _swaps_last(transpose, rank):
            value, swapped = transpose.inputs[0], not swapped
        sides.append((value, swapped))
    (a, trans_a), (b, trans_b) = sides
    return _Product(node, a, b, trans_a, trans_b, P.attr(node, "alpha", 1.0))  # type: ignore[arg-type]


def _swaps_last(transpose: ir.Node, rank: int) -> bool:
    perm = list(P.attr(transpose, "perm") or range(rank)[::-1])
    return perm == [*range(rank - 2), rank - 1, rank - 2]
