# SPDX-License-Identifier: Apache-2.0
"""A whole QDQ model through the passes: the device's bits are the CPU's."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastinfer as fi

F = np.float32


class Qdq:
    """Collects nodes; every activation passes QuantizeLinear and DequantizeLinear, as quantisers write it."""

    def __init__(self):
        self.rng, self.nodes, self.weights = np.random.default_rng(0), [], []

    def const(self, value):
        self.weights.append(numpy_helper.from_array(np.asarray(value), f"w{len(self.weights)}"))
        return self.weights[-1].name

    def op(self, op, *inputs, **attrs):
        self.nodes.append(helper.make_node(op, list(inputs), [f"v{len(self.nodes)}"], **attrs))
        return self.nodes[-1].output[0]

    def qdq(self, x, scale, zero):
        s, z = self.const(F(scale)), self.const(np.uint8(zero))
        return self.op("DequantizeLinear", self.op("QuantizeLinear", x, s, z), s, z)

    def layer(self, op, x, shape, fan, *, scale, zero, act=None, axis=0, **attrs):
        w = self.rng.integers(-127, 128, shape).astype(np.int8)
        ws = (self.rng.uniform(0.5, 1, shape[axis]) / (73 * np.sqrt(fan))).astype(F)
        w = self.op(
            "DequantizeLinear", self.const(w), self.const(ws), self.const(np.zeros(shape[axis], np.int8)), axis=axis
        )
        y = self.op(op, x, w, self.const(self.rng.standard_normal(shape[axis]).astype(F) / 4), **attrs)
        return self.qdq(self.op(act, y) if act else y, scale, zero)

    def conv(self, x, cin, cout, k, stride=1, group=1, act="Relu", scale=0.015, zero=0):
        fan = cin // group * k * k
        pads = dict(pads=[k // 2] * 4, strides=[stride] * 2, group=group)
        return self.layer("Conv", x, (cout, cin // group, k, k), fan, scale=scale, zero=zero, act=act, **pads)


def network():
    n = Qdq()
    x = n.qdq("x", 0.03, 128)
    y = n.conv(x, 3, 16, 7, 2)
    y = n.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    z = n.conv(n.conv(y, 16, 40, 1), 40, 40, 3, group=40)
    z = n.conv(z, 40, 16, 1, act=None, scale=0.02, zero=120)
    y = n.qdq(n.op("Relu", n.op("Add", z, y)), 0.02, 0)
    y = n.conv(y, 16, 24, 3, 2)
    y = n.qdq(n.op("GlobalAveragePool", y), 0.012, 0)
    y = n.layer("Gemm", n.op("Flatten", y), (10, 24), 24, scale=0.02, zero=128, transB=1)
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["n", 3, 19, 18]), (y, None))
    ]
    graph = helper.make_graph(n.nodes, "net", ports[:1], ports[1:], n.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_cpus_bits(batch):
    x = np.random.default_rng(batch).standard_normal((batch, 3, 19, 18)).astype(F)
    cuda = fi.compile(network(), device="cuda")
    got, want = cuda(x), fi.compile(network())(x)
    assert len(np.unique(want)) > 5
    np.testing.assert_array_equal(got, want)
    text = str(cuda.explain({"x": x}))
    assert text.count("triton_conv8") >= 4 and "triton_depthwise8" in text and "triton_gemm8" in text, text
