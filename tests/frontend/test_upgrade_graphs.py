# SPDX-License-Identifier: Apache-2.0
"""Upgrades of graphs inside nodes, and the expansion of operators into their function bodies."""

import numpy as np
import onnx_ir as ir
import pytest
from old_forms import kinds, node_model, onnxruntime, rand
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from fastinfer.frontend import load


def scan_8(lengths, directions=None):
    """Running sums over axis 1 of a batch."""
    body = helper.make_graph(
        [helper.make_node("Add", ["s", "x"], ["t"]), helper.make_node("Identity", ["t"], ["o"])],
        "body",
        [helper.make_tensor_value_info(n, 1, [2]) for n in ("s", "x")],
        [helper.make_tensor_value_info(n, 1, [2]) for n in ("t", "o")],
    )
    more = {} if directions is None else {"directions": directions}
    node = helper.make_node(
        "Scan", ["lengths" if lengths else "", "s0", "xs"], ["s", "ys"], num_scan_inputs=1, body=body, **more
    )
    ports = [helper.make_tensor_value_info("s0", 1, [3, 2]), helper.make_tensor_value_info("xs", 1, [3, 4, 2])]
    if lengths:
        ports.append(helper.make_tensor_value_info("lengths", 7, [3]))
    outputs = [helper.make_tensor_value_info("s", 1, [3, 2]), helper.make_tensor_value_info("ys", 1, [3, 4, 2])]
    graph = helper.make_graph([node], "g", ports, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=8)


@pytest.mark.parametrize("lengths", [None, [4, 1, 3]])
@pytest.mark.parametrize("reverse", [0, 1])
def test_scan_8(lengths, reverse):
    s0, xs = rand(3, 2), rand(3, 4, 2)
    ys, last = np.zeros_like(xs), s0.copy()
    for b in range(3):
        n = 4 if lengths is None else lengths[b]
        for i, t in enumerate(reversed(range(n)) if reverse else range(n)):
            last[b] = last[b] + xs[b, t]
            ys[b, i] = last[b]
    feeds = {"s0": s0, "xs": xs, **({} if lengths is None else {"lengths": np.array(lengths)})}
    proto = ir.to_proto(load(scan_8(lengths is not None, [reverse])))
    # onnx.reference does not run scans backwards.
    got = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, feeds)
    np.testing.assert_allclose(got[0], last, rtol=1e-6)
    np.testing.assert_allclose(got[1], ys, rtol=1e-6)


def test_subgraphs_are_upgraded():
    def branch(axis):
        nodes = [helper.make_node("Unsqueeze", ["x"], ["u"], axes=[axis]), helper.make_node("Relu", ["u"], ["b"])]
        return helper.make_graph(nodes, f"b{axis}", [], [helper.make_tensor_value_info("b", 1, None)])

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch(0), else_branch=branch(1))
    ports = [helper.make_tensor_value_info("c", TensorProto.BOOL, []), helper.make_tensor_value_info("x", 1, [3])]
    graph = helper.make_graph([node], "g", ports, [helper.make_tensor_value_info("y", 1, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    evaluator = ReferenceEvaluator(ir.to_proto(load(model)))
    assert evaluator.run(None, {"c": np.array(True), "x": rand(3)})[0].shape == (1, 3)
    assert evaluator.run(None, {"c": np.array(False), "x": rand(3)})[0].shape == (3, 1)


def test_expansion_only_where_it_pays():
    x = rand(2, 3)
    model = node_model("Mish", [x], 22)
    assert kinds(load(model, native=["Mish"])) == ["Mish"]
    assert kinds(load(model, native=["Softplus", "Tanh"])) == ["Mish"]  # Mul is missing
    expanded = load(model, native=["Softplus", "Tanh", "Mul"])
    assert kinds(expanded) == ["Softplus", "Tanh", "Mul"]
    want = x * np.tanh(np.log1p(np.exp(x)))
    np.testing.assert_allclose(ReferenceEvaluator(ir.to_proto(expanded)).run(None, {"x0": x})[0], want, rtol=1e-5)


def test_expansion_by_input_types():
    x, scale, bias = rand(2, 6, 5), rand(6), rand(6)
    model = node_model("GroupNormalization", [x, scale, bias], 21, num_groups=3)
    native = ["Add", "Cast", "Concat", "Div", "Mul", "ReduceMean", "Reshape", "Shape", "Sqrt", "Sub"]
    expanded = load(model, native=native)
    assert "GroupNormalization" not in kinds(expanded)
    got = ReferenceEvaluator(ir.to_proto(expanded)).run(None, {"x0": x, "x1": scale, "x2": bias})[0]
    want = ReferenceEvaluator(model).run(None, {"x0": x, "x1": scale, "x2": bias})[0]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
