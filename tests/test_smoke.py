# SPDX-License-Identifier: Apache-2.0
"""The engine itself on the smallest programs: planning, folding, aliasing, saving."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from support import build, node_model

import fastinfer as fi


def test_reshape_of_input_is_copied_to_the_output():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    m = build(node_model("Reshape", [x, np.array([3, -1])], constants=(1,)))
    y = m.run({"x0": x})["y0"]
    np.testing.assert_array_equal(y, x.reshape(3, 2))
    assert not np.shares_memory(x, y)


def test_reshape_target_known_only_at_run_time():
    x = np.arange(6, dtype=np.float32)
    m = build(node_model("Reshape", [x, np.array([3, 2])]))
    for target in ([3, 2], [2, -1], [6], [1, 6, 1]):
        y = m.run({"x0": x, "x1": np.array(target)})["y0"]
        np.testing.assert_array_equal(y, x.reshape(target))
    with pytest.raises(fi.InputError, match="under_test.*cannot reshape"):
        m.run({"x0": x, "x1": np.array([4, 2])})


def test_shape_arithmetic_is_folded():
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Reshape", ["x", "s"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    m = build(helper.make_model(helper.make_graph(nodes, "g", [x], [y])))
    for n in (1, 4, 0):
        a = np.random.rand(n, 3).astype(np.float32)
        np.testing.assert_array_equal(m(a), a)


def test_wrong_inputs_are_named():
    m = build(node_model("Identity", [np.zeros((2, 2), np.float32)]))
    with pytest.raises(fi.InputError, match="input 'x0': given float64"):
        m.run({"x0": np.zeros((2, 2))})
    with pytest.raises(fi.InputError, match="given float32\\[2\\]"):
        m.run({"x0": np.zeros(2, np.float32)})
    with pytest.raises(fi.InputError, match="missing input: x0"):
        m.run({"y": np.zeros(2, np.float32)})


def test_save_and_load(tmp_path):
    c = numpy_helper.from_array(np.array([2, -1]), "c")
    node = helper.make_node("Reshape", ["x", "c"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    m = build(helper.make_model(helper.make_graph([node], "g", [x], [y], [c])))
    m.save(tmp_path / "m.safetensors")
    a = np.random.rand(3, 4).astype(np.float32)
    np.testing.assert_array_equal(fi.load(tmp_path / "m.safetensors")(a), m(a))
