# SPDX-License-Identifier: Apache-2.0
"""com.microsoft.GroupQueryAttention: what language models of ONNX Runtime's tools hold, a cache of keys and values included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from . import pattern as P
from .shapes import Shapes

QUERY, KEY, VALUE, PAST_KEY, PAST_VALUE, LENGTHS, TOTAL, COS, SIN, POSITIONS = range(10)
_REFUSED_INPUTS = range(10, 16)  # attention bias, head sink, scales of a quantised cache
_TAKEN = {"num_heads", "kv_num_heads", "scale", "do_rotary", "rotary_interleaved", "local_window_size", "softcap"}
_NEUTRAL = {
    "smooth_softmax": 0,
    "qk_output": 0,
    "k_quant_type": "NONE",
    "v_quant_type": "NONE",
    "kv_cache_bit_width": 0,
}
INT64, BOOL = ir.DataType.INT64, ir.DataType.BOOL


def lower_group_query(model: ir.Model) -> bool:
    """gqa(q, k, v, past) → attention(rope(q), present k, present v, mask); present = past with rope(k), v written behind it"""
    shapes = Shapes(model)
    shared: dict[Any, tuple[ir.Value, ...]] = {}
    return P.rewrite(model, lambda node: _Lowering(shapes, node, shared).run())


class _Lowering:
    """One node. shared: positions and masks, which all layers of a model have in common."""

    def __init__(self, shapes: Shapes, node: ir.Node, shared: dict[Any, tuple[ir.Value, ...]]) -> None:
        self.s, self.node, self.shared = shapes, node, shared

    def run(self) -> bool:
        node = self.node
        if not P.is_op(node, "GroupQueryAttention", domain="com.microsoft") or not self.taken():
            return False
        query, key, value = self.operands()
        past, positions, total = self.places()
        if P.attr(node, "do_rotary", 0):
            at = P.get(node, POSITIONS)
            query, key = (
                self.rotate(x, n, positions if at is None else at) for x, n in ((query, self.heads), (key, self.kv))
            )
        presents = [self.present(self.bnsh(x), i, past) for x, i in ((key, PAST_KEY), (value, PAST_VALUE))]
        mask = self.mask(presents[0], positions, total)
        scale = P.attr(node, "scale", 0.0) or 1 / math.sqrt(self.size)
        attributes = {
            "q_layout": "BSNH", "k_layout": "BNSH", "v_layout": "BNSH", "o_layout": "BSNH", "scale": float(scale),
            "softcap": P.attr(node, "softcap", 0.0) or None, "zero_empty": 1,
        }  # fmt: skip
        query = self.op("Reshape", [query, self.ints(0, 0, self.heads, self.size)])
        y = P.emit(node, "Attention", [query, *presents, mask], attributes, domain=P.DOMAIN).outputs[0]
        y.type = ir.TensorType(ir.DataType.FLOAT)
        results = [self.op("Reshape", [y, self.ints(0, 0, self.heads * self.size)]), *presents]
        for old, new in zip(list(node.outputs), results):
            if old.uses() or old.is_graph_output():
                new.shape = old.shape
                P.replace(old, new)
        P.remove_dead(node)
        return True

    def taken(self) -> bool:
        node = self.node
        odd = {k for k, a in node.attributes.items() if k not in _TAKEN and a.value != _NEUTRAL.get(k)}
        if odd or any(P.get(node, i) is not None for i in _REFUSED_INPUTS) or not P.is_float(node.inputs[QUERY]):
            return False
        if any(o.name and (o.uses() or o.is_graph_output()) for o in node.outputs[3:]):
            return False
        dims = self.s.dims(node.inputs[QUERY])
        self.heads, self.kv = P.attr(node, "num_heads", 0), P.attr(node, "kv_num_heads", 0)
        packed = P.get(node, KEY) is None
        parts = self.heads + 2 * self.kv if packed else self.heads
        if dims is None or len(dims) != 3 or not isinstance(dims[2], int) or parts <= 0 or dims[2] % parts:
            return False
        self.size = dims[2] // parts
        self.length = dims[1]
        if P.attr(node, "do_rotary", 0) and self.s.rank(P.get(node, COS)) != 2:
            return False
        return all(P.get(node, i) is not None for i in (LENGTHS, TOTAL)) and (
            (P.get(node, PAST_KEY) is None) == (P.get(node, PAST_VALUE) is None)
        )

    # -------------------------------------------------------------------------------------------------- emitting

    def op(
        self, name: str, inputs: Sequence[ir.Value | None], dtype: ir.DataType = ir.DataType.FLOAT, **attributes: Any
    ) -> ir.Value:
        value = P.emit(self.node, name, inputs, attributes).outputs[0]
        value.type = ir.TensorType(dtype)
        return value

    def ints(self, *values: int) -> ir.Value:
        return P.new_constant(self.node, np.array(values, np.int64))

    def extent(self, value: ir.Value, axis: int) -> ir.Value:
        return self.op("Shape", [value], INT64, start=axis, end=axis + 1)

    def count(self, extent: ir.Value) -> ir.Value:
        """0, 1, ... extent − 1"""
        zero, one = (P.new_constant(self.node, np.array(i, np.int64)) for i in (0, 1))
        return self.op("Range", [zero, self.op("Squeeze", [extent], INT64), one], INT64)

    # --------------------------------------------------------------------------------------------------- algebra

    def operands(self) -> tuple[ir.Value, ir.Value, ir.Value]:
        """[B, S, heads·size] each."""
        query, key, value = self.node.inputs[:3]
        assert query is not None
        if key is not None and value is not None:
            return query, key, value
        sizes = self.ints(self.heads * self.size, self.kv * self.size, self.kv * self.size)
        q, k, v = P.emit(self.node, "Split", [query, sizes], {"axis": 2}, outputs=3).outputs
        for part in (q, k, v):
            part.type = ir.TensorType(ir.DataType.FLOAT)
        return q, k, v

    def places(self) -> tuple[ir.Value, ...]:
        """What is in the cache [B], where the new tokens stand [B, S], how many keys there are then [B]."""
        node = self.node
        lengths, total = node.inputs[LENGTHS], node.inputs[TOTAL]
        key = ("places", node.graph, lengths, total, self.length)
        if key not in self.shared:
            one = self.ints(1)
            flat = lambda v: self.op("Reshape", [self.op("Cast", [v], INT64, to=int(INT64)), self.ints(-1)], INT64)  # noqa: E731
            after = self.op("Add", [flat(lengths), one], INT64)
            new = self.extent(node.inputs[QUERY], 1)  # type: ignore[arg-type]
            # A first prompt may be padded behind its end: its tokens stand at 0, 1, ... all the same.
            first = self.op("Equal", [new, flat(total)], BOOL)
            before = self.op("Where", [first, self.ints(0), self.op("Sub", [after, new], INT64)], INT64)
            at = self.op("Add", [self.op("Unsqueeze", [before, one], INT64), self.count(new)], INT64)
            self.shared[key] = (before, at, after)
        return self.shared[key]

    def rotate(self, x: ir.Value, heads: int, positions: ir.Value) -> ir.Value:
        cos, sin = self.node.inputs[COS], self.node.inputs[SIN]
        half = self.s.dims(cos)[1]  # type: ignore[index]
        partial = 2 * half if isinstance(half, int) and 2 * half < self.size else 0
        return self.op("RotaryEmbedding", [x, cos, sin, positions], num_heads=heads, rotary_embedding_dim=partial,
                       interleaved=P.attr(self.node, "rotary_interleaved", 0))  # fmt: skip

    def bnsh(self, x: ir.Value) -> ir.Value:
        return self.op("Transpose", [self.op("Reshape", [x, self.ints(0, 0, self.kv, self.size)])], perm=[0, 2, 1, 3])

    def present(self, new: ir.Value, past_index: int, before: ir.Value) -> ir.Value:
        """The cache, enlarged to the total length where it is shorter, with the new tokens written in."""
        past = P.get(self.node, past_index)
        if past is None:
            return new
        held = self.extent(past, 2)
        total = self.op(
            "Reshape", [self.op("Cast", [self.node.inputs[TOTAL]], INT64, to=int(INT64)), self.ints(1)], INT64
        )
        grown = self.op("Sub", [self.op("Max", [held, total], INT64), held], INT64)
        pads = self.op("Concat", [self.ints(0, 0, 0, 0, 0, 0), grown, self.ints(0)], INT64, axis=0)
        return self.op("TensorScatter", [self.op("Pad", [past, pads]), new, before], axis=2)

    def mask(self, keys: ir.Value, positions: ir.Value, total: ir.Value) -> ir.Value:
        """[B, 1, S, T]: keys up to the token's own place, within the window, and not beyond the sequence."""
        window = P.attr(self.node, "local_window_size", -1)
        held = P.get(self.node, PAST_KEY)
        dims = None if held is None else self.s.dims(held)
        key = ("mask", positions, window, None if dims is None else dims[2])
        if held is not None and dims is None or key not in self.shared:
            at = self.op("Unsqueeze", [positions, self.ints(1, 3)], INT64)
            column = self.count(self.extent(keys, 2))
            seen = self.op("LessOrEqual", [column, at], BOOL)
            real = self.op("Less", [column, self.op("Unsqueeze", [total, self.ints(1, 2, 3)], INT64)], BOOL)
            seen = self.op("And", [seen, real], BOOL)
            if window > 0:
                near = self.op("Greater", [column, self.op("Sub", [at, self.ints(window)], INT64)], BOOL)
                seen = self.op("And", [seen, near], BOOL)
            self.shared[key] = (seen,)
        return self.shared[key][0]
