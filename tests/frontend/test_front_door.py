# SPDX-License-Identifier: Apache-2.0
"""What a user of ONNX Runtime expects of compile(), calls and copies; and what must be said when it cannot be."""

import copy
import os
import pickle

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastinfer as fi
from fastinfer.bench import HALF_TOLERANCE, compare

X = np.arange(-6, 6, dtype=np.float32).reshape(3, 4)
FLOAT = TensorProto.FLOAT


def value(name, dtype=FLOAT, shape=None):
    return helper.make_tensor_value_info(name, dtype, shape)


def proto(nodes, inputs, outputs, initializers=(), **more):
    graph = helper.make_graph(nodes, "net", inputs, outputs, list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10, **more)


def relu(*outputs, **more):
    return proto([helper.make_node("Relu", ["x"], ["y"])], [value("x", FLOAT, ["a", "b"])], list(outputs), **more)


def test_declared_outputs_are_checked():
    with pytest.raises(
        fi.ModelError, match=r"output 'y': the model declares y: int64\[a,b\], but computes y: float32\[3,4\]"
    ):
        fi.compile(relu(value("y", TensorProto.INT64, ["a", "b"]))).run({"x": X})
    model = fi.compile(relu(value("y", FLOAT, [7, 4])))
    with pytest.warns(UserWarning, match=r"declares y: float32\[7,4\], but computes y: float32\[3,4\]"):
        model(X)
    assert model.outputs[0].shape == ("?0", 4)
    with pytest.warns(UserWarning):
        model = fi.compile(relu(value("y", FLOAT, [3])))
        model.run({"x": X})
    assert model.outputs[0].shape is None


def test_equal_names_are_equal_extents():
    inputs = [value("u", FLOAT, ["n", 4]), value("v", FLOAT, ["n", 4]), value("w", FLOAT, ["?", 4])]
    nodes = [helper.make_node("Add", ["u", "v"], ["t"]), helper.make_node("Add", ["t", "w"], ["y"])]
    model = fi.compile(proto(nodes, inputs, [value("y")]))
    np.testing.assert_allclose(model(X, X, X[:1]), X + X + X[:1])  # "?" is no name
    with pytest.raises(
        fi.InputError, match=r"'v': given float32\[1,4\], needed float32\[n,4\], where n is 3 \(from input 'u'\)"
    ):
        model(X, X[:1], X)


def external(folder):
    w = numpy_helper.from_array(np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32), "w")
    model = proto([helper.make_node("MatMul", ["x", "w"], ["y"])], [value("x", FLOAT, ["n", 4])], [value("y")], [w])
    path = os.path.join(folder, "model.onnx")
    onnx.save(model, path, save_as_external_data=True, location="model.onnx_data", size_threshold=0)
    return path


def test_hugging_face_cache(tmp_path):
    """snapshots/HASH/onnx/model.onnx → ../../../blobs/H1, model.onnx_data → ../../../blobs/H2."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc" / "onnx"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    want = fi.compile(external(blobs))(X)
    (blobs / "model.onnx").rename(blobs / "h1")
    (blobs / "model.onnx_data").rename(blobs / "h2")
    (snapshot / "model.onnx").symlink_to("../../../blobs/h1")
    (snapshot / "model.onnx_data").symlink_to("../../../blobs/h2")
    np.testing.assert_array_equal(fi.compile(snapshot / "model.onnx")(X), want)
    elsewhere = tmp_path / "h2"
    (blobs / "h2").rename(elsewhere)
    (snapshot / "model.onnx_data").unlink()
    (snapshot / "model.onnx_data").symlink_to(elsewhere)
    with pytest.raises(fi.ModelError, match="is a link that leaves the model's directory"):
        fi.compile(snapshot / "model.onnx")


def conv_net():
    w, s = np.ones((16, 3, 3, 3), np.float32), np.ones(16, np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4, name="/stem/Conv"),
        helper.make_node("BatchNormalization", ["c", "s", "s", "s", "s"], ["b"], name="/stem/BN"),
        helper.make_node("Relu", ["b"], ["r"], name="/stem/Relu"),
        helper.make_node("MaxPool", ["r"], ["y"], kernel_shape=[2, 2], name="/pool"),
    ]
    weights = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(s, "s")]
    return proto(nodes, [value("x", FLOAT, [1, 3, 8, 8])], [value("y")], weights)


def test_nodes_keep_their_names(tmp_path):
    model = fi.compile(conv_net())
    steps = model.explain().steps
    conv = next(s for s in steps if s["op"] == "Conv")
    assert conv["label"] == "node '/stem/Conv' (fastinfer.Conv)"
    assert {"/stem/BN", "/stem/Relu"} <= set(conv["also"])
    assert any("'/pool'" in s["label"] for s in steps) and not any("/fi." in s["label"] for s in steps)
    assert "with /stem/Relu" in str(model.explain()) or "with /stem/BN" in str(model.explain())
    assert next(s for s in model.profile({"x": np.ones((1, 3, 8, 8), np.float32)}, 1).steps if s["op"] == "Conv")[
        "also"
    ]


def test_two_compilations_give_the_same_file(tmp_path):
    files = []
    for name in ("a", "b"):
        fi.compile(conv_net()).save(tmp_path / name)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]


def test_copies(tmp_path):
    model = fi.compile(conv_net(), threads=1)
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(other(x), model(x))
        assert other.threads == 1 and other.inputs == model.inputs


def test_choice_of_outputs_and_metadata(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    source = proto(nodes, [value("x", FLOAT, ["a", 4])], [value("y"), value("z")], producer_name="test")
    helper.set_model_props(source, {"classes": "cat,dog"})
    model = fi.compile(source)
    assert list(model.run({"x": X}, ["z"])) == ["z"] and list(model.run({"x": X}, outputs=("z", "y"))) == ["z", "y"]
    with pytest.raises(fi.InputError, match="no output is called 'q'; the model has: y, z"):
        model.run({"x": X}, ["q"])
    model.save(tmp_path / "m.safetensors")
    for m in (model, fi.load(tmp_path / "m.safetensors")):
        assert m.metadata["classes"] == "cat,dog" and m.metadata["producer_name"] == "test"


def test_python_numbers_take_the_type_that_is_needed():
    nodes = [helper.make_node("Mul", ["x", "s"], ["y"]), helper.make_node("Gather", ["x", "i"], ["z"])]
    inputs = [value("x", FLOAT, ["a", 4]), value("s", FLOAT, []), value("i", TensorProto.INT32, ["k"])]
    model = fi.compile(proto(nodes, inputs, [value("y"), value("z")]))
    for s in (2, 2.0, np.float32(2)):
        y, z = model(X.tolist(), s, [0, 2])
        np.testing.assert_array_equal(y, X * 2)
        np.testing.assert_array_equal(z, X[[0, 2]])
    np.testing.assert_array_equal(model.run({"x": [X[0], X[1]], "s": 2, "i": [1]})["y"], X[:2] * 2)
    for bad in ([0.5], [2**40]):
        with pytest.raises(fi.InputError, match="'i': given (float64|int64).*needed int32"):
            model(X, 2, bad)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([[1.0], [2.0, 3.0]], "list.*cannot be made input 'x', which needs x: float32"),
        (None, "'x': None was given, needed x: float32"),
        ("abc", "'x': 'abc' was given, needed"),
        (np.zeros((3, 4), object), "'x': given object"),
        ({"a": 1}, "an input of type dict was given; needed"),
    ],
)
def test_wrong_inputs(given, words):
    model = fi.compile(relu(value("y")))
    with pytest.raises(fi.InputError, match=words):
        model.run({"x": given})
    with pytest.raises(fi.InputError, match=words):
        model(given)


def test_wrong_torch_inputs():
    torch = pytest.importorskip("torch")
    model = fi.compile(relu(value("y")))
    with pytest.raises(fi.InputError, match="layout torch.sparse_coo was given; call to_dense"):
        model(torch.zeros(3, 4).to_sparse())

    class Exports:
        def __dlpack__(self, *args, **kwargs):
            return torch.zeros(3, 4).bfloat16().__dlpack__(*args, **kwargs)

        def __dlpack_device__(self):
            return torch.zeros(1).__dlpack_device__()

    with pytest.raises(fi.InputError, match="Exports that was given cannot be made input 'x'"):
        model(Exports())


def test_wrong_calls(tmp_path):
    model = fi.compile(relu(value("y")))
    for given in ([X], None):
        with pytest.raises(fi.InputError, match="needed: a dict with x"):
            model.run(given)
    for threads in ("2", 1.5, 0):
        with pytest.raises(fi.InputError, match="threads=.*needed: a whole number, at least 1"):
            fi.compile(relu(value("y")), threads=threads)
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(fi.ModelError, match="cannot be read"):
            fi.load(path)


def test_half_models_have_their_own_tolerance():
    half = proto(
        [helper.make_node("Relu", ["x"], ["y"])],
        [value("x", TensorProto.FLOAT16, [2])],
        [value("y", TensorProto.FLOAT16)],
    )
    result = compare(fi.compile(half), {"x": np.ones(2, np.float16)}, against=(), seconds=0.0)
    assert result.tolerance == HALF_TOLERANCE
