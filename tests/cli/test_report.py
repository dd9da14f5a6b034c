# SPDX-License-Identifier: Apache-2.0
"""fastinfer.report: what explain() and profile() say, checked against hand-counted figures."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastinfer as fi
from fastinfer import report


def compiled(nodes, inputs, outputs, weights=()):
    ports = [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs]
    outs = [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in outputs]
    graph = helper.make_graph(nodes, "g", ports, outs, [numpy_helper.from_array(a, n) for n, a in weights])
    return fi.compile(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


F32, I64 = TensorProto.FLOAT, TensorProto.INT64


def test_matmul_counts_its_packed_weights():
    w = np.ones((64, 128), np.float32)
    m = compiled([helper.make_node("MatMul", ["x", "w"], ["y"])], [("x", F32, ["n", 64])], ["y"], [("w", w)])
    (step,) = m.explain({"x": np.ones((5, 64), np.float32)}).steps
    assert step["shape"] == [5, 128] and step["dtype"] == "float32" and step["flops"] == 2 * 5 * 64 * 128
    assert (
        step["bytes"] == 4 * (5 * 64 + 64 * 128 + 5 * 128) and step["weight_bytes"] == 4 * 64 * 128
    )  # 128 columns are two whole panels: no padding


def test_gather_reads_what_it_gives_out():
    table = np.ones((1000, 32), np.float32)
    m = compiled([helper.make_node("Gather", ["t", "i"], ["y"])], [("i", I64, ["n"])], ["y"], [("t", table)])
    (step,) = m.explain({"i": np.arange(3)}).steps
    assert step["shape"] == [3, 32] and step["bytes"] == 2 * 3 * 32 * 4 + 3 * 8


def test_the_same_input_twice_is_read_once():
    m = compiled([helper.make_node("Mod", ["x", "x"], ["y"], fmod=1)], [("x", F32, [100])], ["y"])
    assert [s["bytes"] for s in m.explain({"x": np.ones(100, np.float32)}).steps] == [800]


def test_an_output_that_is_an_input_is_copied():
    m = compiled([helper.make_node("Relu", ["x"], ["y"])], [("x", F32, [10])], ["x", "y"])
    steps = m.explain({"x": np.ones(10, np.float32)}).steps
    assert {s["bytes"] for s in steps} == {80} and all(s["shape"] == [10] for s in steps)


def test_eager_steps_and_what_follows_them():
    nodes = [helper.make_node("NonZero", ["x"], ["i"]), helper.make_node("Neg", ["i"], ["y"])]
    m = compiled(nodes, [("x", F32, ["n"])], ["y"])
    x = {"x": np.array([0, 1, 0, 2], np.float32)}
    steps = m.explain(x).steps
    assert steps[0]["op"] == "NonZero" and steps[0]["shape"] == [1, 2] and steps[0]["bytes"] == 16 + 16
    assert steps[-1]["shape"] == [1, 2] and steps[-1]["dtype"] == "int64"
    profiled = m.profile(x, runs=2).steps
    assert [s["bytes"] for s in profiled] == [s["bytes"] for s in steps]


def test_graphs_inside_nodes():
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Exp", ["s"], ["t"])],
        "body",
        [helper.make_tensor_value_info("k", I64, []), helper.make_tensor_value_info("c", TensorProto.BOOL, []),
         helper.make_tensor_value_info("s", F32, [4])],
        [helper.make_tensor_value_info("d", TensorProto.BOOL, []), helper.make_tensor_value_info("t", F32, [4])],
    )  # fmt: skip
    m = compiled([helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)], [("n", I64, []), ("x", F32, [4])], ["y"])
    feeds = {"n": np.array(2), "x": np.zeros(4, np.float32)}
    profiled = m.profile(feeds, runs=2)
    inner = [s for s in profiled.steps if s["depth"] == 1 and s["shape"] == [4]]
    assert len(inner) >= 2 and all(s["bytes"] == 32 for s in inner if "pointwise" in s["kernel"])
    assert str(profiled) and str(m.explain(feeds))


def test_explanation_in_words():
    m = compiled([helper.make_node("Relu", ["x"], ["y"], name="r")], [("x", F32, ["n", 3])], ["y"])
    text = str(m.explain())
    assert "1x3" in text and "'r' (" in text and "0.0 kB" in text
    assert "planned when run-time values are known" not in text


STEP = {"label": "node 'a/b' (fastinfer.Conv)", "start_ns": 0, "depth": 0, "bytes": 100}


def test_typical_is_the_call_nearest_the_median():
    runs = [[{**STEP, "kernel": "k", "ns": a, "flops": 0}, {**STEP, "kernel": "l", "ns": b, "flops": 0}]
            for a, b in ((10, 10), (11, 13), (50, 60), (9, 30))]  # fmt: skip
    p = report.Profile(runs, 1)
    assert [s["ns"] for s in p.typical] == [9, 30] or [s["ns"] for s in p.typical] == [11, 13]
    assert [s["median_ns"] for s in p.typical] == [10.5, 21.5] == [s["ns"] for s in p.steps]


def test_winograd_multiplications():
    step = {"kernel": "winograd_f32_4x4_avx512", "flops": 144.0}
    assert (
        report.flops_done(step) == 36 and report.flops_done({**step, "kernel": "winograd_bf16_6x6_x"}) == 144 * 64 / 324
    )
    assert report.flops_done({**step, "kernel": "conv_gemm_f32_6x64_avx512"}) == 144


def test_shares():
    peak = {"gflops": 100.0, "bf16_gflops": 200.0, "int8_gops": 400.0}
    steps = [{**STEP, "kernel": "winograd_f32_4x4_avx512", "ns": 1, "flops": 200.0},
             {**STEP, "kernel": "gemm_bf16_6x64_avx512bf16", "ns": 1, "flops": 100.0},
             {**STEP, "kernel": "gemm_f32_6x64_avx512bf16", "ns": 2, "flops": 100.0},
             {**STEP, "kernel": "copy", "ns": 4, "flops": 0.0}]  # fmt: skip
    a, b, c, d = report.with_shares(steps, peak)
    assert (a["share_of_peak"], a["effective_share"], a["gflops"]) == (0.5, 2.0, 50.0)
    assert b["share_of_peak"] == 0.5 and c["share_of_peak"] == 0.5 and c["share"] == 0.25
    assert d["share_of_peak"] is None and d["gflops"] is None and d["gbs"] == 25.0


@pytest.mark.parametrize(
    "label, want",
    [
        ("node '/a/b.0' (fastinfer.Conv)", ("/a/b.0", "fastinfer.Conv")),
        ("node 'it's (x)' (Relu)", ("it's (x)", "Relu")),
        ("output", ("output", "")),
    ],
)
def test_node_text(label, want):
    assert report.node_text(label) == want
