# SPDX-License-Identifier: Apache-2.0
"""A model of each datatype, and what keeps a model busy."""

import numpy as np
from onnx import TensorProto as T
from onnx import helper

TYPES = {
    "BOOL": T.BOOL, "INT8": T.INT8, "INT16": T.INT16, "INT32": T.INT32, "INT64": T.INT64, "UINT8": T.UINT8,
    "UINT16": T.UINT16, "UINT32": T.UINT32, "UINT64": T.UINT64, "FP16": T.FLOAT16, "FP32": T.FLOAT, "FP64": T.DOUBLE,
    "BF16": T.BFLOAT16, "BYTES": T.STRING,
}  # fmt: skip
SLOW = np.ones((400, 4), np.float32)  # some 0.1 s on one core for small_models.heavy: 20 GFLOP


def identity(code):
    """y = x of one type, any matrix."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "identity",
        [helper.make_tensor_value_info("x", code, ["a", "b"])], [helper.make_tensor_value_info("y", code, ["a", "b"])],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
