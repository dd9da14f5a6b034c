# SPDX-License-Identifier: Apache-2.0
"""Tensors made from little: ConstantOfShape, Range, EyeLike, OneHot; CenterCropPad."""

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from support import build, check_node, node_model

from fastinfer.errors import FastinferError


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (5, 7), (200, 300)])
@pytest.mark.parametrize(
    "value", [None, np.float32([2.5]), np.int64([-3]), np.array([True]), np.float16([1]), np.float64([7])]
)
def test_constant_of_shape(shape, value):
    attrs = {} if value is None else {"value": numpy_helper.from_array(value)}
    want = np.full(shape, 0 if value is None else value[0], np.float32 if value is None else value.dtype)
    check_node("ConstantOfShape", [np.array(shape, np.int64)], expected=[want], **attrs)


@pytest.mark.parametrize("shape", [[-1], [2**40, 2**40], [1] * 13])
def test_constant_of_bad_shape(shape):
    feeds = {"x0": np.array(shape, np.int64)}
    with pytest.raises(FastinferError, match="under_test"):
        build(node_model("ConstantOfShape", list(feeds.values()))).run(feeds)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.int32, np.int64])
@pytest.mark.parametrize(
    "start,limit,delta", [(0, 10, 1), (3, -9, -2), (0, 10, 3), (5, 5, 1), (5, 1, 1), (-3, 3, 1), (0, 30000, 1)]
)
def test_range(start, limit, delta, dtype):
    check_node("Range", [dtype(start), dtype(limit), dtype(delta)], expected=[np.arange(start, limit, delta, dtype)])


def test_range_fractions_and_extremes():
    check_node("Range", [np.float32(0.5), np.float32(2.1), np.float32(0.3)],
               expected=[np.arange(0.5, 2.1, 0.3).astype(np.float32)])  # fmt: skip
    low, high = -(2**63), 2**63 - 1
    check_node(
        "Range", [np.int64(low), np.int64(high), np.int64(2**62)], expected=[np.array([low, low // 2, 0, 2**62])]
    )


@pytest.mark.parametrize("start,limit,delta", [
    (np.int64(0), np.int64(5), np.int64(0)), (np.float32(0), np.float32(5), np.float32(0)), (np.int64(0), np.int64(2**62), np.int64(1)),
    (np.float32(0), np.float32(np.inf), np.float32(1)), (np.float32(0), np.float32(np.nan), np.float32(1)),
    (np.float32(0), np.float64(5), np.float32(1)), (np.zeros(2, np.int64), np.int64(5), np.int64(1)),
])  # fmt: skip
def test_range_bad(start, limit, delta):
    feeds = {"x0": np.asarray(start), "x1": np.asarray(limit), "x2": np.asarray(delta)}
    with pytest.raises(FastinferError, match="under_test"):
        build(node_model("Range", list(feeds.values()))).run(feeds)


@pytest.mark.parametrize("k", [0, 1, -2, 10, -10, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize(
    "dtype", [None, TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8, TensorProto.BOOL]
)
def test_eye_like(k, dtype):
    x = np.zeros((4, 6), np.int64)
    attrs = {} if dtype is None else {"dtype": dtype}
    clipped = int(np.clip(k, -20, 20))
    from onnx.helper import tensor_dtype_to_np_dtype

    want = np.eye(4, 6, clipped).astype(np.int64 if dtype is None else tensor_dtype_to_np_dtype(dtype))
    check_node("EyeLike", [x], expected=[want], k=k, **attrs)


@pytest.mark.parametrize("axis", [-1, 0, 1, -2])
@pytest.mark.parametrize("index", [np.int64, np.int32, np.float32, np.uint8, np.int8])
def test_one_hot(axis, index):
    indices = np.array([[0, 3, 5], [1, 2, 100]]).astype(index)
    values = np.array([-1, 2], [np.float32, np.int64][axis % 2])
    check_node("OneHot", [indices, np.array(5), values], axis=axis)
    check_node(
        "OneHot", [indices[0, 0], np.float32([4]), values], expected=[np.where(np.arange(4) == 0, values[1], values[0])]
    )


def test_one_hot_outside_and_negative():
    values = np.array([0, 1], np.float32)
    want = np.zeros((4, 3), np.float32)
    want[0, 2] = want[1, 0] = 1
    check_node("OneHot", [np.array([-1, -3, -4, 3]), np.array(3), values], expected=[want])
    want[:] = 0
    check_node("OneHot", [np.array([0.5, np.nan, np.inf, 1e30], np.float32), np.array(3), values], expected=[want])


@pytest.mark.parametrize("shape,target,axes", [((10, 7), (10, 8), None), ((10, 7), (9, 7), None), ((3, 4, 5), (6, 1), (-1, 0)),
                                               ((4, 4), (0, 5), None), ((5, 9), (8, 2), None), ((5,), (5,), None)])  # fmt: skip
def test_center_crop_pad(shape, target, axes):
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    attrs = {} if axes is None else {"axes": list(axes)}
    check_node("CenterCropPad", [x, np.array(target)], **attrs)
