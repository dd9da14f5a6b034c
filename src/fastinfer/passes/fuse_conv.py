# SPDX-License-Identifier: Apache-2.0
"""Convolutions take what follows them into their epilogue."""

from __future__ import annotations

import onnx_ir as ir

from . import pattern as P
from .activations import follow
from .shapes import Shapes


def fuse_conv(model: ir.Model) -> bool:
    """relu(conv(x, w) + r) → fastinfer.Conv(x, w, r, activation=relu); the same for ConvTranspose (no r)"""
    shapes = Shapes(model)
    return P.rewrite(model, lambda node: _rule(shapes, node))


def _rule(s: Shapes, node: ir.Node) -> bool:
    if not P.is_op(node, "Conv", "ConvTranspose") or not P.is_float(node.inputs[0]):
        return False
    attributes = _attributes(s, node)
    if attributes is None:
        return False
    y = node.outputs[0]
    chain = follow(s, y, residuals=node.op_type == "Conv")
    anchor = chain.out.producer()
    assert anchor is not None
    inputs = [node.inputs[0], node.inputs[1], P.get(node, 2), chain.residual]
    fused = P.emit(anchor, node.op_type, inputs, {**attributes, **chain.attributes()}, domain=P.DOMAIN, like=chain.out)
    s.alias(fused.outputs[0], chain.out)
    return P.replace(chain.out, fused.outputs[0])


def _attributes(s: Shapes, node: ir.Node) -> dict[str, object] | None:
    """The node's attributes with explicit pads; None where they depend on run-time extents or the rank is unknown."""
    x, w = s.dims(node.inputs[0]), s.static(node.inputs[1])
    if x is None or w is None or len(w) != len(x) or len(w) < 3:
        return None
    k = len(w) - 2
    out: dict[str, object] = {
        "strides": list(P.attr(node, "strides") or [1] * k),
        "dilations": list(P.attr(node, "dilations") or [1] * k),
        "group": P.attr(node, "group", 1),
        "kernel_shape": list(w[2:]),
    }
    auto = P.attr(node, "auto_pad", "NOTSET")
    if node.op_type == "ConvTranspose":
        if P.attr(node, "output_shape") is not None or auto.startswith("SAME"):
            return None
        out["output_padding"] = list(P.attr(node, "output_padding") or [0] * k)
    if auto in ("NOTSET", ""):
        out["pads"] = list(P.attr(node, "pads") or [0] * 2 * k)
        return out
    pads = [0] * 2 * k
    if auto != "VALID":
        for i in range(k):
            total = _same_padding(x[2 + i], w[2 + i], out["strides"][i], out["dilations"][i])  # type: ignore[index]
            if total is None:
                return None
            pads[i], pads[i + k] = total // 2, total - total // 2
            if auto == "SAME_LOWER":
                pads[i], pads[i + k] = pads[i + k], pads[i]
    out["pads"] = pads
    return out


def _same_padding(extent: object, kernel: int, stride: int, dilation: int) -> int | None:
    """Total padding for ⌈extent/stride⌉ outputs; with stride 1 it does not depend on the extent."""
    reach = (kernel - 1) * dilation + 1
    if stride == 1:
        return reach - 1
    if not isinstance(extent, int):
        return None
    return max(0, (-(-extent // stride) - 1) * stride + reach - extent)
