# SPDX-License-Identifier: Apache-2.0
"""Operators that pick by value: TopK, NonZero, Compress, Unique, NonMaxSuppression."""

import ml_dtypes
import numpy as np
import pytest
from support import build, check_node, node_model

from fastinfer.errors import FastinferError

DTYPES = [
    np.float32,
    np.float64,
    np.float16,
    np.int8,
    np.uint8,
    np.int16,
    np.uint16,
    np.int32,
    np.uint32,
    np.int64,
    np.uint64,
]


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("seed", range(22))
def test_topk_random(seed, largest):
    rng = np.random.default_rng(seed)
    shape = tuple(int(d) for d in rng.integers(1, 40, rng.integers(1, 4)))
    axis = int(rng.integers(len(shape)))
    k = int(rng.integers(0, shape[axis] + 1)) if seed % 2 else min(2, shape[axis])
    x = rng.integers(0, 20, shape).astype(DTYPES[seed % len(DTYPES)])  # many ties
    if x.dtype.kind in "fi":
        x -= 10
    want = np.argsort(-x.astype(np.float64) if largest else x.astype(np.float64), axis, kind="stable")
    want = np.take(want, np.arange(k), axis)
    check_node("TopK", [x, np.array([k])], 2, expected=[np.take_along_axis(x, want, axis), want],
               axis=axis - len(shape), largest=largest, constants=(1,) * (seed % 2))  # fmt: skip


def test_topk_order_of_special_values():
    x = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, np.nan, 1.0], np.float32)
    for largest, order in [(1, [2, 5, 3, 6, 0, 1, 4]), (0, [4, 0, 1, 6, 3, 2, 5])]:
        for dtype in [np.float32, np.float64, np.float16]:
            v = x.astype(dtype)
            check_node("TopK", [v, np.array([7])], 2, expected=[v[order], np.array(order)], largest=largest)
    v = np.array([1, -0.0, 0.0, -2, 3], ml_dtypes.bfloat16)  # numpy cannot compare its NaNs
    check_node("TopK", [v, np.array([5])], 2, expected=[v[[4, 0, 1, 2, 3]], np.array([4, 0, 1, 2, 3])])


def test_topk_large_line_and_extremes_of_integers():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 50000), np.float32)
    for k in [1, 40, 20000]:
        want = np.argsort(-x, -1, kind="stable")[:, :k]
        check_node("TopK", [x, np.array([k])], 2, expected=[np.take_along_axis(x, want, -1), want])
    x = np.array([0, 2**63 - 1, -(2**63), -1])
    check_node("TopK", [x, np.array([4])], 2, expected=[x[[1, 0, 3, 2]], np.array([1, 0, 3, 2])])
    x = np.array([0, 2**64 - 1, 2**63], np.uint64)
    check_node("TopK", [x, np.array([3])], 2, expected=[x[[0, 2, 1]], np.array([0, 2, 1])], largest=0)


@pytest.mark.parametrize("k", [4, -1, 2**62])
def test_topk_bad_k(k):
    feeds = {"x0": np.zeros((2, 3), np.float32), "x1": np.array([k])}
    with pytest.raises(FastinferError, match="under_test.*k is"):
        build(node_model("TopK", list(feeds.values()), 2)).run(feeds)


@pytest.mark.parametrize("dtype", [*DTYPES, np.bool_])
@pytest.mark.parametrize("shape", [(7,), (3, 4), (2, 3, 4), (0, 3), (1,)])
def test_nonzero(shape, dtype):
    x = np.random.default_rng(1).integers(0, 3, shape).astype(dtype)
    check_node("NonZero", [x], expected=[np.array(np.nonzero(x), np.int64)])


def test_nonzero_of_signed_zero_nan_and_scalar():
    x = np.array([0.0, -0.0, np.nan, 1e-45, -np.inf], np.float32)
    check_node("NonZero", [x], expected=[np.array([[2, 3, 4]])])
    check_node("NonZero", [np.float32(2)], expected=[np.zeros((0, 1), np.int64)])


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_compress(axis):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 5, 3), np.float32)
    attrs = {} if axis is None else {"axis": axis}
    for n in [0, 1, 3]:
        condition = rng.random(n) < 0.6
        check_node("Compress", [x, condition], expected=[np.compress(condition, x, axis)], **attrs)
    feeds = {"x0": x, "x1": np.ones(61, bool)}
    with pytest.raises(FastinferError, match="condition selects"):
        build(node_model("Compress", list(feeds.values()), **attrs)).run(feeds)


def reference_unique(x, axis, in_order):
    y, first, inverse, counts = np.unique(x, True, True, True, axis=axis)
    inverse = inverse.reshape(-1)
    if not in_order:
        order = np.argsort(first)
        place = np.argsort(order)
        y, first, counts, inverse = np.take(y, order, axis or 0), first[order], counts[order], place[inverse]
    return [y, first.astype(np.int64), inverse.astype(np.int64), counts.astype(np.int64)]


@pytest.mark.parametrize("in_order", [0, 1])
@pytest.mark.parametrize("seed", range(16))
def test_unique(seed, in_order):
    rng = np.random.default_rng(seed)
    shape = tuple(int(d) for d in rng.integers(1, 6, rng.integers(1, 4)))
    x = rng.integers(0, 3, shape).astype(DTYPES[seed % len(DTYPES)])
    axis = None if seed % 3 == 0 else int(rng.integers(len(shape)))
    attrs = {} if axis is None else {"axis": axis - len(shape) * (seed % 2)}
    check_node("Unique", [x], 4, expected=reference_unique(x, axis, in_order), sorted=in_order, **attrs)


def test_unique_of_nothing_and_nan():
    check_node("Unique", [np.zeros(0, np.float32)], 4, expected=[np.zeros(0, np.float32)] + [np.zeros(0, np.int64)] * 3)
    check_node(
        "Unique", [np.array([np.nan, 1, np.nan, 0], np.float32)], expected=[np.array([0, 1, np.nan], np.float32)]
    )


@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize("seed", range(6))
def test_nms_random(seed, center):
    rng = np.random.default_rng(seed)
    boxes = rng.random((2, 60, 4)).astype(np.float32)
    scores = rng.integers(0, 30, (2, 3, 60)).astype(np.float32) / 30  # ties
    inputs = [boxes, scores, np.array([[7], [100]][seed % 2]), np.array([0.4], np.float32)]
    inputs.append(np.array([0.3], np.float32) if seed % 3 else None)
    check_node("NonMaxSuppression", inputs, center_point_box=center)


def test_nms_defaults_and_emptiness():
    boxes, scores = np.zeros((1, 4, 4), np.float32), np.zeros((1, 2, 4), np.float32)
    nothing = [np.zeros((0, 3), np.int64)]
    check_node("NonMaxSuppression", [boxes, scores], expected=nothing)
    check_node("NonMaxSuppression", [boxes[:, :0], scores[:, :, :0], np.array([5])], expected=nothing)
    scores[0, 0, 2] = np.nan
    want = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 3], [0, 0, 2]])
    check_node("NonMaxSuppression", [boxes, scores[:, :1], np.array(9)], expected=[want])


@pytest.mark.parametrize(
    "boxes,scores", [((1, 4, 3), (1, 1, 4)), ((1, 4, 4), (1, 1, 5)), ((2, 4, 4), (1, 1, 4)), ((4, 4), (1, 4))]
)
def test_nms_bad_shapes(boxes, scores):
    feeds = {"x0": np.zeros(boxes, np.float32), "x1": np.zeros(scores, np.float32), "x2": np.array([3])}
    with pytest.raises(FastinferError, match="boxes are"):
        build(node_model("NonMaxSuppression", list(feeds.values()))).run(feeds)
