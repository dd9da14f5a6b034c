# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import fastinfer as fi
from fastinfer import _core, passes
from fastinfer.passes.allow_bf16 import allow_bf16
from fastinfer.passes.store_bf16 import store_bf16

from .graphs import check, parse, random

WEIGHTS = {"w": random(16, 16, 3, 3), "p": random(16, 16, 1, 1, seed=1), "d": random(16, 1, 3, 3, seed=2),
           "t": random(16, 16, 2, 2, seed=3), "m": random(16, 8, seed=4)}  # fmt: skip
PORTS = (
    "float[1,16,12,12] x, float[16,16,3,3] w, float[16,16,1,1] p, float[16,1,3,3] d, float[16,16,2,2] t, float[16,8] m"
)
CONV = "Conv<pads=[1, 1, 1, 1]>"


def narrow(text: str, outputs: str = "float[?,?,?,?] y", threshold: float = 3e-2) -> list[str]:
    """The operators whose output became bfloat16, after the whole pipeline; checks the results on the way."""
    proto = ir.to_proto(parse(f"g ({PORTS}) => ({outputs}) {{ {text} }}", **WEIGHTS))
    x = random(1, 16, 12, 12, seed=9)
    want = list(fi.compile(proto).run({"x": x}).values())
    for isa in ("baseline", _core.detected_isa()):
        try:
            _core.force_isa(isa)
            got = list(fi.compile(proto, precision="bf16", strict=True).run({"x": x}).values())
        finally:
            _core.force_isa(_core.detected_isa())
        for a, b in zip(got, want, strict=True):
            assert a.dtype == np.float32 and np.abs(a - b).max() <= threshold * np.abs(b).max()
    model = passes.run_pipeline(ir.from_proto(proto), precision="bf16")
    return [n.op_type for n in model.graph if n.outputs[0].dtype == ir.DataType.BFLOAT16]


@pytest.mark.parametrize(
    ("text", "narrowed"),
    [
        (f"a = {CONV}(x, w) b = Relu(a) y = Conv(b, p)", ["Conv"]),
        (f"a = {CONV}(x, w) b = {CONV}(a, w) c = Add(a, b) y = Conv(c, p)", ["Conv", "Conv"]),
        (f"a = {CONV}(x, w) b = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(a) y = {CONV}(b, w)", ["Conv", "MaxPool"]),
        (f"a = {CONV}(x, w) b = AveragePool<kernel_shape=[2, 2]>(a) y = {CONV}(b, w)", ["Conv", "AveragePool"]),
        ("a = Conv(x, p) b = Conv<group=16, pads=[1, 1, 1, 1]>(a, d) c = Relu(b) y = Conv(c, p)", ["Conv", "Conv"]),
        (f"a = {CONV}(x, w) u = ConvTranspose<strides=[2, 2]>(a, t) y = Conv(u, p)", ["Conv", "ConvTranspose"]),
        (
            "a = Conv(x, p) b = Relu(a) c = Neg(b) y = Conv(c, p)",  # the pointwise program reads float32 only
            [],
        ),
        (
            "a = Conv(x, p) b = Conv<group=16, pads=[1, 1, 1, 1]>(a, d) c = Softmax(b) y = Conv(c, p)",
            [],  # depthwise has one type throughout, and the softmax wants float32
        ),
    ],
)
def test_chains(text: str, narrowed: list[str]) -> None:
    assert narrow(text) == narrowed


def test_concat_needs_all_parts() -> None:
    text = "a = Conv(x, p) b = Conv(a, p) c = Concat<axis=1>(a, {other}) q, r = Split<axis=1, num_outputs=2>(c) y = Conv(q, p)"
    assert narrow(text.format(other="b")) == ["Conv", "Conv", "Concat", "Split"]
    assert narrow(text.format(other="x")) == []  # a is in the Concat with x


def test_an_output_of_the_graph_stays_float32() -> None:
    assert narrow("y = Conv(x, p) z = Conv(y, p)", "float[?,?,?,?] y, float[?,?,?,?] z") == []


def test_float32_never_sees_it() -> None:
    proto = ir.to_proto(parse(f"g ({PORTS}) => (float[?,?,?,?] y) {{ a = {CONV}(x, w) y = Conv(a, p) }}", **WEIGHTS))
    model = passes.run_pipeline(ir.from_proto(proto))
    assert all(o.dtype != ir.DataType.BFLOAT16 for n in model.graph for o in n.outputs)
    assert not any({"precision", "output_dtype"} & set(n.attributes) for n in model.graph)


def test_the_function_bodies_cast() -> None:
    text = "g (float[2,16] x, float[16,8] m, float[8,4] v) => (float[2,4] y) { h = MatMul(x, m) y = MatMul(h, v) }"
    model = parse(text, m=random(16, 8), v=random(8, 4, seed=1))
    check(model, lambda m: bool(allow_bf16(m) | store_bf16(m)), {"x": random(2, 16)}, tolerance=1e-2)
    assert model.graph[0].outputs[0].dtype == ir.DataType.BFLOAT16


def test_attention_reads_and_writes_bfloat16() -> None:
    """The three projections, the heads between them and the attention's own result are kept in bfloat16."""
    weights = {n: random(16, 16, seed=i) for i, n in enumerate(("wq", "wk", "wv", "wo"))}
    heads = [
        f"{n}0 = MatMul(x, w{n}) {n}1 = Reshape({n}0, heads) {n} = Transpose<perm=[0, 2, 1, 3]>({n}1)" for n in "qkv"
    ]
    text = " ".join(heads)
    text += """ t = Transpose<perm=[0, 1, 3, 2]>(k) s = MatMul(q, t) p = Softmax<axis=-1>(s) o = MatMul(p, v)
        o1 = Transpose<perm=[0, 2, 1, 3]>(o) o2 = Reshape(o1, flat) y = MatMul(o2, wo)"""
    ports = "float[1,12,16] x, float[16,16] wq, float[16,16] wk, float[16,16] wv, float[16,16] wo, int64[4] heads, int64[3] flat"
    proto = ir.to_proto(
        parse(f"g ({ports}) => (float[?,?,?] y) {{ {text} }}", **weights,
              heads=np.array([1, 12, 2, 8]), flat=np.array([1, 12, 16]))
    )  # fmt: skip
    x = random(1, 12, 16, seed=9)
    want = fi.compile(proto).run({"x": x})["y"]
    got = fi.compile(proto, precision="bf16", strict=True).run({"x": x})["y"]
    assert np.abs(got - want).max() <= 3e-2 * np.abs(want).max()
    model = passes.run_pipeline(ir.from_proto(proto), precision="bf16")
    narrow = [n.op_type for n in model.graph if n.outputs[0].dtype == ir.DataType.BFLOAT16]
    assert narrow.count("MatMul") == 3 and narrow.count("Attention") == 1, narrow
