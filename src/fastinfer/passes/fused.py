# SPDX-License-Identifier: Apache-2.0
"""What the operators of the domain `fastinfer` mean: one function body in standard ONNX operators per node.

Bodies depend on attributes, on which inputs are present and on ranks, so each distinct form gets a function of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from . import pointwise_ops
from .body import OPSET, Body, activate, channels_first, channels_last, finish
from .pattern import DOMAIN

Build = Callable[[Body], Sequence[ir.Value]]


def _conv(b: Body) -> Sequence[ir.Value]:
    x, r, last, rank = b.operand(0), b.input(3), b.attr("channels_last", 0), b.rank(1)
    if last and not b.attr("x_channels_first", 0):
        x = channels_first(b, x, rank)
    kept = {k: b.attr(k) for k in ("dilations", "group", "kernel_shape", "pads", "strides", "auto_pad")}
    y = b.op("Conv", x, b.operand(1), b.input(2), **kept)
    return [finish(b, channels_last(b, y, rank) if last else y, r)]


def _conv_transpose(b: Body) -> Sequence[ir.Value]:
    x, last, rank = b.operand(0), b.attr("channels_last", 0), b.rank(1)
    if last:
        x = channels_first(b, x, rank)
    names = ("dilations", "group", "kernel_shape", "pads", "strides", "auto_pad", "output_padding", "output_shape")
    y = b.op("ConvTranspose", x, b.operand(1), b.input(2), **{k: b.attr(k) for k in names})
    return [activate(b, channels_last(b, y, rank) if last else y)]


def _spatial(b: Body) -> Sequence[ir.Value]:
    """A standard operator on channels-last data."""
    rank, last = b.rank(0), b.attr("channels_last", 0)
    x = channels_first(b, b.operand(0), rank) if last else b.operand(0)
    kept = {k: v.value for k, v in b.node.attributes.items() if k != "channels_last"}
    rest = [b.input(i) for i in range(1, len(b.inputs))]
    ys = b.ops(b.node.op_type, len(b.node.outputs), x, *rest, **kept)
    return [channels_last(b, y, rank) if last else y for y in ys]


def _group_norm(b: Body) -> Sequence[ir.Value]:
    """Written out: onnx.reference does not find GroupNormalization inside a function."""
    rank, last, groups = b.rank(0), b.attr("channels_last", 0), b.attr("num_groups")
    x = channels_first(b, b.operand(0), rank) if last else b.operand(0)
    split = b.op("Reshape", x, b.ints(0, groups, -1))
    ones, zeros = b.const([1.0] * groups), b.const([0.0] * groups)
    normal = b.op("InstanceNormalization", split, ones, zeros, epsilon=b.attr("epsilon", 1e-5))
    whole = b.op("Reshape", normal, b.op("Shape", x))
    per_channel = b.ints(-1, *[1] * (rank - 2))
    scale, bias = (b.op("Reshape", b.operand(i), per_channel) for i in (1, 2))
    y = b.op("Add", b.op("Mul", whole, scale), bias)
    return [channels_last(b, y, rank) if last else y]


def _swap(b: Body, x: ir.Value, rank: int) -> ir.Value:
    return b.transpose(x, [*range(rank - 2), rank - 1, rank - 2])


def _matmul(b: Body) -> Sequence[ir.Value]:
    a = _swap(b, b.operand(0), b.rank(0)) if b.attr("transA", 0) else b.operand(0)
    w = _swap(b, b.operand(1), b.rank(1)) if b.attr("transB", 0) else b.operand(1)
    y = b.op("MatMul", a, w)
    alpha = b.attr("alpha", 1.0)
    if alpha != 1.0:
        y = b.op("Mul", y, b.const(alpha))
    bias = b.input(2)
    if bias is not None:
        y = b.op("Add", y, bias)
    return [finish(b, y, b.input(3))]


def _quantized(b: Body, y: ir.Value) -> ir.Value:
    """The end of QConv and QMatMul: residual, quantization, range."""
    if b.input(9) is not None:
        if b.input(12) is not None:
            c = _ranged(b, b.op("QuantizeLinear", y, b.operand(12), b.operand(13)), 13, "c_low", "c_high")
            y = b.op("DequantizeLinear", c, b.operand(12), b.operand(13))
        y = b.op("Add", y, b.op("DequantizeLinear", *(b.operand(i) for i in (9, 10, 11))))
    if b.input(6) is None:
        return y
    return _ranged(b, b.op("QuantizeLinear", y, b.operand(6), b.operand(7)), 7, "low", "high")


def _ranged(b: Body, q: ir.Value, zero: int, low: str, high: str) -> ir.Value:
    """q within two attributes, of the type of input `zero`."""
    dtype = b.node.inputs[zero].dtype.numpy()  # type: ignore[union-attr]
    bounds = [None if b.attr(name) is None else b.const(b.attr(name), dtype) for name in (low, high)]
    return q if bounds == [None, None] else b.op("Clip", q, *bounds)


def _real_bias(b: Body, weight_scale: ir.Value) -> ir.Value | None:
    bias = b.input(8)
    if bias is None:
        return None
    unit = b.op("Mul", b.op("Reshape", b.operand(1), b.ints(-1)), b.op("Reshape", weight_scale, b.ints(-1)))
    return b.op("Mul", b.op("Cast", bias, to=ir.DataType.FLOAT), unit)


def _q_conv(b: Body) -> Sequence[ir.Value]:
    last, rank = b.attr("channels_last", 0), b.rank(3)
    x = b.op("DequantizeLinear", *(b.operand(i) for i in range(3)))
    w = b.op("DequantizeLinear", *(b.operand(i) for i in range(3, 6)), axis=0)
    kept = {k: b.attr(k) for k in ("dilations", "group", "kernel_shape", "pads", "strides", "auto_pad")}
    if last:
        x = channels_first(b, x, rank)
    y = b.op("Conv", x, w, _real_bias(b, b.operand(4)), **kept)
    return [_quantized(b, channels_last(b, y, rank) if last else y)]


def _q_matmul(b: Body) -> Sequence[ir.Value]:
    column = b.rank(3) - (2 if b.attr("transB", 0) else 1)
    x = b.op("DequantizeLinear", *(b.operand(i) for i in range(3)))
    w = b.op("DequantizeLinear", *(b.operand(i) for i in range(3, 6)), axis=column)
    x = _swap(b, x, b.rank(0)) if b.attr("transA", 0) else x
    w = _swap(b, w, b.rank(3)) if b.attr("transB", 0) else w
    y, bias, alpha = b.op("MatMul", x, w), _real_bias(b, b.operand(4)), b.attr("alpha", 1.0)
    y = y if bias is None else b.op("Add", y, bias)
    y = y if alpha == 1.0 else b.op("Mul", y, b.const(alpha))
    return [_quantized(b, y if b.input(14) is None else b.op("Add", y, b.operand(14)))]


def _skip_layer_norm(b: Body) -> Sequence[ir.Value]:
    total = b.op("Add", b.operand(0), b.operand(1))
    extra = b.input(4)
    if extra is not None:
        total = b.op("Add", total, extra)
    y = b.op("LayerNormalization", total, b.operand(2), b.input(3), axis=-1, epsilon=b.attr("epsilon", 1e-5))
    return [y, total][: len(b.node.outputs)]


def _skip_rms_norm(b: Body) -> Sequence[ir.Value]:
    total = b.op("Add", b.operand(0), b.operand(1))
    extra = b.input(3)
    if extra is not None:
        total = b.op("Add", total, extra)
    y = b.op("RMSNormalization", total, b.operand(2), axis=-1, epsilon=b.attr("epsilon", 1e-5))
    return [y, total][: len(b.node.outputs)]


def _to_bnsh(b: Body, x: ir.Value, layout: str) -> ir.Value:
    if layout == "BNSH":
        return x
    return b.transpose(x, [0, 2, 1, 3] if layout == "BSNH" else [0, 1, 3, 2])


def _attention(b: Body) -> Sequence[ir.Value]:
    q = _to_bnsh(b, b.operand(0), b.attr("q_layout", "BNSH"))
    k = _to_bnsh(b, b.operand(1), b.attr("k_layout", "BNSH"))
    v = _to_bnsh(b, b.operand(2), b.attr("v_layout", "BNSH"))
    k, v = _repeat_heads(b, q, k), _repeat_heads(b, q, v)
    scores = b.op("Mul", b.op("MatMul", q, b.transpose(k, [0, 1, 3, 2])), b.const(b.attr("scale", 1.0)))
    cap = b.attr("softcap", 0.0)
    if cap:
        scores = b.op("Mul", b.op("Tanh", b.op("Div", scores, b.const(cap))), b.const(cap))
    mask = b.input(3)
    if mask is not None:
        is_bool = b.node.inputs[3].dtype == ir.DataType.BOOL  # type: ignore[union-attr]
        scores = b.op("Where", mask, scores, b.const(-float("inf"))) if is_bool else b.op("Add", scores, mask)
    if b.attr("causal", 0):
        scores = b.op("Where", _causal(b, scores), scores, b.const(-float("inf")))
    weights = b.op("Softmax", scores, axis=-1)
    if b.attr("zero_empty", 0):
        weights = b.op("Where", b.op("IsNaN", weights), b.const(0), weights)
    y = b.op("MatMul", weights, v)
    return [y if b.attr("o_layout", "BNSH") == "BNSH" else b.transpose(y, [0, 2, 1, 3])]


def _repeat_heads(b: Body, q: ir.Value, x: ir.Value) -> ir.Value:
    """[B,Nkv,S,H] → [B,N,S,H]: each key head serves N/Nkv consecutive query heads."""
    heads, given = b.op("Shape", q, start=1, end=2), b.op("Shape", x, start=1, end=2)
    group = b.op("Div", heads, given)
    rest = b.op("Shape", x, start=2, end=4)
    one = b.ints(1)
    wide = b.op("Expand", b.op("Unsqueeze", x, b.ints(2)), b.op("Concat", one, one, group, one, one, axis=0))
    return b.op("Reshape", wide, b.op("Concat", b.op("Shape", x, start=0, end=1), heads, rest, axis=0), allowzero=1)


def _causal(b: Body, scores: ir.Value) -> ir.Value:
    """[Sq,Sk]: key ≤ query + Sk − Sq"""
    zero, one = b.const(0, "int64"), b.const(1, "int64")
    rows = b.op("Squeeze", b.op("Shape", scores, start=2, end=3))
    columns = b.op("Squeeze", b.op("Shape", scores, start=3, end=4))
    query = b.op("Unsqueeze", b.op("Range", zero, rows, one), b.ints(1))
    return b.op("LessOrEqual", b.op("Range", zero, columns, one), b.op("Add", query, b.op("Sub", columns, rows)))


def _recurrent(b: Body) -> Sequence[ir.Value]:
    kept = {k: v for k, v in b.node.attributes.items() if k != "precision"}
    inputs = [b.input(i) for i in range(len(b.inputs))]
    return b.ops(b.node.op_type, len(b.node.outputs), *inputs, **kept)


SPATIAL = """MaxPool AveragePool GlobalAveragePool GlobalMaxPool Resize InstanceNormalization GroupNormalization
    DepthToSpace SpaceToDepth LpPool""".split()
BODIES: dict[str, Build] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "QConv": _q_conv,
    "QMatMul": _q_matmul,
    "SkipLayerNorm": _skip_layer_norm,
    "SkipRMSNorm": _skip_rms_norm,
    "Attention": _attention,
    "Pointwise": pointwise_ops.body,
    **{op: _spatial for op in SPATIAL},
    "GroupNormalization": _group_norm,
    **{op: _recurrent for op in ("LSTM", "GRU", "RNN")},
}


def body(node: ir.Node, name: str | None = None) -> ir.Function:
    """The meaning of one fastinfer node as an ONNX function with the node's inputs and outputs.

    Raises:
        KeyError: the operator is not one of the domain.
        ValueError: a needed input or rank is missing.
    """
    b = Body(node)
    return b.function(*BODIES[node.op_type](b), name=name or node.op_type, domain=DOMAIN)


def to_standard(model: ir.Model) -> ir.Model:
    """A copy of `model` that any ONNX runtime can execute: fastinfer nodes call functions attached to the copy.

    onnx.reference looks functions up without their overload, so each form has a name of its own (`ConvForm0`, ...; not
    `Conv_0`, which it takes for a version of Conv).
    """
    copy = model.clone()
    originals = [n for n in model.graph.all_nodes() if n.domain == DOMAIN]
    forms: dict[str, ir.Function] = {}
    for original, node in zip(originals, [n for n in copy.graph.all_nodes() if n.domain == DOMAIN]):
        key = _form(original)
        if key not in forms:
            function = body(original, f"{original.op_type}Form{len(forms)}")
            forms[key] = function
            copy.functions[function.identifier()] = function
        node.op_type = forms[key].name
        for name, attribute in list(node.attributes.items()):
            node.metadata_props[name] = str(attribute.value)
            node.attributes.pop(name)
    copy.graph.opset_imports[DOMAIN] = 1
    copy.graph.opset_imports.setdefault("", OPSET)
    copy.ir_version = max(copy.ir_version, 10)
    return copy


def _form(node: ir.Node) -> str:
    inputs = [None if v is None else (v.dtype, None if v.shape is None else len(v.shape)) for v in node.inputs]
    attributes = sorted((name, str(a.value)) for name, a in node.attributes.items())
    return repr((node.op_type, inputs, len(node.outputs), attributes))
