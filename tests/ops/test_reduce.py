# SPDX-License-Identifier: Apache-2.0
"""Reductions over every set of axes, ArgMax/ArgMin, CumSum/CumProd, against float64 and integer numpy."""

from itertools import combinations, product

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from support import check_node, check_same_bits

RNG = np.random.default_rng(5)


def log_sum_exp(x, axis, keepdims):
    m = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    m = np.where(np.isfinite(m), m, 0)
    return np.log(np.sum(np.exp(x - m), axis=axis, keepdims=keepdims)) + (
        m if keepdims else m.reshape(np.sum(x, axis=axis).shape)
    )


REDUCE = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceMax": lambda x, axis, keepdims: np.max(x, axis=axis, keepdims=keepdims, initial=-np.inf),
    "ReduceMin": lambda x, axis, keepdims: np.min(x, axis=axis, keepdims=keepdims, initial=np.inf),
    "ReduceProd": np.prod,
    "ReduceL1": lambda x, axis, keepdims: np.sum(np.abs(x), axis=axis, keepdims=keepdims),
    "ReduceL2": lambda x, axis, keepdims: np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims)),
    "ReduceSumSquare": lambda x, axis, keepdims: np.sum(x * x, axis=axis, keepdims=keepdims),
    "ReduceLogSum": lambda x, axis, keepdims: np.log(np.sum(x, axis=axis, keepdims=keepdims)),
    "ReduceLogSumExp": log_sum_exp,
}


def check(op, x, axes, keepdims=1, *, given=True, rtol=2e-6, atol=2e-6, **attrs):
    with np.errstate(all="ignore"):
        y = np.asarray(REDUCE[op](x.astype(np.float64), axis=axes, keepdims=bool(keepdims))).astype(x.dtype)
    inputs = [x, np.array(axes, np.int64)] if given else [x]
    check_node(
        op, inputs, expected=[y], keepdims=keepdims, rtol=rtol, atol=atol, constants=(1,) if given else (), **attrs
    )


@pytest.mark.parametrize("op", REDUCE)
def test_every_set_of_axes(op):
    x = (RNG.random((3, 4, 5, 18)) + 0.5).astype(np.float32)
    for n in range(1, 5):
        for axes in combinations(range(4), n):
            check(op, x, axes, keepdims=n % 2, rtol=1e-5 if op == "ReduceProd" else 2e-6)


@pytest.mark.parametrize("op", REDUCE)
@pytest.mark.parametrize(
    "shape", [(5, 0), (0, 5), (1, 1), (7, 1), (1, 300), (), (4099,), (2, 700, 33), (3, 1)], ids=str
)
def test_edges(op, shape):
    x = (RNG.random(shape) * 0.1 + 0.95).astype(np.float32)
    check(op, x, tuple(range(len(shape))), given=False, rtol=1e-4 if op == "ReduceProd" else 2e-6)
    if shape:
        check(op, x, (-1,), keepdims=0, rtol=1e-4 if op == "ReduceProd" else 2e-6)
        check(op, x, (0,), rtol=1e-4 if op == "ReduceProd" else 2e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.int64, np.uint32, np.uint64])
@pytest.mark.parametrize("op", REDUCE)
def test_other_types(op, dtype):
    x = RNG.integers(1, 4, size=(2, 3, 4)).astype(dtype)
    if np.dtype(dtype).kind != "f" and op in ("ReduceLogSum", "ReduceLogSumExp"):
        return  # undefined for integers
    for axes in [(1,), (0, 2), (0, 1, 2)]:
        check(op, x, axes, rtol=1e-3 if dtype == np.float16 else 1e-12, atol=0)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.bool_])
def test_max_and_min_of_bytes_and_bools(dtype):
    x = RNG.integers(0, 2, size=(3, 4, 5)).astype(dtype)
    check_node("ReduceMax", [x, np.array([1])], expected=[x.max(axis=1, keepdims=True)], constants=(1,))
    check_node("ReduceMin", [x, np.array([0, 2])], expected=[x.min(axis=(0, 2))], constants=(1,), keepdims=0)


def test_no_axes_can_mean_nothing_to_reduce():
    x = (RNG.random((3, 40)) + 1).astype(np.float32)
    none = np.zeros(0, np.int64)
    square = {"ReduceSumSquare": x * x, "ReduceLogSum": np.log(x.astype(np.float64)).astype(np.float32)}
    for op in REDUCE:
        want = square.get(op, x)
        check_node(op, [x, none], expected=[want], noop_with_empty_axes=1, constants=(1,), rtol=2e-6)


def test_long_sums_keep_their_digits():
    x = (RNG.random((2, 3_000_000)) + 1).astype(np.float32)
    check("ReduceSum", x, (1,), rtol=2e-7)
    check("ReduceMean", x.T.copy(), (0,), rtol=3e-7)
    check("ReduceSum", x.reshape(2, 60_000, 50), (1,), rtol=3e-7)


def test_nan_and_infinity():
    x = np.array([[1, np.nan, 3], [np.inf, 2, 1], [-np.inf, -np.inf, -np.inf]], np.float32)
    for op, fn in {"ReduceMax": np.max, "ReduceMin": np.min}.items():
        for axis in (0, 1):
            check_node(op, [x, np.array([axis])], expected=[fn(x, axis=axis, keepdims=True)], constants=(1,))
    want = np.array([[np.nan], [np.inf], [-np.inf]], np.float32)
    check_node("ReduceLogSumExp", [x, np.array([1])], expected=[want], constants=(1,))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("op", REDUCE)
def test_every_mix_of_nan_and_infinity(op, dtype):
    """Against onnx.reference, in every position: short rows, rows of several vectors, columns, all elements."""
    special = [np.nan, np.inf, -np.inf, 1.0]
    rows = [[*pair, 2.0] for pair in product(special, special)] + [[2.0, *pair] for pair in product(special, special)]
    x = np.array(rows, dtype)
    wide = np.full((len(rows), 70), 1 if op == "ReduceProd" else 0.5, dtype)
    wide[:, [3, 41, 69]] = x
    for array in (x, x.T.copy(), wide, wide.T.copy()):
        for axis in (0, 1):
            with np.errstate(all="ignore"):
                want = reference(op, array, axis)
            check_node(
                op,
                [array, np.array([axis])],
                expected=[want],
                constants=(1,),
                rtol=2e-3 if dtype == np.float16 else 1e-5,
            )


def reference(op, x, axis):
    if op == "ReduceLogSumExp":  # onnx.reference subtracts infinities; numpy's own does not
        return np.logaddexp.reduce(x.astype(np.float64), axis=axis, keepdims=True).astype(x.dtype)
    node = helper.make_node(op, ["x", "a"], ["y"])
    return ReferenceEvaluator(node).run(None, {"x": x, "a": np.array([axis])})[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32, np.int64, np.uint8])
def test_arg(dtype):
    x = RNG.integers(0, 5, size=(4, 9, 6)).astype(dtype)
    for axis in range(3):
        check_node("ArgMax", [x], expected=[np.argmax(x, axis=axis, keepdims=True)], axis=axis)
        check_node("ArgMin", [x], expected=[np.argmin(x, axis=axis)], axis=axis, keepdims=0)
        last = x.shape[axis] - 1 - np.argmax(np.flip(x, axis), axis=axis, keepdims=True)
        check_node("ArgMax", [x], expected=[last], axis=axis, select_last_index=1)


def test_arg_of_nan_and_of_nothing():
    x = np.array([1, np.nan, 5, np.nan], np.float32)
    check_node("ArgMax", [x], expected=[np.array([1])])
    check_node("ArgMin", [x], expected=[np.array([1])])
    with pytest.raises(Exception, match="no element"):
        check_node("ArgMax", [np.zeros((3, 0), np.float32)], axis=1, expected=[np.zeros((3, 1), np.int64)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64])
def test_cumulate(dtype):
    x = RNG.integers(1, 4, size=(3, 5, 4)).astype(dtype)
    for axis in (0, 1, -1):
        a = np.array(axis, np.int64)
        check_node("CumSum", [x, a], expected=[np.cumsum(x, axis=axis, dtype=dtype)], constants=(1,))
        check_node("CumProd", [x, a], expected=[np.cumprod(x, axis=axis, dtype=dtype)], constants=(1,))
        back = np.flip(np.cumsum(np.flip(x, axis), axis=axis, dtype=dtype), axis)
        check_node("CumSum", [x, a], expected=[back], reverse=1)
        check_node("CumSum", [x, a], expected=[back - x], reverse=1, exclusive=1)


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceLogSumExp", "ReduceL2"])
@pytest.mark.parametrize("axis", [1, 2])
def test_same_bits_alone_and_in_a_batch(op, axis):
    check_same_bits(op, [RNG.normal(size=(6, 45, 37)).astype(np.float32), np.array([axis])], constants=(1,))
