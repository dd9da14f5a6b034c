# SPDX-License-Identifier: Apache-2.0
"""Small networks of the real kinds, as ONNX without torch: for property tests over whole models.

Each function returns (ModelProto, make(rng, n) → feeds with batch n)."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

F = TensorProto.FLOAT


class Net:
    """Collects nodes and weights; every call adds a node and returns its output's name."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.weights, self.inputs = [], [], []

    def input(self, name, shape, dtype=F):
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def const(self, array):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, *shape, fan=None):
        scale = np.sqrt(2 / (fan or np.prod(shape[1:])))
        return self.const((self.rng.standard_normal(shape) * scale).astype(np.float32))

    def __call__(self, op, *inputs, outputs=1, **attrs):
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=f"{op.lower()}{len(self.nodes)}", **attrs))
        return names[0] if outputs == 1 else names

    def conv(self, x, cin, cout, k, stride=1, group=1, act="Relu"):
        y = self("Conv", x, self.weight(cout, cin // group, k, k), self.const(self.rng.standard_normal(cout).astype(np.float32)),
                 pads=[k // 2] * 4, strides=[stride] * 2, group=group)  # fmt: skip
        return self(act, y) if act else y

    def linear(self, x, cin, cout):
        return self("Add", self("MatMul", x, self.weight(cin, cout, fan=cin)), self.const(np.zeros(cout, np.float32)))

    def norm(self, x, width):
        return self(
            "LayerNormalization", x, self.const(np.ones(width, np.float32)), self.const(np.zeros(width, np.float32))
        )

    def model(self, *outputs):
        outs = [helper.make_tensor_value_info(o, TensorProto.UNDEFINED, None) for o in outputs]
        for o in outs:
            o.type.tensor_type.elem_type = F
        graph = helper.make_graph(self.nodes, "net", self.inputs, outs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def residual_cnn():
    """A stem, two residual stages with 3x3 convolutions (Winograd's sizes and below), a strided step, a classifier."""
    n = Net(0)
    x = n.input("x", ["n", 3, 64, 64])
    y = n("MaxPool", n.conv(x, 3, 32, 7, 2), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for cin, cout, stride in ((32, 32, 1), (32, 64, 2)):
        r = n.conv(n.conv(y, cin, cout, 3, stride), cout, cout, 3, act=None)
        skip = y if cin == cout else n.conv(y, cin, cout, 1, stride, act=None)
        y = n("Relu", n("Add", r, skip))
    y = n("Flatten", n("GlobalAveragePool", y))
    y = n("Gemm", y, n.weight(10, 64), n.const(np.zeros(10, np.float32)), transB=1)
    return n.model(y), lambda rng, b: {"x": rng.standard_normal((b, 3, 64, 64)).astype(np.float32)}


def mobile_cnn():
    """Inverted residuals with depthwise convolutions, squeeze and excitation, HardSwish."""
    n = Net(1)
    x = n.input("x", ["n", 3, 40, 40])
    y = n.conv(x, 3, 16, 3, 2, act="HardSwish")
    for stride in (1, 2):
        h = n.conv(y, 16, 48, 1, act="HardSwish")
        h = n.conv(h, 48, 48, 5 if stride == 1 else 3, stride, group=48, act="HardSwish")
        s = n.conv(n("GlobalAveragePool", h), 48, 12, 1)
        h = n("Mul", h, n.conv(s, 12, 48, 1, act="HardSigmoid"))
        h = n.conv(h, 48, 16, 1, act=None)
        y = n("Add", y, h) if stride == 1 else h
    y = n("Resize", y, "", n.const(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    return n.model(y), lambda rng, b: {"x": rng.standard_normal((b, 3, 40, 40)).astype(np.float32)}


def encoder():
    """Two transformer encoder layers with an attention mask, decomposed as exporters write them."""
    n, d, heads, hd = Net(2), 96, 3, 32
    ids, mask = n.input("ids", ["n", "t"], TensorProto.INT64), n.input("mask", ["n", "t"], F)
    y = n.norm(n("Gather", n.weight(50, d, fan=1), ids), d)
    bias = n(
        "Mul",
        n("Sub", n.const(np.float32(1)), n("Unsqueeze", mask, n.const(np.array([1, 2])))),
        n.const(np.float32(-1e4)),
    )
    split = n.const(np.array([0, 0, heads, hd]))
    for _ in range(2):
        q, k, v = (n("Reshape", n.linear(y, d, d), split) for _ in range(3))
        q, v = (n("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
        k = n("Transpose", k, perm=[0, 2, 3, 1])
        s = n("Div", n("MatMul", q, k), n.const(np.float32(np.sqrt(hd))))
        a = n("MatMul", n("Softmax", n("Add", s, bias), axis=-1), v)
        a = n("Reshape", n("Transpose", a, perm=[0, 2, 1, 3]), n.const(np.array([0, 0, d])))
        y = n.norm(n("Add", y, n.linear(a, d, d)), d)
        h = n.linear(y, d, 2 * d)
        erf = n("Erf", n("Div", h, n.const(np.float32(np.sqrt(2)))))
        gelu = n("Mul", n("Mul", h, n("Add", erf, n.const(np.float32(1)))), n.const(np.float32(0.5)))
        y = n.norm(n("Add", y, n.linear(gelu, 2 * d, d)), d)

    def feeds(rng, b):
        mask = np.ones((b, 19), np.float32)
        mask[:, 15:] = 0
        return {"ids": rng.integers(0, 50, (b, 19)), "mask": mask}

    return n.model(y), feeds


def recurrent():
    """Bidirectional LSTM and a GRU over embeddings, mean over time, classifier."""
    n, d = Net(3), 40
    x = n.input("x", ["n", 12, d])
    y = n("Transpose", x, perm=[1, 0, 2])
    y = n("LSTM", y, n.weight(2, 4 * 24, d, fan=d), n.weight(2, 4 * 24, 24, fan=24), hidden_size=24, direction="bidirectional",
          outputs=3)[0]  # fmt: skip
    y = n("Reshape", n("Transpose", y, perm=[0, 2, 1, 3]), n.const(np.array([0, 0, 48])))
    y = n("GRU", y, n.weight(1, 3 * 16, 48, fan=48), n.weight(1, 3 * 16, 16, fan=16), hidden_size=16, outputs=2)[0]
    y = n("Squeeze", y, n.const(np.array([1])))
    y = n("ReduceMean", n("Transpose", y, perm=[1, 0, 2]), n.const(np.array([1])), keepdims=0)
    y = n.linear(y, 16, 5)
    return n.model(y), lambda rng, b: {"x": rng.standard_normal((b, 12, d)).astype(np.float32)}


NETS = {"residual_cnn": residual_cnn, "mobile_cnn": mobile_cnn, "encoder": encoder, "recurrent": recurrent}
