# SPDX-License-Identifier: Apache-2.0
"""What the operations of a pointwise program are in Triton: float32 functions, and the text that calls them."""

from __future__ import annotations

from collections.abc import Callable

import triton
import triton.language as tl

from fastinfer.cuda import device

# _least and _most are ONNX's: a NaN operand is the result.


@triton.jit
def _least(x, y):
    return tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _most(x, y):
    return tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _sigmoid(x):
    """No overflow at either end: exp's argument is never positive."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def _tanh(x):
    """Near 0 the polynomial of Cephes' tanhf (1 - exp cancels there), else (1 - e) / (1 + e), e = exp(-2|x|)."""
    a = tl.abs(x)
    z = x * x
    p = -5.70498872745e-3 * z + 2.06390887954e-2
    p = p * z - 5.37397155531e-2
    p = p * z + 1.33314422036e-1
    p = p * z - 3.33332819422e-1
    e = tl.exp(-2.0 * a)
    far = (1.0 - e) / (1.0 + e)
    return tl.where(a < 0.625, p * z * x + x, tl.where(x < 0, -far, far))


@triton.jit
def _softplus(x):
    """max(x, 0) + log1p(e), e = exp(-|x|); log1p by Kahan's correction of log(u), u = 1 + e."""
    e = tl.exp(-tl.abs(x))
    u = 1.0 + e
    d = u - 1.0
    log1p = tl.where(d == 0.0, e, tl.log(u) * (e / tl.where(d == 0.0, 1.0, d)))
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) + log1p


@triton.jit
def _gelu(x):
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def _gelu_tanh(x):
    return 0.5 * x * (1.0 + _tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))


@triton.jit
def _round(x):
    """To the nearest integer, ties to even: adding 2^23 leaves no bits for a fraction."""
    a = tl.abs(x)
    r = tl.where(a < 8388608.0, (a + 8388608.0) - 8388608.0, a)
    return tl.where(x < 0, -r, r)


@triton.jit
def _sign(x):
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, x))


@triton.jit
def _sign_int(x):
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)


@triton.jit
def _mod_two(y):
    return y - 2.0 * tl.floor(y * 0.5)


@triton.jit
def _pow_plain(x, y):
    """C's pow by float64 logarithms: for the interpreter, which calls no libdevice."""
    whole = tl.floor(y) == y
    odd = whole & (_mod_two(y) == 1.0)
    size = tl.exp2(y.to(tl.float64) * tl.log2(tl.abs(x).to(tl.float64))).to(tl.float32)
    r = tl.where(odd & ((x < 0) | (tl.div_rn(1.0, x) == float("-inf"))), -size, size)
    return tl.where((x < 0) & (x != float("-inf")) & (whole == 0), float("nan"), r)


@triton.jit
def _pow_edges(x, y):
    r = _pow_plain(x, y)
    one = (y == 0.0) | (x == 1.0) | ((x == -1.0) & (tl.abs(y) == float("inf")))
    return tl.where(one, 1.0, r)


if device.INTERPRET:
    _pow = _pow_edges
else:
    from triton.language.extra import libdevice

    @triton.jit
    def _pow(x, y):
        return libdevice.pow(x, y)


@triton.jit
def _negative(x, y):
    """y where x is negative, else x."""
    return tl.where(x < 0, y, x)


@triton.jit
def _bounded(x, most):
    """Finite numbers beyond ±most are its ends; infinities and NaN stay."""
    return tl.where(tl.abs(x) == float("inf"), x, _least(_most(x, -most), most))


# What generated sources may name.
NAMES = {
    "tl": tl,
    **{
        name: value
        for name, value in list(globals().items())
        if name in (
            "_least", "_most", "_sigmoid", "_tanh", "_softplus", "_gelu", "_gelu_tanh", "_round", "_sign", "_sign_int", "_pow", "_negative",
            "_bounded",
        )
    },
}  # fmt: skip

# Kinds of values: float32 ("f"), bool ("b"), integers in the type they have ("i").
Text = Callable[..., str]


def _call(name: str) -> Text:
    return lambda *x: f"{name}({', '.join(x)})"


def _infix(sign: str) -> Text:
    return lambda a, b: f"{a} {sign} {b}"


def _as(text: str) -> Text:
    return lambda *x: text.format(*x)


# name: (kinds of operands: "f" float only, "b" bool only, "n" float or integer, "a" any (all "n" and "a" of one kind), kind
# of the result: "f", "b", or "=" for that of its "n" or "a" operands), text for floats)
OPS: dict[str, tuple[str, str, Text]] = {
    "add": ("nn", "=", _infix("+")),
    "sub": ("nn", "=", _infix("-")),
    "mul": ("nn", "=", _infix("*")),
    "div": ("ff", "f", _call("tl.div_rn")),
    "pow": ("ff", "f", _call("_pow")),
    "min": ("nn", "=", _call("_least")),
    "max": ("nn", "=", _call("_most")),
    "fma": ("fff", "f", _as("{0} * {1} + {2}")),
    "neg": ("n", "=", _as("-{0}")),
    "abs": ("n", "=", _call("tl.abs")),
    "sqrt": ("f", "f", _call("tl.sqrt_rn")),
    "rsqrt": ("f", "f", _as("tl.div_rn(1.0, tl.sqrt_rn({0}))")),
    "reciprocal": ("f", "f", _as("tl.div_rn(1.0, {0})")),
    "square": ("n", "=", _as("{0} * {0}")),
    "exp": ("f", "f", _call("tl.exp")),
    "log": ("f", "f", _call("tl.log")),
    "erf": ("f", "f", _call("tl.erf")),
    "tanh": ("f", "f", _call("_tanh")),
    "sigmoid": ("f", "f", _call("_sigmoid")),
    "relu": ("f", "f", _as("_most({0}, 0.0)")),
    "softplus": ("f", "f", _call("_softplus")),
    "silu": ("f", "f", _as("{0} * _sigmoid({0})")),
    "gelu": ("f", "f", _call("_gelu")),
    "gelu_tanh": ("f", "f", _call("_gelu_tanh")),
    "quick_gelu": ("ff", "f", _as("{0} * _sigmoid({0} * {1})")),
    "hard_swish": ("f", "f", _as("{0} * _least(_most({0} * 0.16666666666666666 + 0.5, 0.0), 1.0)")),
    "hard_sigmoid": ("fff", "f", _as("_least(_most({0} * {1} + {2}, 0.0), 1.0)")),
    "leaky_relu": ("ff", "f", _as("_negative({0}, {0} * {1})")),
    "elu": ("ff", "f", _as("_negative({0}, {1} * (tl.exp({0}) - 1.0))")),
    "clip": ("nnn", "=", _as("_least(_most({0}, {1}), {2})")),
    "floor": ("f", "f", _call("tl.floor")),
    "ceil": ("f", "f", _call("tl.ceil")),
    "round": ("f", "f", _call("_round")),
    "sign": ("n", "=", _call("_sign")),
    "sin": ("f", "f", _call("tl.sin")),
    "cos": ("f", "f", _call("tl.cos")),
    "mish": ("f", "f", _as("{0} * _tanh(_softplus({0}))")),
    "softsign": ("f", "f", _as("tl.div_rn({0}, 1.0 + tl.abs({0}))")),
    "where": ("baa", "=", _call("tl.where")),
    "less": ("nn", "b", _infix("<")),
    "less_equal": ("nn", "b", _infix("<=")),
    "greater": ("nn", "b", _infix(">")),
    "greater_equal": ("nn", "b", _infix(">=")),
    "equal": ("aa", "b", _infix("==")),
    "not": ("b", "b", _as("({0} == 0)")),
    "and": ("bb", "b", _infix("&")),
    "or": ("bb", "b", _infix("|")),
    "xor": ("bb", "b", _infix("!=")),
    "quantize": ("fff", "f", _as("_round(tl.div_rn({0}, {1})) + {2}")),
    "is_nan": ("f", "b", _as("({0} != {0})")),
    "is_inf": ("f", "b", _as('(tl.abs({0}) == float("inf"))')),
    "truth": ("n", "b", _as("({0} != 0)")),
    "number": ("b", "f", _as("{0}.to(tl.float32)")),
    "real": ("n", "f", _as("{0}.to(tl.float32)")),
    "copy": ("a", "=", _as("{0}")),
}
_INTEGERS = {"sign": _call("_sign_int")}


def text_of(name: str, kind: str, operands: list[str]) -> str:
    """The expression; kind: of its "n" and "a" operands."""
    make = _INTEGERS.get(name, OPS[name][2]) if kind == "i" else OPS[name][2]
    return make(*operands)


def kind_of(name: str, kinds: list[str]) -> tuple[str, str]:
    """(kind of the operands that may be several, kind of the result). Raises ValueError for operands that it has no form for."""
    if name not in OPS:
        raise ValueError(f"unknown pointwise operation '{name}'")
    wanted, result, _ = OPS[name]
    if len(kinds) != len(wanted):
        raise ValueError(f"'{name}' of {len(kinds)} operands; needed: {len(wanted)}")
    free = {k for k, w in zip(kinds, wanted) if w in "na"}
    fixed = all(k == w for k, w in zip(kinds, wanted) if w in "fb")
    if not fixed or len(free) > 1 or any(k == "b" and w == "n" for k, w in zip(kinds, wanted)):
        raise ValueError(f"'{name}' of operands of kinds {' '.join(kinds)}")
    common = free.pop() if free else ""
    return common, common if result == "=" else result
