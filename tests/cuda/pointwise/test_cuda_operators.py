# SPDX-License-Identifier: Apache-2.0
"""Single elementwise operators of ONNX through the pointwise generator, against onnx.reference; what is left to torch."""

import numpy as np
import pytest
import torch
from cuda_nodes import check_node
from onnx import TensorProto

from fastinfer.cuda.context import Declined, Desc
from fastinfer.cuda.ops import pointwise

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
INF, NAN = float("inf"), float("nan")
EDGES = np.array([0, 1, -1, 0.5, 1.5, -2.5, 2.5, -0.3, 3.7, -9.5, 20, -20, INF, -INF, NAN], np.float32)
FINITE = EDGES[np.isfinite(EDGES)]
RNG = np.random.default_rng(0)
INTS = [np.int8, np.int16, np.int32, np.int64, np.uint8]


def integers(shape, dtype):
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x = RNG.integers(low, high, shape, dtype=dtype, endpoint=True)
    x.flat[:2] = low, high
    return x


UNARY = "Neg Abs Exp Erf Tanh Sigmoid Relu Softplus HardSwish Floor Ceil Round Sign Mish Softsign LeakyRelu Elu".split()
UNARY += "HardSigmoid Selu ThresholdedRelu Gelu Sin Cos Sqrt Log Reciprocal IsNaN IsInf Swish".split()


@pytest.mark.parametrize("op", UNARY)
def test_unary(op):
    x = FINITE if op in ("HardSwish", "Mish", "Softsign", "Gelu", "Sin", "Cos", "Swish", "Erf", "Selu") else EDGES
    x = np.abs(FINITE) + 0.1 if op in ("Sqrt", "Log", "Reciprocal") else x
    check_node(op, [x], rtol=2e-5, atol=2e-6)


def test_attributes():
    check_node("LeakyRelu", [FINITE], alpha=0.3)
    check_node("Elu", [FINITE], alpha=2.0)
    check_node("HardSigmoid", [FINITE], alpha=0.5, beta=0.25)
    check_node("Gelu", [FINITE], approximate="tanh", rtol=2e-5)
    check_node("Selu", [FINITE], alpha=1.5, gamma=2.0)
    check_node("IsInf", [EDGES], detect_negative=0)
    check_node("IsInf", [EDGES], detect_positive=0)


@pytest.mark.parametrize(
    "op", ["Add", "Sub", "Mul", "Div", "Min", "Max", "Less", "Greater", "Equal", "LessOrEqual", "GreaterOrEqual"]
)
def test_binary(op):
    check_node(op, [EDGES, EDGES[:, None]])
    check_node(op, [EDGES, np.array(1.5, np.float32)], constants=(1,))
    check_node(op, [np.zeros((0, 3), np.float32), np.ones(3, np.float32)], constants=(1,))


@pytest.mark.parametrize(
    "op", ["Add", "Sub", "Mul", "Min", "Max", "Less", "Greater", "Equal", "LessOrEqual", "GreaterOrEqual"]
)
@pytest.mark.parametrize("dtype", INTS)
def test_integers(op, dtype):
    """Sums and products wrap, as numpy's do."""
    check_node(op, [integers((3, 5), dtype), integers((5,), dtype)])


@pytest.mark.parametrize("op", ["Neg", "Abs", "Sign"])
def test_signed_integers(op):
    for dtype in INTS[:-1]:
        check_node(op, [integers((3, 5), dtype)])


@pytest.mark.parametrize("op", ["And", "Or", "Xor", "Equal"])
def test_logic(op):
    a, b = RNG.random((3, 4)) < 0.5, RNG.random((4,)) < 0.5
    check_node(op, [a, b])
    check_node("Not", [a])


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.int8, np.bool_])
def test_where(dtype):
    c = RNG.random((3, 1, 5)) < 0.5
    check_node("Where", [c, RNG.integers(-9, 9, (4, 5)).astype(dtype), RNG.integers(-9, 9, (3, 4, 1)).astype(dtype)])


@pytest.mark.parametrize("bounds", [(-1.0, 2.0), (None, 2.0), (0.5, None), (None, None), (2.0, -1.0)], ids=str)
def test_clip(bounds):
    limits = [None if b is None else np.array(b, np.float32) for b in bounds]
    want = EDGES
    want = want if bounds[0] is None else np.maximum(want, limits[0])
    want = want if bounds[1] is None else np.minimum(want, limits[1])
    check_node("Clip", [EDGES, *limits], expected=[want])
    whole = [None if b is None else np.array(b, np.int64) for b in bounds]
    x = np.arange(-5, 6)
    want = x if bounds[0] is None else np.maximum(x, whole[0])
    want = want if bounds[1] is None else np.minimum(want, whole[1])
    check_node("Clip", [x, *whole], constants=(1, 2) if None not in bounds else (), expected=[want])


@pytest.mark.parametrize("exponent", [2.0, 0.5, -1.0, 1.0, 3.0, 0.0, 2.5])
def test_pow_by_a_number(exponent):
    x = np.abs(FINITE) + 0.1
    check_node("Pow", [x, np.array(exponent, np.float32)], constants=(1,), rtol=1e-5)
    check_node("Pow", [x, np.array([int(exponent)], np.int64)], expected=[x ** int(exponent)])


def test_variadic():
    xs = [RNG.standard_normal(s).astype(np.float32) for s in ((3, 4), (4,), (3, 1), (1,))]
    for op in ("Sum", "Max", "Min", "Mean"):
        check_node(op, xs)
        check_node(op, xs[:1])


def test_prelu():
    check_node("PRelu", [RNG.standard_normal((2, 3, 4)).astype(np.float32), np.array([[0.1], [0.2], [-1]], np.float32)])


CODES = {
    np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16, np.int8: TensorProto.INT8, np.int32: TensorProto.INT32,
    np.int64: TensorProto.INT64, np.uint8: TensorProto.UINT8, np.bool_: TensorProto.BOOL,
}  # fmt: skip


@pytest.mark.parametrize("to", CODES, ids=lambda t: t.__name__)
@pytest.mark.parametrize("source", CODES, ids=lambda t: t.__name__)
def test_cast(source, to):
    x = RNG.integers(0, 100, (3, 7)).astype(source)
    if np.dtype(source).kind == "f":
        x = x + source(0.75)
    if source is to:
        return
    check_node("Cast", [x], to=CODES[to])


def test_what_is_left_to_torch():
    class Context:
        """One node with inputs of a type."""

        def __init__(self, dtype, n=2):
            self.node, self.n_inputs = {"inputs": list(range(n))}, n
            self._desc = Desc(dtype, (3,))

        def desc(self, i):
            return self._desc

        out_desc = desc

        def has(self, i):
            return True

        wants = has

        def known(self, i):
            return None

        def attr(self, name, default=None):
            return default

    for op, dtype in [
        ("Div", torch.int64),
        ("Pow", torch.int32),
        ("Add", torch.float64),
        ("Exp", torch.int64),
        ("Add", torch.bool),
    ]:
        with pytest.raises(Declined):
            pointwise.BINDERS["", op](Context(dtype, 1 if op == "Exp" else 2))
