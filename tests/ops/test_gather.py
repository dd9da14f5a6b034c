# SPDX-License-Identifier: Apache-2.0
"""Reading by index: Gather, GatherElements, GatherND."""

import numpy as np
import pytest
from support import build, check_node, node_model

from fastinfer.errors import FastinferError

DTYPES = [np.float32, np.float64, np.float16, np.int8, np.int64, np.bool_, np.complex128]


def data(rng, shape, i=0):
    return rng.integers(0, 100, shape).astype(DTYPES[i % len(DTYPES)])


def shape_of(rng, low, high):
    return tuple(int(d) for d in rng.integers(1, 7, rng.integers(low, high + 1)))


@pytest.mark.parametrize("seed", range(40))
def test_gather_random(seed):
    rng = np.random.default_rng(seed)
    shape = shape_of(rng, 1, 4)
    axis = int(rng.integers(-len(shape), len(shape)))
    indices = rng.integers(-shape[axis], shape[axis], shape_of(rng, 0, 3)).astype([np.int32, np.int64][seed % 2])
    x = data(rng, shape, seed)
    check_node("Gather", [x, indices], expected=[np.take(x, indices, axis)], axis=axis)


def test_gather_embedding():
    rng = np.random.default_rng(0)
    table = rng.standard_normal((1000, 384), np.float32)
    ids = rng.integers(0, 1000, (4, 64))
    check_node("Gather", [table, ids], expected=[table[ids]], constants=(0,))


def test_gather_nothing():
    x = np.zeros((0, 3), np.float32)
    check_node("Gather", [x, np.zeros((2, 0), np.int64)], expected=[np.zeros((2, 0, 3), np.float32)])
    check_node("Gather", [np.zeros((3, 0), np.float32), np.array([1])], expected=[np.zeros((1, 0), np.float32)])


@pytest.mark.parametrize("op,indices,attrs", [
    ("Gather", [5], {}), ("Gather", [-6], {}), ("Gather", [2**62], {"axis": 1}), ("Gather", [-(2**63)], {}),
    ("GatherElements", [[5]], {}), ("GatherElements", [[0, 4]], {"axis": 1}), ("GatherElements", [[-(2**63)]], {}),
    ("GatherND", [[5]], {}), ("GatherND", [[0, 4]], {}), ("GatherND", [[-6, 0]], {}), ("GatherND", [[2**63 - 1, 0]], {}),
])  # fmt: skip
def test_hostile_index(op, indices, attrs):
    feeds = {"x0": np.zeros((5, 4), np.float32), "x1": np.array(indices, np.int64)}
    wrong = max(np.array(indices).reshape(-1).tolist(), key=abs)
    extent = 4 if attrs or wrong == 4 else 5
    message = f"under_test.*index {wrong} is out of range; needed: {-extent} to {extent - 1}$"
    with pytest.raises(FastinferError, match=message):
        build(node_model(op, list(feeds.values()), **attrs)).run(feeds)


@pytest.mark.parametrize("op,x,indices,attrs", [
    ("Gather", (2,), np.float32([0]), {}), ("Gather", (2,), [0], {"axis": 1}), ("GatherElements", (2, 2), [0], {}),
    ("GatherElements", (2, 2), np.zeros((1, 3), np.int64), {}), ("GatherND", (2, 2), np.zeros((1, 3), np.int64), {}),
    ("GatherND", (2, 2), [[0]], {"batch_dims": 1}), ("GatherND", (2, 2), [[0]], {"batch_dims": 5}),
])  # fmt: skip
def test_bad_shapes(op, x, indices, attrs):
    feeds = {"x0": np.zeros(x, np.float32), "x1": np.array(indices)}
    with pytest.raises(FastinferError, match="under_test"):
        build(node_model(op, list(feeds.values()), **attrs)).run(feeds)


@pytest.mark.parametrize("seed", range(30))
def test_gather_elements_random(seed):
    rng = np.random.default_rng(seed)
    shape = shape_of(rng, 1, 4)
    axis = int(rng.integers(len(shape)))
    dims = [int(rng.integers(1, d + 1)) for d in shape]
    dims[axis] = int(rng.integers(0, 9))
    indices = rng.integers(-shape[axis], shape[axis], dims).astype([np.int32, np.int64][seed % 2])
    x = data(rng, shape, seed)
    cut = x[tuple(slice(None) if k == axis else slice(d) for k, d in enumerate(dims))]
    expected = np.take_along_axis(cut, indices.astype(np.int64), axis)
    check_node("GatherElements", [x, indices], expected=[expected], axis=axis - len(shape) if seed % 3 else axis)


def reference_gather_nd(x, indices, batch):
    out = np.zeros((*indices.shape[:-1], *x.shape[batch + indices.shape[-1] :]), x.dtype)
    for n in np.ndindex(indices.shape[:-1]):
        out[n] = x[n[:batch]][tuple(indices[n])]
    return out


@pytest.mark.parametrize("seed", range(30))
def test_gather_nd_random(seed):
    rng = np.random.default_rng(seed)
    shape = shape_of(rng, 1, 5)
    batch = int(rng.integers(0, len(shape)))
    depth = int(rng.integers(1, len(shape) - batch + 1))
    dims = (*shape[:batch], *shape_of(rng, 0, 2))
    index = [rng.integers(-shape[batch + k], shape[batch + k], dims) for k in range(depth)]
    indices = np.stack(index, -1).astype([np.int32, np.int64][seed % 2])
    x = data(rng, shape, seed)
    check_node("GatherND", [x, indices], expected=[reference_gather_nd(x, indices, batch)], batch_dims=batch)


def test_the_wrong_index_is_named_whichever_thread_meets_it():
    table, ids = np.zeros((1000, 256), np.float32), np.zeros(4000, np.int64)
    for place in (0, 1999, 3999):
        at = ids.copy()
        at[place] = 1000 + place
        with pytest.raises(FastinferError, match=f"index {1000 + place} is out of range; needed: -1000 to 999$"):
            build(node_model("Gather", [table, at]), threads=2).run({"x0": table, "x1": at})
