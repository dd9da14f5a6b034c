# SPDX-License-Identifier: Apache-2.0
"""What compile() refuses, and what it says of nodes that run by reference (src/fastinfer/check.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import fastinfer as fi

HEADER = '<ir_version: 10, opset_import: ["" : 26, "com.microsoft" : 1]>\n'


def model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEADER + text)


@pytest.mark.parametrize("text,message", [
    ("g (float[3,4] x) => (float[3,4] y) { [bad] y = Softmax<axis=7>(x) }", r"'bad.*\(Softmax\).*axis 7"),
    ("g (float[3,4] x, float[5,2] w) => (float[3,2] y) { [bad] y = MatMul(x, w) }", r"'bad.*4.*5"),
    ("g (float[12] x) => (float y) { s = Constant<value_ints=[5,5]>() [bad] y = Reshape(x, s) }", r"'bad.*12.*5,5"),
    ("g (float[2,3] x, float[2,4] z) => (float y) { a = Relu(x) [bad] y = Add(a, z) }", "'bad"),
    ("g (float[1,8,8,3] x, float[4,8,3,3] w) => (float y) { r = Relu(x) [bad] y = Concat<axis=4>(r, w) }", "'bad"),
    ("g (float[1,3,8,8] x, float[4,8,3,3] w) => (float y) { r = Relu(x) [bad] c = Conv(r, w) y = Relu(c) }",
     r"\(fastinfer.Conv\): input \[1,3,8,8\] has 3 channels, weight \[4,8,3,3\] in 1 groups needs 8"),
    ("g (float[3] x, int64[3] z) => (float y) { [bad] y = Add(x, z) }", r"'bad.*\(Add\).*input 1 is int64\[3\], needed: float32"),
])  # fmt: skip
def test_faults_of_the_model_are_found_at_compile(text: str, message: str) -> None:
    with pytest.raises(fi.ModelError, match=message):
        fi.compile(model(text))


def test_faults_of_the_callers_input_are_not() -> None:
    compiled = fi.compile(
        model("""g (float[a] x) => (float y) {
        s = Constant<value_ints=[5,-1]>() r = Reshape(x, s) y = Softmax<axis=1>(r) }""")
    )
    assert compiled.run({"x": np.zeros(10, np.float32)})["y"].shape == (5, 2)
    with pytest.raises(fi.InputError, match="12"):
        compiled.run({"x": np.zeros(12, np.float32)})


def test_a_fault_behind_a_branch_that_is_not_taken() -> None:
    compiled = fi.compile(
        model("""g (bool c, float[3,4] x) => (float y) {
        y = If(c) <then_branch = t () => (float p) { p = Softmax<axis=7>(x) },
                   else_branch = e () => (float p2) { p2 = Relu(x) }> }""")
    )
    assert compiled.run({"c": np.array(False), "x": np.ones((3, 4), np.float32)})["y"].shape == (3, 4)
    with pytest.raises(fi.FastinferError, match="axis 7"):
        compiled.run({"c": np.array(True), "x": np.ones((3, 4), np.float32)})


@pytest.mark.parametrize("op,types", [("Mish", "double"), ("CumSum", "bool"), ("ReduceSum", "bool")])
def test_strict_and_fallback_nodes_know_types(op: str, types: str, tmp_path: Path) -> None:
    axis = "a = Constant<value_int=0>()" if op == "CumSum" else ""
    args = "r, a" if op == "CumSum" else "r"
    text = f"g ({types}[n,m] x) => ({types} y) {{ r = Transpose<perm=[1,0]>(x) {axis} [grave] y = {op}({args}) }}"
    compiled = fi.compile(model(text))
    reasons = compiled.fallback_nodes
    if not reasons:
        fi.compile(model(text), strict=True)
        return
    ((label, reason),) = reasons.items()
    assert "grave" in label and op in label and types in reason.replace("float64", "double")
    with pytest.raises(fi.UnsupportedError, match=f"grave.*{op}.*strict=True"):
        fi.compile(model(text), strict=True)
    path = tmp_path / "program.safetensors"
    compiled.save(path)
    assert fi.load(path).fallback_nodes == reasons
    with pytest.raises(fi.UnsupportedError, match="grave.*strict=True"):
        fi.load(path, strict=True)


def test_behind_what_only_running_tells_and_inside_subgraphs() -> None:
    behind = "g (float[n] x) => (bool y) { i = NonZero(x) b = Cast<to=9>(i) [grave] y = CumSum(b, z) }"
    behind = behind.replace("CumSum(b, z)", "ReduceSum(b)")
    with pytest.raises(fi.UnsupportedError, match="grave.*ReduceSum of bool"):
        fi.compile(model(behind), strict=True)
    inside = """g (bool c, bool[n] x) => (bool y) {
        y = If(c) <then_branch = t () => (bool p) { [grave] p = ReduceSum(x) },
                   else_branch = e () => (bool p2) { p2 = Identity(x) }> }"""
    with pytest.raises(fi.UnsupportedError, match="grave.*ReduceSum of bool"):
        fi.compile(model(inside), strict=True)


def test_what_nobody_can_run_is_refused_at_compile() -> None:
    with pytest.raises(fi.UnsupportedError, match=r"'inv.*\(com.microsoft.Inverse\).*no reference"):
        fi.compile(model("g (float[2,2] x) => (float[2,2] y) { [inv] y = com.microsoft.Inverse(x) }"))
    inner = """g (bool c, float[2,2] x) => (float[2,2] y) {
        y = If(c) <then_branch = t () => (float[2,2] p) { [inv] p = com.microsoft.Inverse(x) },
                   else_branch = e () => (float[2,2] p2) { p2 = Relu(x) }> }"""
    with pytest.raises(fi.UnsupportedError, match="'inv"):
        fi.compile(model(inner))


def test_what_runs_by_reference_still_compiles() -> None:
    compiled = fi.compile(
        model('g (string[n] x) => (string[n] y) { y = StringNormalizer<case_change_action="UPPER">(x) }')
    )
    assert list(compiled.fallback_nodes.values()) == ["no native operator"]


def test_an_optional_tensor_is_given_as_a_tensor_or_none() -> None:
    """ONNX: optional(tensor(float)) takes the tensor itself."""
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("OptionalHasElement", ["o"], ["has"]),
            onnx.helper.make_node("OptionalGetElement", ["o"], ["y"]),
        ],
        "g",
        [
            onnx.helper.make_value_info(
                "o", onnx.helper.make_optional_type_proto(onnx.helper.make_tensor_type_proto(1, ["n"]))
            )
        ],
        [onnx.helper.make_tensor_value_info("has", 9, []), onnx.helper.make_tensor_value_info("y", 1, ["n"])],
    )
    source = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 26)], ir_version=10)
    compiled = fi.compile(source)
    x = np.arange(3, dtype=np.float32)
    for result in (compiled.run({"o": x}), dict(zip(("has", "y"), compiled(x), strict=True))):
        assert bool(result["has"]) is True
        np.testing.assert_array_equal(result["y"], x)
    assert "float32" in str(compiled.inputs[0])
    with pytest.raises(fi.InputError, match="'o'.*float64.*float32"):
        compiled.run({"o": x.astype(np.float64)})
    with pytest.raises(fi.InputError, match="'o'.*list"):
        compiled.run({"o": [x]})
    only = onnx.helper.make_graph([graph.node[0]], "g", graph.input, graph.output[:1])
    asked = fi.compile(onnx.helper.make_model(only, opset_imports=source.opset_import, ir_version=10))
    assert bool(asked.run({"o": None})["has"]) is False and bool(asked.run({"o": x})["has"]) is True
