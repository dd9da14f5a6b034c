# SPDX-License-Identifier: Apache-2.0
"""Writing by index: ScatterElements, ScatterND, TensorScatter; Trilu and ReverseSequence."""

import numpy as np
import pytest
from support import build, check_node, node_model, run_everywhere

from fastinfer.errors import FastinferError

pytestmark = pytest.mark.filterwarnings("ignore:overflow")  # integers wrap around here and in numpy

REDUCIBLE = [np.float32, np.float64, np.int32, np.int64, np.uint8, np.int16]
PLAIN = [np.float16, np.bool_, np.complex64, np.complex128, np.float32, np.int64]
COMBINE = {
    "none": lambda a, b: b, "add": lambda a, b: a + b, "mul": lambda a, b: a * b,
    "min": np.minimum, "max": np.maximum,
}  # fmt: skip


def shape_of(rng, low, high):
    return tuple(int(d) for d in rng.integers(1, 6, rng.integers(low, high + 1)))


def scatter_elements(x, indices, updates, axis, reduction):
    y = x.copy()
    for at in np.ndindex(indices.shape):
        to = list(at)
        to[axis] = indices[at]
        y[tuple(to)] = COMBINE[reduction](y[tuple(to)], updates[at])
    return y


@pytest.mark.parametrize("reduction", list(COMBINE))
@pytest.mark.parametrize("seed", range(12))
def test_scatter_elements_random(seed, reduction):
    rng = np.random.default_rng(seed)
    dtype = (PLAIN if reduction == "none" else REDUCIBLE)[seed % 6]
    shape = shape_of(rng, 1, 4)
    axis = int(rng.integers(len(shape)))
    dims = [int(rng.integers(1, d + 1)) for d in shape]
    dims[axis] = int(rng.integers(0, 9))
    indices = rng.integers(-shape[axis], shape[axis], dims).astype([np.int32, np.int64][seed % 2])
    x, updates = rng.integers(-3, 4, shape).astype(dtype), rng.integers(-3, 4, dims).astype(dtype)
    want = scatter_elements(x, indices, updates, axis, reduction)
    for op in ["ScatterElements"] + ["Scatter"] * (reduction == "none"):
        attrs = {} if reduction == "none" and seed % 2 else {"reduction": reduction}
        check_node(op, [x, indices, updates], expected=[want], axis=axis - len(shape) * (seed % 2), **attrs)


@pytest.mark.parametrize("reduction", list(COMBINE))
@pytest.mark.parametrize("seed", range(12))
def test_scatter_nd_random(seed, reduction):
    rng = np.random.default_rng(seed)
    dtype = (PLAIN if reduction == "none" else REDUCIBLE)[seed % 6]
    shape = shape_of(rng, 1, 4)
    depth = int(rng.integers(1, len(shape) + 1))
    lead = shape_of(rng, 0, 2)
    indices = np.stack([rng.integers(-d, d, lead) for d in shape[:depth]], -1).astype([np.int32, np.int64][seed % 2])
    x = rng.integers(-3, 4, shape).astype(dtype)
    updates = rng.integers(-3, 4, (*lead, *shape[depth:])).astype(dtype)
    want = x.copy()
    for n in np.ndindex(lead):
        want[tuple(indices[n])] = COMBINE[reduction](want[tuple(indices[n])], updates[n])
    check_node("ScatterND", [x, indices, updates], expected=[want], reduction=reduction)


def test_scatter_leaves_its_input_alone():
    x, before = np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32)
    model = build(node_model("ScatterND", [x, np.array([[1]]), np.ones((1, 2), np.float32)]))
    model.run({"x0": x, "x1": np.array([[1]]), "x2": np.ones((1, 2), np.float32)})
    np.testing.assert_array_equal(x, before)


def test_scatter_float_extremes_pass_nan_on():
    x = np.array([1, np.nan, 3], np.float32)
    updates = np.array([np.nan, 5, 2], np.float32)
    for reduction in ["min", "max"]:
        want = COMBINE[reduction](x, updates)
        check_node("ScatterElements", [x, np.arange(3), updates], expected=[want], reduction=reduction)


@pytest.mark.parametrize("op,indices,updates", [
    ("ScatterElements", [[5, 0]], (1, 2)), ("ScatterElements", [[0, -6]], (1, 2)), ("ScatterElements", [[2**62]], (1, 1)),
    ("ScatterND", [[5]], (1, 4)), ("ScatterND", [[0, -5]], (1,)), ("ScatterND", [[-(2**63)]], (1, 4)),
])  # fmt: skip
def test_hostile_index(op, indices, updates):
    feeds = {"x0": np.zeros((5, 4), np.float32), "x1": np.array(indices, np.int64), "x2": np.zeros(updates, np.float32)}
    wrong = max(np.array(indices).reshape(-1).tolist(), key=abs)
    extent = 4 if op == "ScatterND" and wrong == -5 else 5
    message = f"under_test.*index {wrong} is out of range; needed: {-extent} to {extent - 1}$"
    with pytest.raises(FastinferError, match=message):
        build(node_model(op, list(feeds.values()))).run(feeds)


@pytest.mark.parametrize("op,indices,updates,attrs", [
    ("ScatterElements", [[0]], np.zeros((1, 2), np.float32), {}), ("ScatterElements", [0], np.zeros(1, np.float32), {}),
    ("ScatterElements", [[0]], np.zeros((1, 1), np.float64), {}), ("ScatterND", [[0]], np.zeros((1, 3), np.float32), {}),
    ("ScatterND", [[0, 0, 0]], np.zeros(1, np.float32), {}), ("ScatterND", [[0]], np.zeros((1, 4), np.float32), {"reduction": "xor"}),
])  # fmt: skip
def test_bad_operands(op, indices, updates, attrs):
    feeds = {"x0": np.zeros((5, 4), np.float32), "x1": np.array(indices), "x2": updates}
    with pytest.raises(FastinferError, match="under_test"):
        build(node_model(op, list(feeds.values()), **attrs)).run(feeds)


@pytest.mark.parametrize("mode", ["linear", "circular"])
@pytest.mark.parametrize("axis", [-2, 1, 2, 3])
def test_tensor_scatter(mode, axis):
    rng = np.random.default_rng(axis + 5)
    cache = rng.standard_normal((3, 4, 6, 5), np.float32)
    shape = list(cache.shape)
    shape[axis] = 3
    update = rng.standard_normal(shape, np.float32)
    first = rng.integers(0, cache.shape[axis] if mode == "circular" else cache.shape[axis] - 2, 3)
    check_node("TensorScatter", [cache, update, first], mode=mode, axis=axis)
    check_node("TensorScatter", [cache, update, None], mode=mode, axis=axis)
    if mode == "linear":
        feeds = {"x0": cache, "x1": update, "x2": np.array([0, 0, cache.shape[axis] - 2])}
        with pytest.raises(FastinferError, match="out of range"):
            build(node_model("TensorScatter", list(feeds.values()), mode=mode, axis=axis)).run(feeds)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3), (2, 3, 4, 6), (1, 1), (0, 3), (3, 0)])
@pytest.mark.parametrize("k", [None, 0, 1, -1, 3, -7, 100, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("upper", [0, 1])
def test_trilu(shape, k, upper):
    x = np.random.default_rng(0).integers(1, 9, shape).astype([np.float32, np.int64, np.bool_][(k or 0) % 3])
    want = (np.triu if upper else np.tril)(x, int(np.clip(k or 0, -50, 50)))
    check_node("Trilu", [x, None if k is None else np.array(k, np.int64)], expected=[want], upper=upper)


@pytest.mark.parametrize("batch,time", [(0, 1), (1, 0)])
def test_reverse_sequence(batch, time):
    rng = np.random.default_rng(0)
    for tail in [(), (3,), (2, 5)]:
        x = rng.standard_normal((4, 4, *tail), np.float32)
        check_node("ReverseSequence", [x, np.array([0, 4, 2, 1])], batch_axis=batch, time_axis=time)
    feeds = {"x0": x, "x1": np.array([1, 5, 1, 1])}
    with pytest.raises(FastinferError, match="out of range"):
        build(node_model("ReverseSequence", list(feeds.values()), batch_axis=batch, time_axis=time)).run(feeds)


def test_dropout_is_identity():
    x = np.random.default_rng(0).standard_normal((3, 5), np.float32)
    check_node("Dropout", [x, np.float32(0.5), np.array(False)], 2, expected=[x, np.ones(x.shape, bool)])
    for _, (y,) in run_everywhere(node_model("Dropout", [x]), {"x0": x}):
        np.testing.assert_array_equal(x, y)
