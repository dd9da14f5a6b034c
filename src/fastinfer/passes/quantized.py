# SPDX-License-Identifier: Apache-2.0
"""Values that are quantized by constant scales and zero points, as the passes see them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from . import pattern as P

BYTES = {ir.DataType.UINT8: (0, 255), ir.DataType.INT8: (-128, 127)}


@dataclass(frozen=True)
class Params:
    """scale · (q − zero); arrays of one element, or one per index of `axis`."""

    scale: ir.Value
    zero: ir.Value
    axis: int

    @property
    def scales(self) -> np.ndarray:
        return P.constant(self.scale).reshape(-1)  # type: ignore[union-attr]

    @property
    def zeros(self) -> np.ndarray:
        return P.constant(self.zero).reshape(-1)  # type: ignore[union-attr]

    @property
    def single(self) -> bool:
        return self.scales.size == 1

    @property
    def range(self) -> tuple[int, int]:
        assert self.zero.dtype is not None
        return BYTES[self.zero.dtype]

    def same(self, other: Params) -> bool:
        return (
            self.zero.dtype == other.zero.dtype
            and np.array_equal(self.scales, other.scales)
            and np.array_equal(self.zeros, other.zeros)
            and (self.single or self.axis == other.axis)
        )

    def quantize(self, x: float) -> int:
        low, high = self.range
        q = np.rint(np.float32(x) / self.scales[0]) + float(self.zeros[0])
        return int(np.clip(q, low, high))


def _params(node: ir.Node, dtype: ir.DataType | None) -> Params | None:
    scale, zero = node.inputs[1], P.get(node, 2)
    if dtype not in BYTES or not P.is_constant(scale) or not P.is_float(scale) or P.attr(node, "block_size", 0):
        return None
    if zero is None:
        shape = tuple(scale.const_value.shape)  # type: ignore[union-attr]
        zero = P.new_constant(node, np.zeros([int(d) for d in shape], dtype.numpy()))
    if not P.is_constant(zero) or zero.const_value.size != scale.const_value.size:  # type: ignore[union-attr]
        return None
    if len(scale.const_value.shape) > 1 or not np.all(np.isfinite(P.constant(scale)) & (P.constant(scale) > 0)):  # type: ignore
        return None
    return Params(scale, zero, P.attr(node, "axis", 1))  # type: ignore[arg-type]


def quantizer(node: ir.Node | None) -> Params | None:
    """What a QuantizeLinear of float32 to 8 bits by one scale quantizes with."""
    if not P.is_op(node, "QuantizeLinear") or not P.is_float(node.inputs[0]):  # type: ignore[union-attr]
        return None
    assert node is not None
    dtype = node.inputs[2].dtype if P.get(node, 2) is not None else node.outputs[0].dtype  # type: ignore[union-attr]
    params = _params(node, dtype)
    return params if params is not None and params.single else None


def dequantized(value: ir.Value | None) -> tuple[ir.Value, Params] | None:
    """(q, params) of value = DequantizeLinear(q) from 8 bits to float32."""
    node = P.producer(value, "DequantizeLinear")
    if node is None or node.inputs[0] is None or not P.is_float(node.inputs[1]):
        return None
    params = _params(node, node.inputs[0].dtype)
    return None if params is None else (node.inputs[0], params)


def by_one_scale(value: ir.Value | None) -> tuple[ir.Value, Params] | None:
    found = dequantized(value)
    return found if found is not None and found[1].single else None
