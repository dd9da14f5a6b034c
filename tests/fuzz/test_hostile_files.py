# SPDX-License-Identifier: Apache-2.0
"""Model files that reach for other files, or are something else: cases 2, 4, 5, 6, 13 and 14 of docs/failure-cases.md."""

import os
import pickle
import struct
import zipfile

import numpy as np
import onnx
import pytest
from hostile import MAX, B, F, X, attempt, branch, identity, model, port
from onnx import AttributeProto, TensorProto, helper, numpy_helper

import fastinfer as fi

# ------------------------------------------------------------------------------------------- 2, 4, 5, 6: external data


def external(tmp_path, **entries):
    """A tensor of 4 floats in a file beside the model; `secret` is one outside."""
    (tmp_path / "m").mkdir(exist_ok=True)
    (tmp_path / "m" / "w.bin").write_bytes(X.tobytes())
    (tmp_path / "secret").write_bytes(X.tobytes())
    made = TensorProto(name="w", data_type=F, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "../secret", **entries}.items():
        made.external_data.add(key=key, value=str(value))
    return made


def in_constant(t):
    return model([helper.make_node("Constant", [], ["y"], value=t)])


def in_subgraph(t):
    inner = branch(helper.make_node("Identity", ["w"], ["z"]), [t])
    return model([helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)], [port("c", B, ())])


def in_constant_of_a_subgraph(t):
    inner = branch(helper.make_node("Constant", [], ["z"], value=t))
    return model([helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)], [port("c", B, ())])


def in_a_function(t):
    body = [helper.make_node("Constant", [], ["o"], value=t)]
    function = helper.make_function("own", "f", [], ["o"], body, [helper.make_opsetid("", 21)])
    return model([helper.make_node("f", [], ["y"], domain="own")], functions=[function], imports=[("own", 1)])


def in_sparse(t, part="values"):
    good = numpy_helper.from_array(np.array([1], np.int64 if part == "values" else np.float32), "w")
    parts = {"values": t, "indices": good} if part == "values" else {"values": good, "indices": t}
    parts["values"].name = "w"
    made = model([identity()])
    made.graph.sparse_initializer.append(onnx.SparseTensorProto(dims=[9], **parts))
    return made


def in_sparse_indices(t):
    return in_sparse(t, "indices")


def in_a_list_attribute(t):
    node = helper.make_node("Constant", [], ["y"])
    node.attribute.append(AttributeProto(name="value", type=AttributeProto.TENSORS, tensors=[t]))
    return model([node])


PLACES = [
    in_constant,
    in_subgraph,
    in_constant_of_a_subgraph,
    in_a_function,
    in_sparse,
    in_sparse_indices,
    in_a_list_attribute,
]


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_contained_wherever_it_stands(place, tmp_path):
    path = tmp_path / "m" / "model.onnx"
    for location in ("../secret", tmp_path / "secret", "/dev/zero"):
        made = place(external(tmp_path, location=location))
        path.write_bytes(made.SerializeToString())
        assert isinstance(
            attempt(path, {"c": np.array(True)} if "c" in [i.name for i in made.graph.input] else {}), str
        )


def test_a_model_in_the_current_directory_or_in_none(tmp_path, monkeypatch):
    """Its folder is then "", which contains everything if it is taken at its word."""
    made = model([identity()], weights=[external(tmp_path, location="secret")])
    (tmp_path / "m" / "model.onnx").write_bytes(made.SerializeToString())
    os.symlink("/", tmp_path / "m" / "rootlink")
    monkeypatch.chdir(tmp_path / "m")
    assert "does not exist" in attempt("model.onnx")
    for data in (made.SerializeToString(), made):
        assert "not given as a path" in attempt(data)
    linked = model([identity()], weights=[external(tmp_path, location=f"rootlink{tmp_path}/secret")])
    (tmp_path / "m" / "model.onnx").write_bytes(linked.SerializeToString())
    assert "leaves the model's directory" in attempt("model.onnx")


@pytest.mark.parametrize(
    ("entries", "fits"),
    [
        ({"__class__": "x", "__init__": "y", "checksum": "0" * 40, "raw": "1"}, True), ({"offset": "1" + "0" * 18}, False),
        ({"offset": MAX, "length": MAX}, False), ({"offset": 2**64}, False), ({"offset": -1}, False), ({"length": -1}, False),
        ({"length": 2**64}, False), ({"offset": "0x8"}, False), ({"offset": "1e18"}, False), ({"offset": "٤"}, False),
        ({"offset": "4"}, False), ({"location": "w.bin\0../secret"}, False),
    ],
)  # fmt: skip
def test_keys_and_extents_of_external_data(entries, fits, tmp_path):
    path = tmp_path / "m" / "model.onnx"
    made = model([identity()], weights=[external(tmp_path, **{"location": "w.bin", **entries})])
    path.write_bytes(made.SerializeToString())
    given = attempt(path)
    if fits:
        np.testing.assert_array_equal(given["y"], X)
    else:
        assert isinstance(given, str) and "'w'" in given


def test_two_tensors_may_share_bytes(tmp_path):
    one, two = external(tmp_path, location="w.bin"), external(tmp_path, location="w.bin")
    two.name = "v"
    made = model([helper.make_node("Add", ["w", "v"], ["y"])], weights=[one, two])
    (tmp_path / "m" / "model.onnx").write_bytes(made.SerializeToString())
    np.testing.assert_array_equal(attempt(tmp_path / "m" / "model.onnx")["y"], 2 * X)


# --------------------------------------------------------------------------------------- 13, 14: pickles and containers


class Harm:
    def __reduce__(self):
        return os.mkdir, (os.environ["FI_HARM"],)


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    """A pickle, a torch archive around one, and the same under the names of our own files."""
    monkeypatch.setenv("FI_HARM", str(tmp_path / "harm"))
    text = pickle.dumps(Harm())
    np.save(tmp_path / "samples.npy", np.array([Harm()], object), allow_pickle=True)
    with zipfile.ZipFile(tmp_path / "weights.pt", "w") as z:
        z.writestr("archive/data.pkl", text)
    for name in ("model.onnx", "model.pt", "model.safetensors"):
        (tmp_path / name).write_bytes(text)
    for name in ("model.onnx", "model.pt", "weights.pt", "samples.npy", "model.safetensors"):
        assert isinstance(attempt(tmp_path / name), str)
        with pytest.raises(fi.FastinferError):
            fi.load(tmp_path / name)
    assert not (tmp_path / "harm").exists()


def test_headers_of_safetensors(tmp_path):
    path = tmp_path / "m.safetensors"
    made = model([identity()], weights=[numpy_helper.from_array(X, "w")])
    fi.compile(made).save(path)
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    body, rest = data[8 : 8 + size], data[8 + size :]
    twice = body.rstrip()[:-1] + b',"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"w":{}}'
    for length, text in (
        (2**63, body), (2**64 - 1, body), (size + 10**6, body), (0, b""), (size, b"[" * size), (len(twice), twice),
        (size, body.replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1)), (size, b"\xff" * size),
    ):  # fmt: skip
        path.write_bytes(struct.pack("<Q", length) + text + rest)
        try:
            given = fi.load(path).run({})
        except fi.FastinferError:
            continue
        assert given["y"].tolist() == X.tolist()
