# SPDX-License-Identifier: Apache-2.0
"""Elementwise arithmetic, comparisons and activations. Half-precision operands are computed in float32; ROUNDED says which
results go back to the type of the first operand."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastinfer.cuda.torch_ops.call import SIGNED, Call, TorchOp, int64, like, moved, signed

_FLIP = -(1 << 63)  # uint64 order as int64 order: the sign bit turned


def _unary(fn: Callable[[Tensor], Tensor]) -> TorchOp:
    def run(call: Call) -> Tensor:
        x = call.wide(0)
        return like(fn(int64(x)), x.dtype) if x.dtype in SIGNED else fn(x)

    return run


def _operands(call: Call) -> list[Tensor]:
    return [call.wide(i) for i in range(call.n_inputs)]


def _arithmetic(fn: Callable[[Tensor, Tensor], Tensor]) -> TorchOp:
    """A fold over the inputs: two, or any number (Sum, Max, Min)."""

    def run(call: Call) -> Tensor:
        xs = _operands(call)
        if xs[0].dtype in SIGNED:
            return like(functools.reduce(fn, map(int64, xs)), xs[0].dtype)
        return functools.reduce(fn, xs)

    return run


def _ordered(fn: Callable[[Tensor, Tensor], Tensor]) -> TorchOp:
    """Comparisons and maxima: what depends on the order of uint64."""

    def run(call: Call) -> Tensor:
        xs = _operands(call)
        if xs[0].dtype not in SIGNED:
            return functools.reduce(fn, xs)
        flip = _FLIP if xs[0].dtype == torch.uint64 else 0
        y = functools.reduce(fn, [int64(x) ^ flip for x in xs])
        return y if y.dtype == torch.bool else like(y ^ flip, xs[0].dtype)

    return run


def _div(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _equal(call: Call) -> Tensor:
    a, b = _operands(call)
    return signed(a) == signed(b)


def _mod(call: Call) -> Tensor:
    a, b = _operands(call)
    fn = torch.fmod if call.attr("fmod", 0) else torch.remainder
    return like(fn(int64(a), int64(b)), a.dtype)


def _pow(call: Call) -> Tensor:
    a, b = _operands(call)
    if a.is_floating_point():
        return torch.pow(a, b.to(a.dtype))
    if b.is_floating_point():
        return torch.pow(a.double(), b.double()).to(a.dtype)
    return like(torch.pow(int64(a), int64(b)), a.dtype)


def _bit_shift(call: Call) -> Tensor:
    a, b = call.x(0), call.x(1)
    x, by = int64(a), int64(b).to(torch.int64)
    if call.attr("direction") == "LEFT":
        y = x.to(torch.int64) << by
    elif a.dtype == torch.uint64:  # no sign comes in from the left
        y = torch.where(by > 0, ((x >> 1) & (2**63 - 1)) >> (by - 1).clamp(min=0), x)
    else:
        y = x.to(torch.int64) >> by
    return y.to(a.dtype)


def _mean(call: Call) -> Tensor:
    xs = _operands(call)
    return functools.reduce(torch.add, xs) / len(xs)


def _clip(call: Call) -> Tensor:
    x, low, high = call.wide(0), call.maybe_wide(1), call.maybe_wide(2)
    if x.dtype in SIGNED:
        flip = _FLIP if x.dtype == torch.uint64 else 0
        bounds = [None if v is None else int64(v) ^ flip for v in (low, high)]
        return like(_clamp(int64(x) ^ flip, *bounds) ^ flip, x.dtype)
    return _clamp(x, low, high)


def _clamp(x: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def _is_inf(call: Call) -> Tensor:
    x = call.wide(0)
    if x.dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        x = x.float()
    below, above = call.attr("detect_negative", 1), call.attr("detect_positive", 1)
    y = torch.zeros_like(x, dtype=torch.bool)
    y = y | torch.isneginf(x) if below else y
    return y | torch.isposinf(x) if above else y


def _is_nan(call: Call) -> Tensor:
    x = call.x(0)
    return torch.isnan(x.float() if x.dtype in (torch.float8_e4m3fn, torch.float8_e5m2) else x)


def _where(call: Call) -> Tensor:
    a, b = call.x(1), call.x(2)
    return moved(lambda x: torch.where(call.x(0), x, signed(b)), a)


def _sign(x: Tensor) -> Tensor:
    return torch.where(x.isnan(), x, torch.sign(x)) if x.is_floating_point() else torch.sign(x)


def _activation(fn: Callable[..., Tensor], **defaults: float) -> TorchOp:
    """fn(x, *attributes)"""

    def run(call: Call) -> Tensor:
        return fn(call.wide(0), *[call.attr(name, value) for name, value in defaults.items()])

    return run


def softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros((), dtype=x.dtype, device=x.device))


def hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    return (alpha * x + beta).clamp(0, 1)


def _elu(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x < 0, alpha * torch.expm1(x), x)


def _celu(x: Tensor, alpha: float) -> Tensor:
    return torch.where(x < 0, alpha * torch.expm1(x / alpha), x)


def _selu(x: Tensor, alpha: float, gamma: float) -> Tensor:
    return gamma * torch.where(x > 0, x, alpha * torch.expm1(x))


def _shrink(x: Tensor, bias: float, lambd: float) -> Tensor:
    y = torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, torch.zeros_like(x)))
    return y.to(x.dtype)


def _prelu(call: Call) -> Tensor:
    x, slope = call.wide(0), call.wide(1)
    return like(torch.where(int64(x) < 0, int64(x) * int64(slope), int64(x)), x.dtype)


def _gelu(call: Call) -> Tensor:
    return F.gelu(call.wide(0), approximate=call.attr("approximate", "none"))


def _silu(x: Tensor, alpha: float) -> Tensor:
    return x * torch.sigmoid(alpha * x)


def _swiglu(call: Call) -> Tensor:
    a, b = call.wide(0), call.wide(1)
    return _silu(a, call.attr("alpha", 1.0)) * b


ROUNDED: dict[str, TorchOp] = {
    **{name: _unary(fn) for name, fn in {
        "Abs": torch.abs, "Acos": torch.acos, "Acosh": torch.acosh, "Asin": torch.asin, "Asinh": torch.asinh,
        "Atan": torch.atan, "Atanh": torch.atanh, "BitwiseNot": torch.bitwise_not, "Ceil": torch.ceil, "Cos": torch.cos,
        "Cosh": torch.cosh, "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor, "Log": torch.log, "Neg": torch.neg,
        "Reciprocal": torch.reciprocal, "Relu": lambda x: x.clamp(min=0), "Round": torch.round, "Sigmoid": torch.sigmoid,
        "Sign": _sign, "Sin": torch.sin, "Sinh": torch.sinh, "Softplus": softplus, "Softsign": lambda x: x / (1 + x.abs()),
        "Sqrt": torch.sqrt, "Tan": torch.tan, "Tanh": torch.tanh, "Mish": lambda x: x * torch.tanh(softplus(x)),
        "HardSwish": lambda x: x * hard_sigmoid(x, 1 / 6, 0.5),
    }.items()},
    **{name: _arithmetic(fn) for name, fn in {
        "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": _div, "Sum": torch.add,
        "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or, "BitwiseXor": torch.bitwise_xor,
    }.items()},
    "Max": _ordered(torch.maximum), "Min": _ordered(torch.minimum), "Mean": _mean, "Mod": _mod, "Pow": _pow,
    "Clip": _clip, "PRelu": _prelu, "Gelu": _gelu, "SwiGLU": _swiglu,
    "Elu": _activation(_elu, alpha=1.0), "Celu": _activation(_celu, alpha=1.0),
    "Selu": _activation(_selu, alpha=1.67326319217681884765625, gamma=1.05070102214813232421875),
    "LeakyRelu": _activation(lambda x, a: torch.where(x < 0, a * x, x), alpha=0.01),
    "ThresholdedRelu": _activation(lambda x, a: torch.where(x > a, x, torch.zeros_like(x)), alpha=1.0),
    "HardSigmoid": _activation(hard_sigmoid, alpha=0.2, beta=0.5),
    "Shrink": _activation(_shrink, bias=0.0, lambd=0.5), "Swish": _activation(_silu, alpha=1.0),
}  # fmt: skip
EXACT: dict[str, TorchOp] = {
    "Equal": _equal, "Greater": _ordered(torch.gt), "GreaterOrEqual": _ordered(torch.ge), "Less": _ordered(torch.lt),
    "LessOrEqual": _ordered(torch.le), "And": lambda c: torch.logical_and(c.x(0), c.x(1)),
    "Or": lambda c: torch.logical_or(c.x(0), c.x(1)), "Xor": lambda c: torch.logical_xor(c.x(0), c.x(1)),
    "Not": lambda c: torch.logical_not(c.x(0)), "IsInf": _is_inf, "IsNaN": _is_nan, "Where": _where,
    "BitShift": _bit_shift,
}  # fmt: skip
