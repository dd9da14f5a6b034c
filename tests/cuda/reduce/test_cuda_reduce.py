# SPDX-License-Identifier: Apache-2.0
"""Reductions over any axes, against numpy in float64; ArgMax and ArgMin with equals and NaNs; two-stage forms."""

import numpy as np
import pytest
import torch
from cuda_nodes import check_node, run_node
from sm90 import compile

from fastinfer.cuda.kernels import reduce
from fastinfer.cuda.ops.reduce import runs

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of infinities and NaNs in the interpreter
RNG = np.random.default_rng(0)
INF, NAN = float("inf"), float("nan")
ORACLE = {
    "Sum": np.sum,
    "Mean": np.mean,
    "L1": lambda x, **k: np.abs(x).sum(**k),
    "L2": lambda x, **k: np.sqrt((x * x).sum(**k)),
    "SumSquare": lambda x, **k: (x * x).sum(**k),
    "LogSum": lambda x, **k: np.log(x.sum(**k)),
    "Max": lambda x, **k: np.max(x, initial=-INF, **k),
    "Min": lambda x, **k: np.min(x, initial=INF, **k),
    "Prod": np.prod,
    "LogSumExp": lambda x, **k: np.logaddexp.reduce(x, **k),
}


def numbers(shape, dtype=np.float32):
    return RNG.uniform(0.1, 1.5, shape).astype(dtype)


def check(op, x, axes, keepdims=1, precision="fp32", rtol=1e-5, atol=1e-6, kernel="triton_reduce"):
    with np.errstate(all="ignore"):
        want = ORACLE[op](x.astype(np.float64), axis=tuple(axes), keepdims=bool(keepdims))
    check_node(
        f"Reduce{op}", [x, np.array(axes, np.int64)], constants=(1,), keepdims=keepdims, precision=precision, kernel=kernel,
        rtol=rtol, atol=atol, expected=[np.asarray(want).astype(x.dtype)],
    )  # fmt: skip


def test_runs_of_axes():
    assert runs((2, 3, 1, 4, 5), [1, 3]) == [(False, 2), (True, 12), (False, 5)]
    assert runs((2, 3, 4), [0, 2]) == [(True, 2), (False, 3), (True, 4)]


@pytest.mark.parametrize("op", sorted(ORACLE))
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (-1, 1), (0, 2), (0, 1, 2)], ids=str)
def test_axes(op, axes):
    shape = (3, 2, 4) if op == "Prod" else (3, 5, 7)
    check(op, numbers(shape), axes, keepdims=len(axes) % 2)


@pytest.mark.parametrize("op", sorted(ORACLE))
def test_not_finite(op):
    x = np.array([[1, INF], [-INF, 2], [NAN, 0], [INF, -INF], [-INF, -INF], [INF, INF], [-0.5, NAN]], np.float32)
    check(op, x, (1,))
    check(op, np.ascontiguousarray(x.T), (0,))


@pytest.mark.parametrize("op", sorted(set(ORACLE) - {"LogSum", "Mean"}))
def test_nothing(op):
    check(op, np.zeros((2, 0, 3), np.float32), (1,))
    check(op, np.zeros((0, 4), np.float32), (1,), kernel="")


@pytest.mark.parametrize("op", ["Sum", "Mean", "Max", "L2"])
@pytest.mark.parametrize("precision,tolerance", [("bf16", 2**-6), ("f16", 2e-3)])
def test_half(op, precision, tolerance):
    """The interpreter cuts float32 to bfloat16 where a GPU rounds; sums are float32."""
    check(op, numbers((4, 300)), (1,), precision=precision, rtol=tolerance, atol=tolerance)
    check(op, numbers((2, 40, 24)), (0, 1), precision=precision, rtol=tolerance, atol=tolerance)
    check(op, numbers((2, 40, 24)), (0, 2), precision=precision, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("op", ["Sum", "Max", "Min", "Prod"])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_integers(op, dtype):
    x = RNG.integers(-5, 6, (4, 3, 5)).astype(dtype)
    for axes in ((1,), (0, 2)):
        check_node(f"Reduce{op}", [x, np.array(axes)], constants=(1,), keepdims=0)


def test_extreme_integers():
    x = np.array([[-(2**63), 2**63 - 1], [-(2**63), -(2**63)], [2**63 - 1] * 2], np.int64)
    for op in ("Max", "Min"):
        check_node(f"Reduce{op}", [x, np.array([1])], constants=(1,))
        check_node(f"Reduce{op}", [(x >> 32).astype(np.int32), np.array([1])], constants=(1,))
        check_node(f"Reduce{op}", [(x >> 56).astype(np.int8), np.array([1])], constants=(1,))


def test_axes_left_out():
    x = numbers((3, 4))
    check_node("ReduceSum", [x], rtol=1e-5)
    outputs, steps = run_node("ReduceSum", [x], noop_with_empty_axes=1)
    assert steps == ["copy_output"] and np.array_equal(outputs[0], x)
    check_node("ReduceMax", [np.array(2.5, np.float32)])


@pytest.mark.parametrize("op", sorted(set(ORACLE) - {"Prod"}))
def test_two_stages(op, monkeypatch):
    """The same kernels at lengths that the interpreter can afford."""
    monkeypatch.setattr(reduce.Problem, "chunk", property(lambda p: 8 if p.length > 16 else max(p.length, 1)))
    for shape, axes in (((3, 37), (1,)), ((2, 37, 5), (1,)), ((40, 3, 20), (0, 2))):
        check(op, numbers(shape), axes)


def test_what_has_two_stages_follows_from_the_length_alone():
    for inner, length in ((1, 50000), (64, 3136)):
        chunks = {reduce.Problem("Sum", outer, length, inner, torch.float32).chunks for outer in (1, 8, 1000)}
        assert chunks == {13}
        found = {reduce.default(reduce.Problem("Sum", o, length, inner, torch.float32)) for o in (1, 8, 1000)}
        assert len(found) == 1
    assert reduce.Problem("ArgMax", 1, 50000, 1, torch.float32).chunks == 1


def test_rows_do_not_depend_on_their_neighbours():
    x = numbers((9, 333))
    whole, _ = run_node("ReduceSum", [x, np.array([1])], constants=(1,))
    alone = [run_node("ReduceSum", [x[i : i + 1], np.array([1])], constants=(1,))[0][0] for i in range(9)]
    assert np.array_equal(whole[0], np.concatenate(alone))


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64, np.int8])
def test_arg(op, last, axis, dtype):
    x = RNG.integers(-2, 3, (4, 9, 6)).astype(dtype)  # with equals
    check_node(op, [x], kernel=f"triton_{op.lower()}", axis=axis, keepdims=axis % 2, select_last_index=last)


@pytest.mark.parametrize("op,oracle", [("ArgMax", np.argmax), ("ArgMin", np.argmin)])
def test_arg_not_finite(op, oracle):
    rows = [[1, NAN, 3, NAN], [-INF] * 4, [INF] * 4, [-INF, INF, -INF, INF], [INF, -INF, NAN, 0], [0, -0.0, 0, -0.0]]
    x = np.array(rows, np.float32)
    check_node(op, [x], expected=[oracle(x, axis=1)], axis=1, keepdims=0)


@pytest.mark.parametrize("kept,block,inner", [(1, 1024, False), (64, 32, True), (32, 64, True)])
@pytest.mark.parametrize("dtype,name", [("*fp32", "fp32"), ("*bf16", "bf16")])
def test_loads_on_hopper(kept, block, inner, dtype, name):
    import triton.language as tl

    types = {"x": dtype, "y": dtype, "n": "i32", "length": "i32", "chunk": "i32", "chunks": "i32", "count": "fp32"}
    constants = {
        "BEFORE": 0,
        "COMBINE": 0,
        "AFTER": 1,
        "IDENTITY": 0,
        "ACC": tl.float32,
        "KEPT": kept,
        "BLOCK": block,
        "WIDE": False,
    }
    constants |= {"chunks": 1} if inner else {"chunks": 1, "inner": 1}
    types |= {"inner": "i32"} if inner else {}
    types.pop("chunks")
    c = compile("fastinfer.cuda.kernels.reduce:_reduce", types, constants, {"num_warps": 4})
    assert c.spills == 0 and c.n_regs <= 128
    assert c.count(r"ld\.global[.\w:]*\.v4\.b32") >= 1, c.ptx


def test_others_on_hopper():
    import triton.language as tl

    ints = {"x": "*bf16", "y": "*i64", "n": "i32", "length": "i32", "inner": "i32"}
    constants = {
        "MINIMUM": True,
        "LAST": False,
        "IDENTITY": float("-inf"),
        "ACC": tl.float32,
        "KEPT": 4,
        "BLOCK": 256,
        "WIDE": False,
    }
    assert compile("fastinfer.cuda.kernels.reduce:_arg", ints, constants, {"num_warps": 4}).spills == 0
    types = {
        "x": "*bf16",
        "y": "*fp32",
        **dict.fromkeys(["n", "length", "inner", "chunk", "chunks"], "i32"),
        "count": "fp32",
    }
    for combine in (reduce.PROD, reduce.MAX, reduce.MIN, reduce.LOG_SUM_EXP):
        constants = {"BEFORE": 0, "COMBINE": combine, "AFTER": 0, "IDENTITY": float("-inf"), "ACC": tl.float32}
        constants |= {"KEPT": 4, "BLOCK": 256, "WIDE": True}
        c = compile("fastinfer.cuda.kernels.reduce:_reduce", types, constants, {"num_warps": 4})
        assert c.spills == 0
