# SPDX-License-Identifier: Apache-2.0
"""Quantisation against onnx.reference; the QLinear operators against their definition in float64."""

import ml_dtypes
import numpy as np
import pytest
from support import check_node

RNG = np.random.default_rng(17)
SMALL = [np.uint8, np.int8, np.uint16, np.int16]
BITS = [ml_dtypes.uint4, ml_dtypes.int4]
RANGES = {np.uint8: (0, 255), np.int8: (-128, 127), np.uint16: (0, 65535), np.int16: (-32768, 32767)}
RANGES |= {ml_dtypes.uint4: (0, 15), ml_dtypes.int4: (-8, 7)}


def name(t):
    return np.dtype(t).name


def quantize(x, scale, zero, t):
    low, high = RANGES[t]
    return np.clip(np.rint(x.astype(np.float32) / scale) + np.asarray(zero, np.float64), low, high).astype(t)


def along(a, rank, axis):
    return np.asarray(a).reshape([-1 if d == axis else 1 for d in range(rank)])


@pytest.mark.parametrize("t", SMALL + BITS, ids=name)
def test_per_tensor(t):
    low, high = RANGES[t]
    scale, zero = np.float32(0.07), np.array((low + high + 1) // 2 + 1, t)
    for shape in [(3, 37), (), (0, 4), (2, 3, 700)]:
        x = (RNG.normal(size=shape) * (high - low) * 0.04).astype(np.float32)
        q = quantize(x, scale, zero.astype(np.float64), t)
        check_node("QuantizeLinear", [x, scale, zero], expected=[q])
        back = (q.astype(np.float32) - zero.astype(np.float32)) * scale
        check_node("DequantizeLinear", [q, scale, zero], expected=[back], rtol=0, atol=0)
    x = np.array(
        [0.5, 1.5, 2.5, -0.5, 1e30, -1e30, np.inf, -np.inf], np.float32
    )  # ties go to even before zero is added
    check_node("QuantizeLinear", [x, np.float32(1), zero], expected=[quantize(x, 1, zero.astype(np.float64), t)])


@pytest.mark.parametrize("t", [np.uint8, np.int8, np.int16], ids=name)
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_per_axis(t, axis):
    x = (RNG.normal(size=(3, 5, 41)) * 20).astype(np.float32)
    n, low = x.shape[axis], RANGES[t][0]
    scale, zero = (RNG.random(n) + 0.1).astype(np.float32), (RNG.integers(0, 50, size=n) + low // 2).astype(t)
    s, z = along(scale, 3, axis % 3), along(zero, 3, axis % 3)
    q = quantize(x, s, z, t)
    check_node("QuantizeLinear", [x, scale, zero], expected=[q], axis=axis)
    back = (q.astype(np.float32) - z.astype(np.float32)) * s
    check_node("DequantizeLinear", [q, scale, zero], expected=[back], axis=axis, rtol=0, atol=0)


@pytest.mark.parametrize("t", [np.int8, ml_dtypes.int4], ids=name)
def test_blocked(t):
    x = (RNG.normal(size=(4, 12, 9)) * 5).astype(np.float32)
    for axis, block in [(1, 4), (0, 2), (2, 3)]:
        shape = [d // block if k == axis else d for k, d in enumerate(x.shape)]
        scale, zero = (RNG.random(shape) + 0.3).astype(np.float32), RNG.integers(-3, 4, size=shape).astype(t)
        s, z = np.repeat(scale, block, axis), np.repeat(zero.astype(np.float32), block, axis)
        q = quantize(x, s, z, t)
        check_node("QuantizeLinear", [x, scale, zero], expected=[q], axis=axis, block_size=block)
        back = (q.astype(np.float32) - z) * s
        check_node("DequantizeLinear", [q, scale, zero], expected=[back], axis=axis, block_size=block, rtol=0, atol=0)


def test_without_zero_point():
    x = (RNG.normal(size=(3, 20)) * 100).astype(np.float32)
    check_node("QuantizeLinear", [x, np.float32(2)], expected=[quantize(x, 2, 0, np.uint8)])
    check_node("QuantizeLinear", [x, np.float32(2)], expected=[quantize(x, 2, 0, np.int8)], output_dtype=3)
    q = RNG.integers(-(2**20), 2**20, size=(3, 20)).astype(np.int32)
    check_node("DequantizeLinear", [q, np.float32(0.5)], expected=[q.astype(np.float32) * 0.5], rtol=0, atol=0)


def test_wrong_parameters_are_refused():
    x = np.zeros((3, 4), np.float32)
    with pytest.raises(Exception, match="5 scales"):
        check_node("QuantizeLinear", [x, np.ones(5, np.float32), np.zeros(5, np.uint8)], expected=[x])
    with pytest.raises(Exception, match="zero point"):
        check_node("QuantizeLinear", [x, np.ones(4, np.float32), np.zeros(3, np.uint8)], expected=[x])


def test_dynamic():
    for x in [RNG.normal(size=(3, 50)) * 4, RNG.random(31) + 1, -RNG.random((2, 2)), np.zeros((2, 3)), np.zeros(1)]:
        check_node("DynamicQuantizeLinear", [x.astype(np.float32)], 3)


def scalars(t, scale, zero):
    return [np.float32(scale), np.array(zero, t)]


@pytest.mark.parametrize("t", [np.uint8, np.int8], ids=name)
def test_qlinear(t):
    low = RANGES[t][0]
    a = RNG.integers(low, low + 256, size=(3, 40)).astype(t)
    b = RNG.integers(low, low + 256, size=(40,)).astype(t)
    pa, pb, pc = scalars(t, 0.03, low + 120), scalars(t, 0.07, low + 100), scalars(t, 0.05, low + 128)
    x, y = (
        (a.astype(np.float32) - (low + 120)) * np.float32(0.03),
        (b.astype(np.float32) - (low + 100)) * np.float32(0.07),
    )
    ms = {"domain": "com.microsoft"}
    check_node("QLinearAdd", [a, *pa, b, *pb, *pc], expected=[quantize(x + y, pc[0], pc[1], t)], **ms)
    check_node("QLinearMul", [a, *pa, b, *pb, *pc], expected=[quantize(x * y, pc[0], pc[1], t)], **ms)
    leaky = np.where(x < 0, x * np.float32(0.2), x)
    check_node("QLinearLeakyRelu", [a, *pa, *pc], expected=[quantize(leaky, pc[0], pc[1], t)], alpha=0.2, **ms)
    ps = scalars(t, 1 / 256, low)
    sig = quantize((1 / (1 + np.exp(-x.astype(np.float64)))).astype(np.float32), ps[0], ps[1], t)
    check_node("QLinearSigmoid", [a, *pa, *ps], expected=[sig], **ms)
    e = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    soft = quantize((e / e.sum(axis=-1, keepdims=True)).astype(np.float32), ps[0], ps[1], t)
    check_node("QLinearSoftmax", [a, *pa, *ps], expected=[soft], axis=-1, opset=13, **ms)
    joined = np.concatenate([quantize(x, pc[0], pc[1], t), quantize(np.broadcast_to(y, (3, 40)), pc[0], pc[1], t)], 1)
    wide = np.broadcast_to(b, (3, 40)).copy()
    check_node("QLinearConcat", [*pc, a, *pa, wide, *pb], expected=[joined], axis=1, **ms)
