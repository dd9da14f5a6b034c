# SPDX-License-Identifier: Apache-2.0
"""Quantized models: what lies between DequantizeLinear and QuantizeLinear becomes integer operators."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from . import pattern as P
from . import quantized as Q
from .algebra import clip_bounds
from .shapes import Shapes

# Operators that only choose among elements: they commute with a dequantization by one scale.
MOVES = set(
    """Reshape Transpose Flatten Squeeze Unsqueeze Slice Gather Expand Tile MaxPool DepthToSpace SpaceToDepth
    Identity""".split()
)
_Y, _BIAS, _RESIDUAL, _C = 6, 8, 9, 12  # inputs of QConv and QMatMul
_ACTIVATED = ("activation", "activation_alpha", "activation_beta", "residual_after")


def fold_qdq(model: ir.Model) -> bool:
    """quantize(conv(dequantize(x), dequantize(w))) → QConv(x, w); the same for matrix products, sums and moves"""
    shapes = Shapes(model)
    changed = P.rewrite(model, lambda node: _move(shapes, node))
    changed |= P.rewrite(model, lambda node: _fold_quantize(shapes, node))
    changed |= P.rewrite(model, lambda node: _fold_real(shapes, node))
    changed |= P.rewrite(model, _fold_constant)
    return P.rewrite(model, lambda node: _separate(shapes, node)) or changed


def _fold_quantize(s: Shapes, node: ir.Node) -> bool:
    params = Q.quantizer(node)
    if params is None:
        return False
    x, low, high = node.inputs[0], *params.range
    back = Q.by_one_scale(x)
    if back is not None and back[1].same(params):
        return P.replace(node.outputs[0], back[0])
    while x is not None and P.used_once(x) and (bounds := clip_bounds(x.producer())) is not None:
        # The ranges of both: a clamp commutes with rounding.
        low, high = max(low, params.quantize(bounds[1])), min(high, params.quantize(bounds[2]))
        x = bounds[0]
    source = None if x is None or not P.used_once(x) else x.producer()
    if source is None or source.graph is not node.graph or low > high:
        return False
    target = _Target(s, node, params, low, high)
    if P.is_op(source, "Concat") and x is node.inputs[0]:
        return _concat(target, source)
    if P.is_op(source, "Add"):
        return _residual(target, source)
    return _product(target, source)


class _Target:
    """A QuantizeLinear that goes into the operator before it."""

    def __init__(self, s: Shapes, node: ir.Node, params: Q.Params | None, low: int = 0, high: int = 0):
        self.s, self.node, self.params, self.low, self.high = s, node, params, low, high
        self.out = node.outputs[0]

    def range_attributes(self) -> dict[str, int]:
        if self.params is None:
            return {}
        least, most = self.params.range
        return {k: v for k, v, d in (("low", self.low, least), ("high", self.high, most)) if v != d}

    def clip(self, low: float, high: float) -> None:
        assert self.params is not None
        self.low = max(self.low, self.params.quantize(low))
        self.high = min(self.high, self.params.quantize(high))

    def emit(self, op_type: str, inputs: list[ir.Value | None], attributes: dict, domain: str = P.DOMAIN) -> bool:
        new = P.emit(self.node, op_type, inputs, attributes, domain=domain, like=self.out)
        self.s.alias(new.outputs[0], self.out)
        return P.replace(self.out, new.outputs[0])


def _move(s: Shapes, node: ir.Node) -> bool:
    """move(dequantize(x)) → dequantize(move(x)); equal quantizations of the same numbers then meet and cancel"""
    if node.op_type not in MOVES or node.domain not in ("", P.DOMAIN) or len(node.outputs) != 1 or not node.inputs:
        return False
    found, old = Q.by_one_scale(node.inputs[0]), node.outputs[0]
    if found is None or P.is_constant(found[0]):
        return False
    moved = P.emit(
        node, node.op_type, [found[0], *node.inputs[1:]], dict(node.attributes), domain=node.domain, like=old
    )
    moved.outputs[0].type, dims = found[0].type, s.dims(old)
    if dims is not None:
        moved.outputs[0].shape = ir.Shape([d if isinstance(d, int) else None for d in dims])
    real = P.emit(node, "DequantizeLinear", [moved.outputs[0], found[1].scale, found[1].zero], like=old).outputs[0]
    s.alias(moved.outputs[0], old)
    s.alias(real, old)
    return P.replace(old, real)


def _concat(t: _Target, concat: ir.Node) -> bool:
    """quantize(concat(dequantize(x), y)) → concat(x, quantize(y)): what has the same quantization stays as it is, and
    bytes are quantized again by a table"""
    assert t.params is not None
    found = [Q.by_one_scale(v) for v in concat.inputs]
    if all(f is None for f in found):
        return False
    parts: list[ir.Value | None] = []
    for f, value in zip(found, concat.inputs):
        if f is not None and f[1].same(t.params):
            parts.append(f[0])
            continue
        assert value is not None
        part = P.emit(t.node, "QuantizeLinear", [value, t.params.scale, t.params.zero], like=value).outputs[0]
        part.type = ir.TensorType(t.params.zero.dtype)  # type: ignore[arg-type]
        t.s.alias(part, value)
        parts.append(part)
    return t.emit("Concat", parts, dict(concat.attributes), "")


def _residual(t: _Target, add: ir.Node) -> bool:
    """quantize(dequantize(QConv(x, w)) + dequantize(r)) → QConv(x, w, r)"""
    for main, other in P.commuted(add):
        c, r = Q.by_one_scale(main), Q.by_one_scale(other)
        if c is None or r is None or not t.s.same(c[0], r[0]) or not t.s.same(main, t.out):
            continue
        product = c[0].producer()
        if (
            product is None
            or product.domain != P.DOMAIN
            or product.op_type not in ("QConv", "QMatMul")
            or product.graph is not t.node.graph
            or P.get(product, _RESIDUAL) is not None
            or not P.used_once(c[0])
            or not P.used_once(main)
            or not _columns_known(product)
        ):
            continue
        assert t.params is not None
        attributes = {k: v for k, v in product.attributes.items() if k not in ("low", "high")}
        attributes |= {f"c_{k}": v.value for k, v in product.attributes.items() if k in ("low", "high")}
        bias = P.get(product, _BIAS)
        inputs = [*product.inputs[:_Y], t.params.scale, t.params.zero, bias, r[0], r[1].scale, r[1].zero]
        inputs += [c[1].scale, c[1].zero]
        return t.emit(product.op_type, inputs, {**attributes, **t.range_attributes()})
    return False


def _columns_known(product: ir.Node) -> bool:
    return P.is_constant(product.inputs[3])


def _product(t: _Target, source: ir.Node) -> bool:
    if P.is_op(source, "Conv", domain=P.DOMAIN):
        return _conv(t, source)
    if P.is_op(source, "ConvTranspose", domain=P.DOMAIN):
        return _conv_transpose(t, source)
    if P.is_op(source, "MatMul", domain=P.DOMAIN) or P.is_op(source, "MatMul"):
        return _matmul(t, source)
    return False


def _conv(t: _Target, node: ir.Node) -> bool:
    """quantize(conv(dequantize(x), dequantize(w), b) + dequantize(r)) → QConv(x, w, b, r)"""
    x, w = Q.by_one_scale(node.inputs[0]), Q.dequantized(node.inputs[1])
    if x is None or w is None or not P.is_constant(w[0]) or not (w[1].single or w[1].axis == 0):
        return False
    return _emit_product(t, node, "QConv", x, w)


def _conv_transpose(t: _Target, node: ir.Node) -> bool:
    """quantize(conv_transpose(dequantize(x), dequantize(w), b)) → depth_to_space(QConv(x, w', b)), for windows that do not
    overlap: every tap has its own output pixel"""
    x, w = Q.by_one_scale(node.inputs[0]), Q.dequantized(node.inputs[1])
    weights = None if w is None else P.constant(w[0])
    if t.params is None or x is None or w is None or weights is None or not (w[1].single or w[1].axis == 1):
        return False
    if weights.ndim != 4 or weights.shape[2] != weights.shape[3] or not P.attr(node, "channels_last", 0):
        return False
    inputs, outputs, k = weights.shape[:3]
    plain = [("strides", [k, k], [1, 1]), ("dilations", [1, 1], [1, 1]), ("pads", [0] * 4, [0] * 4),
             ("output_padding", [0, 0], [0, 0])]  # fmt: skip
    if any(list(P.attr(node, name, default)) != want for name, want, default in plain):
        return False
    if (
        P.attr(node, "group", 1) != 1
        or P.attr(node, "output_shape", None)
        or P.attr(node, "auto_pad", "") not in ("", "NOTSET")
    ):
        return False
    bias, params = P.get(node, 2), w[1]
    columns = None if bias is None else _integer_bias(node, bias, x[1], params, 1.0)
    if (bias is not None and columns is None) or not _take_activation(t, node):
        return False
    taps = k * k

    def each_tap(values: np.ndarray, name: str | None) -> ir.Value:
        return P.new_constant(node, np.tile(values.reshape(-1), taps if values.size > 1 else 1), name)

    moved = weights.transpose(2, 3, 1, 0).reshape(taps * outputs, inputs, 1, 1)
    zero = P.constant(params.zero)
    assert zero is not None
    product = [x[0], x[1].scale, x[1].zero, P.new_constant(node, np.ascontiguousarray(moved), w[0].name),
               each_tap(params.scales, None), each_tap(zero, None), t.params.scale, t.params.zero]  # fmt: skip
    if columns is not None:
        values = P.constant(columns)
        assert values is not None
        product.append(P.new_constant(node, np.tile(values, taps), bias.name))  # type: ignore[union-attr]
    attributes = {"channels_last": 1, "kernel_shape": [1, 1], "pads": [0] * 4, "strides": [1, 1], "dilations": [1, 1]}
    deep = P.emit(t.node, "QConv", product, {**attributes, **t.range_attributes()}, domain=P.DOMAIN, like=None).outputs[
        0
    ]
    deep.type = ir.TensorType(t.params.zero.dtype)  # type: ignore[arg-type]
    size = t.s.dims(x[0]) or (None,) * 4
    deep.shape = ir.Shape([*(d if isinstance(d, int) else None for d in size[:3]), taps * outputs])
    return t.emit("DepthToSpace", [deep], {"blocksize": k, "mode": "DCR", "channels_last": 1})


def _matmul(t: _Target, node: ir.Node) -> bool:
    """quantize(dequantize(a) · dequantize(b) + bias + dequantize(r)) → QMatMul(a, b, bias, r)"""
    a, b = Q.by_one_scale(node.inputs[0]), Q.dequantized(node.inputs[1])
    if a is None or b is None:
        return False
    rank = t.s.rank(b[0])
    if rank is None or (t.s.rank(a[0]) or 0) < 1:
        return False
    if not b[1].single:
        column = rank - (2 if P.attr(node, "transB", 0) else 1)
        if rank != 2 or b[1].axis % rank != column:
            return False
    return _emit_product(t, node, "QMatMul", a, b)


def _emit_product(
    t: _Target, node: ir.Node, op: str, a: tuple[ir.Value, Q.Params], b: tuple[ir.Value, Q.Params]
) -> bool:
    bias, residual = P.get(node, 2) if node.domain else None, P.get(node, 3) if node.domain else None
    inputs: list[ir.Value | None] = [a[0], a[1].scale, a[1].zero, b[0], b[1].scale, b[1].zero]
    columns: ir.Value | None = None
    if bias is not None:
        columns = _integer_bias(node, bias, a[1], b[1], P.attr(node, "alpha", 1.0))
        if columns is None:
            return False
    r = Q.by_one_scale(residual)
    if residual is not None and (r is None or P.attr(node, "residual_after", 0) or not P.is_constant(b[0])):
        return False
    if not _take_activation(t, node):
        return False
    if t.params is not None:
        inputs += [t.params.scale, t.params.zero]
    elif r is not None:
        return False
    else:
        inputs += [None, None]
    inputs.append(columns)
    if r is not None:
        inputs += [r[0], r[1].scale, r[1].zero]
    attributes = {k: v for k, v in node.attributes.items() if k not in _ACTIVATED}
    return t.emit(op, inputs, {**attributes, **t.range_attributes()})


def _take_activation(t: _Target, node: ir.Node) -> bool:
    name = P.attr(node, "activation", "") if node.domain else ""
    if not name:
        return True
    if t.params is None or name not in ("relu", "clip"):
        return False
    infinite = float("inf")
    low = 0.0 if name == "relu" else P.attr(node, "activation_alpha", -infinite)
    t.clip(low, infinite if name == "relu" else P.attr(node, "activation_beta", infinite))
    return True


def _integer_bias(node: ir.Node, bias: ir.Value, a: Q.Params, b: Q.Params, alpha: float) -> ir.Value | None:
    """The bias in units of the products; None where it is not constant or too large. Off by at most half a unit."""
    source = P.producer(bias, "DequantizeLinear")
    unit = a.scales.astype(np.float64) * b.scales * alpha
    if source is not None and source.inputs[0] is not None and source.inputs[0].dtype == ir.DataType.INT32:
        scale, zero = P.constant(source.inputs[1]), P.constant(P.get(source, 2))
        if scale is None or (zero is not None and zero.any()):
            return None
        if P.is_constant(source.inputs[0]) and np.allclose(scale.reshape(-1), unit, rtol=1e-5, atol=0):
            flat = source.inputs[0].const_value.numpy().reshape(-1)  # type: ignore[union-attr]
            return P.new_constant(node, flat, source.inputs[0].name)
        values = P.constant(source.inputs[0])
        real = None if values is None else values.astype(np.float64) * scale
    elif source is not None:
        found = Q.dequantized(bias)
        values = None if found is None else P.constant(found[0])
        real = None
        if values is not None and found is not None and (found[1].single or values.ndim == 1):
            real = (values.astype(np.float64) - found[1].zeros) * found[1].scales
    else:
        real = P.constant(bias)
    if real is None or not np.all(np.isfinite(real)):
        return None
    units = np.rint(real.reshape(-1) / unit)
    if np.any(np.abs(units) > 2**30):
        return None
    return P.new_constant(node, units.astype(np.int32), bias.name)


def _fold_real(s: Shapes, node: ir.Node) -> bool:
    """conv(dequantize(x), dequantize(w)) → QConv(x, w) with a float result"""
    if not (P.is_op(node, "Conv", "MatMul", domain=P.DOMAIN) or P.is_op(node, "MatMul")):
        return False
    return _product(_Target(s, node, None), node)


def _fold_constant(node: ir.Node) -> bool:
    """dequantize(constant) → constant, for what is left: a float operator reads it in each run"""
    if not P.is_op(node, "DequantizeLinear") or not all(v is None or P.is_constant(v) for v in node.inputs):
        return False
    out = node.outputs[0]
    gathers = [u for u in out.consumers() if P.is_op(u, "Gather") and u.inputs[0] is out]
    if out.is_graph_output() or P.attr(node, "block_size", 0):
        return False
    if gathers and len(gathers) == len(out.uses()):
        return _gather(node, gathers)
    q, scale, zero = (P.constant(P.get(node, i)) for i in range(3))
    if q is None or scale is None or scale.dtype != np.float32 or q.dtype.kind not in "iu":
        return False
    axis = P.attr(node, "axis", 1)
    wide = [1] * q.ndim
    if scale.size != 1:
        wide[axis] = -1
    shift = np.float32(0) if zero is None else zero.astype(np.float32)
    real = (q.astype(np.float32) - np.reshape(shift, wide if np.size(shift) != 1 else [1] * q.ndim)) * scale.reshape(
        wide
    )
    return P.replace(out, P.new_constant(node, real.astype(np.float32).reshape(q.shape), out.name))


def _separate(s: Shapes, node: ir.Node) -> bool:
    """Every reader of a dequantized value dequantizes for itself: bytes are cheaper to read than floats"""
    out = node.outputs[0] if node.outputs else None
    if out is None or out.is_graph_output() or Q.by_one_scale(out) is None or len(out.uses()) < 2:
        return False
    for use in list(out.uses())[1:]:
        own = P.emit(node, "DequantizeLinear", list(node.inputs), dict(node.attributes), like=out).outputs[0]
        s.alias(own, out)
        use.node.replace_input_with(use.idx, own)
    return True


def _gather(node: ir.Node, gathers: list[ir.Node]) -> bool:
    """gather(dequantize(table), i) → dequantize(gather(table, i)), for one scale"""
    scale = node.inputs[1]
    if scale is None or scale.const_value is None or scale.const_value.size != 1:
        return False
    for gather in gathers:
        old = gather.outputs[0]
        picked = P.emit(gather, "Gather", [node.inputs[0], gather.inputs[1]], dict(gather.attributes)).outputs[0]
        picked.type, picked.shape = node.inputs[0].type, old.shape  # type: ignore[union-attr]
        real = P.emit(gather, "DequantizeLinear", [picked, *node.inputs[1:]], dict(node.attributes), like=old)
        P.replace(old, real.outputs[0])
    return True
