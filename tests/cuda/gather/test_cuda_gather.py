# SPDX-License-Identifier: Apache-2.0
"""Gather, GatherElements, GatherND: any axis, negative indices, indices out of range (clamped), empty ones."""

import numpy as np
import pytest
import torch
from cuda_nodes import check_node, on_device
from sm90 import compile

from fastinfer.cuda.kernels import gather

RNG = np.random.default_rng(0)


def numbers(shape, dtype=np.float32):
    return RNG.integers(-100, 100, shape).astype(dtype)


def places(shape, extent, dtype=np.int64):
    return RNG.integers(-extent, extent, shape).astype(dtype)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("index", [(), (3,), (2, 5), (0,)], ids=str)
def test_gather(axis, index):
    x = numbers((4, 3, 7))
    check_node("Gather", [x, places(index, x.shape[axis])], kernel="triton_gather", axis=axis)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.int8, np.float64], ids=lambda t: t.__name__)
def test_embedding(dtype):
    check_node("Gather", [numbers((11, 48), dtype), places((2, 5), 11, np.int32)], axis=0, constants=(0,))


def test_embedding_of_long_rows():
    check_node("Gather", [numbers((3, 1500)), places((4,), 3)], axis=0)


def test_out_of_range_reads_an_end():
    x = numbers((4, 2))
    check_node("Gather", [x, np.array([99, -99])], axis=0, expected=[x[[3, 0]]])


def check_elements(x, index, axis):
    """Where the index is the smaller one, the rest of x is not looked at."""
    seen = tuple(slice(None) if d == axis % x.ndim else slice(0, e) for d, e in enumerate(index.shape))
    want = np.take_along_axis(x[seen], index.astype(np.int64), axis)
    kernel = "triton_gather_elements"
    check_node("GatherElements", [x, index], kernel=kernel, expected=[want], axis=axis)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_elements(axis):
    x = numbers((4, 3, 5))
    index = list(x.shape)
    index[axis] = 6
    check_elements(x, places(index, x.shape[axis]), axis)


def test_gather_elements_of_a_smaller_index():
    check_elements(numbers((4, 3, 5)), places((2, 2, 3), 3), 1)
    check_elements(numbers((600, 3)), places((600, 3), 600, np.int32), 0)
    check_elements(numbers((6,)), places((0,), 6), 0)


@pytest.mark.parametrize(
    "shape,index,batch",
    [
        ((4, 3), (5, 1), 0), ((4, 3), (5, 2), 0), ((4, 3, 6), (2, 2), 0), ((2, 4, 3), (2, 5, 1), 1), ((2, 4, 3, 5), (2, 2, 6, 2), 1),
        ((2, 3, 4), (2, 3, 1), 2), ((3, 3, 3, 3), (7, 4), 0), ((3, 2), (2,), 0), ((3, 2), (0, 2), 0),
    ],
    ids=str,
)  # fmt: skip
def test_gather_nd(shape, index, batch):
    extents = shape[batch : batch + index[-1]]
    tuples = np.stack([places(index[:-1], e) for e in extents], -1)
    x = numbers(shape)
    flat = x.reshape(-1, *shape[batch:])
    rows = tuples.reshape(flat.shape[0], -1, index[-1])
    want = np.stack([b[tuple(i.T)] for b, i in zip(flat, rows)])
    want = want.reshape((*index[:-1], *shape[batch + index[-1] :]))
    check_node("GatherND", [x, tuples], kernel="triton_gather", expected=[want], batch_dims=batch)


def test_configurations_agree():
    x, index = torch.randn(9, 100), torch.randint(0, 9, (13,))
    problem = gather.Problem(4, 1, (9,), 13, 100, False)
    found = gather.configs(problem)
    assert 1 <= len(found) <= 24
    for config in [gather.default(problem), *found]:
        y = torch.full((13, 100), float("nan"))
        on_device(gather.run, x, index, y, problem=problem, config=config)
        assert torch.equal(y, x[index])


def test_rows_on_hopper():
    integers = ["rows", "per", "inner", "d0", "d1", "d2", "d3"]
    types = {"x": "*i16", "index": "*i64", "y": "*i16", **dict.fromkeys(integers, "i32")}
    constants = {"KEYS": 1, "ND": False, "ROWS": 1, "COLS": 1024, "WIDE": False}
    c = compile("fastinfer.cuda.kernels.gather:_gather", types, constants, {"num_warps": 4})
    assert c.spills == 0 and c.count(r"ld\.global[.\w:]*\.v4\.b32") >= 1 and c.count(r"st\.global[.\w:]*\.v4\.b32") >= 1


@pytest.mark.parametrize("keys", [2, 4])
def test_tuples_on_hopper(keys):
    integers = ["rows", "per", "inner", "d0", "d1", "d2", "d3"]
    types = {"x": "*i32", "index": "*i64", "y": "*i32", **dict.fromkeys(integers, "i32")}
    constants = {"KEYS": keys, "ND": True, "ROWS": 4, "COLS": 128, "WIDE": True}
    c = compile("fastinfer.cuda.kernels.gather:_gather", types, constants, {"num_warps": 4})
    assert c.spills == 0 and c.n_regs <= 128


def test_elements_on_hopper():
    integers = ["n", "extent", "step", "e1", "e2", "e3", "s0", "s1", "s2", "s3"]
    types = {"x": "*i16", "index": "*i64", "y": "*i16", **dict.fromkeys(integers, "i32")}
    c = compile("fastinfer.cuda.kernels.gather:_elements", types, {"BLOCK": 512, "WIDE": False}, {"num_warps": 4})
    assert c.spills == 0 and c.n_regs <= 128
