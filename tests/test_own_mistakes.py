# SPDX-License-Identifier: Apache-2.0
"""A mistake of this package reaches the caller as it is; what a model breaks is a ModelError."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fastinfer as fi
from fastinfer import passes
from fastinfer.errors import is_own_mistake


def proto():
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ports[:1], ports[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def of_this_package(source):
    """A function whose code says that it stands in a file of ours."""
    names: dict = {"np": np}
    exec(compile(f"def wrong(*args, **kwargs):\n    {source}", passes.__file__, "exec"), names)
    return names["wrong"]


@pytest.mark.parametrize("source, kind", [("None.shape", AttributeError), ("len(3)", TypeError), ("absent", NameError)])
def test_ours_goes_through(monkeypatch, source, kind):
    monkeypatch.setattr(passes, "run_pipeline", of_this_package(source))
    with pytest.raises(kind) as caught:
        fi.compile(proto())
    assert not isinstance(caught.value, fi.ModelError)


@pytest.mark.parametrize("source", ["{}['k']", "[][0]", "1 / 0", "np.zeros(2).reshape(3)", "np.add()"])
def test_the_models_becomes_a_model_error(monkeypatch, source):
    monkeypatch.setattr(passes, "run_pipeline", of_this_package(f"return {source}"))
    if source == "np.add()":  # raised in C, called from our line: that line is wrong
        with pytest.raises(TypeError):
            fi.compile(proto())
        return
    with pytest.raises(fi.ModelError, match="optimizing the model failed"):
        fi.compile(proto())


def test_others_type_errors_are_not_ours():
    try:
        onnx.helper.make_tensor_value_info("x", "no type", [object()])
    except Exception as error:
        assert not is_own_mistake(error)
    assert not is_own_mistake(TypeError("never raised"))


def test_torch_ways(monkeypatch):
    torch = pytest.importorskip("torch")
    from fastinfer.frontend import torch_frontend

    monkeypatch.setattr(torch_frontend, "_of_module", of_this_package("None.graph"))
    with pytest.raises(AttributeError, match="graph"):
        fi.compile(torch.nn.ReLU(), (torch.zeros(3),))

    class Untraceable(torch.nn.Module):
        def forward(self, x):
            raise TypeError("the module's own")

    with pytest.raises(fi.UnsupportedError, match="the module's own"):
        fi.compile(Untraceable(), (torch.zeros(3),))


@pytest.mark.parametrize("text", [b"Relu", b"node 7"])
def test_names_that_are_not_text(text):
    source = proto()
    source.graph.node[0].name = "node 7"
    with pytest.raises(fi.ModelError, match="is not text in UTF-8: b'"):
        fi.compile(source.SerializeToString().replace(text, text[:-1] + b"\xff"))
