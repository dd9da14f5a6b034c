# SPDX-License-Identifier: Apache-2.0
"""Models of a few bytes, as ONNX, and repositories of them."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from fastinfer.serve.messages import InferRequest, RequestedOutput, Tensor

F, S = TensorProto.FLOAT, TensorProto.STRING


def _model(nodes, inputs, outputs, weights=()):
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs],
        [numpy_helper.from_array(np.asarray(w), n) for n, w in weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def scale(factor, width=4):
    """y = factor · x, rows of `width`."""
    return _model(
        [helper.make_node("Mul", ["x", "f"], ["y"])],
        [("x", F, ["n", width])],
        [("y", F, ["n", width])],
        [("f", np.float32(factor))],
    )


def two_outputs():
    return _model(
        [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])],
        [("a", F, ["n", 2]), ("b", F, ["n", 2])],
        [("sum", F, ["n", 2]), ("difference", F, ["n", 2])],
    )


def accumulate():
    """total = held + x, which is both the output and the next state."""
    return _model(
        [helper.make_node("Add", ["held", "x"], ["total"]), helper.make_node("Identity", ["total"], ["next"])],
        [("x", F, ["n", 1]), ("held", F, ["n", 1])],
        [("total", F, ["n", 1]), ("next", F, ["n", 1])],
    )


def echo():
    return _model([helper.make_node("Identity", ["words"], ["same"])], [("words", S, ["n"])], [("same", S, ["n"])])


def pick():
    """y = row `index` of a table of 3: an index out of range fails when it runs."""
    table = np.arange(6, dtype=np.float32).reshape(3, 2)
    return _model(
        [helper.make_node("Gather", ["table", "index"], ["y"])],
        [("index", TensorProto.INT64, ["n"])],
        [("y", F, ["n", 2])],
        [("table", table)],
    )


def mlp(width=256, seed=0):
    """Three layers of `width`: 0.8 MB of weights at 256."""
    rng = np.random.default_rng(seed)
    weights = [(f"w{i}", (rng.standard_normal((width, width)) / 16).astype(np.float32)) for i in range(3)]
    nodes = []
    for i in range(3):
        nodes += [
            helper.make_node("MatMul", [f"h{i}" if i else "x", f"w{i}"], [f"m{i}"]),
            helper.make_node("Relu", [f"m{i}"], [f"h{i + 1}" if i < 2 else "y"]),
        ]
    return _model(nodes, [("x", F, ["n", width])], [("y", F, ["n", width])], weights)


def heavy(layers=24, width=1024):
    """y = x, slowly: `layers` products with an identity of `width`, 2 · layers · width² operations a row of 4."""
    first = np.eye(4, width, dtype=np.float32)
    nodes = [helper.make_node("MatMul", ["x", "first"], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{i}", "identity"], [f"h{i + 1}"]) for i in range(layers)]
    nodes += [helper.make_node("MatMul", [f"h{layers}", "last"], ["y"])]
    weights = [("first", first), ("identity", np.eye(width, dtype=np.float32)), ("last", first.T.copy())]
    return _model(nodes, [("x", F, ["n", 4])], [("y", F, ["n", 4])], weights)


def lookup(size):
    """y = 2x, from a table: fails when it runs for an x of `size` or more."""
    table = 2.0 * np.arange(size, dtype=np.float32)
    nodes = [helper.make_node("Cast", ["x"], ["index"], to=TensorProto.INT64),
             helper.make_node("Gather", ["table", "index"], ["y"])]  # fmt: skip
    return _model(nodes, [("x", F, ["n", 4])], [("y", F, ["n", 4])], [("table", table)])


def save(path, model):
    path.write_bytes(model.SerializeToString())
    return path


def put(root, name, version, model, settings=None, file="model.onnx"):
    """Writes a model as one version of a repository; returns its folder."""
    folder = root / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(model.SerializeToString())
    if settings is not None:
        (root / name / "model.toml").write_text(settings)
    return folder


def request(model, *, version="", outputs=None, **arrays):
    """A request; other fields are set on what is returned."""
    names = {"f": "FP", "i": "INT", "u": "UINT"}
    tensors = []
    for name, array in arrays.items():
        array = np.asarray(array)
        kind = "BYTES" if array.dtype == object else f"{names[array.dtype.kind]}{array.dtype.itemsize * 8}"
        tensors.append(Tensor(name, kind, array))
    wanted = None if outputs is None else [RequestedOutput(o) for o in outputs]
    return InferRequest(model, tensors, version=version, outputs=wanted)


def rows(*values):
    return np.array(values, np.float32)


def ones(n=1, width=4):
    return np.ones((n, width), np.float32)


async def value(service, model, **fields):
    """The first element of output y for ones."""
    asked = request(model, x=ones())
    for key, field in fields.items():
        setattr(asked, key, field)
    return float((await service.infer(asked)).outputs[0].array.flat[0])
