# SPDX-License-Identifier: Apache-2.0
"""Hostile and odd model files: each is a ModelError that names the place, or loads as what it means."""

import os

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fastinfer import ModelError, UnsupportedError
from fastinfer.frontend import load

F = TensorProto.FLOAT


def port(name, dims=(2,), dtype=F):
    return helper.make_tensor_value_info(name, dtype, dims)


def model(nodes, inputs=None, outputs=None, initializers=(), opset=20, functions=(), **more):
    graph = helper.make_graph(nodes, "g", inputs or [port("x")], outputs or [port("y", None)], list(initializers))
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(f.domain, 1) for f in functions)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), **{"ir_version": 10, **more})


def relu(x="x", y="y", **more):
    return helper.make_node("Relu", [x], [y], **more)


def refused(source, *words):
    with pytest.raises(ModelError) as caught:
        load(source)
    for word in words:
        assert word in str(caught.value)


# ------------------------------------------------------------------------------------------------------ bytes


@pytest.mark.parametrize("keep", [0, 1, 10, 0.3, 0.7, 0.95])
def test_truncated(keep):
    data = model([relu()], initializers=[numpy_helper.from_array(np.ones(50, np.float32), "w")]).SerializeToString()
    with pytest.raises(ModelError):
        load(data[: keep if isinstance(keep, int) else int(len(data) * keep)])


@pytest.mark.parametrize("data", [b"", b"\x00", b"garbage" * 40, bytes(range(256)), b"PK\x03\x04" + bytes(100)])
def test_garbage(data):
    with pytest.raises(ModelError):
        load(data)


def test_missing_graph():
    refused(helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString()[:4], "bytes")
    refused(onnx.ModelProto(ir_version=8).SerializeToString(), "no graph")


def test_path(tmp_path):
    refused(tmp_path / "absent.onnx", "absent.onnx")
    refused(tmp_path, "regular file")
    path = tmp_path / "m.onnx"
    onnx.save(model([relu()]), path)
    assert [n.op_type for n in load(path).graph] == ["Relu"]
    assert [n.op_type for n in load(str(path)).graph] == ["Relu"]


def test_wrong_source():
    refused(42, "int")


# ----------------------------------------------------------------------------------------------------- graphs


def test_cycle():
    refused(model([relu("a", "b", name="first"), relu("b", "a", name="second"), relu()]), "cyclic", "first", "second")


def test_unsorted_is_sorted():
    loaded = load(model([relu("a", "y", name="late"), relu("x", "a", name="early")]))
    assert [n.name for n in loaded.graph] == ["early", "late"]


def test_undefined_input():
    refused(model([relu("nothing", "y", name="lost")]), "lost", "nothing")


def test_undefined_output():
    refused(model([relu()], outputs=[port("z")]), "'z'")


def test_duplicate_names():
    refused(model([relu(), relu()]), "y")
    refused(model([relu()], inputs=[port("x"), port("x")]), "x")
    one = numpy_helper.from_array(np.ones(2, np.float32), "w")
    refused(model([relu()], initializers=[one, one]), "'w'")


def test_initializer_without_name():
    refused(model([relu()], initializers=[numpy_helper.from_array(np.ones(2, np.float32))]), "no name")


def test_subgraphs_are_checked():
    def branch(name, node):
        return helper.make_graph([node], name, [], [port("b", None)])

    def conditional(bad):
        branches = {"then_branch": branch("t", relu("x", "b")), "else_branch": branch("e", bad)}
        return model(
            [helper.make_node("If", ["c"], ["y"], name="cond", **branches)],
            [port("x"), port("c", (), TensorProto.BOOL)],
        )

    load(conditional(relu("x", "b")))
    refused(conditional(relu("absent", "b", name="inner")), "inner", "absent")
    refused(conditional(helper.make_node("Relu", ["x", "x"], ["b"], name="inner")), "inner", "2 inputs")
    huge = helper.make_node("Constant", [], ["b"], name="inner", value=TensorProto(data_type=F, dims=[2**40, 2**20]))
    refused(conditional(huge), "inner", "needs")


@pytest.mark.parametrize("opset", [0, 27, 28, 10**6])
def test_opset_outside(opset):
    refused(model([relu()], opset=opset), str(opset), "7 to 26")


def test_opset_not_imported():
    m = model([relu()])
    del m.opset_import[:]
    refused(m, "no opset")


@pytest.mark.parametrize("opset", [1, 3, 5, 6, 7, 13, 26])
def test_opset_inside(opset):
    m = model([helper.make_node("Not", ["x"], ["y"])], [port("x", (2,), TensorProto.BOOL)], opset=opset)
    assert load(m).opset_imports[""] == 26


def test_form_older_than_known():
    with pytest.raises(UnsupportedError, match="opset 5"):
        load(model([helper.make_node("Relu", ["x"], ["y"], consumed_inputs=[0])], opset=5))


def test_domain_alias():
    m = model([relu(domain="ai.onnx")])
    m.opset_import[0].domain = "ai.onnx"
    loaded = load(m)
    assert loaded.graph[0].domain == "" and loaded.opset_imports[""] == 26


# ------------------------------------------------------------------------------------------------------ nodes


def test_unknown_operator():
    refused(model([helper.make_node("Relo", ["x"], ["y"], name="n")]), "Relo 'n'", "opset 20")
    refused(model([helper.make_node("Gelu", ["x"], ["y"], name="n")], opset=19), "Gelu 'n'", "opset 19")
    refused(model([relu(domain="my.domain", name="n")]), "my.domain")


def test_attributes():
    def concat(**attributes):
        return model([helper.make_node("Concat", ["x"], ["y"], name="n", **attributes)])

    load(concat(axis=0))
    refused(concat(), "'n'", "axis")
    refused(concat(axis=0.5), "'n'", "FLOAT", "INT")
    refused(concat(axis=0, colour="red"), "'n'", "colour")


def test_input_count():
    refused(model([helper.make_node("Add", ["x"], ["y"], name="n")]), "'n'", "1 inputs", "2 needed")
    refused(model([helper.make_node("Add", ["x", ""], ["y"], name="n")]), "'n'", "input 1")
    refused(model([helper.make_node("Relu", ["x"], ["y", "z"], name="n")]), "'n'", "outputs")


# ---------------------------------------------------------------------------------------------------- tensors


def tensor(**fields):
    return TensorProto(**{"name": "w", "data_type": F, **fields})


@pytest.mark.parametrize(
    "bad",
    [
        tensor(dims=[2], raw_data=b"1234567"),
        tensor(dims=[2], raw_data=b""),
        tensor(dims=[3], float_data=[1, 2]),
        tensor(dims=[2], int32_data=[1, 2]),
        tensor(dims=[2**31, 2**31], raw_data=b"12345678"),
        tensor(dims=[2**62, 8], raw_data=b""),
        tensor(dims=[-1], raw_data=b""),
        tensor(dims=[1] * 80, float_data=[1]),
        tensor(dims=[2], data_type=0, float_data=[1, 2]),
        tensor(dims=[2], data_type=99, raw_data=bytes(8)),
        tensor(dims=[3], data_type=TensorProto.INT4, raw_data=b"1"),
        tensor(dims=[2], data_type=TensorProto.STRING, raw_data=b"ab"),
        tensor(dims=[2], data_type=TensorProto.STRING, string_data=[b"a"]),
    ],
)
def test_tensor_refused(bad):
    refused(model([helper.make_node("Identity", ["w"], ["y"])], initializers=[bad]), "'w'")
    refused(model([helper.make_node("Constant", [], ["y"], name="c", value=bad)]), "value", "'c'")


def test_scalar_and_empty_tensors():
    for good in (
        tensor(dims=[], float_data=[1]),
        tensor(dims=[0, 2**40]),
        tensor(dims=[3], data_type=22, raw_data=b"12"),
    ):
        load(model([helper.make_node("Identity", ["w"], ["y"])], initializers=[good]))


def test_initializers_listed_as_inputs():
    w = numpy_helper.from_array(np.array([1, 2], np.float32), "w")
    add = helper.make_node("Add", ["x", "w"], ["y"])
    loaded = load(model([add], [port("x"), port("w")], initializers=[w], ir_version=3))
    assert [v.name for v in loaded.graph.inputs] == ["x"]
    refused(model([add], [port("x"), port("w", (3,))], initializers=[w]), "'w'", "3")
    refused(model([add], [port("x"), port("w", (2,), TensorProto.INT64)], initializers=[w]), "'w'", "INT64")


def sparse(dims, values, indices):
    parts = [numpy_helper.from_array(np.asarray(v), name) for v, name in ((values, "w"), (indices, ""))]
    return onnx.SparseTensorProto(dims=dims, values=parts[0], indices=parts[1])


def test_sparse_tensors_become_dense():
    given = sparse([2, 3], np.array([5, 7], np.float32), np.array([[0, 2], [1, 0]]))
    m = model([helper.make_node("Identity", ["w"], ["y"])])
    m.graph.sparse_initializer.append(given)
    before = m.SerializeToString()
    want = np.array([[0, 0, 5], [7, 0, 0]], np.float32)
    np.testing.assert_array_equal(load(m).graph.initializers["w"].const_value.numpy(), want)
    assert m.SerializeToString() == before  # the caller's proto stays as it was
    constant = helper.make_node(
        "Constant", [], ["y"], sparse_value=sparse([6], np.array([5, 7], np.float32), np.array([2, 3]))
    )
    np.testing.assert_array_equal(
        ReferenceEvaluator(ir.to_proto(load(model([constant])))).run(None, {})[0], want.ravel()
    )


@pytest.mark.parametrize(
    "bad",
    [
        sparse([2, 3], np.array([5], np.float32), np.array([6])),
        sparse([2, 3], np.array([5], np.float32), np.array([-1])),
        sparse([2, 3], np.array([5, 6], np.float32), np.array([1])),
        sparse([2**20, 2**20], np.array([5], np.float32), np.array([1])),
    ],
)
def test_sparse_refused(bad):
    m = model([helper.make_node("Identity", ["w"], ["y"])])
    m.graph.sparse_initializer.append(bad)
    refused(m, "'w'")


# --------------------------------------------------------------------------------------------- external data


def external(tmp_path, location, dims=(4,), **entries):
    w = tensor(dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        w.external_data.append(onnx.StringStringEntryProto(key=key, value=str(value)))
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    (folder / "m.onnx").write_bytes(
        model([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[w]).SerializeToString()
    )
    return folder / "m.onnx"


def test_external_data_is_mapped(tmp_path):
    path = external(tmp_path, "sub/w.bin", offset=8, length=16)
    (path.parent / "sub").mkdir()
    (path.parent / "sub" / "w.bin").write_bytes(bytes(8) + np.arange(4, dtype=np.float32).tobytes())
    value = load(path).graph.initializers["w"].const_value
    np.testing.assert_array_equal(value.numpy(), np.arange(4))
    assert isinstance(value, ir.ExternalTensor) and value.raw is not None


def test_external_link_inside_the_folder(tmp_path):
    path = external(tmp_path, "w.bin")
    (path.parent / "blob").write_bytes(bytes(16))
    os.symlink("blob", path.parent / "w.bin")
    assert load(path).graph.initializers["w"].const_value.numpy().shape == (4,)


def test_external_data_refused(tmp_path):
    (tmp_path / "outside.bin").write_bytes(bytes(16))
    refused(external(tmp_path, "absent.bin"), "'w'", "does not exist")
    refused(external(tmp_path, "../outside.bin"), "'w'", "below the model's directory")
    refused(external(tmp_path, "a/../../outside.bin"), "'w'", "below the model's directory")
    refused(external(tmp_path, tmp_path / "outside.bin"), "'w'", "below the model's directory")
    refused(external(tmp_path, ""), "'w'", "location")
    path = external(tmp_path, "link.bin")
    os.symlink(tmp_path / "outside.bin", path.parent / "link.bin")
    refused(path, "'w'", "leaves the model's directory")
    os.symlink(tmp_path, path.parent / "linked")
    refused(external(tmp_path, "linked/outside.bin"), "'w'", "leaves the model's directory")
    os.symlink("self.bin", path.parent / "self.bin")
    refused(external(tmp_path, "self.bin"), "'w'")
    (path.parent / "folder").mkdir()
    refused(external(tmp_path, "folder"), "'w'", "regular file")
    os.mkfifo(path.parent / "pipe")
    refused(external(tmp_path, "pipe"), "'w'", "regular file")


def test_external_extent_refused(tmp_path):
    path = external(tmp_path, "w.bin")
    (path.parent / "w.bin").write_bytes(bytes(16))
    load(path)
    refused(external(tmp_path, "w.bin", offset=4), "'w'", "16")
    refused(external(tmp_path, "w.bin", length=12), "'w'", "12")
    refused(external(tmp_path, "w.bin", offset=-4), "'w'", "offset")
    refused(external(tmp_path, "w.bin", offset="x"), "'w'", "offset")
    refused(external(tmp_path, "w.bin", dims=(2**40, 2**30)), "'w'", "needed")


def test_external_data_needs_a_path(tmp_path):
    path = external(tmp_path, "w.bin")
    (path.parent / "w.bin").write_bytes(bytes(16))
    refused(path.read_bytes(), "'w'", "not given as a path")


# ------------------------------------------------------------------------------------------------- functions


def twice(opset=20, name="Twice", inner="x"):
    nodes = [helper.make_node("Add", [inner, inner], ["y"])]
    return helper.make_function("my", name, ["x"], ["y"], nodes, [helper.make_opsetid("", opset)])


def test_functions_are_inlined():
    call = helper.make_node("Twice", ["x"], ["y"], domain="my")
    loaded = load(model([call], functions=[twice()]))
    assert [n.op_type for n in loaded.graph] == ["Add"] and not loaded.functions


def test_function_of_an_older_opset():
    squeeze = helper.make_node("Squeeze", ["x"], ["y"], axes=[0])
    function = helper.make_function("my", "Drop", ["x"], ["y"], [squeeze], [helper.make_opsetid("", 11)])
    loaded = load(
        model([helper.make_node("Drop", ["x"], ["y"], domain="my")], [port("x", (1, 3))], functions=[function])
    )
    x = np.ones((1, 3), np.float32)
    assert ReferenceEvaluator(ir.to_proto(loaded)).run(None, {"x": x})[0].shape == (3,)


def test_function_that_returns_its_input():
    function = helper.make_function("my", "Same", ["x"], ["x"], [], [helper.make_opsetid("", 20)])
    nodes = [helper.make_node("Same", ["x"], ["a"], domain="my"), relu("a", "y")]
    loaded = load(model(nodes, functions=[function]))
    assert [v.name for v in loaded.graph.inputs] == ["x"]
    x = np.array([-1, 2], np.float32)
    np.testing.assert_array_equal(ReferenceEvaluator(ir.to_proto(loaded)).run(None, {"x": x})[0], [0, 2])


def test_recursive_functions():
    loop = helper.make_node("Twice", ["x"], ["y"], domain="my")
    function = helper.make_function("my", "Twice", ["x"], ["y"], [loop], [helper.make_opsetid("my", 1)])
    refused(model([helper.make_node("Twice", ["x"], ["y"], domain="my")], functions=[function]), "Twice")


def test_undefined_value_in_function():
    call = helper.make_node("Twice", ["x"], ["y"], domain="my")
    refused(model([call], functions=[twice(inner="nothing")]), "nothing")


def test_ir_model_is_not_changed():
    given = ir.from_proto(model([helper.make_node("Squeeze", ["x"], ["y"], axes=[0])], [port("x", (1, 2))], opset=11))
    loaded = load(given)
    assert given.opset_imports[""] == 11 and "axes" in given.graph[0].attributes
    assert loaded.opset_imports[""] == 26
