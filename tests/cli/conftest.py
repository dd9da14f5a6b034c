# SPDX-License-Identifier: Apache-2.0
"""The command line, run in this process: `cli(...)` gives the exit code, what went to stdout and what to stderr."""

import json
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("typer")
pytest.importorskip("rich")


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def cli(capsys, monkeypatch):
    from fastinfer.cli import output
    from fastinfer.cli.app import run

    for console in (output.console, output.errors):
        monkeypatch.setattr(console, "_width", 400)  # nothing wraps or is cut

    def call(*arguments):
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        shown = capsys.readouterr()
        return Result(code, shown.out, shown.err)

    return call


def save(path, nodes, inputs, outputs, weights=(), opset=17):
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(a, n) for n, a in weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


@pytest.fixture(scope="session")
def network(tmp_path_factory):
    """x [n, 16, 16, 16] → a 3x3 convolution (large enough for Winograd), relu → y, and its mean → m."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="stage/conv.0", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"], name="stage/relu"),
        helper.make_node("ReduceMean", ["y"], ["m"], name="mean", axes=[2, 3], keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16, 16, 16])]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", "m")]
    weights = [("w", rng.standard_normal((16, 16, 3, 3)).astype(np.float32))]
    return save(tmp_path_factory.mktemp("cli") / "net.onnx", nodes, inputs, outputs, weights)


@pytest.fixture(scope="session")
def by_reference(tmp_path_factory):
    """A model with an operator that has no native form for its type."""
    nodes = [helper.make_node("StringConcat", ["a", "b"], ["y"], name="words")]
    ports = [helper.make_tensor_value_info(n, TensorProto.STRING, [2]) for n in ("a", "b", "y")]
    return save(tmp_path_factory.mktemp("cli") / "words.onnx", nodes, ports[:2], ports[2:], opset=20)
