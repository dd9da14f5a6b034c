# SPDX-License-Identifier: Apache-2.0
"""BitCast: the same bytes under another type."""

import numpy as np
import pytest
from onnx import TensorProto
from support import build, check_node, node_model

import fastinfer as fi

TYPES = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32, "uint16": TensorProto.UINT16,
         "float16": TensorProto.FLOAT16, "uint64": TensorProto.UINT64, "float64": TensorProto.DOUBLE}  # fmt: skip


@pytest.mark.parametrize(("source", "target"), [("float32", "int32"), ("float16", "uint16"), ("uint64", "float64")])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 5)], ids=str)
def test_against_numpy(source, target, shape):
    x = (
        np.random.default_rng(0)
        .integers(0, 255, (*shape, np.dtype(source).itemsize), np.uint8)
        .view(source)
        .reshape(shape)
    )
    check_node("BitCast", [x], expected=[x.view(target)], to=TYPES[target])


def test_widths_must_agree():
    m = build(node_model("BitCast", [np.zeros(3, np.float32)], to=TensorProto.INT64))
    with pytest.raises(fi.InputError, match="under_test.*float32 as int64: their widths differ"):
        m(np.zeros(3, np.float32))
