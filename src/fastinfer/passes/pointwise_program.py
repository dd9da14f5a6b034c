# SPDX-License-Identifier: Apache-2.0
"""From standard elementwise nodes to a fastinfer.Pointwise program."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from . import pattern as P
from . import quantized as Q
from .algebra import clip_bounds

# One-to-one: ONNX operator → program operation
DIRECT = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Neg": "neg", "Abs": "abs", "Sqrt": "sqrt", "Exp": "exp",
    "Log": "log", "Erf": "erf", "Tanh": "tanh", "Sigmoid": "sigmoid", "Relu": "relu", "Softplus": "softplus",
    "HardSwish": "hard_swish", "Floor": "floor", "Ceil": "ceil", "Round": "round", "Sign": "sign", "Sin": "sin",
    "Cos": "cos", "Mish": "mish", "Softsign": "softsign", "Reciprocal": "reciprocal", "Where": "where", "Less": "less",
    "LessOrEqual": "less_equal", "Greater": "greater", "GreaterOrEqual": "greater_equal", "Equal": "equal", "Not": "not",
    "And": "and", "Or": "or",
}  # fmt: skip
_COMPARISONS = {"Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "IsNaN"}
_LOGIC = {"Not", "And", "Or"}
_POWERS = {2.0: ("square",), 0.5: ("sqrt",), -1.0: ("reciprocal",), 1.0: ()}


class Program:
    """A program in the making. Operands are numbered as in the contract once all inputs are known."""

    def __init__(self, near: ir.Node):
        self.near = near
        self.inputs: list[ir.Value] = []
        self.ops: list[tuple[str, tuple[object, ...]]] = []  # operands: an input Value, or the index of an op
        self._at: dict[ir.Value, object] = {}
        self._constants: dict[float, ir.Value] = {}

    def op(self, name: str, *operands: object) -> int:
        self.ops.append((name, operands))
        return len(self.ops) - 1

    def operand(self, value: ir.Value | None) -> object:
        assert value is not None
        return self._at.get(value, value)

    def number(self, value: float) -> ir.Value:
        if value not in self._constants:
            self._constants[value] = P.new_constant(self.near, np.array(value, np.float32))
        return self._constants[value]

    def add(self, node: ir.Node) -> None:
        self._at[node.outputs[0]] = _TRANSLATE.get(node.op_type, _direct)(self, node)

    def attributes(self, outputs: list[ir.Value]) -> dict[str, object]:
        """The node's attributes; fills `inputs`."""
        numbers: dict[object, int] = {}
        for _, operands in self.ops:
            for operand in operands:
                if isinstance(operand, ir.Value) and operand not in numbers:
                    numbers[operand] = len(numbers)
                    self.inputs.append(operand)
        args: list[int] = []
        for _, operands in self.ops:
            row = [numbers[o] if isinstance(o, ir.Value) else len(numbers) + int(o) for o in operands]  # type: ignore[call-overload]
            args += row + [-1] * (3 - len(row))
        return {"ops": [name for name, _ in self.ops], "args": args, "outputs": [self._at[v] for v in outputs]}

    def live(self) -> int:
        """The largest number of results held at a time."""
        last = {i: i for i in range(len(self.ops))}
        for i, (_, operands) in enumerate(self.ops):
            last.update({o: i for o in operands if isinstance(o, int)})
        return max((sum(1 for j in range(i + 1) if last[j] > i or j == i) for i in range(len(self.ops))), default=0)


Translate = Callable[[Program, ir.Node], object]


def is_translatable(node: ir.Node) -> bool:
    """Whether the node is float32 (or bool) elementwise and has a program form."""
    if node.domain or len(node.outputs) != 1 or not node.inputs:
        return False
    op = node.op_type
    if op == "DequantizeLinear":
        return Q.by_one_scale(node.outputs[0]) is not None
    if op == "QuantizeLinear":
        return Q.quantizer(node) is not None
    if op not in DIRECT and op not in _TRANSLATE:
        return False
    kinds = [None if v is None else v.dtype for v in node.inputs]
    floats, bools = ir.DataType.FLOAT, ir.DataType.BOOL
    if op in _LOGIC:
        return all(k == bools for k in kinds)
    if op == "Where":
        return kinds == [bools, floats, floats]
    if op == "Cast":
        return kinds == [bools] and ir.DataType(P.attr(node, "to")) == floats
    if op == "Clip" and clip_bounds(node) is None:
        return False
    if op == "Pow" and len(node.inputs) != 2:
        return False
    if not all(k == floats for k in kinds if k is not None):
        return False
    return node.outputs[0].dtype == (bools if op in _COMPARISONS else floats)


_COSTS = {
    "DequantizeLinear": (2, 2),
    "QuantizeLinear": (1, 2),
    "PRelu": (4, 0),
    "Pow": (2, 0),
    "IsNaN": (2, 0),
    "HardSigmoid": (1, 2),
    "Clip": (1, 2),
    "Cast": (1, 2),
}


def cost(node: ir.Node) -> tuple[int, int]:
    """At most this many operations, and inputs besides the node's own."""
    if node.op_type in ("Max", "Min", "Sum"):
        return len(node.inputs) - 1, 0
    return _COSTS.get(node.op_type, (1, 1 if node.op_type in ("LeakyRelu", "Elu", "Swish") else 0))


def _direct(p: Program, node: ir.Node) -> object:
    return p.op(DIRECT[node.op_type], *(p.operand(v) for v in node.inputs))


def _fold(name: str) -> Translate:
    def translate(p: Program, node: ir.Node) -> object:
        result = p.operand(node.inputs[0])
        for value in node.inputs[1:]:
            result = p.op(name, result, p.operand(value))
        return result

    return translate


def _with_attributes(name: str, **defaults: float) -> Translate:
    """An operation whose parameters are scalar operands."""

    def translate(p: Program, node: ir.Node) -> object:
        numbers = [p.number(P.attr(node, k, d)) for k, d in defaults.items()]
        return p.op(name, p.operand(node.inputs[0]), *numbers)

    return translate


def _swish(p: Program, node: ir.Node) -> object:
    x, alpha = p.operand(node.inputs[0]), P.attr(node, "alpha", 1.0)
    return p.op("silu", x) if alpha == 1.0 else p.op("quick_gelu", x, p.number(alpha))


def _gelu(p: Program, node: ir.Node) -> object:
    return p.op("gelu_tanh" if P.attr(node, "approximate", "none") == "tanh" else "gelu", p.operand(node.inputs[0]))


def _clip(p: Program, node: ir.Node) -> object:
    bounds = clip_bounds(node)
    assert bounds is not None
    x, low, high = p.operand(bounds[0]), bounds[1], bounds[2]
    if low == -float("inf"):
        return p.op("min", x, p.number(high))
    if high == float("inf"):
        return p.op("max", x, p.number(low))
    return p.op("clip", x, p.number(low), p.number(high))


def _pow(p: Program, node: ir.Node) -> object:
    x, exponent = p.operand(node.inputs[0]), P.scalar(node.inputs[1])
    if exponent == 3.0:
        return p.op("mul", p.op("square", x), x)
    names = _POWERS.get(exponent) if exponent is not None else None
    if names:
        return p.op(names[0], x)
    return p.op("pow", x, p.operand(node.inputs[1]))


def _prelu(p: Program, node: ir.Node) -> object:
    """max(x, 0) + slope·min(x, 0), where min(x, 0) = x − max(x, 0)"""
    x = p.operand(node.inputs[0])
    positive = p.op("relu", x)
    return p.op("add", positive, p.op("mul", p.op("sub", x, positive), p.operand(node.inputs[1])))


def _is_nan(p: Program, node: ir.Node) -> object:
    x = p.operand(node.inputs[0])
    return p.op("not", p.op("equal", x, x))


def _dequantize(p: Program, node: ir.Node) -> object:
    found = Q.by_one_scale(node.outputs[0])
    assert found is not None
    x, zero = p.operand(found[0]), float(found[1].zeros[0])
    return p.op("mul", p.op("sub", x, p.number(zero)) if zero else x, p.number(float(found[1].scales[0])))


def _quantize(p: Program, node: ir.Node) -> object:
    params = Q.quantizer(node)
    assert params is not None
    numbers = p.number(float(params.scales[0])), p.number(float(params.zeros[0]))
    return p.op("quantize", p.operand(node.inputs[0]), *numbers)


def _cast(p: Program, node: ir.Node) -> object:
    return p.op("where", p.operand(node.inputs[0]), p.number(1.0), p.number(0.0))


_TRANSLATE: dict[str, Translate] = {
    "Max": _fold("max"),
    "Min": _fold("min"),
    "Sum": _fold("add"),
    "LeakyRelu": _with_attributes("leaky_relu", alpha=0.01),
    "Elu": _with_attributes("elu", alpha=1.0),
    "HardSigmoid": _with_attributes("hard_sigmoid", alpha=0.2, beta=0.5),
    "Swish": _swish,
    "Gelu": _gelu,
    "Clip": _clip,
    "Pow": _pow,
    "PRelu": _prelu,
    "IsNaN": _is_nan,
    "Cast": _cast,
    "DequantizeLinear": _dequantize,
    "QuantizeLinear": _quantize,
}
