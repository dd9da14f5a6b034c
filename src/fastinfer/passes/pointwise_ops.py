# SPDX-License-Identifier: Apache-2.0
"""The operators of fastinfer.Pointwise programs: how many operands, and what each means in standard ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from .body import Body, gelu, gelu_tanh
from .quantized import BYTES

Expand = Callable[..., ir.Value]


def _op(op_type: str, **attributes: object) -> Expand:
    return lambda b, *x: b.op(op_type, *x, **attributes)


def _times_sigmoid(b: Body, x: ir.Value, scaled: ir.Value) -> ir.Value:
    return b.op("Mul", x, b.op("Sigmoid", scaled))


def _hard_sigmoid(b: Body, x: ir.Value, alpha: ir.Value, beta: ir.Value) -> ir.Value:
    return b.op("Clip", b.op("Add", b.op("Mul", x, alpha), beta), b.const(0), b.const(1))


def _negative_part(b: Body, x: ir.Value, negative: ir.Value) -> ir.Value:
    return b.op("Where", b.op("Less", x, b.const(0)), negative, x)


# name: (number of operands, body)
OPS: dict[str, tuple[int, Expand]] = {
    "add": (2, _op("Add")),
    "sub": (2, _op("Sub")),
    "mul": (2, _op("Mul")),
    "div": (2, _op("Div")),
    "pow": (2, _op("Pow")),
    "min": (2, _op("Min")),
    "max": (2, _op("Max")),
    "fma": (3, lambda b, x, y, z: b.op("Add", b.op("Mul", x, y), z)),
    "neg": (1, _op("Neg")),
    "abs": (1, _op("Abs")),
    "sqrt": (1, _op("Sqrt")),
    "rsqrt": (1, lambda b, x: b.op("Reciprocal", b.op("Sqrt", x))),
    "reciprocal": (1, _op("Reciprocal")),
    "square": (1, lambda b, x: b.op("Mul", x, x)),
    "exp": (1, _op("Exp")),
    "log": (1, _op("Log")),
    "erf": (1, _op("Erf")),
    "tanh": (1, _op("Tanh")),
    "sigmoid": (1, _op("Sigmoid")),
    "relu": (1, _op("Relu")),
    "softplus": (1, _op("Softplus")),
    "silu": (1, lambda b, x: _times_sigmoid(b, x, x)),
    "gelu": (1, gelu),
    "gelu_tanh": (1, gelu_tanh),
    "quick_gelu": (2, lambda b, x, alpha: _times_sigmoid(b, x, b.op("Mul", x, alpha))),
    "hard_swish": (1, lambda b, x: b.op("Mul", x, b.op("HardSigmoid", x, alpha=1 / 6, beta=0.5))),
    "hard_sigmoid": (3, _hard_sigmoid),
    "leaky_relu": (2, lambda b, x, alpha: _negative_part(b, x, b.op("Mul", x, alpha))),
    "elu": (2, lambda b, x, a: _negative_part(b, x, b.op("Mul", a, b.op("Sub", b.op("Exp", x), b.const(1))))),
    "clip": (3, _op("Clip")),
    "floor": (1, _op("Floor")),
    "ceil": (1, _op("Ceil")),
    "round": (1, _op("Round")),
    "sign": (1, _op("Sign")),
    "sin": (1, _op("Sin")),
    "cos": (1, _op("Cos")),
    "mish": (1, lambda b, x: b.op("Mul", x, b.op("Tanh", b.op("Softplus", x)))),
    "softsign": (1, _op("Softsign")),
    "where": (3, _op("Where")),
    "less": (2, _op("Less")),
    "less_equal": (2, _op("LessOrEqual")),
    "greater": (2, _op("Greater")),
    "greater_equal": (2, _op("GreaterOrEqual")),
    "equal": (2, _op("Equal")),
    "not": (1, _op("Not")),
    "and": (2, _op("And")),
    "or": (2, _op("Or")),
    # Rounded, not saturated: that is done where the result leaves as bytes (attribute output_type).
    "quantize": (3, lambda b, x, scale, zero: b.op("Add", b.op("Round", b.op("Div", x, scale)), zero)),
}
BOOLEAN = {"less", "less_equal", "greater", "greater_equal", "equal", "not", "and", "or"}


def body(b: Body) -> Sequence[ir.Value]:
    """The straight-line program; every result is broadcast to the common shape of the inputs."""
    values = [_real(b, i) for i in range(len(b.inputs))]
    ops, args = list(b.attr("ops")), list(b.attr("args"))
    for i, name in enumerate(ops):
        arity, expand = OPS[name]
        values.append(expand(b, *(values[k] for k in args[3 * i : 3 * i + arity])))
    outputs = [_leaving(b, values[len(b.inputs) + k]) for k in b.attr("outputs")]
    if len(b.inputs) < 2 or len(outputs) < 2 and ops and _reaches_all(b, args, len(ops)):
        return outputs
    shape = b.op("Shape", _common(b))
    return [b.op("Expand", y, shape) for y in outputs]


def _real(b: Body, i: int) -> ir.Value:
    """Input i, bytes as floats."""
    value = b.operand(i)
    given = b.node.inputs[i]
    is_byte = given is not None and given.dtype in BYTES
    return b.op("Cast", value, to=ir.DataType.FLOAT) if is_byte else value


def _leaving(b: Body, y: ir.Value) -> ir.Value:
    """The result, saturated to bytes where the node says so."""
    dtype = ir.DataType(b.attr("output_type", ir.DataType.FLOAT))
    if dtype not in BYTES:
        return y
    low, high = BYTES[dtype]
    return b.op("Cast", b.op("Clip", y, b.const(low), b.const(high)), to=dtype)


def _reaches_all(b: Body, args: Sequence[int], length: int) -> bool:
    """The (only) result depends on every input, so it has the common shape by itself."""
    seen, stack = set(), [len(b.inputs) + b.attr("outputs")[0]]
    while stack:
        k = stack.pop()
        if k in seen or k < 0:
            continue
        seen.add(k)
        if k >= len(b.inputs):
            i = k - len(b.inputs)
            stack += args[3 * i : 3 * i + 3]
    return all(i in seen for i in range(len(b.inputs)))


def _common(b: Body) -> ir.Value:
    """A tensor of the inputs' common shape."""
    zeros = [b.op("ConstantOfShape", b.op("Shape", b.operand(i))) for i in range(len(b.inputs))]
    return b.op("Sum", *zeros)
