# SPDX-License-Identifier: Apache-2.0
"""Products of one value by weights of one shape as one launch: the same bits as one after the other."""

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper as h
from test_ends import model_of, numbers, planner, run

import fastinfer as fi
from fastinfer.cuda import siblings


def queries_keys_values(width=16, bias=True, gemm=False):
    """q + k·relu(v), each of its own weights; v is read last, k under another shape."""
    constants = {f"w{n}": numbers(width, width) for n in "qkv"} | {f"b{n}": numbers(width) for n in "qkv"}
    nodes = []
    for n in "qkv":
        if gemm:
            nodes.append(h.make_node("Gemm", ["x", f"w{n}", f"b{n}"], [n], transB=1))
            continue
        nodes.append(h.make_node("MatMul", ["x", f"w{n}"], [f"{n}0" if bias else n]))
        nodes += [h.make_node("Add", [f"{n}0", f"b{n}"], [n])] if bias else []
    nodes += [
        h.make_node("Softmax", ["k"], ["k1"]),
        h.make_node("Softmax", ["v"], ["v1"]),
        h.make_node("Mul", ["k1", "v1"], ["m"]),
    ]
    nodes += [h.make_node("Softmax", ["q"], ["q1"]), h.make_node("Sub", ["q1", "m"], ["y"])]
    return model_of(nodes, {"x": ["n", width]}, {"y": ["n", width]}, constants)


def products(steps):
    return [s for s in steps if "gemm" in s]


@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-5), ("tf32", 1e-5), ("bf16", 5e-2), ("f16", 5e-3)])
@pytest.mark.parametrize("form", [{}, {"bias": False}, {"gemm": True}], ids=str)
def test_one_launch_with_the_bits_of_three(form, precision, tolerance, monkeypatch):
    model, feeds = queries_keys_values(**form), {"x": numbers(24, 16)}
    got, steps = run(model, feeds, precision)
    assert [s.endswith(" x3") for s in products(steps)] == [True], steps
    want = fi.compile(model.SerializeToString()).run(feeds)["y"]
    np.testing.assert_allclose(got["y"], want, rtol=tolerance, atol=tolerance)
    monkeypatch.setattr(siblings, "WAVE", 0)
    alone, steps = run(model, feeds, precision)
    assert len(products(steps)) == 3
    np.testing.assert_array_equal(got["y"], alone["y"])


def test_what_is_left_alone(monkeypatch):
    """Other shapes, outputs of the model, results that would not begin at 128 bytes, 8-bit products."""
    constants = {f"w{i}": numbers(16, 16) for i in range(4)} | {"v": numbers(16, 8)}
    nodes = [h.make_node("MatMul", ["x", f"w{i}"], [f"a{i}"]) for i in range(4)] + [
        h.make_node("MatMul", ["x", "v"], ["b"])
    ]
    nodes += [h.make_node("Softmax", [f"a{i}"], [f"y{i}"]) for i in range(3)] + [h.make_node("Softmax", ["b"], ["z"])]
    outputs = {**{f"y{i}": ["n", 16] for i in range(3)}, "a3": ["n", 16], "z": ["n", 8]}
    model = model_of(nodes, {"x": ["n", 16]}, outputs, constants)
    for n, precision, want in [(8, "fp32", ["x3"]), (8, "bf16", ["x3"]), (3, "bf16", []), (8, "int8", [])]:
        got, steps = run(model, {"x": numbers(n, 16)}, precision)
        found = products(steps)
        assert [s[-2:] for s in found if s.endswith(" x3")] == want and len(found) == (3 if want else 5), steps


def test_weights_lie_in_memory_once():
    made = planner(queries_keys_values(), {"x": numbers(24, 16)}, "fp32")
    made.plan()
    program = made.program
    node = next(n for n in program.nodes if n["op"] == "MatMul")
    part = program.constant(node["inputs"][1], "gemm_nk", None, None)
    exact = program.device.torch.type == "cpu"  # a pretended device puts guards around every allocation
    assert part.untyped_storage().nbytes() == 3 * part.nbytes or not exact
    assert 3 * part.nbytes <= part.untyped_storage().nbytes() < 4 * part.nbytes
    before = program.constant_bytes
    planner_again = type(made)(program, [(T.FLOAT, (1 << 18, 16))], made.tuner)
    assert not planner_again._siblings.starts  # a wave of tiles each
    planner_again.plan()
    more = program.constant_bytes - before  # biases, which stand alone there, and no weights
    assert more <= 3 * 16 * 4 if exact else more < 3 * (16 + 1) * 16 * 4


def test_explain_names_all():
    model = fi.compile(queries_keys_values().SerializeToString(), device="cuda")
    steps = model.explain({"x": numbers(24, 16)}).steps
    step = next(s for s in steps if "gemm" in s["kernel"])
    assert step["flops"] == 3 * 2 * 24 * 16 * 16 and len(step["also"]) >= 2
