# SPDX-License-Identifier: Apache-2.0
"""Elementwise operators against numpy in float64: every type, broadcasting, edges, all instruction sets."""

import numpy as np
import pytest
from support import check_node, check_same_bits, node_model, run_everywhere

RNG = np.random.default_rng(7)
SPECIALS = np.array(
    [0, -0.0, 1, -1, 0.5, -0.5, 2.5, -2.5, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 3e38, -3e38], np.float32
)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def erf(x):
    import math

    return np.vectorize(math.erf, otypes=[np.float64])(x)


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


UNARY = {
    "Abs": (np.abs, {}),
    "Neg": (np.negative, {}),
    "Exp": (np.exp, {}),
    "Log": (np.log, {}),
    "Sqrt": (np.sqrt, {}),
    "Reciprocal": (lambda x: 1 / x, {}),
    "Erf": (erf, {}),
    "Tanh": (np.tanh, {}),
    "Sigmoid": (sigmoid, {}),
    "Relu": (lambda x: np.maximum(x, 0), {}),
    "Softplus": (softplus, {}),
    "Softsign": (lambda x: x / (1 + np.abs(x)), {}),
    "HardSwish": (lambda x: x * np.clip(x / 6 + 0.5, 0, 1), {}),
    "Mish": (lambda x: x * np.tanh(softplus(x)), {}),
    "Floor": (np.floor, {}),
    "Ceil": (np.ceil, {}),
    "Round": (np.rint, {}),
    "Sign": (np.sign, {}),
    "Sin": (np.sin, {}),
    "Cos": (np.cos, {}),
    "Tan": (np.tan, {}),
    "Asin": (np.arcsin, {}),
    "Acos": (np.arccos, {}),
    "Atan": (np.arctan, {}),
    "Sinh": (np.sinh, {}),
    "Cosh": (np.cosh, {}),
    "Asinh": (np.arcsinh, {}),
    "Acosh": (np.arccosh, {}),
    "Atanh": (np.arctanh, {}),
    "LeakyRelu": (lambda x: np.where(x < 0, 0.125 * x, x), {"alpha": 0.125}),
    "Elu": (lambda x: np.where(x < 0, 1.5 * np.expm1(np.minimum(x, 0)), x), {"alpha": 1.5}),
    "Selu": (
        lambda x: (
            1.05070102214813232421875 * np.where(x < 0, 1.67326319217681884765625 * np.expm1(np.minimum(x, 0)), x)
        ),
        {},
    ),
    "Celu": (lambda x: np.where(x < 0, 2 * np.expm1(np.minimum(x, 0) / 2), x), {"alpha": 2.0}),
    "ThresholdedRelu": (lambda x: np.where(x > 0.75, x, 0), {"alpha": 0.75}),
    "HardSigmoid": (lambda x: np.clip(0.25 * x + 0.375, 0, 1), {"alpha": 0.25, "beta": 0.375}),
    "Shrink": (
        lambda x: np.where(x < -0.625, x + 0.125, np.where(x > 0.625, x - 0.125, 0)),
        {"bias": 0.125, "lambd": 0.625},
    ),
    "Swish": (lambda x: x * sigmoid(1.25 * x), {"alpha": 1.25}),
    "Gelu": (lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))), {}),
    "Gelu tanh": (gelu_tanh, {"approximate": "tanh"}),
}


def quietly(fn, *args):
    with np.errstate(all="ignore"):
        return fn(*args)


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unary(name, dtype):
    fn, attrs = UNARY[name]
    for shape in [(3, 37), (), (0, 4), (1,)]:
        x = (RNG.normal(size=shape) * 2).astype(dtype)
        expected = np.asarray(quietly(fn, x.astype(np.float64))).astype(dtype)
        atol = 4e-7 if dtype == np.float32 else 1e-12
        check_node(
            name.split()[0], [x], expected=[expected], rtol=2e-6 if dtype == np.float32 else 1e-12, atol=atol, **attrs
        )


@pytest.mark.parametrize("name", UNARY)
def test_unary_special_values(name):
    fn, attrs = UNARY[name]
    expected = quietly(fn, SPECIALS.astype(np.float64))
    if name in ("Gelu", "Gelu tanh", "Swish", "Mish"):  # -inf·0: the formula's NaN
        keep = ~np.isneginf(SPECIALS)
    else:
        keep = np.ones(len(SPECIALS), bool)
    expected = quietly(lambda v: v.astype(np.float32), expected)
    check_node(name.split()[0], [SPECIALS[keep]], expected=[expected[keep]], rtol=2e-6, atol=1e-6, **attrs)


@pytest.mark.parametrize("name", ["Exp", "Gelu", "Tanh", "Sin", "Relu", "Erf"])
def test_16_bit_floats_round_once(name):
    x = RNG.normal(size=(5, 33)).astype(np.float16)
    fn, attrs = UNARY[name]
    check_node(
        name, [x], expected=[quietly(fn, x.astype(np.float64)).astype(np.float16)], rtol=1e-3, atol=1e-3, **attrs
    )


BINARY = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Max": np.maximum, "Min": np.minimum}
SHAPES = [
    ((4, 33), (4, 33)),
    ((2, 3, 700), (700,)),
    ((5, 7, 16), (16,)),
    ((3, 4, 5), (3, 1, 5)),
    ((2, 9, 1), (2, 1, 1030)),
    ((6, 1), (1, 7)),
    ((3, 40), ()),
    ((1,), (0,)),
    ((2, 1, 3, 1, 5), (1, 4, 1, 2, 1)),
]
INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32])
def test_broadcasting(shapes, dtype):
    a, b = ((RNG.normal(size=s) * 9).astype(dtype) for s in shapes)
    check_node("Add", [a, b], expected=[a + b], rtol=0, atol=0)
    check_node("Sub", [b, a], expected=[b - a], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("op", BINARY)
def test_integer_arithmetic_wraps(op, dtype):
    info = np.iinfo(dtype)
    a = RNG.integers(info.min, info.max, size=(3, 50), dtype=dtype, endpoint=True)
    b = RNG.integers(info.min, info.max, size=(50,), dtype=dtype, endpoint=True)
    check_node(op, [a, b], expected=[quietly(BINARY[op], a, b)])


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_division_truncates_and_mod_follows_the_divisor(dtype):
    info = np.iinfo(dtype)
    a = np.array([7, 8, 9, 100, info.min, info.max, info.min], dtype)
    b = np.array([3, 2, 4, 7, 3, 5, -1 if info.min < 0 else 1], dtype)
    if info.min < 0:
        a, b = np.concatenate([a, -a[:4], a[:4]]), np.concatenate([b, b[:4], -b[:4]])
    whole = [(int(x), int(y)) for x, y in zip(a, b, strict=True)]
    quotient = [abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1) for x, y in whole]
    wrap = 1 << info.bits
    quotient = np.array([(q - info.min) % wrap + info.min for q in quotient], dtype)
    check_node("Div", [a, b], expected=[quotient])
    check_node("Mod", [a, b], expected=[np.array([x % y for x, y in whole], dtype)])
    remainders = [abs(x) % abs(y) * (-1 if x < 0 else 1) for x, y in whole]
    check_node("Mod", [a, b], expected=[np.array(remainders, dtype)], fmod=1)


@pytest.mark.parametrize("op", ["Div", "Mod"])
def test_integer_division_by_zero_is_an_error(op):
    model = node_model(op, [np.ones(3, np.int32), np.ones(3, np.int32)])
    with pytest.raises(Exception, match="zero"):
        for _ in run_everywhere(model, {"x0": np.ones(3, np.int32), "x1": np.array([1, 0, 2], np.int32)}):
            pass


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_float_mod(dtype):
    a, b = (RNG.normal(size=200) * 50).astype(dtype), RNG.normal(size=200).astype(dtype)
    check_node("Mod", [a, b], expected=[np.fmod(a, b)], rtol=0, atol=0, fmod=1)


COMPARE = {
    "Equal": np.equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
}


@pytest.mark.parametrize("op", COMPARE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, *INTEGERS])
def test_compare(op, dtype):
    a, b = RNG.integers(0, 5, size=(7, 45)).astype(dtype), RNG.integers(0, 5, size=(45,)).astype(dtype)
    check_node(op, [a, b], expected=[COMPARE[op](a, b)])
    if dtype == np.float32:
        s = np.repeat(SPECIALS, len(SPECIALS)), np.tile(SPECIALS, len(SPECIALS))
        check_node(op, list(s), expected=[COMPARE[op](*s)])


def test_logic():
    a, b = RNG.random((5, 70)) < 0.5, RNG.random(70) < 0.5
    for op, fn in {"And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor, "Equal": np.equal}.items():
        check_node(op, [a, b], expected=[fn(a, b)])
    check_node("Not", [a], expected=[~a])


@pytest.mark.parametrize("dtype", INTEGERS)
def test_bitwise(dtype):
    a, b = RNG.integers(0, 100, size=(4, 9)).astype(dtype), RNG.integers(0, 100, size=9).astype(dtype)
    check_node("BitwiseAnd", [a, b], expected=[a & b])
    check_node("BitwiseOr", [a, b], expected=[a | b])
    check_node("BitwiseXor", [a, b], expected=[a ^ b])
    check_node("BitwiseNot", [a], expected=[~a])
    if np.iinfo(dtype).min == 0:
        shift = RNG.integers(0, 8, size=9).astype(dtype)
        check_node("BitShift", [a, shift], expected=[(a << shift).astype(dtype)], direction="LEFT")
        check_node("BitShift", [a, shift], expected=[a >> shift], direction="RIGHT")


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64])
def test_integer_unary(dtype):
    info = np.iinfo(dtype)
    x = np.array([0, 1, -1, 5, -7, info.max, info.min], dtype)
    check_node("Abs", [x], expected=[np.abs(x)])
    check_node("Neg", [x], expected=[-x])
    check_node("Sign", [x], expected=[np.sign(x)])
    check_node("Relu", [x], expected=[np.maximum(x, 0)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32, np.int64, np.uint8])
def test_variadic(dtype):
    xs = [RNG.integers(0, 20, size=s).astype(dtype) for s in [(3, 1, 5), (4, 1), (5,), ()]]
    check_node("Max", xs, expected=[np.maximum.reduce(np.broadcast_arrays(*xs))])
    check_node("Min", xs, expected=[np.minimum.reduce(np.broadcast_arrays(*xs))])
    check_node("Max", xs[:1], expected=xs[:1])
    if np.dtype(dtype).kind == "f":
        total = sum(x.astype(np.float64) for x in xs)
        check_node("Sum", xs, expected=[total.astype(dtype)], rtol=1e-3)
        check_node("Mean", xs, expected=[(total / 4).astype(dtype)], rtol=1e-3)


def test_variadic_beyond_one_program():
    xs = [RNG.normal(size=(2, 9)).astype(np.float32) for _ in range(20)]
    check_node("Sum", xs, expected=[sum(x.astype(np.float64) for x in xs).astype(np.float32)], atol=1e-5)


def test_max_min_propagate_nan():
    a, b = np.repeat(SPECIALS, len(SPECIALS)), np.tile(SPECIALS, len(SPECIALS))
    for dtype in (np.float32, np.float64):
        check_node("Max", [a.astype(dtype), b.astype(dtype)], expected=[np.maximum(a, b).astype(dtype)])
        check_node("Min", [a.astype(dtype), b.astype(dtype)], expected=[np.minimum(a, b).astype(dtype)])


def test_pow():
    x, y = np.exp(RNG.normal(size=(20, 33))).astype(np.float32), (RNG.normal(size=33) * 4).astype(np.float32)
    check_node("Pow", [x, y], expected=[np.power(x.astype(np.float64), y).astype(np.float32)], rtol=5e-7)
    a, b = np.repeat(SPECIALS, len(SPECIALS)), np.tile(SPECIALS, len(SPECIALS))
    expected = quietly(np.power, a.astype(np.float64), b.astype(np.float64))
    check_node("Pow", [a, b], expected=[quietly(lambda: expected.astype(np.float32))])


@pytest.mark.parametrize("exponent", [2, 3, 1, 0.5, -1, 0, -2.5])
def test_pow_of_a_constant(exponent):
    x = np.concatenate([np.exp(RNG.normal(size=40)).astype(np.float32), SPECIALS])
    e = np.array(exponent, np.float32)
    expected = quietly(
        lambda: np.power(x.astype(np.float64), np.full(x.shape, exponent, np.float64)).astype(np.float32)
    )
    check_node("Pow", [x, e], expected=[expected], constants=(1,), rtol=1e-6)


@pytest.mark.parametrize("base", [np.float32, np.float64, np.int32, np.int64])
@pytest.mark.parametrize("exponent", [np.float32, np.float64, np.int32, np.int64, np.uint8])
def test_pow_of_mixed_types(base, exponent):
    x, y = RNG.integers(1, 6, size=(4, 8)).astype(base), RNG.integers(0, 5, size=8).astype(exponent)
    check_node("Pow", [x, y], expected=[np.power(x.astype(np.float64), y.astype(np.float64)).astype(base)])


def test_where():
    c = RNG.random((4, 1, 30)) < 0.5
    for dtype in [np.float32, np.float64, np.float16, np.bool_, *INTEGERS]:
        x, y = (RNG.normal(size=(3, 30)) * 5).astype(dtype), (RNG.normal(size=(4, 3, 1)) * 5).astype(dtype)
        check_node("Where", [c, x, y], expected=[np.where(c, x, y)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32, np.int64, np.uint8])
def test_clip(dtype):
    x = RNG.integers(0, 100, size=(3, 41)).astype(dtype)
    lo, hi = np.array(20, dtype), np.array(70, dtype)
    check_node("Clip", [x, lo, hi], expected=[np.clip(x, 20, 70)])
    check_node("Clip", [x, None, hi], expected=[np.minimum(x, hi)])
    check_node("Clip", [x, lo], expected=[np.maximum(x, lo)])
    check_node("Clip", [x], expected=[x])
    check_node("Clip", [x, hi, lo], expected=[np.minimum(np.maximum(x, hi), lo)], constants=(1, 2))


def test_prelu():
    x = RNG.normal(size=(2, 5, 6)).astype(np.float32)
    for slope in (np.array(0.1, np.float32), RNG.normal(size=(5, 1)).astype(np.float32)):
        check_node("PRelu", [x, slope], expected=[np.where(x < 0, x * slope, x)])
    with pytest.raises(Exception, match="slope"):
        check_node("PRelu", [x, np.zeros((3, 2, 5, 6), np.float32)], expected=[x])


def test_is_nan_and_is_inf():
    for dtype in (np.float32, np.float64, np.float16):
        with np.errstate(over="ignore"):
            x = SPECIALS.astype(dtype)
        check_node("IsNaN", [x], expected=[np.isnan(x)])
        check_node("IsInf", [x], expected=[np.isinf(x)])
        check_node("IsInf", [x], expected=[np.isposinf(x)], detect_negative=0)
        check_node("IsInf", [x], expected=[np.isneginf(x)], detect_positive=0)
        check_node("IsInf", [x], expected=[np.zeros(x.shape, bool)], detect_positive=0, detect_negative=0)


def test_com_microsoft():
    x, bias = RNG.normal(size=(3, 20)).astype(np.float32), RNG.normal(size=20).astype(np.float32)
    s = (x + bias).astype(np.float64)
    gelu = UNARY["Gelu"][0]
    check_node("Gelu", [x], expected=[gelu(x.astype(np.float64)).astype(np.float32)], domain="com.microsoft")
    check_node("BiasGelu", [x, bias], expected=[gelu(s).astype(np.float32)], domain="com.microsoft")
    check_node("FastGelu", [x, bias], expected=[gelu_tanh(s).astype(np.float32)], domain="com.microsoft")
    check_node("FastGelu", [x], expected=[gelu_tanh(x.astype(np.float64)).astype(np.float32)], domain="com.microsoft")
    quick = x * sigmoid(1.702 * x.astype(np.float64))
    check_node("QuickGelu", [x], expected=[quick.astype(np.float32)], domain="com.microsoft")


@pytest.mark.parametrize("op", ["Exp", "Tanh", "Gelu", "Sin", "Softplus"])
def test_same_bits_alone_and_in_a_batch(op):
    check_same_bits(op, [(RNG.normal(size=(7, 3, 37)) * 3).astype(np.float32)])


def test_shapes_that_do_not_broadcast_are_refused():
    with pytest.raises(Exception, match="broadcast"):
        check_node("Add", [np.zeros(3, np.float32), np.zeros(4, np.float32)], expected=[np.zeros(3, np.float32)])
