# SPDX-License-Identifier: Apache-2.0
"""Operators of com.microsoft that standard or fused operators say as well, so that fusions see them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from . import pattern as P
from .shapes import Shapes

CONTRIB = "com.microsoft"


def lower_contrib(model: ir.Model) -> bool:
    """com.microsoft.BiasGelu(x, b) → gelu(x + b); com.microsoft.SkipLayerNormalization → fastinfer.SkipLayerNorm; ..."""
    shapes = Shapes(model)
    return P.rewrite(model, lambda node: _rule(shapes, node))


def _rule(s: Shapes, node: ir.Node) -> bool:
    if node.op_type == "SimplifiedLayerNormalization" and node.domain in ("", CONTRIB):
        return _simplified_norm(s, node)
    rule = _RULES.get(node.op_type) if node.domain == CONTRIB else None
    return rule is not None and P.is_float(node.inputs[0]) and rule(s, node)


def _finish(s: Shapes, node: ir.Node, new: ir.Node) -> bool:
    old = node.outputs[0]
    s.alias(new.outputs[0], node.inputs[0])  # type: ignore[arg-type]
    new.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    return P.replace(old, new.outputs[0])


def _biased(s: Shapes, node: ir.Node) -> ir.Value:
    x, bias = node.inputs[0], P.get(node, 1)
    assert x is not None
    if bias is None:
        return x
    total = P.emit(node, "Add", [x, bias]).outputs[0]
    total.type, total.shape = ir.TensorType(ir.DataType.FLOAT), x.shape
    s.alias(total, x)
    return total


def _gelu(s: Shapes, node: ir.Node) -> bool:
    approximate = "tanh" if node.op_type == "FastGelu" else "none"
    x = _biased(s, node)
    return _finish(s, node, P.emit(node, "Gelu", [x], {"approximate": approximate}, like=node.outputs[0]))


def _quick_gelu(s: Shapes, node: ir.Node) -> bool:
    alpha = P.attr(node, "alpha", 1.702)
    return _finish(s, node, P.emit(node, "Swish", [node.inputs[0]], {"alpha": alpha}, like=node.outputs[0]))


def _skip_norm(s: Shapes, node: ir.Node) -> bool:
    """Outputs: Y, mean, inverse deviation (training only), the sum."""
    layer = node.op_type == "SkipLayerNormalization"
    x, skip, scale = node.inputs[:3]
    outputs = list(node.outputs)
    if any(o.uses() or o.is_graph_output() for o in outputs[1:3]) or not s.same(x, skip) or s.rank(scale) != 1:
        return False
    extra = P.get(node, 4 if layer else 3)
    inputs = [x, skip, scale, P.get(node, 3), extra] if layer else [x, skip, scale, extra]
    wanted = len(outputs) > 3 and bool(outputs[3].uses() or outputs[3].is_graph_output())
    epsilon = P.attr(node, "epsilon", 1e-12 if layer else 1e-6)
    name = "SkipLayerNorm" if layer else "SkipRMSNorm"
    new = P.emit(node, name, inputs, {"epsilon": epsilon}, domain=P.DOMAIN, like=outputs[0], outputs=2 if wanted else 1)
    if wanted:
        new.outputs[1].type, new.outputs[1].shape = outputs[3].type, outputs[3].shape
        s.alias(new.outputs[1], x)  # type: ignore[arg-type]
        P.replace(outputs[3], new.outputs[1])
    return _finish(s, node, new)


def _simplified_norm(s: Shapes, node: ir.Node) -> bool:
    if not P.is_float(node.inputs[0]) or any(o.uses() or o.is_graph_output() for o in node.outputs[1:]):
        return False
    attributes = {"axis": P.attr(node, "axis", -1), "epsilon": P.attr(node, "epsilon", 1e-5)}
    return _finish(s, node, P.emit(node, "RMSNormalization", node.inputs[:2], attributes, like=node.outputs[0]))


_ACTIVATIONS = {"Relu", "Tanh", "Sigmoid", "LeakyRelu", "Clip", "HardSigmoid"}


def _fused_conv(s: Shapes, node: ir.Node) -> bool:
    """act(conv(x, w, b) + z)"""
    name, parameters = P.attr(node, "activation", ""), list(P.attr(node, "activation_params") or [])
    if name and name not in _ACTIVATIONS or s.static(node.inputs[1]) is None:
        return False
    attributes = {k: v for k, v in node.attributes.items() if not k.startswith("activation")}
    dims = s.dims(node.outputs[0])
    value = P.emit(node, "Conv", node.inputs[:3], attributes, like=node.outputs[0]).outputs[0]
    value.type = ir.TensorType(ir.DataType.FLOAT)
    s.put(value, dims)
    if P.get(node, 3) is not None:
        value = P.emit(node, "Add", [value, node.inputs[3]], like=node.outputs[0]).outputs[0]
        s.put(value, dims)
    if name == "Clip":
        bounds = [P.new_constant(node, np.array(p, np.float32)) for p in parameters]
        value = P.emit(node, "Clip", [value, *bounds], like=node.outputs[0]).outputs[0]
    elif name:
        keys = {"LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta")}.get(name, ())
        value = P.emit(node, name, [value], dict(zip(keys, parameters)), like=node.outputs[0]).outputs[0]
    s.put(value, dims)
    value.type = ir.TensorType(ir.DataType.FLOAT)
    return P.replace(node.outputs[0], value)


_RULES: dict[str, Callable[[Shapes, ir.Node], bool]] = {
    "Gelu": _gelu,
    "FastGelu": _gelu,
    "BiasGelu": _gelu,
    "QuickGelu": _quick_gelu,
    "SkipLayerNormalization": _skip_norm,
    "SkipSimplifiedLayerNormalization": _skip_norm,
    "FusedConv": _fused_conv,
}
