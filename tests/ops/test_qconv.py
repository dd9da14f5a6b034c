# SPDX-License-Identifier: Apache-2.0
"""Integer convolution and pooling, exact against int64 numpy."""

import numpy as np
import pytest
from oracle import conv, to_last, windows
from support import build, check_node, check_same_bits, node_model

from fastinfer.errors import FastinferError


def bits(rng, dtype, *shape):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


def sums(x, xz, w, wz, **attrs):
    """Exact: |sum| < 2^53. Padding is the zero point, so the differences are convolved."""
    wz = np.asarray(wz, np.float64).reshape(-1, *[1] * (w.ndim - 1))
    return conv(x.astype(np.float64) - float(xz), w.astype(np.float64) - wz, **attrs)


CASES = [
    ((1, 3, 8, 9), 5, (3, 3), dict(pads=[1, 1, 1, 1])),
    ((2, 17, 7, 7), 70, (1, 1), {}),
    ((2, 32, 9, 6), 33, (3, 2), dict(strides=[2, 1], pads=[1, 0, 0, 1])),
    ((1, 12, 9, 9), 18, (3, 3), dict(group=3, dilations=[2, 2], pads=[2, 2, 2, 2])),
    ((2, 70, 8, 8), 70, (3, 3), dict(group=70, pads=[1, 1, 1, 1], strides=[2, 2])),
    ((2, 9, 20), 4, (5,), dict(pads=[2, 2])),
    ((1, 4, 4, 5, 6), 6, (2, 3, 3), dict(pads=[0, 1, 1, 1, 1, 1])),
    ((1, 6, 5, 5), 12, (3, 3), dict(group=6)),
]


@pytest.mark.parametrize(
    "types", [(np.uint8, np.int8), (np.uint8, np.uint8), (np.int8, np.int8), (np.int8, np.uint8)], ids=str
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_conv_integer(case, types):
    shape, o, kernel, attrs = case
    rng = np.random.default_rng(0)
    x, w = bits(rng, types[0], *shape), bits(rng, types[1], o, shape[1] // attrs.get("group", 1), *kernel)
    for xz, wz, constants in [(None, None, (1,)), (bits(rng, types[0]), bits(rng, types[1]), (1, 2, 3)),
                              (bits(rng, types[0]), bits(rng, types[1], o), ())]:  # fmt: skip
        want = sums(x, 0 if xz is None else xz, w, 0 if wz is None else wz, **attrs).astype(np.int32)
        inputs = [x, w] if xz is None else [x, w, xz, wz]
        check_node("ConvInteger", inputs, expected=[want], constants=constants, **attrs)


@pytest.mark.parametrize(
    "types", [(np.uint8, np.int8, np.uint8), (np.int8, np.int8, np.int8), (np.uint8, np.uint8, np.int8)], ids=str
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_qlinear_conv(case, types):
    shape, o, kernel, attrs = case
    rng = np.random.default_rng(1)
    xt, wt, yt = types
    x, w = bits(rng, xt, *shape), bits(rng, wt, o, shape[1] // attrs.get("group", 1), *kernel)
    xz, wz, yz = bits(rng, xt), np.zeros(o, wt) if wt == np.int8 else bits(rng, wt), bits(rng, yt)
    b = rng.integers(-5000, 5000, o).astype(np.int32)
    xs, ws = np.float32(0.02), rng.uniform(0.005, 0.02, o).astype(np.float32) if wz.ndim else np.float32(0.01)
    s = sums(x, xz, w, wz, b=b, **attrs)
    real = s * (np.float64(xs) * ws).reshape(-1, *[1] * (x.ndim - 2))
    ys = np.float32(max(np.abs(real).max() / 100, 1e-3))
    scaled = s.astype(np.float32) * (xs * ws / ys).astype(np.float32).reshape(-1, *[1] * (x.ndim - 2))
    info = np.iinfo(yt)
    want = np.clip(np.rint(scaled) + np.float32(yz), info.min, info.max).astype(yt)
    check_node(
        "QLinearConv", [x, xs, xz, w, ws, wz, ys, yz, b], expected=[want], constants=(1, 2, 3, 4, 5, 6, 7, 8), **attrs
    )
    check_node("QLinearConv", [to_last(x), xs, xz, w, ws, wz, ys, yz, b], expected=[to_last(want)], domain="com.microsoft",
               constants=(3, 5), channels_last=1, **attrs)  # fmt: skip


@pytest.mark.parametrize("group", [1, 24])
def test_same_bits(group):
    rng = np.random.default_rng(2)
    x, w = bits(rng, np.uint8, 7, 9, 9, 24), bits(rng, np.int8, 24, 24 // group, 3, 3)
    one = np.float32(0.01)
    check_same_bits("QLinearConv", [x, one, np.uint8(3), w, one, np.int8(0), one, np.uint8(128)], domain="com.microsoft",
                    constants=(1, 2, 3, 4, 5, 6, 7), channels_last=1, pads=[1, 1, 1, 1], group=group)  # fmt: skip


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_pools_of_com_microsoft(dtype):
    rng = np.random.default_rng(3)
    x = bits(rng, dtype, 2, 20, 7, 8)
    pads = [1, 0, 1, 1]
    want = windows(x.astype(np.float64), [3, 2], [2, 2], [1, 1], pads, -1000).max(0).astype(dtype)
    check_node("NhwcMaxPool", [to_last(x)], expected=[to_last(want)], domain="com.microsoft", kernel_shape=[3, 2], strides=[2, 2],
               pads=pads)  # fmt: skip
    xs, xz, ys, yz = np.float32(0.05), bits(rng, dtype), np.float32(0.07), bits(rng, dtype)
    info = np.iinfo(dtype)

    def quantized(total, count):
        scaled = (total.astype(np.float32) / np.float32(count)) * (xs / ys)
        return np.clip(np.rint(scaled) + np.float32(yz), info.min, info.max).astype(dtype)

    centred = x.astype(np.float64) - float(xz)
    for include in (0, 1):
        counts = windows(np.pad(np.ones_like(centred), [(0, 0), (0, 0), (1, 1), (0, 1)], constant_values=include), [3, 2], [2, 2],
                         [1, 1], [0] * 4).sum(0)  # fmt: skip
        want = quantized(windows(centred, [3, 2], [2, 2], [1, 1], pads).sum(0), counts)
        attrs = dict(domain="com.microsoft", kernel_shape=[3, 2], strides=[2, 2], pads=pads, count_include_pad=include)
        check_node("QLinearAveragePool", [x, xs, xz, ys, yz], expected=[want], **attrs)
        check_node(
            "QLinearAveragePool", [to_last(x), xs, xz, ys, yz], expected=[to_last(want)], channels_last=1, **attrs
        )
    want = quantized(centred.sum((2, 3), keepdims=True), 56)
    check_node("QLinearGlobalAveragePool", [x, xs, xz, ys, yz], expected=[want], domain="com.microsoft")
    check_node(
        "QLinearGlobalAveragePool",
        [to_last(x), xs, xz, ys, yz],
        expected=[to_last(want)],
        domain="com.microsoft",
        channels_last=1,
    )


@pytest.mark.parametrize("inputs,word", [
    ([np.zeros((1, 3, 4, 4), np.uint8), np.zeros((2, 4, 3, 3), np.int8)], "channels"),
    ([np.zeros((1, 3, 4, 4), np.uint8), np.zeros((2, 3, 3, 3), np.int8), np.int8(0)], "zero point"),
    ([np.zeros((1, 3, 4, 4), np.uint8), np.zeros((2, 3, 3, 3), np.int8), np.uint8(0), np.zeros(3, np.int8)], "zero point"),
    ([np.zeros((1, 3, 4, 4), np.uint8), np.zeros((2, 3, 5, 3), np.int8)], "does not fit"),
])  # fmt: skip
def test_what_does_not_fit_is_said(inputs, word):
    with pytest.raises(FastinferError, match=word):
        build(node_model("ConvInteger", inputs)).run({f"x{i}": np.asarray(a) for i, a in enumerate(inputs)})
