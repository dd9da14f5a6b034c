# SPDX-License-Identifier: Apache-2.0
"""Exit codes and JSON where the command line itself, or the disk, is at fault."""

import json

import onnx
import pytest
from onnx import TensorProto, helper

pytest.importorskip("typer")

import fastinfer
from fastinfer.cli.app import run


@pytest.fixture
def model(tmp_path):
    ports = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["a", 2]),
        helper.make_tensor_value_info("s", TensorProto.STRING, ["k"]),
    ]
    outs = [helper.make_tensor_value_info(n, t, None) for n, t in (("y", TensorProto.FLOAT), ("t", TensorProto.STRING))]
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("StringNormalizer", ["s"], ["t"], case_change_action="UPPER"),
    ]
    graph = helper.make_graph(nodes, "g", ports, outs)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return str(path)


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"fastinfer {fastinfer.__version__}\n"


def test_output_that_cannot_be_written(model, tmp_path, capsys):
    for command in (["compile", model, "-o"], ["run", model, "--input", "s=a,b", "-o"]):
        assert run([*command, str(tmp_path / "none" / "out.npz"), "--json"]) == 1
        answer = json.loads(capsys.readouterr().out)
        assert answer["exit_code"] == 1 and "No such file" in answer["error"]


def test_usage_errors_are_json_too(model, capsys):
    assert run(["run", model, "--no-such-option", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2
    assert run(["bench", model, "--tolerance", "-1", "--json"]) == 2
    assert "tolerance" in json.loads(capsys.readouterr().out)["error"]


def test_strings_and_names_given_twice(model, tmp_path, capsys):
    assert run(["run", model, "--input", "s=word,other", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"][1]["shape"] == [2]
    assert run(["run", model, "--shape", "x:1x2,x:3x2", "--json"]) == 5
    assert "'x' twice" in json.loads(capsys.readouterr().out)["error"]
    assert run(["run", model, "--input", "s=a,b", "--input", "s=c", "--json"]) == 5
