# SPDX-License-Identifier: Apache-2.0
"""Operators that only move elements: bit by bit, for every element size, into poisoned memory."""

import itertools

import numpy as np
import pytest
from cuda_nodes import check_node, run_node
from sm90 import compile

RNG = np.random.default_rng(0)
TYPES = [np.float32, np.float16, np.int64, np.int8, np.bool_, np.float64]


def numbers(shape, dtype=np.float32):
    return RNG.integers(-100, 100, shape).astype(dtype) if dtype is not np.bool_ else RNG.random(shape) < 0.5


def ints(*values):
    return np.array(values, np.int64)


@pytest.mark.parametrize("perm", list(itertools.permutations(range(3))), ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 70, 3), (4, 1, 33)], ids=str)
def test_transpose(perm, shape):
    kernel = (
        "triton" if [p for p in perm if shape[p] != 1] != sorted(p for p in perm if shape[p] != 1) else "copy_output"
    )
    check_node("Transpose", [numbers(shape)], kernel=kernel, perm=list(perm))


@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: t.__name__)
def test_transpose_types(dtype):
    check_node("Transpose", [numbers((3, 37, 19), dtype)], kernel="triton_transpose", perm=[0, 2, 1])


@pytest.mark.parametrize("shape", [(3, 700), (700, 3), (130, 65), (2, 2, 2, 600), (3, 5, 40, 14)], ids=str)
def test_transpose_by_tiles(shape):
    perm = list(range(len(shape)))[::-1]
    kernel = "triton_transpose" if len(shape) == 2 or shape[0] * shape[-1] >= 512 else "triton_copy"
    check_node("Transpose", [numbers(shape)], kernel=kernel, perm=perm)


@pytest.mark.parametrize("seed", range(8))
def test_transpose_of_many_dimensions(seed):
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(4, 7))
    shape = tuple(int(e) for e in rng.integers(2, 5, rank))
    x, perm = numbers(shape), [int(p) for p in rng.permutation(rank)]
    if perm != sorted(perm):
        check_node("Transpose", [x], perm=perm)


def test_transpose_of_nothing():
    check_node("Transpose", [numbers((0, 3))], perm=[1, 0])


@pytest.mark.parametrize(
    "shape,to",
    [((), (2, 3)), ((3, 1), (3, 4)), ((1, 4), (3, 4)), ((2, 1, 3, 1), (2, 5, 3, 4)), ((1,), (0,)), ((5,), (2, 3, 5))],
    ids=str,
)
def test_expand(shape, to):
    check_node("Expand", [numbers(shape), ints(*to)], constants=(1,))


@pytest.mark.parametrize("repeats", [(1, 1, 1), (2, 1, 3), (1, 4, 1), (0, 1, 1), (3, 2, 2)], ids=str)
def test_tile(repeats):
    check_node("Tile", [numbers((2, 3, 4)), ints(*repeats)], constants=(1,))


@pytest.mark.parametrize(
    "starts,ends,axes,steps",
    [
        ((1,), (3,), (0,), (1,)),
        ((0, 2), (4, 9), (0, 2), (1, 2)),
        ((-1, -1), (-100, -100), (0, 2), (-1, -3)),
        ((5,), (2,), (1,), (1,)),
        ((-3,), (1000,), (-1,), (1,)),
        ((1, 1, 1), (4, 5, 8), (0, 1, 2), (2, 3, 1)),
    ],
    ids=str,
)
def test_slice(starts, ends, axes, steps):
    x = numbers((4, 6, 9))
    check_node("Slice", [x, ints(*starts), ints(*ends), ints(*axes), ints(*steps)], constants=(1, 2, 3, 4))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", TYPES, ids=lambda t: t.__name__)
def test_concat(axis, dtype):
    shapes = [[2, 3, 4] for _ in range(4)]
    for k, extent in enumerate((1, 5, 0, 8)):
        shapes[k][axis] = extent
    check_node("Concat", [numbers(s, dtype) for s in shapes], kernel="triton_concat[3]", axis=axis)


def test_concat_of_more_parts_than_a_launch_takes():
    parts = [numbers((3, 1 + k % 4, 2)) for k in range(19)]
    _, steps = run_node("Concat", parts, axis=1)
    assert [s.split()[0] for s in steps] == ["triton_concat[8]", "triton_concat[8]", "triton_concat[3]"]
    check_node("Concat", parts, axis=1)


def test_concat_with_itself():
    x = numbers((2, 5))
    check_node("Concat", [x, x], axis=1)


@pytest.mark.parametrize("axis,parts", [(0, (1, 3)), (1, (2, 2, 1)), (2, (4, 8, 1, 3)), (-1, (0, 16))], ids=str)
def test_split(axis, parts):
    x = numbers((4, 5, 16))
    check_node("Split", [x, ints(*parts)], n_outputs=len(parts), kernel="triton_split", constants=(1,), axis=axis)


def test_split_evenly():
    check_node("Split", [numbers((2, 7))], n_outputs=3, axis=1, num_outputs=3)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode):
    check_node("DepthToSpace", [numbers((2, 12, 3, 5))], blocksize=2, mode=mode)


def test_space_to_depth():
    check_node("SpaceToDepth", [numbers((2, 3, 4, 6))], blocksize=2)


PADS = [(0, 1, 0, 2), (2, 0, 1, 0), (1, 2, 2, 1), (0, 0, 3, 3)]


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
@pytest.mark.parametrize("pads", PADS, ids=str)
def test_pad(mode, pads):
    check_node("Pad", [numbers((4, 5)), ints(*pads)], constants=(1,), mode=mode)


@pytest.mark.parametrize("dtype,value", [(np.float32, -1.5), (np.float16, 2.5), (np.int64, -(2**40)), (np.bool_, True)])
def test_pad_value(dtype, value):
    pads = ints(0, 1, 1, 0, 1, 2)
    check_node("Pad", [numbers((2, 3, 2), dtype), pads, np.array(value, dtype)], constants=(1, 2), mode="constant")


def test_pad_that_cuts_and_pad_of_some_axes():
    x = numbers((2, 3, 4, 5, 6))
    cut = np.pad(x[0], ((0, 1), (0, 0), (2, 0), (0, 0)))[1:, :-3]
    pads = ints(-1, 0, 2, 0, 1, -3, 0, 0)
    check_node("Pad", [x[0], pads], constants=(1,), mode="constant", expected=[cut.astype(np.float32)])
    check_node("Pad", [x, ints(1, 2, 3, 0), None, ints(-1, 1)], constants=(1, 3), mode="constant")
    check_node("Pad", [np.zeros((0, 2), np.float32), ints(1, 0, 1, 0)], constants=(1,), mode="constant")


@pytest.mark.parametrize("x, y, most", [("*i16", "*i16", 0.0), ("*fp32", "*bf16", 3.3e38), ("*bf16", "*fp32", 0.0)])
def test_transpose_tiles_on_hopper(x, y, most):
    """Reads and writes are both 16 bytes wide: the layout changes in shared memory between."""
    integers = ["ni", "nj", "xj", "yi", "e1", "e2", "x0", "x1", "x2", "y0", "y1", "y2"]
    types = {"x": x, "y": y, **dict.fromkeys(integers, "i32")}
    blocks = {"BI": 64, "BJ": 64, "WIDE": False, "MOST": most}
    c = compile("fastinfer.cuda.kernels.movement:_transpose", types, blocks, {"num_warps": 4})
    assert c.spills == 0 and 0 < c.shared <= 20 << 10
    assert c.count(r"ld\.global[.\w:]*\.v4\.b32") >= 1 and c.count(r"st\.global[.\w:]*\.v4\.b32") >= 1
    assert c.n_regs <= 128


@pytest.mark.parametrize("mode", [0, 2])
def test_pad_on_hopper(mode):
    """Rows that are copied as they are go in 16-byte accesses."""
    integers = "rows e1 e2 e3 n0 n1 n2 n3 b0 b1 b2 b3 value".split()
    types = {"x": "*i32", "y": "*i32", **dict.fromkeys(integers, "i32")}
    c = compile("fastinfer.cuda.kernels.movement:_pad", types, {"MODE": mode, "ROWS": 4, "COLS": 256}, {"num_warps": 4})
    assert c.spills == 0 and c.n_regs <= 128 and c.count(r"st\.global[.\w:]*\.v4\.b32") >= 1
    assert mode or c.count(r"ld\.global[.\w:]*\.v4\.b32") >= 1, c.ptx


def test_concat_on_hopper():
    types = {**{f"p{k}": "*i16" for k in range(3)}, "whole": "*i16", "rows": "i32", "ld": "i32"}
    types |= {f"{a}{k}": "i32" for a in "sn" for k in range(3)}
    c = compile("movement.parts:three", types, {"ROWS": 4, "COLS": 512}, {"num_warps": 4})
    assert c.spills == 0 and c.n_regs <= 128
    assert c.count(r"ld\.global[.\w:]*\.v4\.b32") >= 3 and c.count(r"st\.global[.\w:]*\.v4\.b32") >= 3
