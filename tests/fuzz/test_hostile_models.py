# SPDX-License-Identifier: Apache-2.0
"""Graphs that were made to do harm: cases 7 to 12 of docs/failure-cases.md."""

import numpy as np
import pytest
from hostile import MAX, MIN, B, F, N, X, attempt, branch, identity, model, op, port
from onnx import TensorProto, helper, numpy_helper

# ---------------------------------------------------------------------------------------------- 7, 8, 9: what is written


def test_tensors_with_two_sets_of_data():
    both = TensorProto(name="w", data_type=F, dims=[4], raw_data=X.tobytes(), float_data=[9, 9, 9, 9])
    given = attempt(model([identity()], weights=[both]))
    assert isinstance(given, str) or given["y"].tolist() == X.tolist()
    unsaid = TensorProto(name="w", data_type=F, dims=[4], raw_data=X.tobytes())
    unsaid.external_data.add(key="location", value="/etc/passwd")  # data_location says that it is not there
    assert attempt(model([identity()], weights=[unsaid]))["y"].tolist() == X.tolist()


@pytest.mark.parametrize("dims", [[1] * 1_000_000, [2**40] * 1000, [-(2**63)], [0, 2**62, 2**62], [2**62, 0]], ids=len)
def test_dims(dims):
    given = attempt(model([identity()], weights=[TensorProto(name="w", data_type=F, dims=dims)]))
    assert isinstance(given, str) or given["y"].size == 0


def test_many_nodes():
    chain = [helper.make_node("Neg", [f"v{i}"], [f"v{i + 1}"]) for i in range(4000)]
    given = attempt(model(chain, [port("v0")], ["v4000"]), {"v0": X})
    assert given["v4000"].tolist() == X.tolist()


def test_deep_graphs():
    inner = branch(helper.make_node("Identity", ["x"], ["z"]))
    for _ in range(20):
        other = branch(helper.make_node("Neg", ["x"], ["z"]))
        inner = branch(helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=other))
    deep = model([op("If", "c", then_branch=inner, else_branch=inner)], [port("c", B, ()), port("x")])
    assert attempt(deep, {"c": np.array(True), "x": X})["y"].tolist() == X.tolist()
    data = b""
    for _ in range(3000):  # a graph in an attribute of a node of a graph, without end
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            data = tag + varint(len(data)) + data
    assert isinstance(attempt(b"\x3a" + varint(len(data)) + data), str)


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


# ------------------------------------------------------------------------------- 10: bombs (memory that nobody has; loops)

SHAPE = port("s", N, ("k",))


BOMBS = {
    "ConstantOfShape": (op("ConstantOfShape", "s"), {"s": [1 << 41]}),
    "ConstantOfShape, overflow": (op("ConstantOfShape", "s"), {"s": [1 << 62, 8]}),
    "ConstantOfShape, negative": (op("ConstantOfShape", "s"), {"s": [-1]}),
    "Expand": (op("Expand", "x", "s"), {"s": [1 << 40, 4]}),
    "Tile": (op("Tile", "x", "s"), {"s": [1 << 40]}),
    "Tile, overflow": (op("Tile", "x", "s"), {"s": [MAX]}),
    "Pad": (op("Pad", "x", "s"), {"s": [1 << 40, 1 << 40]}),
    "Pad, overflow": (op("Pad", "x", "s"), {"s": [MAX, MAX]}),
    "Reshape": (op("Reshape", "x", "s"), {"s": [MAX, MAX]}),
    "OneHot": (op("OneHot", "s", "depth", "x"), {"s": [1, 2], "depth": 1 << 40, "x": [0.0, 1.0]}),
    "Range": (op("Range", "depth", "end", "step"), {"depth": 0, "end": MAX, "step": 1}),
    "Range, no step": (op("Range", "depth", "end", "step"), {"depth": 0, "end": 5, "step": 0}),
}


def feeds_of(values):
    return {k: np.array(v, np.float32 if k in ("x", "u") or k.startswith("f") else np.int64) for k, v in values.items()}


def run(node, values):
    feeds = feeds_of({"x": X, **values} if "x" in node.input else values)
    ports = [port(n, F if a.dtype == np.float32 else N, [f"d{n}{i}" for i in range(a.ndim)]) for n, a in feeds.items()]
    outputs = [n for n in node.output if n]
    return attempt(model([node], ports, outputs), feeds)


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name):
    assert isinstance(run(*BOMBS[name]), str)


def test_a_bomb_among_the_constants():
    """It is there before any request; it is not unpacked when the model is compiled."""
    weights = [numpy_helper.from_array(np.array([1 << 41]), "s")]
    assert isinstance(attempt(model([op("ConstantOfShape", "s")], weights=weights)), str)
    resize = [numpy_helper.from_array(np.array([1, 1, 1 << 21, 1 << 21]), "s")]
    feeds = {"x": np.ones((1, 1, 2, 2), np.float32)}
    made = model([op("Resize", "x", "", "", "s")], [port("x", F, ["a", "b", "c", "d"])], weights=resize)
    assert isinstance(attempt(made, feeds), str)


# ------------------------------------------------------------------------------------------- 11, 12: indices and numbers

TAKEN = {
    "Gather": lambda *i: (op("Gather", "x", "s"), {"s": i}),
    "GatherElements": lambda *i: (op("GatherElements", "x", "s"), {"s": i}),
    "GatherND": lambda *i: (op("GatherND", "x", "s"), {"s": [[v] for v in i]}),
    "ScatterND": lambda *i: (op("ScatterND", "x", "s", "u"), {"s": [[v] for v in i], "u": [1.0] * len(i)}),
    "ScatterElements": lambda *i: (op("ScatterElements", "x", "s", "u"), {"s": i, "u": [1.0] * len(i)}),
    "TopK": lambda *i: (helper.make_node("TopK", ["x", "s"], ["y", ""]), {"s": i[:1]}),
    "Compress, axis": lambda *i: (op("Squeeze", "x", "s"), {"s": i}),
    "Unsqueeze": lambda *i: (op("Unsqueeze", "x", "s"), {"s": i}),
    "ReduceSum, axes": lambda *i: (op("ReduceSum", "x", "s"), {"s": i}),
    "Split, sizes": lambda *i: (helper.make_node("Split", ["x", "s"], ["y", "z"]), {"s": [i[0], 4]}),
    "CumSum, axis": lambda *i: (op("CumSum", "x", "s"), {"s": i[0]}),
}


@pytest.mark.parametrize("index", [5, -6, MAX, MIN, 2**31, 2**32])
@pytest.mark.parametrize("name", TAKEN)
def test_indices_out_of_range(name, index):
    assert isinstance(run(*TAKEN[name](index)), str)


@pytest.mark.parametrize("start", [0, 9, -9, MAX, MIN])
@pytest.mark.parametrize("step", [1, -1, MAX, MIN])
def test_slices(start, step):
    """As ONNX clamps them: a start before the first element is the first one, whatever the direction."""
    for end in (0, 9, -9, MAX, MIN):
        given = run(op("Slice", "x", "a", "b", "c", "d"), {"a": [start], "b": [end], "c": [0], "d": [step]})
        first, last = (v + 4 if v < 0 else v for v in (start, end))
        if step > 0:
            places = range(min(max(first, 0), 4), min(max(last, 0), 4), step)
        else:
            places = range(min(max(first, 0), 3), min(max(last, -1), 3), step)
        assert given["y"].tolist() == X[list(places)].tolist()
    assert isinstance(run(op("Slice", "x", "a", "b", "c", "d"), {"a": [0], "b": [9], "c": [0], "d": [0]}), str)


def test_places_that_a_pooling_did_not_leave():
    node = helper.make_node("MaxUnpool", ["x", "s"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
    for place in (16, -1, MAX, MIN):
        given = run(node, {"x": np.ones((1, 1, 2, 2)), "s": np.full((1, 1, 2, 2), place)})
        assert isinstance(given, str)


@pytest.mark.parametrize("kind", ["Div", "Mod"])
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.int8])
def test_integers_that_cannot_be_divided(kind, dtype):
    least, code = np.iinfo(dtype).min, helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    made = model([op(kind, "a", "b")], [port("a", code), port("b", code)], kind=code)
    assert isinstance(attempt(made, {"a": np.array([1], dtype), "b": np.array([0], dtype)}), str)
    given = attempt(made, {"a": np.array([least], dtype), "b": np.array([-1], dtype)})
    assert isinstance(given, str) or given["y"].tolist() in ([least], [0])


@pytest.mark.parametrize(
    "kind", ["Relu", "Softmax", "Exp", "Sqrt", "Log", "Tanh", "Sigmoid", "Erf", "ReduceMax", "ArgMax"]
)
def test_numbers_that_are_none_and_no_numbers(kind):
    bad = np.array([np.nan, np.inf, -np.inf, 1e-45, -0.0, 3e38], np.float32)
    made = model([op(kind, "x")], [port("x")], kind=N if kind == "ArgMax" else F)
    given = attempt(made, {"x": bad})
    if kind in ("Relu", "Exp", "Sqrt", "Tanh", "Sigmoid", "Erf"):
        assert np.isnan(given["y"][0]) and np.isnan(given["y"]).sum() <= 3
    empty = attempt(made, {"x": np.zeros(0, np.float32)})
    assert isinstance(empty, str) or empty["y"].size <= 1
