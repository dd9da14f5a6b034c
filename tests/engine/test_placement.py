# SPDX-License-Identifier: Apache-2.0
"""Concatenations along the last axis: inputs computed in place, Splits as views, and everybody else's dense copies."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from support import ISAS, build

import fastinfer as fi
from fastinfer import _core

RNG = np.random.default_rng(1)


class Graph:
    """Channels-last nodes on [N, H, W, C] float32."""

    def __init__(self) -> None:
        self.nodes, self.constants = [], []

    def constant(self, value) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def node(self, op, inputs, n=1, domain="", **attrs):
        outputs = [f"v{len(self.nodes)}_{i}" for i in range(n)]
        self.nodes.append(helper.make_node(op, inputs, outputs, name=outputs[0], domain=domain, **attrs))
        return outputs if n > 1 else outputs[0]

    def conv(self, x, cin, cout, k=3, residual=None, stride=1, activation="relu"):
        w = self.constant((RNG.standard_normal((cout, cin, k, k)) / np.sqrt(cin * k * k)).astype(np.float32))
        b = self.constant(RNG.standard_normal(cout).astype(np.float32))
        return self.node("Conv", [x, w, b] + ([residual] if residual else []), domain="fastinfer", channels_last=1,
                         pads=[k // 2] * 4, strides=[stride] * 2, activation=activation)  # fmt: skip

    def model(self, outputs, channels):
        ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "h", "w", channels])]
        outs = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
        graph = helper.make_graph(self.nodes, "g", ports, outs, self.constants)
        imports = [helper.make_opsetid("", 26), helper.make_opsetid("fastinfer", 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=11)


def c2f(g: Graph, kernel=3, activation="silu"):
    """The block of YOLOv8: a split, a residual chain, all of it concatenated."""
    y = g.conv("x", 16, 48, 1, activation=activation)
    a, b = g.node("Split", [y, g.constant(np.array([24, 24]))], 2, axis=-1)
    m = g.conv(g.conv(b, 24, 24, kernel, activation=activation), 24, 24, kernel, residual=b, activation=activation)
    return [g.conv(g.node("Concat", [a, b, m], axis=3), 72, 20, 1)]


def unet(g: Graph):
    """A skip connection that is also pooled, a transposed convolution beside it."""
    skip = g.conv("x", 16, 20)
    pooled = g.node("MaxPool", [skip], domain="fastinfer", channels_last=1, kernel_shape=[2, 2], strides=[2, 2])
    w = g.constant(RNG.standard_normal((20, 12, 2, 2)).astype(np.float32))
    up = g.node("ConvTranspose", [pooled, w], domain="fastinfer", channels_last=1, strides=[2, 2])
    return [g.conv(g.node("Concat", [skip, up], axis=-1), 32, 16)]


def sppf(g: Graph):
    """Poolings in a chain, each of them concatenated."""
    parts = [g.conv("x", 16, 17, 1)]
    for _ in range(3):
        parts.append(g.node("MaxPool", [parts[-1]], domain="fastinfer", channels_last=1, kernel_shape=[5, 5],
                            pads=[2, 2, 2, 2]))  # fmt: skip
    return [g.node("Concat", parts, axis=3), g.node("Relu", [g.node("Concat", parts[1:], axis=3)])]


def awkward(g: Graph):
    """Values used twice, by operators that want them dense, reshaped, as outputs; a concatenation of concatenations."""
    a, b, c = g.conv("x", 16, 9), g.conv("x", 16, 32, stride=1), g.conv("x", 16, 16)
    first = g.node("Concat", [a, a, b], axis=3)
    second = g.node("Concat", [first, c, b, "x"], axis=-1)
    dense = g.node("Mul", [a, a])
    flat = g.node("Reshape", [b, g.constant(np.array([0, -1]))])
    again = g.node("Transpose", [b], perm=[0, 3, 1, 2])
    left, right = g.node("Split", [second, g.constant(np.array([40, 74]))], 2, axis=-1)
    return [first, second, dense, flat, again, c, g.node("Neg", [left]), right, g.node("Sigmoid", [second])]


def split_only_partly_in_place(g: Graph):
    y = g.conv("x", 16, 40)
    a, b, c = g.node("Split", [y, g.constant(np.array([8, 16, 16]))], 3, axis=-1)
    return [g.node("Relu", [g.node("Concat", [b, a], axis=-1)]), g.conv(c, 16, 16),
            g.node("Relu", [g.node("Concat", [g.node("Add", [b, c]), c, y], axis=-1)])]  # fmt: skip


def windows_of_a_view(g: Graph):
    """Every convolution kernel reads and writes rows that lie apart: direct, strided, grouped by size, few channels."""
    y = g.conv("x", 16, 37, 1)
    a, b = g.node("Split", [y, g.constant(np.array([34, 3]))], 2, axis=-1)
    parts = [a, b, g.conv(a, 34, 5, 5), g.conv(b, 3, 30, 3), g.conv(a, 34, 33, 1)]
    return [g.conv(g.node("Concat", parts, axis=-1), 105, 16, 3, stride=2)]


NETS = [c2f, unet, sppf, awkward, split_only_partly_in_place, windows_of_a_view]


@pytest.mark.parametrize("shape", [(2, 12, 16, 16), (1, 40, 38, 16), (1, 2, 2, 16), (0, 4, 4, 16)], ids=str)
@pytest.mark.parametrize("net", NETS, ids=lambda f: f.__name__)
def test_same_as_each_node_alone(net, shape):
    """Against the nodes one by one, each as a program of its own, whose values are dense: the same bits."""
    g = Graph()
    outputs = net(g)
    model = g.model(outputs, 16)
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    for isa in ISAS:
        _core.force_isa(isa)
        try:
            values = {"x": x, **{c.name: numpy_helper.to_array(c) for c in g.constants}}
            for node in g.nodes:
                values.update(alone(node, g, values))
            for threads in (1, 2):
                got = build(model, threads=threads).run({"x": x})
                for name in outputs:
                    np.testing.assert_array_equal(got[name], values[name], err_msg=f"{isa}, {threads} threads, {name}")
        finally:
            _core.force_isa(_core.detected_isa())


def alone(node, g: Graph, values):
    names = [n for n in node.input if not n.startswith("c")]
    constants = [c for c in g.constants if c.name in node.input]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [f"{n}{i}" for i in range(values[n].ndim)])
             for n in dict.fromkeys(names)]  # fmt: skip
    outs = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in node.output]
    imports = [helper.make_opsetid("", 26), helper.make_opsetid("fastinfer", 1)]
    graph = helper.make_graph([node], "g", ports, outs, constants)
    model = helper.make_model(graph, opset_imports=imports, ir_version=11)
    if node.op_type in ("Concat", "Split"):
        return dict(zip(node.output, ReferenceEvaluator(model).run(None, {n: values[n] for n in names}), strict=True))
    return build(model).run({n: values[n] for n in names})


@pytest.mark.parametrize("net", [c2f, unet])
def test_nothing_is_copied(net):
    g = Graph()
    model = build(g.model(net(g), 16))
    steps = [s["kernel"] for s in model.explain({"x": np.zeros((1, 16, 16, 16), np.float32)}).steps]
    assert not [s for s in steps if "copy" in s], steps


def test_what_does_not_fit_is_still_said():
    g = Graph()
    model = g.model([g.node("Concat", [g.conv("x", 16, 8), g.conv("x", 16, 8, stride=2)], axis=3)], 16)
    with pytest.raises(fi.InputError, match="cannot concatenate"):
        build(model).run({"x": np.zeros((1, 8, 8, 16), np.float32)})
