# SPDX-License-Identifier: Apache-2.0
"""Small models whose files the fuzz tests damage: a convolution net, a token model, one with control flow."""

import contextlib
import signal

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def _graph(nodes, inputs, outputs, weights, name="g"):
    ports = [helper.make_tensor_value_info(n, t, d) for n, t, d in inputs]
    outs = [helper.make_tensor_value_info(n, t, d) for n, t, d in outputs]
    initializers = [numpy_helper.from_array(a, n) for n, a in weights.items()]
    return helper.make_graph(nodes, name, ports, outs, initializers)


def _model(graph):
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def conv_net():
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((8, 3, 3, 3)).astype(np.float32),
        "b1": rng.standard_normal(8).astype(np.float32),
        "w2": rng.standard_normal((8, 1, 3, 3)).astype(np.float32),
        "w3": rng.standard_normal((5, 8)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2], name="c1"),
        helper.make_node("Relu", ["a"], ["b"], name="r1"),
        helper.make_node("Conv", ["b", "w2"], ["c"], group=8, pads=[1, 1, 1, 1], name="c2"),
        helper.make_node("MaxPool", ["c"], ["d"], kernel_shape=[2, 2], strides=[2, 2], name="p"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], name="gap"),
        helper.make_node("Flatten", ["e"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w3"], ["g"], transB=1, name="fc"),
        helper.make_node("Softmax", ["g"], ["y"], axis=1, name="sm"),
    ]
    g = _graph(nodes, [("x", TensorProto.FLOAT, ["n", 3, 12, 12])], [("y", TensorProto.FLOAT, ["n", 5])], weights)
    return _model(g), {"x": rng.standard_normal((2, 3, 12, 12)).astype(np.float32)}


def token_model():
    rng = np.random.default_rng(1)
    weights = {
        "table": rng.standard_normal((20, 8)).astype(np.float32),
        "w": rng.standard_normal((8, 8)).astype(np.float32),
        "scale": np.ones(8, np.float32),
        "shift": np.zeros(8, np.float32),
        "axes": np.array([1]),
        "target": np.array([0, -1]),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], name="embed"),
        helper.make_node("LayerNormalization", ["e", "scale", "shift"], ["n"], name="norm"),
        helper.make_node("MatMul", ["n", "w"], ["m"], name="mm"),
        helper.make_node("Add", ["m", "e"], ["s"], name="add"),
        helper.make_node("ReduceMean", ["s", "axes"], ["r"], keepdims=1, name="mean"),
        helper.make_node("Reshape", ["r", "target"], ["y"], name="reshape"),
    ]
    g = _graph(nodes, [("ids", TensorProto.INT64, ["n", "t"])], [("y", TensorProto.FLOAT, ["n", 8])], weights)
    return _model(g), {"ids": rng.integers(0, 20, (2, 7))}


def branching():
    rng = np.random.default_rng(2)
    w = rng.standard_normal((4, 4)).astype(np.float32)
    y = [("y", TensorProto.FLOAT, None)]
    z = [("z", TensorProto.FLOAT, None)]
    then = _graph([helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")], [], y, {}, "then")
    other = _graph([helper.make_node("Neg", ["x"], ["z"], name="neg")], [], z, {}, "else")
    body = _graph(
        [
            helper.make_node("Add", ["state", "state"], ["next"], name="double"),
            helper.make_node("Identity", ["cond"], ["go"], name="keep"),
        ],
        [("i", TensorProto.INT64, []), ("cond", TensorProto.BOOL, []), ("state", TensorProto.FLOAT, None)],
        [("go", TensorProto.BOOL, []), ("next", TensorProto.FLOAT, None)],
        {},
        "body",
    )
    nodes = [
        helper.make_node("If", ["flag"], ["branch"], then_branch=then, else_branch=other, name="if"),
        helper.make_node("Loop", ["trips", "", "branch"], ["out"], body=body, name="loop"),
    ]
    inputs = [("x", TensorProto.FLOAT, ["n", 4]), ("flag", TensorProto.BOOL, []), ("trips", TensorProto.INT64, [])]
    g = _graph(nodes, inputs, [("out", TensorProto.FLOAT, None)], {"w": w})
    feeds = {"x": rng.standard_normal((3, 4)).astype(np.float32), "flag": np.array(True), "trips": np.array(3)}
    return _model(g), feeds


SAMPLES = {"conv_net": conv_net, "token_model": token_model, "branching": branching}


class _TooLong(Exception):
    pass


@contextlib.contextmanager
def time_limit(seconds=2):
    """Ends the block quietly after some seconds; also a test that a running model can be interrupted."""

    def stop(*_):
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _TooLong:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
