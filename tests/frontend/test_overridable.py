# SPDX-License-Identifier: Apache-2.0
"""Initializers that are also inputs: constants until a caller gives one, as in ONNX Runtime from IR version 4 on."""

import threading

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastinfer as fi
from fastinfer.cli.inputs import gather

W, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)
X = {"x": np.array([[1.0, 2.0]], np.float32)}


def model(ir_version=8, nodes=None, outputs=("y",)):
    """y = relu(x · w + b); w is declared with a free number of columns."""
    nodes = nodes or [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "b"], ["z"]),
        helper.make_node("Relu", ["z"], ["y"]),
    ]
    ports = [("w", [2, "n"]), ("x", ["batch", 2]), ("b", ["n"])]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in ports]
    outs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    weights = [numpy_helper.from_array(W, "w"), numpy_helper.from_array(B, "b")]
    graph = helper.make_graph(nodes, "g", inputs, outs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=ir_version)


def want(x, w=W, b=B):
    return np.maximum(x @ w + b, 0)


def test_constants_until_given():
    m = fi.compile(model())
    assert [s.name for s in m.inputs] == ["x"] and [s.name for s in m.overridable] == ["w", "b"]
    assert m.overridable[0].shape == (2, "n")
    np.testing.assert_allclose(m.run(X)["y"], want(X["x"]))
    assert [s["op"] for s in m.explain(X).steps] == ["MatMul"], "bias and relu are folded in"
    np.testing.assert_allclose(m.run({**X, "b": B * 5})["y"], want(X["x"], b=B * 5))
    np.testing.assert_allclose(m.run({**X, "w": -W})["y"], want(X["x"], -W))
    np.testing.assert_allclose(m.run({**X, "w": -W, "b": B * 7})["y"], want(X["x"], -W, B * 7))
    np.testing.assert_allclose(m.run({**X, "b": B * 5})["y"], want(X["x"], b=B * 5))
    np.testing.assert_allclose(m.run(X)["y"], want(X["x"]))


def test_same_as_onnxruntime():
    ort = pytest.importorskip("onnxruntime")
    proto = model()
    session = ort.InferenceSession(proto.SerializeToString())
    m = fi.compile(proto)
    assert {i.name for i in session.get_overridable_initializers()} == {s.name for s in m.overridable}
    for feeds in (X, {**X, "w": 2 * W}, {**X, "w": np.ones((2, 5), np.float32), "b": np.zeros(5, np.float32)}):
        np.testing.assert_allclose(m.run(feeds)["y"], session.run(None, feeds)[0], rtol=1e-6)


def test_old_files_list_all_weights():
    m = fi.compile(model(ir_version=3))
    assert m.overridable == []
    np.testing.assert_allclose(m.run(X)["y"], want(X["x"]))
    with pytest.raises(fi.InputError, match="no input is called w"):
        m.run({**X, "w": W})


def test_asked_for_at_compile_time():
    for version in (3, 8):
        m = fi.compile(model(version), overridable=["w"])
        assert "w" in [s.name for s in m.overridable] and [s.name for s in m.inputs] == ["x"]
        np.testing.assert_allclose(m.run(X)["y"], want(X["x"]))
        np.testing.assert_allclose(m.run({**X, "w": -W})["y"], want(X["x"], -W))


def test_calls_explain_and_profile():
    m = fi.compile(model())
    x = X["x"]
    np.testing.assert_allclose(m(x), want(x))
    np.testing.assert_allclose(m(x, b=B * 2), want(x, b=B * 2))
    np.testing.assert_allclose(m(x=x, w=-W), want(x, -W))
    assert any(s["shape"] == [1, 3] for s in m.explain({**X, "b": B}).steps)
    assert m.profile({**X, "b": B}, runs=1).steps


def test_saved_program_keeps_defaults(tmp_path):
    fi.compile(model(), overridable=["b"]).save(tmp_path / "m.safetensors")
    m = fi.load(tmp_path / "m.safetensors")
    assert [s.name for s in m.inputs] == ["x"] and [s.name for s in m.overridable] == ["b"]
    np.testing.assert_allclose(m.run(X)["y"], want(X["x"]))
    np.testing.assert_allclose(m.run({**X, "b": B * 3})["y"], want(X["x"], b=B * 3))
    with pytest.raises(fi.InputError, match="no input is called w"):  # a constant of this file for good
        m.run({**X, "w": W})


def test_wrong_overrides():
    m = fi.compile(model())
    with pytest.raises(fi.InputError, match="'w'.*given float32\\[3,3\\], needed float32\\[2,n\\]"):
        m.run({**X, "w": np.ones((3, 3), np.float32)})
    with pytest.raises(fi.InputError, match="no input is called q"):
        m.run({**X, "q": W})
    with pytest.raises(fi.InputError, match="missing input: x"):
        m.run({"w": W})
    with pytest.raises(fi.ModelError, match="overridable: 'x'.*'w', 'b'"):
        fi.compile(model(), overridable=["x"])


def test_a_shape_that_is_overridden():
    """Nothing may be inferred from the default's content."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [12])
    s = helper.make_tensor_value_info("s", TensorProto.INT64, [2])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [helper.make_node("Reshape", ["x", "s"], ["r"]), helper.make_node("Softmax", ["r"], ["y"], axis=-1)]
    graph = helper.make_graph(nodes, "g", [x, s], [out], [numpy_helper.from_array(np.array([3, 4]), "s")])
    m = fi.compile(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    x = {"x": np.arange(12, dtype=np.float32)}
    assert m.run(x)["y"].shape == (3, 4)
    assert m.run({**x, "s": np.array([2, 6])})["y"].shape == (2, 6)


def test_inside_a_branch():
    then = helper.make_graph([helper.make_node("Identity", ["w"], ["t"])], "t", [], [onnx.ValueInfoProto(name="t")])
    other = helper.make_graph([helper.make_node("Neg", ["w"], ["e"])], "e", [], [onnx.ValueInfoProto(name="e")])
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Cast", ["s"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    m = fi.compile(model(nodes=nodes))
    np.testing.assert_array_equal(m.run(X)["y"], W)
    np.testing.assert_array_equal(m.run({**X, "w": W + 1})["y"], W + 1)
    np.testing.assert_array_equal(m.run({"x": 0 * X["x"], "w": W + 1})["y"], -W - 1)


def test_several_threads_make_one_program():
    m = fi.compile(model())
    results = []
    threads = [threading.Thread(target=lambda: results.append(m.run({**X, "b": B * 4})["y"])) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(results) == 4 and all(np.array_equal(r, results[0]) for r in results)


def test_command_line_gives_them():
    pytest.importorskip("typer")
    given = gather(fi.compile(model()), ["x:1x2"], ["b=1,2,3"], None, 0)
    assert sorted(given) == ["b", "x"] and given["b"].tolist() == [1, 2, 3]
