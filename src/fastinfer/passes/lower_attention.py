# SPDX-License-Identifier: Apache-2.0
"""The standard Attention operator in its simple forms, so that head transposes can become layouts."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from . import dims as D
from . import pattern as P
from .dims import Dims
from .shapes import Shapes


def lower_attention(model: ir.Model) -> bool:
    """attention(q, k, v, mask, is_causal) → fastinfer.Attention(q, k, v, mask, scale, causal), without a cache"""
    shapes = Shapes(model)
    return P.rewrite(model, lambda node: _rule(shapes, node))


def _rule(s: Shapes, node: ir.Node) -> bool:
    if not P.is_op(node, "Attention") or any(P.get(node, i) is not None for i in range(4, len(node.inputs))):
        return False
    if any(o.name and (o.uses() or o.is_graph_output()) for o in node.outputs[1:]):
        return False
    # Whatever else a newer opset adds (windows, ...) would be lost: only what _replace carries over is taken.
    unknown = {k for k, a in node.attributes.items() if k not in _CARRIED and a.value != _NEUTRAL.get(k)}
    if unknown or not all(P.is_float(v) for v in node.inputs[:3]):
        return False
    heads = (P.attr(node, "q_num_heads"), P.attr(node, "kv_num_heads"), P.attr(node, "kv_num_heads"))
    views = [_bsnh_dims(s, v, n) for v, n in zip(node.inputs[:3], heads)]
    if any(v is None for v in views):
        return False
    q, k, v = views
    assert q is not None and k is not None and v is not None
    if not isinstance(q[3], int) or k[1] != v[1] or not _mask_fits(s, node, q, k):
        return False
    causal = P.attr(node, "is_causal", 0)
    if causal and q[1] != k[1]:  # the standard aligns rows and keys at the start, ours at the end
        return False
    return _replace(s, node, (q, k, v), causal)


_CARRIED = {"q_num_heads", "kv_num_heads", "is_causal", "scale", "softcap"}
_NEUTRAL = {"qk_matmul_output_mode": 0, "softmax_precision": 1, "left_window_size": -1, "right_window_size": -1}


def _bsnh_dims(s: Shapes, value: ir.Value | None, heads: int | None) -> Dims | None:
    """(B, S, N, H) of [B,N,S,H] or [B,S,N·H]"""
    dims = s.dims(value)
    if dims is None or len(dims) not in (3, 4):
        return None
    if len(dims) == 4:
        return (dims[0], dims[2], dims[1], dims[3])
    size = D.exact_div(dims[2], heads) if heads else None
    return None if size is None or heads is None or not isinstance(size, int) else (dims[0], dims[1], heads, size)


def _mask_fits(s: Shapes, node: ir.Node, q: Dims, k: Dims) -> bool:
    mask = P.get(node, 3)
    if mask is None:
        return True
    dims = s.dims(mask)
    # A mask shorter than the keys is legal there and not here.
    return dims is not None and 1 <= len(dims) <= 4 and dims[-1] == k[1] and mask.dtype in _MASKS


_MASKS = (ir.DataType.FLOAT, ir.DataType.BOOL)


def _replace(s: Shapes, node: ir.Node, views: tuple[Dims, Dims, Dims], causal: int) -> bool:
    flat = s.rank(node.inputs[0]) == 3
    layout, out = ("BSNH" if flat else "BNSH"), node.outputs[0]
    inputs: list[ir.Value | None] = []
    for value, dims in zip(node.inputs[:3], views):
        assert value is not None
        if flat:
            target = P.new_constant(node, np.array([0, 0, dims[2], dims[3]], np.int64))
            value = P.emit(node, "Reshape", [value, target]).outputs[0]
            _describe(s, value, dims)
        inputs.append(value)
    q, _, v = views
    scale = P.attr(node, "scale")
    attributes = {
        **{f"{x}_layout": layout for x in "qkvo"},
        "scale": 1 / math.sqrt(q[3]) if scale is None else float(scale),  # type: ignore[arg-type]
        "causal": causal or None,
        "softcap": P.attr(node, "softcap", 0.0) or None,
        "zero_empty": 1,
    }
    y = P.emit(node, "Attention", [*inputs, P.get(node, 3)], attributes, domain=P.DOMAIN).outputs[0]
    _describe(s, y, (q[0], q[1], q[2], v[3]) if flat else (q[0], q[2], q[1], v[3]))
    if flat:
        width = D.mul(q[2], v[3])
        if not isinstance(width, int):
            return False
        y = P.emit(node, "Reshape", [y, P.new_constant(node, np.array([0, 0, width], np.int64))], like=out).outputs[0]
        _describe(s, y, (q[0], q[1], width))
    return P.replace(out, y)


def _describe(s: Shapes, value: ir.Value, dims: Dims) -> None:
    value.type = ir.TensorType(ir.DataType.FLOAT)
    value.shape = ir.Shape([d if isinstance(d, int) else None for d in dims])
    s.put(value, dims)
