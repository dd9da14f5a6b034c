# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

import fastinfer as fi
from fastinfer.passes import eliminate_dead_code, fold_constants
from fastinfer.passes import run_pipeline as optimize
from fastinfer.passes.widen_half import widen_half

from .graphs import check, counts, parse, random

HALF = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def half(*shape: int, seed: int = 0, dtype: type = np.float16) -> np.ndarray:
    return random(*shape, seed=seed).astype(dtype)


def widen(model: ir.Model, inputs: dict[str, np.ndarray], tolerance: float = 5e-3) -> Counter[str]:
    """Twice the tolerance of one float16 rounding per operation: the reference rounds each, we round once."""
    check(model, widen_half, inputs, tolerance)
    eliminate_dead_code(model)
    return counts(model)


def test_a_chain_is_rounded_once() -> None:
    model = parse(
        """g (float16[b,8] x, float16[8,4] w, float16[4] c) => (float16[b,4] y) {
        h = MatMul(x, w) s = Add(h, c) r = Relu(s) y = Softmax(r) }""",
        w=half(8, 4), c=half(4, seed=1),
    )  # fmt: skip
    found = widen(model, {"x": half(3, 8, seed=2)})
    assert found == {"Cast": 2, "MatMul": 1, "Add": 1, "Relu": 1, "Softmax": 1}
    assert [n.op_type for n in model.graph][0] == "Cast" and model.graph.outputs[0].dtype == ir.DataType.FLOAT16
    assert not any(v.dtype == ir.DataType.FLOAT16 for v in model.graph.initializers.values() if v.uses())


def test_what_only_moves_stays_half() -> None:
    model = parse("""g (float16[2,3] x, float16[4,3] z) => (float16[6,3] y, int64[2] s) {
        c = Concat<axis=0>(x, z) y = Identity(c) s = Shape(c) }""")
    assert widen(model, {"x": half(2, 3), "z": half(4, 3)}) == {"Concat": 1, "Identity": 1, "Shape": 1}
    table = parse("g (int64[n] i, float16[9,3] t) => (float16[n,3] y) { g = Gather(t, i) y = Exp(g) }", t=half(9, 3))
    assert widen(table, {"i": np.array([1, 8])}) == {"Gather": 1, "Cast": 2, "Exp": 1}
    assert [v.dtype for v in table.graph.initializers.values() if v.uses()] == [ir.DataType.FLOAT16]


def test_conversions_inside_the_model() -> None:
    # A float32 island around a norm, as exporters write it: nothing is left of its borders.
    model = parse("""g (float16[2,8] x) => (float16[2,8] y) {
        a = Exp(x) w = Cast<to=1>(a) n = Softmax(w) h = Cast<to=10>(n) y = Mul(h, a) }""")
    assert widen(model, {"x": half(2, 8)}) == {"Cast": 2, "Exp": 1, "Softmax": 1, "Mul": 1}
    # What was no result of arithmetic is rounded where the model says so: 1e6 becomes infinity, 0.1 a float16.
    model = parse(
        """g (float[4] x) => (float[4] y) { h = Cast<to=10>(x) n = Neg(h) e = Add(n, n) y = Cast<to=1>(e) }"""
    )
    check(model, widen_half, {"x": np.array([1e6, -1e6, 0.1, 3], np.float32)}, 0)
    # Integers, and comparisons that others read.
    model = parse("""g (float16[4] x) => (int64[4] y, bool[4] l) {
        e = Mul(x, x) i = Cast<to=7>(e) y = Neg(i) l = Less(e, x) }""")
    check(model, widen_half, {"x": np.array([1, -2, 3, 0], np.float16)}, 0)
    # CastLike to a half value.
    model = parse("""g (float[4] x, float16[1] z) => (float16[4] y) { a = Exp(x) h = CastLike(a, z) y = Mul(h, z) }""")
    check(model, widen_half, {"x": random(4), "z": half(1)}, 2e-3)


def test_two_outputs_of_one_value_and_inner_values_as_outputs() -> None:
    model = parse("""g (float16[4] x) => (float16[4] a, float16[4] b, float[4] c) {
        a = Exp(x) b = Sqrt(a) c = Cast<to=1>(a) }""")
    check(model, widen_half, {"x": half(4)}, 2e-3)
    assert [v.dtype for v in model.graph.outputs] == [ir.DataType.FLOAT16] * 2 + [ir.DataType.FLOAT]


def test_subgraphs_see_their_own_types() -> None:
    model = parse("""g (bool c, float16[3] x) => (float16[3] y) {
        k = Exp(x)
        y = If(c) <then_branch = t () => (float16[3] p) { q = Add(x, k) p = Neg(q) },
                   else_branch = e () => (float16[3] p2) { p2 = Sqrt(k) }> }""")
    for condition in (True, False):
        check(model.clone(), widen_half, {"c": np.array(condition), "x": half(3)}, 2e-3)
    loop = parse("""g (int64 n, bool c, float16[3] x) => (float16[3] y, float16[k, 3] ys) {
        y, ys = Loop(n, c, x) <body = b (int64 i, bool go, float16[3] s) => (bool go2, float16[3] s2, float16[3] o) {
            go2 = Identity(go) s2 = Tanh(s) o = Mul(s2, x) }> }""")
    inputs = {"n": np.array(3), "c": np.array(True), "x": half(3)}
    check(loop, widen_half, inputs, 4e-3)


def test_types_that_an_operator_states_are_left() -> None:
    model = parse("""g (int64[1] n, float16[2] x) => (float16[k] y, float16[2] z) {
        f = ConstantOfShape<value = float16[1] {1}>(n) y = Exp(f)
        s = SequenceConstruct(x, x) i = Constant<value_int=0>() a = SequenceAt(s, i) z = Exp(a) }""")
    check(model, widen_half, {"n": np.array([3]), "x": half(2)}, 2e-3)
    assert not widen_half(parse("g (float[2] x) => (float[2] y) { y = Exp(x) }"))


CONV_NET = """g ({t}[n,3,8,8] x, {t}[16,3,3,3] w, {t}[16] b, {t}[16] s, {t}[16] o, {t}[16] m, {t}[16] v, {t}[16,5] f)
    => ({t}[n,5] y) {{
    c = Conv<pads=[1,1,1,1]>(x, w, b) n1 = BatchNormalization(c, s, o, m, v) r = Relu(n1)
    p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) a = GlobalAveragePool(p) d = Flatten(a) y = MatMul(d, f) }}"""


@pytest.mark.parametrize("name", HALF)
def test_fusions_fire_as_in_float32(name: str) -> None:
    shapes: dict[str, tuple[int, ...]] = {
        "w": (16, 3, 3, 3),
        "b": (16,),
        "s": (16,),
        "o": (16,),
        "m": (16,),
        "f": (16, 5),
    }
    weights = {k: random(*shape, seed=i) for i, (k, shape) in enumerate(shapes.items())}
    weights["v"] = np.abs(random(16, seed=9)) + 0.5
    plain = parse(CONV_NET.format(t="float"), **weights)
    narrow = parse(CONV_NET.format(t=name), **{k: v.astype(HALF[name]) for k, v in weights.items()})
    x = random(2, 3, 8, 8, seed=3)
    (want,) = fi.compile(ir.to_proto(plain)).run({"x": x}).values()
    model = fi.compile(ir.to_proto(narrow), strict=True)
    (got,) = model.run({"x": x.astype(HALF[name])}).values()
    assert got.dtype == HALF[name]
    step = 2**-7 if name == "bfloat16" else 2**-10
    assert np.abs(got.astype(np.float32) - want).max() < 4 * step * np.abs(want).max()
    a, b = counts(optimize(plain)), counts(optimize(narrow))
    assert b["Cast"] == 2 and {**b, "Cast": 0} == {**a, "Cast": 0}


def test_attention_in_half() -> None:
    text = """g ({t}[b,4,s,16] q, {t}[b,4,s,16] k, {t}[b,4,s,16] v, {t}[1] c) => ({t}[b,4,s,16] y) {{
        kt = Transpose<perm=[0,1,3,2]>(k) l = MatMul(q, kt) m = Mul(l, c)
        {soft} y = MatMul(p, v) }}"""
    # PyTorch takes the softmax in float32 and rounds it.
    island = "f = Cast<to=1>(m) e = Softmax(f) p = Cast<to=10>(e)"
    for soft in ("p = Softmax(m)", island):
        model = parse(text.format(t="float16", soft=soft), c=np.full(1, 0.25, np.float16))
        inputs = {n: half(2, 4, 7, 16, seed=i) for i, n in enumerate("qkv")}
        fold_constants(model)
        check(model, widen_half, inputs, 5e-3)
        assert counts(optimize(model))["fastinfer.Attention"] == 1


@pytest.mark.parametrize("name", HALF)
@pytest.mark.parametrize("op", ["LSTM", "ConvTranspose", "LpPool", "AveragePool", "Gemm", "Einsum"])
def test_nothing_runs_by_reference(name: str, op: str) -> None:
    t = name
    text = {
        "LSTM": "y, h, c = LSTM<hidden_size=4>(x, w, r)",
        "ConvTranspose": "y = ConvTranspose(x, w)",
        "LpPool": "y = LpPool<kernel_shape=[2,2]>(x)",
        "AveragePool": "y = AveragePool<kernel_shape=[2,2]>(x)",
        "Gemm": "y = Gemm<transB=1>(x, w)",
        "Einsum": 'y = Einsum<equation="ab,cb->ac">(x, w)',
    }[op]
    x, w, r = {
        "LSTM": ((3, 2, 5), (1, 16, 5), (1, 16, 4)), "Gemm": ((3, 5), (4, 5), (1,)), "Einsum": ((3, 5), (4, 5), (1,)),
    }.get(op, ((1, 3, 6, 6), (3, 2, 3, 3), (1,)))  # fmt: skip
    dims = lambda s: ",".join(map(str, s))  # noqa: E731
    source = parse(f"g ({t}[{dims(x)}] x, {t}[{dims(w)}] w, {t}[{dims(r)}] r) => ({t} y) {{ {text} }}",
                   w=random(*w, seed=1), r=random(*r, seed=2))  # fmt: skip
    plain = source.clone()
    for v in [*plain.graph.inputs, *plain.graph.outputs]:
        v.type = ir.TensorType(ir.DataType.FLOAT)
    for v in source.graph.initializers.values():
        array = v.const_value.numpy().astype(HALF[name])  # type: ignore[union-attr]
        v.const_value, v.type = ir.tensor(array, name=v.name), ir.TensorType(ir.tensor(array).dtype)
    for model in (source, plain):
        for n in model.graph:
            for v in n.outputs:
                v.type = None if v not in model.graph.outputs else v.type
        for v in model.graph.outputs:
            v.shape = None
    given = random(*x).astype(HALF[name])
    (want,) = fi.compile(ir.to_proto(plain)).run({"x": given.astype(np.float32)}).values()
    (got,) = fi.compile(ir.to_proto(source), strict=True).run({"x": given}).values()
    assert got.dtype == HALF[name] and got.shape == want.shape
    np.testing.assert_allclose(got.astype(np.float32), want, rtol=0.05, atol=0.05)
