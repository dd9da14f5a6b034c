# SPDX-License-Identifier: Apache-2.0
"""Integer matrix products against int64 numpy, on every instruction set and on 1 and 2 threads."""

import numpy as np
import pytest
from support import build, check_node, check_same_bits, node_model

from fastinfer.errors import InputError
from kernels.gemm.samples import EDGES

PAIRS = [(np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8), (np.int8, np.uint8)]


def integers(rng, dtype, *shape):
    """The whole range: extremes are where a 16-bit intermediate would saturate."""
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


def product(a, b, za=0, zb=0):
    """Exact, za per row or one, zb per column or one."""
    za, zb = np.asarray(za, np.int64), np.asarray(zb, np.int64)
    za = za[:, None] if za.ndim == 1 and za.size > 1 else za
    return np.matmul(a.astype(np.int64) - za, b.astype(np.int64) - zb)


def saturate(x, dtype):
    info = np.iinfo(dtype)
    return np.clip(x, info.min, info.max).astype(dtype)


def test_extreme_values_are_exact():
    for ta, tb in PAIRS:
        for va, vb in [(0, 0), (0, 1), (1, 0), (1, 1)]:
            a = np.full((7, 300), [np.iinfo(ta).min, np.iinfo(ta).max][va], ta)
            b = np.full((300, 70), [np.iinfo(tb).min, np.iinfo(tb).max][vb], tb)
            check_node("MatMulInteger", [a, b], expected=[product(a, b).astype(np.int32)])


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{np.dtype(p[0])}-{np.dtype(p[1])}")
@pytest.mark.parametrize("shape", EDGES, ids=str)
def test_matmul_integer(shape, pair):
    m, k, n = shape
    rng = np.random.default_rng(m * 100 + n)
    a, b = integers(rng, pair[0], m, k), integers(rng, pair[1], k, n)
    za, zb = integers(rng, pair[0], 1)[0], integers(rng, pair[1], 1)[0]
    constant = [1] if (m + n) % 2 else []
    check_node("MatMulInteger", [a, b], expected=[product(a, b).astype(np.int32)], constants=constant)
    check_node("MatMulInteger", [a, b, za, zb], expected=[product(a, b, za, zb).astype(np.int32)], constants=constant)


@pytest.mark.parametrize("a_shape, b_shape", [
    ((5,), (5,)), ((5,), (5, 7)), ((3, 5), (5,)), ((2, 3, 5), (5, 7)), ((3, 5), (2, 5, 7)), ((2, 1, 3, 6), (4, 6, 33)),
    ((2, 3, 4, 5), (3, 5, 6)), ((0, 3, 5), (5, 7)),
])  # fmt: skip
def test_matmul_integer_broadcast(a_shape, b_shape):
    rng = np.random.default_rng(1)
    for (ta, tb), constants in zip(PAIRS, [(), (1,), (1, 2, 3), (3,)], strict=True):
        a, b = integers(rng, ta, *a_shape), integers(rng, tb, *b_shape)
        za, zb = integers(rng, ta, 1), integers(rng, tb)
        want = np.asarray(product(a, b, za[0], zb)).astype(np.int32)
        check_node("MatMulInteger", [a, b, za, zb], expected=[want], constants=constants)


def test_matmul_integer_zero_points_per_row_and_column():
    rng = np.random.default_rng(2)
    for ta, tb in PAIRS:
        a, b = integers(rng, ta, 13, 21), integers(rng, tb, 21, 70)
        za, zb = integers(rng, ta, 13), integers(rng, tb, 70)
        want = product(a, b, za, zb).astype(np.int32)
        check_node("MatMulInteger", [a, b, za, zb], expected=[want])
        check_node("MatMulInteger", [a, b, za, zb], expected=[want], constants=[1, 3])
        check_node("MatMulInteger", [a, b, None, np.full(70, 0 if tb == np.int8 else 128, tb)], constants=[1, 3],
                   expected=[product(a, b, 0, 0 if tb == np.int8 else 128).astype(np.int32)])  # fmt: skip


@pytest.mark.parametrize("out", [np.uint8, np.int8])
@pytest.mark.parametrize("per_column", [False, True])
def test_qlinear_matmul(out, per_column):
    rng = np.random.default_rng(3)
    for i, (ta, tb) in enumerate(PAIRS):
        a, b = integers(rng, ta, 2, 9, 30), integers(rng, tb, 30, 37)
        za, zb, zy = integers(rng, ta), integers(rng, tb, 37) if per_column else integers(rng, tb), integers(rng, out)
        sa, sy = np.float32(0.013), np.float32(1.7)
        sb = rng.uniform(0.01, 0.05, 37).astype(np.float32) if per_column else np.float32(0.021)
        scale = np.float32(sa * sb) / sy
        scaled = product(a, b, za, zb).astype(np.float32) * scale
        want = saturate(np.rint(scaled) + float(zy), out)
        check_node("QLinearMatMul", [a, sa, za, b, sb, zb, sy, zy], expected=[want], constants=[3] if i % 2 else [])


def test_qlinear_matmul_scale_per_row():
    rng = np.random.default_rng(4)
    a, b = integers(rng, np.uint8, 9, 30), integers(rng, np.int8, 30, 37)
    za, sa = integers(rng, np.uint8, 9), rng.uniform(0.01, 0.05, 9).astype(np.float32)
    sb, zb, sy, zy = np.float32(0.02), np.int8(3), np.float32(2), np.uint8(100)
    want = saturate(np.rint(product(a, b, za, zb).astype(np.float32) * (sa[:, None] * (sb / sy))) + 100, np.uint8)
    check_node("QLinearMatMul", [a, sa, za, b, sb, zb, sy, zy], expected=[want])


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{np.dtype(p[0])}-{np.dtype(p[1])}")
def test_matmul_integer_to_float(pair):
    rng = np.random.default_rng(5)
    a, b = integers(rng, pair[0], 3, 5, 31), integers(rng, pair[1], 31, 50)
    sa, sb = np.float32(0.03), rng.uniform(0.01, 0.1, 50).astype(np.float32)
    za, zb, bias = integers(rng, pair[0]), integers(rng, pair[1], 50), rng.standard_normal(50).astype(np.float32)
    want = (product(a, b, za, zb) * (sa * sb).astype(np.float64) + bias).astype(np.float32)
    check_node("MatMulIntegerToFloat", [a, b, sa, sb, za, zb, bias], expected=[want], domain="com.microsoft",
               constants=[1], rtol=1e-5, atol=1e-4)  # fmt: skip
    want = (product(a, b) * (sa * sb).astype(np.float64)).astype(np.float32)
    check_node("MatMulIntegerToFloat", [a, b, sa, sb], expected=[want], domain="com.microsoft", rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("a_scale", [1.0, 0.0, 1e-3])
def test_dynamic_quantize_matmul(a_scale):
    rng = np.random.default_rng(6)
    a = (rng.standard_normal((2, 400, 29)) * a_scale).astype(np.float32)
    b, sb, zb = integers(rng, np.int8, 29, 18), np.float32(0.02), np.int8(-3)
    bias = rng.standard_normal(18).astype(np.float32)
    lo, hi = min(a.min(), np.float32(0)), max(a.max(), np.float32(0))
    sa = (hi - lo) / np.float32(255) if hi > lo else np.float32(1)
    za = np.rint(np.clip(-lo / sa, 0, 255)).astype(np.uint8)
    qa = saturate(np.rint(a / sa) + float(za), np.uint8)
    want = (product(qa, b, za, zb) * float(sa * sb) + bias).astype(np.float32)
    check_node("DynamicQuantizeMatMul", [a, b, sb, zb, bias], expected=[want], domain="com.microsoft", constants=[1, 2, 3],
               rtol=1e-5, atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
def test_qgemm(trans_a, trans_b):
    rng = np.random.default_rng(7)
    a, b = integers(rng, np.uint8, 11, 20), integers(rng, np.int8, 20, 33)
    za, zb, sa = integers(rng, np.uint8), integers(rng, np.int8, 33), np.float32(0.02)
    sb, c = rng.uniform(0.01, 0.05, 33).astype(np.float32), rng.integers(-5000, 5000, 33).astype(np.int32)
    sums = product(a, b, za, zb) + c
    x = [np.ascontiguousarray(a.T if trans_a else a), sa, za, np.ascontiguousarray(b.T if trans_b else b), sb, zb, c]
    attrs = dict(domain="com.microsoft", transA=trans_a, transB=trans_b, alpha=0.5)
    scale = sa * sb / np.float32(1) * np.float32(0.5)
    for constants in [(), (3,)]:
        check_node(
            "QGemm", x, expected=[(sums * scale.astype(np.float64)).astype(np.float32)], constants=constants, **attrs
        )
        sy, zy = np.float32(1.5), np.uint8(120)
        scaled = sums.astype(np.float32) * ((sa * sb) / sy * np.float32(0.5))
        want = saturate(np.rint(scaled) + 120, np.uint8)
        check_node("QGemm", [*x, sy, zy], expected=[want], constants=constants, **attrs)


def test_same_bits():
    rng = np.random.default_rng(8)
    a, b = integers(rng, np.uint8, 7, 70), integers(rng, np.int8, 70, 130)
    sa, sb, bias = np.float32(0.02), np.float32(0.03), rng.standard_normal(130).astype(np.float32)
    for constants in [(), (1,)]:
        check_same_bits("MatMulIntegerToFloat", [a, b, sa, sb, np.uint8(3), np.int8(5), bias], constants=constants,
                        domain="com.microsoft")  # fmt: skip


def test_large_on_two_threads():
    rng = np.random.default_rng(9)
    for m, k, n in [(300, 512, 200), (1, 1024, 2048)]:
        a, b = integers(rng, np.int8, m, k), integers(rng, np.int8, k, n)
        check_node("MatMulInteger", [a, b], expected=[product(a, b).astype(np.int32)], constants=[1])
        check_node("MatMulInteger", [a, b], expected=[product(a, b).astype(np.int32)])


@pytest.mark.parametrize("zero", [(2,), (8,)])
def test_wrong_zero_points(zero):
    x = [np.zeros((3, 4), np.uint8), np.zeros((4, 5), np.int8), None, np.zeros(zero, np.int8)]
    with pytest.raises(InputError, match="needed"):
        build(node_model("MatMulInteger", x)).run({"x0": x[0], "x1": x[1], "x3": x[3]})
    x = [np.zeros((3, 4), np.uint8), np.zeros((4, 5), np.int8), np.int8(1)]
    with pytest.raises(InputError, match="needed"):
        build(node_model("MatMulInteger", x)).run({f"x{i}": a for i, a in enumerate(x)})
