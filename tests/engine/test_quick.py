# SPDX-License-Identifier: Apache-2.0
"""The quick way of a call (csrc/python/quick.h) gives what the general way gives, and leaves it the rest."""

import concurrent.futures
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fastinfer as fi

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def compiled(nodes, inputs, outputs, threads=1, **given):
    ports = [[helper.make_tensor_value_info(*port) for port in side] for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, "g", *ports, **given)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return fi.compile(proto, threads=threads)


def seen(model, *arrays):
    """The model after a call by the general way."""
    model(*arrays)
    assert model._quick is not None
    return model


@pytest.fixture
def sums():
    """s = a + b, d = a - b."""
    nodes = [helper.make_node("Add", ["a", "b"], ["s"]), helper.make_node("Sub", ["a", "b"], ["d"])]
    return compiled(nodes, [("a", FLOAT, ["n", 3]), ("b", FLOAT, [3])], [("s", FLOAT, None), ("d", FLOAT, None)])


A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 10, 100], np.float32)


def test_equal_results(sums):
    assert sums._quick is None
    first = sums.run({"a": A, "b": B})
    for _ in range(3):
        assert sums._quick.run({"a": A, "b": B}) is not None
        again, called = sums.run({"b": B, "a": A}), sums(A, B)
        assert list(again) == ["s", "d"] and type(called) is tuple
        for name, out in zip(again, called):
            np.testing.assert_array_equal(again[name], first[name])
            np.testing.assert_array_equal(out, first[name])


def test_results_are_the_callers_own(sums):
    seen(sums, A, B)
    first = sums(A, B)
    first[0][:] = 7  # writable
    second = sums(A + 1, B)
    np.testing.assert_array_equal(first[0], np.full((2, 3), 7, np.float32))
    np.testing.assert_array_equal(second[0], A + 1 + B)
    view = second[0].T[1:]
    del second
    np.testing.assert_array_equal(view, (A + 1 + B).T[1:])


def test_nothing_is_held(sums):
    seen(sums, A, B)
    a = A.copy()
    before = sys.getrefcount(a)
    results = [sums.run({"a": a, "b": B}) for _ in range(20)]
    assert sums._quick.run({"a": a}) is None and sums._quick.call((a, None)) is None
    assert sys.getrefcount(a) == before
    assert all(sys.getrefcount(r["s"]) == 2 for r in results)


@pytest.mark.parametrize("kind", ["strided", "fortran", "swapped", "unaligned", "list", "subclass"])
def test_what_is_not_dense_goes_the_general_way(sums, kind):
    seen(sums, A, B)
    wide = np.zeros((2, 6), np.float32)
    wide[:, ::2] = A
    raw = np.zeros(25, np.uint8)[1:].view(np.float32).reshape(2, 3)
    raw[:] = A
    given = {"strided": wide[:, ::2], "fortran": np.asfortranarray(A), "swapped": A.astype(">f4"), "unaligned": raw,
             "list": A.tolist(), "subclass": A.view(type("Own", (np.ndarray,), {}))}[kind]  # fmt: skip
    assert sums._quick.call((given, B)) is None
    np.testing.assert_array_equal(sums(given, B)[0], A + B)


def test_new_shapes_are_planned_and_then_quick(sums):
    seen(sums, A, B)
    for rows in (5, 0, 1):
        x = np.ones((rows, 3), np.float32)
        assert sums._quick.call((x, B)) is None
        np.testing.assert_array_equal(sums(x, B)[1], x - B)
        np.testing.assert_array_equal(sums._quick.call((x, B))[1], x - B)
    sums.trim()
    assert sums._quick.call((A, B)) is None  # plans are gone
    np.testing.assert_array_equal(sums(A, B)[0], A + B)


def test_errors_are_the_general_ways(sums):
    seen(sums, A, B)
    for bad, words in [({"a": A}, "missing input: b"), ({"a": A, "b": B, "c": B}, "no input is called c"),
                       ({"a": A.astype(np.float64), "b": B}, "given float64"), ({"a": A, "b": B[:2]}, "needed float32"),
                       ({"a": A, "x": B}, "missing input: b")]:  # fmt: skip
        with pytest.raises(fi.InputError, match=words):
            sums.run(bad)
    with pytest.raises(fi.InputError, match="a list was given"):
        sums.run([A, B])
    with pytest.raises(fi.InputError, match="no output is called 'q'"):
        sums.run({"a": A, "b": B}, ["q"])
    assert list(sums.run({"a": A, "b": B}, ["d"])) == ["d"]


def test_a_step_that_fails():
    model = compiled([helper.make_node("Gather", ["x", "i"], ["y"])], [("x", FLOAT, [4]), ("i", INT64, [2])],
                     [("y", FLOAT, [2])])  # fmt: skip
    x = np.arange(4, dtype=np.float32)
    seen(model, x, np.array([0, 3]))
    for _ in range(2):
        with pytest.raises(fi.InputError, match="index 9 is out of range; needed: -4 to 3"):
            model(x, np.array([0, 9]))
        np.testing.assert_array_equal(model(x, np.array([1, -1])), [1, 3])


def test_outputs_that_share_or_pass_through():
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Identity", ["y"], ["z"]),
             helper.make_node("Identity", ["x"], ["w"])]  # fmt: skip
    model = compiled(nodes, [("x", FLOAT, [3])], [(n, FLOAT, [3]) for n in "yzw"])
    x = np.array([-1, 0, 2], np.float32)
    for _ in range(3):
        y, z, w = model(x)
        np.testing.assert_array_equal(y, [0, 0, 2])
        np.testing.assert_array_equal(z, y)
        np.testing.assert_array_equal(w, x)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint8", "int32", "int64", "longlong", "bool", "float16",
                                   "uint64", "bfloat16"])  # fmt: skip
def test_types(dtype):
    import ml_dtypes

    given = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    code = helper.np_dtype_to_tensor_dtype(np.dtype(given.name) if dtype == "longlong" else given)
    model = compiled([helper.make_node("Transpose", ["x"], ["y"])], [("x", code, None)], [("y", code, None)])
    for x in (np.array([[0, 1, 1], [1, 0, 1]]).astype(given), np.array(1).astype(given), np.zeros((0, 2), given)):
        for _ in range(2):
            y = model(x)
            assert y.dtype == np.dtype(given.name if dtype == "longlong" else given) and y.shape == x.T.shape
            np.testing.assert_array_equal(y, x.T)


def test_large_outputs_keep_their_huge_pages():
    model = compiled([helper.make_node("Neg", ["x"], ["y"])], [("x", FLOAT, ["n"])], [("y", FLOAT, ["n"])])
    small, large = np.ones(1000, np.float32), np.ones(1 << 19, np.float32)
    for x in (small, large):
        np.testing.assert_array_equal(seen(model, x)(x), -x)
    assert model._quick.call((small,)) is not None and model._quick.call((large,)) is None


def test_torch_goes_the_general_way(sums):
    torch = pytest.importorskip("torch")
    seen(sums, A, B)
    out = sums(torch.from_numpy(A), B)
    assert isinstance(out[0], torch.Tensor) and isinstance(sums(A, B)[0], np.ndarray)


def test_values_that_shapes_depend_on():
    model = compiled([helper.make_node("Reshape", ["x", "s"], ["y"])], [("x", FLOAT, [6]), ("s", INT64, ["r"])],
                     [("y", FLOAT, None)])  # fmt: skip
    x = np.arange(6, dtype=np.float32)
    for shape in ((2, 3), (3, 2), (2, 3)):
        assert model(x, np.array(shape)).shape == shape


@pytest.mark.parametrize("threads", [1, 2])
def test_two_callers(threads):
    rng = np.random.default_rng(0)
    w = rng.standard_normal((64, 64)).astype(np.float32)
    model = compiled([helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])],
                     [("x", FLOAT, ["n", 64])], [("y", FLOAT, None)], threads,
                     initializer=[onnx.numpy_helper.from_array(w, "w")])  # fmt: skip
    feeds = [rng.standard_normal((n, 64)).astype(np.float32) for n in (1, 3, 40, 300)]
    wanted = [model(x) for x in feeds]

    def caller(_):
        return all(np.array_equal(model(x), y) for _ in range(100) for x, y in zip(feeds, wanted))

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert all(pool.map(caller, range(3)))
