# SPDX-License-Identifier: Apache-2.0
"""Building blocks of function bodies: a small recorder of standard operators."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

OPSET = 26


class Body:
    """Records standard operators; `function` closes them into an ONNX function.

    What the node reads or writes as bfloat16 is float32 inside.
    """

    def __init__(self, node: ir.Node):
        self.node = node
        self.inputs = [ir.Value(name=f"in{i}") for i in range(len(node.inputs))]
        self.nodes: list[ir.Node] = []
        self._serial = itertools.count()
        self._widened: dict[int, ir.Value] = {}

    def input(self, index: int) -> ir.Value | None:
        """The function's input, None when the node leaves it out."""
        given = self.node.inputs[index] if index < len(self.inputs) else None
        if given is None:
            return None
        if given.dtype != ir.DataType.BFLOAT16:
            return self.inputs[index]
        if index not in self._widened:
            self._widened[index] = self.op("Cast", self.inputs[index], to=int(ir.DataType.FLOAT))
        return self._widened[index]

    def operand(self, index: int) -> ir.Value:
        value = self.input(index)
        if value is None:
            raise ValueError(f"{self.node.domain}::{self.node.op_type} '{self.node.name}': input {index} is required")
        return value

    def rank(self, index: int) -> int:
        value = self.node.inputs[index]
        if value is None or value.shape is None:
            raise ValueError(f"{self.node.op_type} '{self.node.name}': the rank of input {index} is not known")
        return len(value.shape)

    def attr(self, name: str, default: Any = None) -> Any:
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.value

    def op(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        return self.ops(op_type, 1, *inputs, **attributes)[0]

    def ops(self, op_type: str, outputs: int, *inputs: ir.Value | None, **attributes: Any) -> Sequence[ir.Value]:
        values = [ir.Value(name=f"t{next(self._serial)}") for _ in range(outputs)]
        kept = {k: v for k, v in attributes.items() if v is not None}
        trimmed = list(inputs)
        while trimmed and trimmed[-1] is None:
            trimmed.pop()
        self.nodes.append(ir.node(op_type, trimmed, kept, outputs=values))
        return values

    def const(self, value: Any, dtype: Any = np.float32) -> ir.Value:
        return self.op("Constant", value=ir.tensor(np.array(value, dtype)))

    def ints(self, *values: int) -> ir.Value:
        return self.const(values, np.int64)

    def transpose(self, x: ir.Value, perm: Sequence[int]) -> ir.Value:
        return self.op("Transpose", x, perm=list(perm))

    def function(self, *outputs: ir.Value, name: str, domain: str) -> ir.Function:
        results = [
            self.op("Cast", y, to=int(ir.DataType.BFLOAT16)) if given.dtype == ir.DataType.BFLOAT16 else y
            for y, given in zip(outputs, self.node.outputs)
        ]
        graph = ir.Graph(self.inputs, results, nodes=self.nodes, opset_imports={"": OPSET})
        return ir.Function(domain, name, graph=graph, attributes=[])


def activate(b: Body, x: ir.Value) -> ir.Value:
    """The node's `activation` of x."""
    name = b.attr("activation", "")
    return activation(b, x, name, b.attr("activation_alpha"), b.attr("activation_beta")) if name else x


_SIMPLE = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "softplus": "Softplus"}


def gelu(b: Body, x: ir.Value) -> ir.Value:
    """x/2 · (1 + erf(x/√2)); written out because onnx.reference does not find Gelu inside a function"""
    return _half_times(b, x, b.op("Erf", b.op("Mul", x, b.const(math.sqrt(0.5)))))


def gelu_tanh(b: Body, x: ir.Value) -> ir.Value:
    """x/2 · (1 + tanh(√(2/π) · (x + 0.044715·x³)))"""
    cube = b.op("Mul", b.op("Mul", b.op("Mul", x, x), x), b.const(0.044715))
    return _half_times(b, x, b.op("Tanh", b.op("Mul", b.op("Add", x, cube), b.const(math.sqrt(2 / math.pi)))))


def _half_times(b: Body, x: ir.Value, t: ir.Value) -> ir.Value:
    return b.op("Mul", b.op("Mul", x, b.const(0.5)), b.op("Add", t, b.const(1)))


def activation(b: Body, x: ir.Value, name: str, alpha: float | None, beta: float | None) -> ir.Value:
    if name in _SIMPLE:
        return b.op(_SIMPLE[name], x)
    if name == "gelu":
        return gelu(b, x)
    if name == "gelu_tanh":
        return gelu_tanh(b, x)
    if name == "mish":
        return b.op("Mul", x, b.op("Tanh", b.op("Softplus", x)))
    if name == "hard_swish":
        return b.op("Mul", x, b.op("HardSigmoid", x, alpha=1 / 6, beta=0.5))
    if name == "clip":
        return b.op("Clip", x, b.const(alpha), b.const(beta))
    if name in ("leaky_relu", "elu"):
        return b.op({"leaky_relu": "LeakyRelu", "elu": "Elu"}[name], x, alpha=alpha)
    if name == "hard_sigmoid":
        return b.op("HardSigmoid", x, alpha=alpha, beta=beta)
    if name == "silu":
        return b.op("Mul", x, b.op("Sigmoid", x))
    if name == "quick_gelu":
        return b.op("Mul", x, b.op("Sigmoid", b.op("Mul", x, b.const(alpha))))
    raise ValueError(f"{b.node.op_type} '{b.node.name}': unknown activation '{name}'")


def finish(b: Body, y: ir.Value, residual: ir.Value | None) -> ir.Value:
    """act(y + R), or act(y) + R with residual_after"""
    if residual is not None and not b.attr("residual_after", 0):
        y = b.op("Add", y, residual)
    y = activate(b, y)
    return b.op("Add", y, residual) if residual is not None and b.attr("residual_after", 0) else y


def channels_first(b: Body, x: ir.Value, rank: int) -> ir.Value:
    return b.transpose(x, [0, rank - 1, *range(1, rank - 1)])


def channels_last(b: Body, x: ir.Value, rank: int) -> ir.Value:
    return b.transpose(x, [0, *range(2, rank), 1])
