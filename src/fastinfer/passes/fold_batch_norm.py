# SPDX-License-Identifier: Apache-2.0
"""Per-channel scales and shifts with constant parameters go into the weights before them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from . import pattern as P
from .shapes import Shapes

_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def fold_batch_norm(model: ir.Model) -> bool:
    """batch_norm(conv(x, w)) → conv(x, w·s, b·s + t); mul(conv(x, w), s) → conv(x, w·s); batch_norm(x) → x·s + t"""
    shapes = Shapes(model)
    return P.rewrite(model, lambda node: _batch_norm(shapes, node) or _scale(shapes, node))


def _batch_norm(s: Shapes, node: ir.Node) -> bool:
    if not P.is_op(node, "BatchNormalization") or P.attr(node, "training_mode", 0) or len(node.inputs) < 5:
        return False
    if any(o.uses() for o in node.outputs[1:]):
        return False
    parameters = [P.constant(v) for v in node.inputs[1:5]]
    if any(p is None for p in parameters) or not P.is_float(node.inputs[0]):
        return False
    gamma, beta, mean, variance = (p.astype(np.float64) for p in parameters)  # type: ignore[union-attr]
    scale = gamma / np.sqrt(variance + P.attr(node, "epsilon", 1e-5))
    shift = beta - mean * scale
    if not np.all(np.isfinite(scale)) or not np.all(np.isfinite(shift)):
        return False
    x = node.inputs[0]
    assert x is not None
    if _into(s, node, x, scale, shift):
        return True
    rank = s.rank(x)
    if rank is None or rank < 2:
        return False
    shape = (-1,) + (1,) * (rank - 2)
    scaled = P.emit(node, "Mul", [x, _float(node, scale.reshape(shape))], like=node.outputs[0])
    shifted = P.emit(node, "Add", [scaled.outputs[0], _float(node, shift.reshape(shape))], like=node.outputs[0])
    for new in (scaled, shifted):
        s.alias(new.outputs[0], node.outputs[0])
    return P.replace(node.outputs[0], shifted.outputs[0])


def _scale(s: Shapes, node: ir.Node) -> bool:
    """x·s, x + t, x − t, x/s with s, t constant along all but the channel axis"""
    if not P.is_op(node, "Mul", "Add", "Sub", "Div") or not P.is_float(node.outputs[0]):
        return False
    pairs = list(P.commuted(node))[: 2 if node.op_type in ("Mul", "Add") else 1]
    for x, c in pairs:
        linear = P.producer(x, *_LINEAR)
        if linear is None or not P.is_constant(c) or not s.same(x, node.outputs[0]):
            continue
        if node.op_type == "Mul" and linear.op_type in ("MatMul", "Gemm") and c.const_value.size == 1:  # type: ignore[union-attr]
            continue  # stays a number: fuse_matmul makes it alpha
        values = _per_channel(s, linear, c)
        if values is None:
            continue
        one, zero = np.ones_like(values), np.zeros_like(values)
        if node.op_type in ("Mul", "Div") and np.all(np.isfinite(1 / values if node.op_type == "Div" else values)):
            return _into(s, node, x, values if node.op_type == "Mul" else 1 / values, zero)
        if node.op_type in ("Add", "Sub"):
            return _into(s, node, x, one, values if node.op_type == "Add" else -values)
    return False


def _channels(s: Shapes, linear: ir.Node) -> tuple[int, int] | None:
    """(axis, extent) of the output channels."""
    dims = s.dims(linear.outputs[0])
    if dims is None or len(dims) < 2:
        return None
    axis = 1 if linear.op_type in ("Conv", "ConvTranspose") else len(dims) - 1
    extent = dims[axis]
    return (axis, extent) if isinstance(extent, int) else None


def _per_channel(s: Shapes, linear: ir.Node, c: ir.Value) -> np.ndarray | None:
    """The constant as one number per output channel, in float64."""
    found, rank = _channels(s, linear), s.rank(linear.outputs[0])
    array = P.constant(c)
    if found is None or rank is None or array is None or array.dtype != np.float32 or array.ndim > rank:
        return None
    axis, extent = found
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(d != 1 and (i != axis or d != extent) for i, d in enumerate(shape)):
        return None
    return np.broadcast_to(array.astype(np.float64).reshape(-1), (extent,))


def _into(s: Shapes, node: ir.Node, x: ir.Value, scale: np.ndarray, shift: np.ndarray) -> bool:
    """node(linear(a, w, b)) → linear(a, w·scale, b·scale + shift), if `linear` has no other reader"""
    linear = P.producer(x, *_LINEAR)
    if linear is None or not P.used_once(x) or not P.is_constant(linear.inputs[1]):
        return False
    found = _channels(s, linear)
    if found is None or found[1] != scale.size:
        return False
    if linear.op_type == "MatMul" and (
        np.any(shift) or s.rank(linear.inputs[1]) != 2 or found[0] != (s.rank(x) or 0) - 1
    ):
        return _matmul_then_add(s, node, linear, scale, shift, found[0])
    if linear.op_type == "Gemm" and (P.attr(linear, "alpha", 1.0) != 1.0 or P.attr(linear, "beta", 1.0) != 1.0):
        return False
    bias = P.get(linear, 2)
    old = np.zeros(scale.size) if bias is None else P.constant(bias)
    if (
        old is None
        or old.size not in (1, scale.size)
        or (linear.op_type == "Gemm" and old.ndim == 2 and old.shape[0] != 1)
    ):
        return False
    inputs = [linear.inputs[0], _scaled_weight(linear, scale)]
    if bias is not None or np.any(shift):
        inputs.append(_float(linear, np.broadcast_to(old.astype(np.float64).reshape(-1), scale.shape) * scale + shift))
    return _rebuild(s, node, linear, inputs)


def _matmul_then_add(
    s: Shapes, node: ir.Node, linear: ir.Node, scale: np.ndarray, shift: np.ndarray, axis: int
) -> bool:
    if s.rank(linear.inputs[1]) != 2 or axis != (s.rank(linear.outputs[0]) or 0) - 1 or np.all(scale == 1.0):
        return False
    product = P.emit(node, "MatMul", [linear.inputs[0], _scaled_weight(linear, scale)], like=linear.outputs[0])
    s.alias(product.outputs[0], linear.outputs[0])
    total = P.emit(node, "Add", [product.outputs[0], _float(node, shift)], like=node.outputs[0])
    s.alias(total.outputs[0], node.outputs[0])
    return P.replace(node.outputs[0], total.outputs[0])


def _rebuild(s: Shapes, node: ir.Node, linear: ir.Node, inputs: list[ir.Value | None]) -> bool:
    new = P.emit(linear, linear.op_type, inputs, dict(linear.attributes), like=node.outputs[0])
    s.alias(new.outputs[0], node.outputs[0])
    return P.replace(node.outputs[0], new.outputs[0])


def _scaled_weight(linear: ir.Node, scale: np.ndarray) -> ir.Value:
    weight = P.constant(linear.inputs[1])
    assert weight is not None
    if np.all(scale == 1.0):
        return linear.inputs[1]  # type: ignore[return-value]
    wide = weight.astype(np.float64)
    if linear.op_type == "Conv" or (linear.op_type == "Gemm" and P.attr(linear, "transB", 0)):
        wide = wide * scale.reshape((-1,) + (1,) * (wide.ndim - 1))
    elif linear.op_type == "ConvTranspose":  # [in, out/group, ...]: output channels run group by group
        groups = P.attr(linear, "group", 1)
        per_group = wide.reshape((groups, wide.shape[0] // groups, *wide.shape[1:]))
        factor = scale.reshape((groups, 1, -1) + (1,) * (wide.ndim - 2))
        wide = (per_group * factor).reshape(wide.shape)
    else:
        wide = wide * scale
    return _float(linear, wide, linear.inputs[1].name)  # type: ignore[union-attr]


def _float(near: ir.Node, array: np.ndarray, hint: str | None = None) -> ir.Value:
    return P.new_constant(near, np.asarray(array, np.float32), hint)
