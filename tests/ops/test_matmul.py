# SPDX-License-Identifier: Apache-2.0
"""MatMul, Gemm and their fused forms against float64, on every instruction set and on 1 and 2 threads."""

import math

import numpy as np
import pytest
from support import build, check_node, check_same_bits, node_model, run_everywhere

from fastinfer.errors import InputError
from kernels.gemm.samples import EDGES, MODELS


def floats(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.logaddexp(0, x)


ACTIVATIONS = {
    "": lambda x, a, b: x,
    "relu": lambda x, a, b: np.maximum(x, 0),
    "clip": lambda x, a, b: np.clip(x, a, b),
    "leaky_relu": lambda x, a, b: np.where(x < 0, a * x, x),
    "sigmoid": lambda x, a, b: sigmoid(x),
    "tanh": lambda x, a, b: np.tanh(x),
    "silu": lambda x, a, b: x * sigmoid(x),
    "gelu": lambda x, a, b: x / 2 * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2))),
    "gelu_tanh": lambda x, a, b: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "hard_swish": lambda x, a, b: x * np.clip(x / 6 + 0.5, 0, 1),
    "hard_sigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "elu": lambda x, a, b: np.where(x < 0, a * np.expm1(x), x),
    "softplus": lambda x, a, b: softplus(x),
    "mish": lambda x, a, b: x * np.tanh(softplus(x)),
    "quick_gelu": lambda x, a, b: x * sigmoid(a * x),
}


def swap(x, do):
    return np.swapaxes(x, -1, -2) if do else x


def fused(a, b, bias=None, r=None, *, trans_a=0, trans_b=0, scale=1.0, act="", alpha=0.0, beta=0.0, after=0):
    y = scale * np.matmul(swap(a, trans_a).astype(np.float64), swap(b, trans_b).astype(np.float64))
    y = y + (0 if bias is None else bias)
    y = ACTIVATIONS[act](y + (0 if r is None or after else r), alpha, beta)
    return (y + (r if r is not None and after else 0)).astype(np.float32)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("shape", EDGES, ids=str)
def test_edges(shape, constant):
    m, k, n = shape
    rng = np.random.default_rng(m * 1000 + n)
    a, b = floats(rng, m, k), floats(rng, k, n)
    check_node("MatMul", [a, b], expected=[fused(a, b)], constants=[1] if constant else (), atol=2e-6 * max(k, 8))


@pytest.mark.parametrize("shape", [s for s in MODELS.values() if s[0] * s[1] * s[2] < 4e8], ids=str)
def test_model_shapes(shape):
    m, k, n = shape
    rng = np.random.default_rng(0)
    a, b = floats(rng, m, k), floats(rng, k, n)
    check_node("MatMul", [a, b], expected=[fused(a, b)], constants=[1], atol=2e-6 * k, isas=None)


@pytest.mark.parametrize("a_shape, b_shape", [
    ((5,), (5,)), ((5,), (5, 7)), ((3, 5), (5,)), ((2, 3, 5), (5,)), ((5,), (2, 5, 4)), ((1,), (1, 1)),
    ((2, 3, 5), (5, 7)), ((3, 5), (2, 5, 7)), ((2, 3, 5), (2, 5, 7)), ((4, 1, 3, 5), (1, 2, 5, 7)),
    ((2, 1, 3, 6, 5), (4, 1, 5, 33)), ((1, 3, 5), (6, 5, 2)), ((2, 3, 4, 5), (3, 5, 6)), ((0, 3, 5), (5, 7)),
    ((2, 0, 5), (2, 5, 7)), ((2, 3, 0), (2, 0, 7)), ((2, 30, 40), (2, 40, 80)), ((7, 2, 1, 3), (2, 3, 70)),
])  # fmt: skip
@pytest.mark.parametrize("constant", [False, True])
def test_broadcast(a_shape, b_shape, constant):
    rng = np.random.default_rng(1)
    a, b = floats(rng, *a_shape), floats(rng, *b_shape)
    check_node("MatMul", [a, b], expected=[fused(a, b)], constants=[1] if constant else (), atol=1e-4)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_epilogue(act):
    rng = np.random.default_rng(2)
    for m, n, constant, with_bias, with_r, after in [
        (7, 70, 1, 1, 1, 0), (1, 33, 1, 1, 0, 0), (13, 16, 0, 0, 1, 1), (2, 130, 1, 1, 1, 1),
    ]:  # fmt: skip
        a, b, bias = floats(rng, m, 19), floats(rng, 19, n), floats(rng, n) if with_bias else None
        r = floats(rng, m, n) if with_r else None
        alpha, beta = (-0.5, 0.75) if act == "clip" else (0.3, 0.6)
        want = fused(a, b, bias, r, scale=0.5, act=act, alpha=alpha, beta=beta, after=after)
        check_node("MatMul", [a, b, bias, r], expected=[want], domain="fastinfer", constants=[1] if constant else (),
                   activation=act, activation_alpha=alpha, activation_beta=beta, residual_after=after, alpha=0.5,
                   rtol=1e-4, atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("constant", [False, True])
def test_transposed(trans_a, trans_b, constant):
    rng = np.random.default_rng(3)
    for batch, m, k, n in [((), 5, 9, 40), ((3,), 17, 6, 21), ((2, 2), 1, 8, 3), ((2,), 30, 70, 70), ((2,), 3, 1, 4)]:
        a = np.ascontiguousarray(swap(floats(rng, *batch, m, k), trans_a))
        b = np.ascontiguousarray(swap(floats(rng, *batch, k, n), trans_b))
        want = fused(a, b, trans_a=trans_a, trans_b=trans_b, scale=0.25)
        for domain, op in [("fastinfer", "MatMul"), ("com.microsoft", "FusedMatMul")]:
            check_node(op, [a, b], expected=[want], domain=domain, constants=[1] if constant else (), transA=trans_a,
                       transB=trans_b, alpha=0.25, atol=1e-4)  # fmt: skip


@pytest.mark.parametrize("c_shape", [None, (), (1,), (21,), (1, 21), (6, 1), (6, 21), (1, 1)])
@pytest.mark.parametrize("alpha, beta", [(1.0, 1.0), (0.5, 0.25), (1.0, 0.0)])
def test_gemm(c_shape, alpha, beta):
    rng = np.random.default_rng(4)
    c = None if c_shape is None else floats(rng, *c_shape)
    for trans_a, trans_b, constants in [(0, 0, []), (1, 0, [1]), (0, 1, [1, 2]), (1, 1, [])]:
        a = np.ascontiguousarray(swap(floats(rng, 6, 10), trans_a))
        b = np.ascontiguousarray(swap(floats(rng, 10, 21), trans_b))
        x = [a, b] if c is None else [a, b, c]
        constants = [i for i in constants if i < len(x)]
        check_node("Gemm", x, constants=constants, alpha=alpha, beta=beta, transA=trans_a, transB=trans_b, atol=1e-5)


def test_fused_gemm():
    rng = np.random.default_rng(5)
    a, b, c = floats(rng, 4, 10), floats(rng, 10, 21), floats(rng, 21)
    check_node("FusedGemm", [a, b, c], expected=[fused(a, b, c, act="leaky_relu", alpha=0.2)], domain="com.microsoft",
               activation="LeakyRelu", activation_alpha=0.2, atol=1e-5)  # fmt: skip
    check_node("GemmFastGelu", [a, b, c], expected=[fused(a, b, c, act="gelu_tanh")], domain="com.microsoft", atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint32, np.int64, np.uint64])
def test_other_types(dtype):
    rng = np.random.default_rng(6)
    for a_shape, b_shape in [
        ((3, 4), (4, 5)),
        ((2, 1, 3, 4), (5, 4, 2)),
        ((4,), (4,)),
        ((2, 0, 4), (4, 3)),
        ((2, 0), (0, 3)),
    ]:
        a, b = rng.integers(0, 99, a_shape).astype(dtype), rng.integers(0, 99, b_shape).astype(dtype)
        check_node("MatMul", [a, b], expected=[np.matmul(a, b)])
    a, b, c = (rng.integers(0, 9, s).astype(dtype) for s in [(4, 3), (5, 4), (3, 1)])
    check_node("Gemm", [a, b, c], expected=[(a.T @ b.T + c).astype(dtype)], transA=1, transB=1)


def test_float64_gemm_scales():
    rng = np.random.default_rng(7)
    a, b, c = rng.standard_normal((3, 4)), rng.standard_normal((4, 5)), rng.standard_normal(5)
    check_node("Gemm", [a, b, c], alpha=0.5, beta=2.0, rtol=1e-12)


def test_infinities_and_nan_pass_through():
    a = np.array([[np.inf, 1], [np.nan, 1], [1, -np.inf]], np.float32)
    b = np.array([[1, 2, 0], [3, 4, 5]], np.float32)
    with np.errstate(invalid="ignore"):
        want = a @ b
    check_node("MatMul", [a, b], expected=[want])
    check_node("MatMul", [a, b], expected=[np.maximum(want, 0)], domain="fastinfer", activation="relu", constants=[1])


@pytest.mark.parametrize("k, n", [(40, 70), (2100, 65), (64, 16)])
@pytest.mark.parametrize("constants", [(), (1,)])
def test_same_bits(k, n, constants):
    rng = np.random.default_rng(8)
    a, b = floats(rng, 7, k), floats(rng, k, n)
    check_same_bits("MatMul", [a, b], constants=constants)
    check_same_bits("MatMul", [np.stack([a, a + 1, a - 1]), b], constants=constants)
    bias, r = floats(rng, n), floats(rng, 7, n)
    check_same_bits("MatMul", [a, b, bias, r], batch_inputs=(0, 3), constants=constants, domain="fastinfer",
                    activation="gelu")  # fmt: skip


def test_same_bits_in_a_batch_of_matrices():
    rng = np.random.default_rng(9)
    check_same_bits("MatMul", [floats(rng, 7, 9, 32), floats(rng, 7, 32, 50)], batch_inputs=(0, 1))
    check_same_bits("MatMul", [floats(rng, 7, 9, 32), floats(rng, 7, 50, 32)], batch_inputs=(0, 1), domain="fastinfer",
                    transB=1)  # fmt: skip


def test_many_rows_have_the_bits_of_one():
    rng = np.random.default_rng(10)
    a, b = floats(rng, 300, 48), floats(rng, 48, 100)
    model = node_model("MatMul", [a, b], constants=[1])
    for (_, (whole,)), (label, (part,)) in zip(
        run_everywhere(model, {"x0": a}), run_everywhere(model, {"x0": a[123:124]}), strict=True
    ):
        np.testing.assert_array_equal(whole[123:124], part, err_msg=label)


@pytest.mark.parametrize("op, x, attrs, words", [
    ("MatMul", [(2, 3), (4, 5)], {}, "3 columns against 4 rows"),
    ("MatMul", [(2, 2, 3), (3, 3, 5)], {}, "broadcast"),
    ("MatMul", [(), (3, 3)], {}, "vectors or matrices"),
    ("Gemm", [(2, 3), (3, 4), (3, 4)], {}, "does not broadcast"),
    ("Gemm", [(2, 2, 3), (3, 4)], {}, "needs matrices"),
    ("Gemm", [(2, 3), (3, 4)], {"transA": 1}, "columns against"),
])  # fmt: skip
def test_wrong_shapes(op, x, attrs, words):
    arrays = [np.zeros(s, np.float32) for s in x]
    with pytest.raises(InputError, match=words):
        build(node_model(op, arrays, **attrs)).run({f"x{i}": a for i, a in enumerate(arrays)})


@pytest.mark.parametrize("bias, r", [((3,), None), ((), None), (None, (2, 3)), (None, (4,))])
def test_wrong_fused_operands(bias, r):
    x = [np.zeros(s, np.float32) if s is not None else None for s in [(2, 3), (3, 4), bias, r]]
    with pytest.raises(InputError, match="needed"):
        build(node_model("MatMul", x, domain="fastinfer")).run({f"x{i}": a for i, a in enumerate(x) if a is not None})
