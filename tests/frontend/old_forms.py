# SPDX-License-Identifier: Apache-2.0
"""Models of old opsets, and the check that they compute the same after their upgrade."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from fastinfer.frontend import load
from fastinfer.frontend.check_graph import check_nodes

onnxruntime = pytest.importorskip("onnxruntime")
onnxruntime.set_default_logger_severity(4)

RNG = np.random.default_rng(0)


def rand(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def node_model(op, inputs, opset, n_outputs=1, free=(), **attributes):
    """One node of an old opset. free: indices of inputs without a declared shape."""
    names = ["" if a is None else f"x{i}" for i, a in enumerate(inputs)]
    node = helper.make_node(op, names, [f"y{i}" for i in range(n_outputs)], name="old", **attributes)
    ports = [
        helper.make_tensor_value_info(f"x{i}", helper.np_dtype_to_tensor_dtype(a.dtype), None if i in free else a.shape)
        for i, a in enumerate(inputs)
        if a is not None
    ]
    outputs = [helper.make_tensor_value_info(f"y{i}", TensorProto.UNDEFINED, None) for i in range(n_outputs)]
    graph = helper.make_graph([node], "g", ports, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def old_result(model, feeds):
    inferred = onnx.shape_inference.infer_shapes(model)
    for output in inferred.graph.output:  # deprecated operators have no inference
        if not output.type.tensor_type.elem_type:
            output.type.tensor_type.elem_type = TensorProto.FLOAT
    return onnxruntime.InferenceSession(inferred.SerializeToString()).run(None, feeds)


def check(op, inputs, opset, n_outputs=1, want=None, free=(), **attributes):
    model = node_model(op, inputs, opset, n_outputs, free, **attributes)
    feeds = {f"x{i}": a for i, a in enumerate(inputs) if a is not None}
    if want is None:
        want = old_result(model, feeds)
    loaded = load(model, native=[])
    check_nodes(loaded.graph, loaded.opset_imports, set())
    proto = ir.to_proto(loaded)
    assert [v.name for v in loaded.graph.outputs] == [f"y{i}" for i in range(n_outputs)]
    for got, expected in zip(ReferenceEvaluator(proto).run(None, feeds), want, strict=True):
        assert got.dtype == expected.dtype and got.shape == expected.shape
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    return loaded


def kinds(loaded):
    return [n.op_type for n in loaded.graph]
