# SPDX-License-Identifier: Apache-2.0
"""Integer matrix products with constant B: the CPU's bits, and those of int64 sums."""

import numpy as np
import pytest
from quantized_cases import F, bits, on_both, quantized


def sums_of(a, b, za, zb):
    return np.matmul(a.astype(np.int64) - np.int64(za), b.astype(np.int64) - np.asarray(zb, np.int64))


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("form", ["plain", "range", "residual", "inner", "float", "bias", "alpha"])
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (7, 33, 70), (13, 64, 40)])
def test_qmatmul(m, k, n, form, constant):
    rng = np.random.default_rng(m + n)
    a, b = bits(rng, np.uint8, 2, m, k), bits(rng, np.int8, k, n)
    za, zb = np.uint8(255 if m % 2 else 0), np.zeros(n, np.int8) if constant else np.int8(-128)
    sums = sums_of(a, b, za, zb)
    sa, sb = F(0.02), rng.uniform(0.01, 0.03, n).astype(F)
    ys, yz = F(max(np.abs(sums * sa * sb).max(initial=0) / 150, 1e-3)), np.uint8(90)
    inputs, attrs, low, high = [a, sa, za, b, sb, zb, ys, yz], {}, 0, 255
    residual = inner = None
    scale = sa * sb / ys
    if form == "bias":
        bias = rng.integers(-5000, 5000, n).astype(np.int32)
        sums = sums + bias
        inputs.append(bias)
    if form == "alpha":
        attrs, scale = dict(alpha=0.3), scale * F(0.3)
    if form in ("residual", "inner"):
        r, rs, rz = bits(rng, np.int8, *sums.shape), F(ys * F(0.5)), np.int8(-128)
        inputs += [None, r, rs, rz]
        residual = r, rs / ys, rz
    if form == "inner":
        cs, cz = F(ys * F(0.8)), np.int8(10)
        inputs += [cs, cz]
        scale, inner = sa * sb / cs, (cs / ys, cz, -128, 127)
    if form == "range":
        low, high = 40, 200
        attrs = dict(low=40, high=200)
    if form == "float":
        inputs[6] = inputs[7] = None
        want = sums.astype(F) * (sa * sb)
    else:
        want = quantized(sums, scale, yz, low, high, residual, inner)
    constants = [i for i, v in enumerate(inputs) if v is not None and i not in (0, 9) and (constant or i != 3)]
    on_both("QMatMul", inputs, constants, kernel="triton_gemm8", want=want, domain="fastinfer", **attrs)


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize(("a_shape", "b_shape"), [((2, 3, 5, 40), (2, 3, 40, 7)), ((2, 3, 5, 40), (3, 40, 7)), ((5, 40), (2, 40, 7)), ((2, 2, 33), (33, 5))])  # fmt: skip
def test_two_activations(a_shape, b_shape, trans_b):
    """Attention's products: batches, either order of b, both signs."""
    rng = np.random.default_rng(11)
    types = (np.uint8, np.uint8) if trans_b else (np.int8, np.uint8)
    a, b = bits(rng, types[0], *a_shape), bits(rng, types[1], *b_shape)
    za, zb, yz = types[0](9), types[1](200), types[0](3)
    sums, low, high = sums_of(a, b, za, zb), np.iinfo(types[0]).min, np.iinfo(types[0]).max
    want = quantized(sums, F(0.02) * F(0.03) / F(2.5), yz, low, high)
    b = np.ascontiguousarray(np.swapaxes(b, -1, -2)) if trans_b else b
    inputs = [a, F(0.02), za, b, F(0.03), zb, F(2.5), yz]
    on_both("QMatMul", inputs, (1, 2, 4, 5, 6, 7), kernel="triton_gemm8", want=want, domain="fastinfer", transB=trans_b)


def test_transposed_a():
    rng = np.random.default_rng(12)
    a, b = bits(rng, np.uint8, 2, 40, 5), bits(rng, np.int8, 40, 7)
    want = quantized(sums_of(np.swapaxes(a, 1, 2), b, 9, 0), F(0.02) * F(0.03) / F(2.5), np.uint8(3), 0, 255)
    inputs = [a, F(0.02), np.uint8(9), b, F(0.03), np.int8(0), F(2.5), np.uint8(3)]
    on_both("QMatMul", inputs, range(1, 8), kernel="triton_gemm8", want=want, domain="fastinfer", transA=1)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("a_type", "b_type", "zb"), [(np.uint8, np.int8, 0), (np.int8, np.uint8, 128), (np.uint8, np.uint8, 3)]
)
def test_float_result_of_dynamic_scales(a_type, b_type, zb, known):
    rng = np.random.default_rng(5)
    a, b = bits(rng, a_type, 9, 40), bits(rng, b_type, 40, 30)
    sa, za, sb, bias = F(0.02), a_type(77), rng.uniform(0.01, 0.03, 30).astype(F), rng.standard_normal(30).astype(F)
    want = sums_of(a, b, za, zb).astype(F) * (sa * sb) + bias
    inputs = [a, sa, za, b, sb, np.full(30, zb, b_type), *[None] * 8, bias]
    constants = (1, 2, 3, 4, 5, 14) if known else (3, 4, 5, 14)
    on_both("QMatMul", inputs, constants, kernel="triton_gemm8", want=want, domain="fastinfer")


@pytest.mark.parametrize("constants", [(1, 2, 3), (1, 3)])
def test_matmul_integer(constants):
    rng = np.random.default_rng(6)
    a, b = bits(rng, np.uint8, 2, 3, 50), bits(rng, np.uint8, 50, 20)
    inputs = [a, b, np.array(200, np.uint8), bits(rng, np.uint8, 20)]
    on_both(
        "MatMulInteger", inputs, constants, kernel="triton_gemm8", want=sums_of(a, b, 200, inputs[3]).astype(np.int32)
    )


def test_qlinear_matmul():
    rng = np.random.default_rng(7)
    a, b, zb = bits(rng, np.int8, 5, 40), bits(rng, np.int8, 40, 20), bits(rng, np.int8, 20)
    sb = rng.uniform(0.001, 0.03, 20).astype(F)
    inputs = [a, F(0.02), np.int8(-7), b, sb, zb, F(0.5), np.int8(4)]
    want = quantized(sums_of(a, b, -7, zb), F(0.02) * sb / F(0.5), np.int8(4), -128, 127)
    on_both("QLinearMatMul", inputs, range(1, 8), kernel="triton_gemm8", want=want)


@pytest.mark.parametrize("out", [True, False])
def test_qgemm(out):
    rng = np.random.default_rng(8)
    a, b, c = bits(rng, np.uint8, 5, 33), bits(rng, np.int8, 18, 33), rng.integers(-900, 900, 18).astype(np.int32)
    inputs = [a, F(0.02), np.uint8(9), b, F(0.03), np.int8(0), c, *([F(0.4), np.uint8(100)] if out else [])]
    sums = sums_of(a, b.T, 9, 0) + c
    scale = F(0.02) * F(0.03) / F(0.4 if out else 1) * F(0.5)
    want = quantized(sums, scale, np.uint8(100), 0, 255) if out else sums.astype(F) * scale
    on_both(
        "QGemm",
        inputs,
        range(1, len(inputs)),
        kernel="triton_gemm8",
        want=want,
        domain="com.microsoft",
        transB=1,
        alpha=0.5,
    )


def test_matmul_integer_to_float():
    rng = np.random.default_rng(9)
    a, b = bits(rng, np.uint8, 5, 33), bits(rng, np.int8, 33, 18)
    sb, zb, bias = rng.uniform(0.01, 0.03, 18).astype(F), bits(rng, np.int8, 18), rng.standard_normal(18).astype(F)
    want = sums_of(a, b, 120, zb).astype(F) * (F(0.02) * sb) + bias
    inputs = [a, b, F(0.02), sb, np.uint8(120), zb, bias]
    on_both("MatMulIntegerToFloat", inputs, (1, 3, 5, 6), kernel="triton_gemm8", want=want, domain="com.microsoft")
