# SPDX-License-Identifier: Apache-2.0
"""Pooling in both layouts against numpy; MaxUnpool and the region operators against onnx.reference."""

import numpy as np
import pytest
from oracle import to_last, windows
from support import build, check_node, check_same_bits, node_model

from fastinfer.errors import FastinferError


def pool(kind, x, kernel, *, strides=None, dilations=None, pads=None, ceil_mode=0, count_include_pad=0, p=2):
    """Float64 pooling; the windows of ceil_mode are those of an image padded at the end."""
    n = len(kernel)
    strides, dilations, pads = strides or [1] * n, dilations or [1] * n, list(pads or [0] * 2 * n)
    given = pads.copy()
    for i in range(n):
        room = x.shape[2 + i] + pads[i] + pads[i + n] - (kernel[i] - 1) * dilations[i] - 1
        out = -(-room // strides[i]) + 1 if ceil_mode else room // strides[i] + 1
        if ceil_mode and (out - 1) * strides[i] >= x.shape[2 + i] + pads[i]:
            out -= 1
        pads[i + n] += max(0, (out - 1) * strides[i] - room)
    if kind == "max":
        return windows(x.astype(np.float64), kernel, strides, dilations, pads, -np.inf).max(0)
    if kind == "lp":
        return (windows(np.abs(x.astype(np.float64)) ** p, kernel, strides, dilations, pads).sum(0)) ** (1 / p)
    ones = np.pad(
        np.ones(x.shape),
        [(0, 0), (0, 0)] + [(given[i], given[i + n]) for i in range(n)],
        constant_values=count_include_pad,
    )
    counts = windows(ones, kernel, strides, dilations, [0] * n + [pads[i + n] - given[i + n] for i in range(n)]).sum(0)
    return windows(x.astype(np.float64), kernel, strides, dilations, pads).sum(0) / counts


CASES = [
    ((2, 19, 11, 13), [3, 3], dict(strides=[2, 2], pads=[1, 1, 1, 1])),
    ((1, 130, 8, 8), [2, 2], dict(strides=[2, 2])),
    ((2, 5, 9, 10), [3, 2], dict(strides=[2, 3], pads=[1, 0, 1, 1], ceil_mode=1)),
    ((1, 7, 12, 12), [3, 3], dict(dilations=[2, 3], pads=[1, 2, 0, 1])),
    ((1, 4, 7, 7), [3, 3], dict(strides=[2, 2], ceil_mode=1)),
    ((1, 64, 6, 6), [5, 5], dict(pads=[2, 2, 2, 2])),
    ((2, 3, 20), [4], dict(strides=[3], pads=[1, 2], ceil_mode=1)),
    ((2, 3, 2, 5), [9, 4], dict(strides=[9, 3], ceil_mode=1)),
    ((1, 6, 5, 6, 7), [2, 3, 2], dict(strides=[2, 1, 2], pads=[0, 1, 0, 1, 1, 1])),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("kind", ["max", "average", "average_padded", "lp"])
def test_windows(case, kind):
    shape, kernel, attrs = case
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    op = {"max": "MaxPool", "lp": "LpPool"}.get(kind, "AveragePool")
    attrs = dict(attrs, **({"count_include_pad": 1} if kind == "average_padded" else {"p": 3} if kind == "lp" else {}))
    want = pool(kind.split("_")[0], x, kernel, **attrs).astype(np.float32)
    check_node(op, [x], expected=[want], kernel_shape=kernel, rtol=1e-5, atol=1e-5, **attrs)
    check_node(op, [to_last(x)], expected=[to_last(want)], kernel_shape=kernel, domain="fastinfer", channels_last=1, rtol=1e-5,
               atol=1e-5, **attrs)  # fmt: skip


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.float64])
def test_max_of_other_types(dtype):
    rng = np.random.default_rng(1)
    x = rng.integers(0, 100, (2, 300, 9, 9)).astype(dtype) - (np.array(50, dtype) if dtype != np.uint8 else dtype(0))
    want = pool("max", x, [3, 3], strides=[2, 2], pads=[1, 1, 1, 1]).astype(dtype)
    attrs = dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    check_node("MaxPool", [x], expected=[want], **attrs)
    check_node("MaxPool", [to_last(x)], expected=[to_last(want)], domain="fastinfer", channels_last=1, **attrs)


@pytest.mark.parametrize("order", [0, 1])
def test_indices(order):
    x = np.random.default_rng(2).permutation(2 * 3 * 6 * 7).reshape(2, 3, 6, 7).astype(np.float32)
    y = pool("max", x, [3, 2], strides=[2, 2], pads=[1, 0, 1, 1])
    where = np.empty(x.size, np.int64)
    where[x.astype(np.int64).ravel()] = np.arange(x.size)
    index = where[y.astype(np.int64)]
    if order:
        plane, h, w = index // 42, index % 42 // 7, index % 7
        index = plane * 42 + h + w * 6
    check_node("MaxPool", [x], 2, expected=[y.astype(np.float32), index], kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1],
               storage_order=order)  # fmt: skip


def test_auto_pad():
    x = np.random.default_rng(3).standard_normal((1, 3, 8, 7), np.float32)
    for mode, pads in {"SAME_UPPER": [0, 0, 1, 1], "SAME_LOWER": [1, 1, 0, 0], "VALID": [0] * 4}.items():
        for op in ("MaxPool", "AveragePool"):
            want = pool(op[:-4].lower(), x, [3, 2], strides=[2, 2], pads=pads).astype(np.float32)
            check_node(op, [x], expected=[want], kernel_shape=[3, 2], strides=[2, 2], auto_pad=mode)


def test_nan_is_kept():
    x = np.zeros((1, 20, 4, 4), np.float32)
    x[0, 3, 1, 1] = np.nan
    want = np.zeros((1, 20, 2, 2), np.float32)
    want[0, 3, 0, 0] = np.nan
    check_node("MaxPool", [x], expected=[want], kernel_shape=[2, 2], strides=[2, 2])
    check_node(
        "MaxPool",
        [to_last(x)],
        expected=[to_last(want)],
        kernel_shape=[2, 2],
        strides=[2, 2],
        domain="fastinfer",
        channels_last=1,
    )
    whole = np.zeros((1, 20, 1, 1), np.float32)
    whole[0, 3] = np.nan
    check_node("GlobalMaxPool", [x], expected=[whole])


@pytest.mark.parametrize(
    "shape", [(2, 3, 7, 7), (1, 70, 5, 9), (2, 130, 14, 14), (3, 5, 100), (1, 33, 3, 4, 5), (1, 1, 1, 1)]
)
def test_global(shape):
    x = np.random.default_rng(4).standard_normal(shape, np.float32)
    axes = tuple(range(2, x.ndim))
    for op, f in {
        "GlobalAveragePool": lambda v: v.mean(axes, keepdims=True),
        "GlobalMaxPool": lambda v: v.max(axes, keepdims=True),
        "GlobalLpPool": lambda v: np.sqrt((v * v).sum(axes, keepdims=True)),
    }.items():
        want = f(x.astype(np.float64)).astype(np.float32)
        check_node(op, [x], expected=[want], rtol=1e-5, atol=1e-6)
        check_node(
            op, [to_last(x)], expected=[to_last(want)], domain="fastinfer", channels_last=1, rtol=1e-5, atol=1e-6
        )


def test_empty():
    m = build(node_model("MaxPool", [np.zeros((0, 3, 8, 8), np.float32)], kernel_shape=[2, 2]))
    assert m(np.zeros((0, 3, 8, 8), np.float32)).shape == (0, 3, 7, 7)
    m = build(node_model("GlobalAveragePool", [np.zeros((1, 3, 0, 8), np.float32)]))
    assert m(np.zeros((1, 3, 0, 8), np.float32)).shape == (1, 3, 1, 1)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_same_bits(op):
    x = np.random.default_rng(5).standard_normal((7, 13, 13, 24), np.float32)
    check_same_bits(
        op, [x], domain="fastinfer", channels_last=1, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    )
    check_same_bits(f"Global{op}", [x], domain="fastinfer", channels_last=1)


@pytest.mark.parametrize("shape,attrs,word", [
    ((1, 3, 4, 4), {}, "kernel_shape"), ((1, 3, 4, 4), dict(kernel_shape=[5, 5]), "does not fit"),
    ((1, 3, 4, 4), dict(kernel_shape=[2]), "kernel_shape"), ((1, 3, 4, 4), dict(kernel_shape=[0, 2]), "kernel_shape"),
    ((1, 3, 4, 4), dict(kernel_shape=[2, 2], dilations=[0, 1]), "dilations"), ((3, 4), dict(kernel_shape=[2]), "rank"),
])  # fmt: skip
def test_what_does_not_fit_is_said(shape, attrs, word):
    x = np.zeros(shape, np.float32)
    with pytest.raises(FastinferError, match=word):
        build(node_model("MaxPool", [x], **attrs))(x)
