# SPDX-License-Identifier: Apache-2.0
"""Operators that copy: transpose, concat, split, slice, expand, tile."""

import numpy as np
import pytest
from support import build, check_node, node_model

from fastinfer.errors import FastinferError

DTYPES = [np.float32, np.float64, np.float16, np.int8, np.int64, np.bool_, np.complex64, np.complex128]


def filled(rng, shape, dtype=np.float32):
    x = rng.integers(0, 100, shape).astype(dtype)
    return x + (1j * x).astype(dtype) if x.dtype.kind == "c" else x


def random_shape(rng, low=1, high=5, large=70):
    shape = rng.integers(0 if rng.random() < 0.1 else 1, 6, rng.integers(low, high + 1))
    shape[rng.integers(len(shape))] = rng.integers(1, large)
    return tuple(int(d) for d in shape)


@pytest.mark.parametrize("seed", range(40))
def test_transpose_random(seed):
    rng = np.random.default_rng(seed)
    shape = random_shape(rng)
    x = filled(rng, shape, DTYPES[seed % len(DTYPES)])
    perm = [int(p) for p in rng.permutation(len(shape))]
    check_node("Transpose", [x], expected=[x.transpose(perm)], perm=perm)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 33, 64, 65, 100])
def test_transpose_layout(channels, dtype):
    """NCHW to NHWC and back, over every tile width and tail."""
    rng = np.random.default_rng(channels)
    for h, w in [(1, 1), (1, 5), (7, 7), (16, 16), (9, 31), (20, 30)]:
        x = filled(rng, (2, channels, h, w), dtype)
        check_node("Transpose", [x], expected=[x.transpose(0, 2, 3, 1)], perm=[0, 2, 3, 1])
        y = filled(rng, (2, h, w, channels), dtype)
        check_node("Transpose", [y], expected=[y.transpose(0, 3, 1, 2)], perm=[0, 3, 1, 2])


def test_transpose_default_and_scalar():
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    check_node("Transpose", [x], expected=[x.T])
    check_node("Transpose", [np.float32(3)], expected=[np.float32(3)])


def test_transpose_large_is_shared_between_threads():
    x = np.random.default_rng(0).standard_normal((3, 130, 40, 50), np.float32)
    check_node("Transpose", [x], expected=[x.transpose(0, 2, 3, 1)], perm=[0, 2, 3, 1])
    check_node("Transpose", [x], expected=[x.transpose(1, 0, 2, 3)], perm=[1, 0, 2, 3])


@pytest.mark.parametrize("perm", [[0, 0], [0, 2], [0], [-1, 0]])
def test_transpose_bad_perm(perm):
    with pytest.raises(FastinferError, match="perm"):
        build(node_model("Transpose", [np.zeros((2, 3), np.float32)], perm=perm)).run(
            {"x0": np.zeros((2, 3), np.float32)}
        )


@pytest.mark.parametrize("seed", range(30))
def test_concat_random(seed):
    rng = np.random.default_rng(seed)
    shape = list(random_shape(rng))
    axis = int(rng.integers(len(shape)))
    parts = []
    for _ in range(rng.integers(1, 6)):
        shape[axis] = int(rng.integers(0, 9))
        parts.append(filled(rng, shape, DTYPES[seed % len(DTYPES)]))
    given = axis - len(shape) if seed % 2 else axis
    check_node("Concat", parts, expected=[np.concatenate(parts, axis)], axis=given)


def test_concat_refuses_what_does_not_fit():
    a, b = np.zeros((2, 3), np.float32), np.zeros((3, 3), np.float32)
    model = build(node_model("Concat", [a, b], axis=1))
    with pytest.raises(FastinferError, match="cannot concatenate"):
        model.run({"x0": a, "x1": b})


@pytest.mark.parametrize("seed", range(20))
def test_split_random(seed):
    rng = np.random.default_rng(seed)
    shape = random_shape(rng)
    axis = int(rng.integers(-len(shape), len(shape)))
    x = filled(rng, shape, DTYPES[seed % len(DTYPES)])
    cuts = np.sort(rng.integers(0, shape[axis] + 1, rng.integers(0, 4)))
    sizes = np.diff(np.concatenate([[0], cuts, [shape[axis]]])).astype(np.int64)
    check_node(
        "Split", [x, sizes], len(sizes), expected=np.split(x, cuts, axis), axis=axis, constants=(1,) * (seed % 2)
    )


@pytest.mark.parametrize("extent,n", [(6, 3), (7, 3), (7, 4), (5, 1), (9, 4)])
def test_split_num_outputs(extent, n):
    x = np.arange(2 * extent, dtype=np.float32).reshape(2, extent)
    check_node("Split", [x], n, axis=1, num_outputs=n)


@pytest.mark.parametrize("sizes", [[1, 1], [4, -1], [2**62, 2**62], [3]])
def test_split_bad_sizes(sizes):
    x = np.zeros((2, 3), np.float32)
    feeds = {"x0": x, "x1": np.array(sizes, np.int64)}
    with pytest.raises(FastinferError, match="split"):
        build(node_model("Split", list(feeds.values()), 2, axis=1)).run(feeds)


@pytest.mark.parametrize("seed", range(60))
def test_slice_random(seed):
    rng = np.random.default_rng(seed)
    shape = random_shape(rng)
    x = filled(rng, shape, DTYPES[seed % len(DTYPES)])
    axes = rng.permutation(len(shape))[: rng.integers(1, len(shape) + 1)]
    far = [-(2**63), 2**63 - 1, -1, 0, 1]
    starts, ends, steps, index = [], [], [], [slice(None)] * len(shape)
    for a in axes:
        s, e = (int(rng.choice(far)) if rng.random() < 0.3 else int(rng.integers(-8, 9)) for _ in range(2))
        t = int(rng.choice([1, 1, 2, 3, -1, -1, -2, 2**63 - 1, -(2**63)]))
        starts, ends, steps = [*starts, s], [*ends, e], [*steps, t]
        # The specification clamps the start of a negative step to 0, where numpy would find nothing.
        index[a] = slice(max(s, -shape[a]) if t < 0 else s, e, t)
    lists = [np.array(v, np.int64) for v in (starts, ends, [int(a) for a in axes], steps)]
    check_node("Slice", [x, *lists], expected=[x[tuple(index)]])
    if seed % 10 == 0:
        narrow = [np.clip(v, -(2**31), 2**31 - 1).astype(np.int32) for v in lists]
        check_node("Slice", [x, *narrow], expected=[x[tuple(index)]], constants=(1, 2, 3, 4))


def test_slice_without_axes_and_steps():
    x = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    check_node("Slice", [x, np.array([1, 0]), np.array([3, -1])], expected=[x[1:3, 0:-1]])


@pytest.mark.parametrize("starts,ends,axes,steps,word", [
    ([0], [1], [0], [0], "step is 0"), ([0], [1], [2], [1], "outside"), ([0, 0], [1, 1], [0, -2], [1, 1], "twice"),
    ([0], [1, 2], [0], [1], "entries"),
])  # fmt: skip
def test_slice_bad(starts, ends, axes, steps, word):
    feeds = {f"x{i}": np.array(v, np.int64) for i, v in enumerate([None, starts, ends, axes, steps]) if i}
    feeds["x0"] = np.zeros((2, 3), np.float32)
    with pytest.raises(FastinferError, match=word):
        build(node_model("Slice", [feeds[f"x{i}"] for i in range(5)])).run(feeds)


@pytest.mark.parametrize("shape,target", [
    ((3, 1), (2, 3, 6)), ((1,), (4, 5)), ((), (3,)), ((3, 4), (1, 1)), ((1, 1, 7), (5, 6, 1)), ((2, 1, 3), (2, 70, 3)),
    ((1, 3), (0, 3)), ((5, 1), (5, 200)), ((1, 16), (9, 16)), ((2, 1, 2, 1), (2, 3, 2, 3)),
])  # fmt: skip
@pytest.mark.parametrize("dtype", DTYPES)
def test_expand(shape, target, dtype):
    x = filled(np.random.default_rng(0), shape, dtype)
    check_node("Expand", [x, np.array(target, np.int64)], expected=[x * np.ones(target, x.dtype)])


def test_expand_bad():
    feeds = {"x0": np.zeros((3, 2), np.float32), "x1": np.array([4, 2])}
    with pytest.raises(FastinferError, match=r"\[3,2\]"):
        build(node_model("Expand", list(feeds.values()))).run(feeds)


@pytest.mark.parametrize("seed", range(20))
def test_tile_random(seed):
    rng = np.random.default_rng(seed)
    shape = random_shape(rng, 1, 4)
    x = filled(rng, shape, DTYPES[seed % len(DTYPES)])
    repeats = rng.integers(0 if seed % 5 == 0 else 1, 4, len(shape)).astype(np.int64)
    check_node("Tile", [x, repeats], expected=[np.tile(x, repeats)])


@pytest.mark.parametrize("repeats", [[1], [-1, 1], [2**62, 2]])
def test_tile_bad(repeats):
    feeds = {"x0": np.zeros((2, 3), np.float32), "x1": np.array(repeats, np.int64)}
    with pytest.raises(FastinferError, match="repeat|elements"):
        build(node_model("Tile", list(feeds.values()))).run(feeds)
