# SPDX-License-Identifier: Apache-2.0
"""fold_constants, eliminate_*, simplify_shapes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from fastinfer import passes
from fastinfer.passes import verify
from fastinfer.passes.eliminate_common_subexpressions import eliminate_common_subexpressions
from fastinfer.passes.eliminate_dead_code import eliminate_dead_code
from fastinfer.passes.eliminate_identity import eliminate_identity
from fastinfer.passes.fold_constants import fold_constants
from fastinfer.passes.simplify_shapes import simplify_shapes

from .graphs import check, counts, parse, random


def test_constants_are_computed_while_compiling() -> None:
    model = parse("""g (float[N,4] x) => (float[N,4] y) {
        a = Constant<value_floats=[1.0, 2.0, 3.0, 4.0]>()
        b = Constant<value_float=2.0>()
        c = Mul(a, b)
        d = Sqrt(c)
        y = Add(x, d) }""")
    assert check(model, fold_constants, {"x": random(3, 4)}) == {"Add": 1}


def test_what_grows_is_not_folded() -> None:
    model = parse("""g (float[1] x) => (float[M] y, float[4] z) {
        shape = Constant<value_ints=[1000000]>()
        big = ConstantOfShape(shape)
        small_shape = Constant<value_ints=[4]>()
        small = ConstantOfShape(small_shape)
        y = Add(big, x)
        z = Add(small, x) }""")
    assert check(model, fold_constants, {"x": random(1)}) == {"ConstantOfShape": 1, "Add": 2}


def test_random_numbers_are_not_folded() -> None:
    model = parse("g (float[2] x) => (float[2] y) { r = RandomNormal<shape=[2]>()  y = Add(x, r) }")
    fold_constants(model)
    assert counts(model)["RandomNormal"] == 1


def test_a_constant_that_is_a_graph_output_stays_one() -> None:
    model = parse(
        "g (float[2] x) => (float[2] y, float[2] c) { c = Constant<value_floats=[1.0, 2.0]>() y = Add(x, c) }"
    )
    check(model, fold_constants, {"x": random(2)})


def test_dead_code_goes_with_its_constants() -> None:
    model = parse("g (float[2] x, float[2] w) => (float[2] y) { a = Add(x, w) b = Relu(a) y = Neg(x) }", w=random(2))
    assert check(model, eliminate_dead_code, {"x": random(2)}) == {"Neg": 1}
    assert not model.graph.initializers


def test_unused_optional_outputs_go() -> None:
    model = parse("g (float[2,4] x, float[4] s) => (float[2,4] y) { y, m, v = LayerNormalization(x, s) }", s=random(4))
    check(model, eliminate_dead_code, {"x": random(2, 4)})
    assert len(model.graph[0].outputs) == 1


def test_common_subexpressions() -> None:
    model = parse("""g (float[2,3] x) => (float[2,3] y) {
        a = Relu(x) b = Relu(x) c = Exp(a) d = Exp(b) e = Elu<alpha=0.5>(x) f = Elu<alpha=0.25>(x)
        s = Add(c, d) t = Add(e, f) y = Add(s, t) }""")
    assert check(model, eliminate_common_subexpressions, {"x": random(2, 3)}) == {
        "Relu": 1,
        "Exp": 1,
        "Elu": 2,
        "Add": 3,
    }


def test_equal_outputs_keep_both_names() -> None:
    model = parse("g (float[2] x) => (float[2] y, float[2] z) { y = Relu(x) z = Relu(x) }")
    check(model, eliminate_common_subexpressions, {"x": random(2)})


@pytest.mark.parametrize(
    "text",
    [
        "y = Identity(x)",
        "t = Identity(x) y = Identity(t)",
        "d = Dropout(x) y = Neg(d)",
        "d = Cast<to=1>(x) y = Neg(d)",
        "d = Concat<axis=0>(x) y = Neg(d)",
        "d = Transpose<perm=[0,1,2]>(x) y = Neg(d)",
        "d = Transpose<perm=[0,2,1]>(x) e = Transpose<perm=[0,2,1]>(d) y = Neg(e)",
        "d = Add(x, zero) e = Mul(one, d) f = Div(e, one) h = Sub(f, zero) y = Neg(h)",
        "s = Shape(x) d = Reshape(x, s) y = Neg(d)",
        "d = Reshape(x, flat) s = Shape(x) e = Reshape(d, s) y = Neg(e)",
        "p = Pad(x, nopad) y = Neg(p)",
        "s = Slice(x, first, last) y = Neg(s)",
        "s = Shape(x) d = Expand(x, s) y = Neg(d)",
    ],
)
def test_identities(text: str) -> None:
    constants = {
        "zero": np.zeros((), np.float32), "one": np.ones((1,), np.float32), "flat": np.array([0, -1]),
        "nopad": np.zeros(6, np.int64), "first": np.array([0]), "last": np.array([2**62]),
    }  # fmt: skip
    used = {k: v for k, v in constants.items() if k in text}
    kinds = {"f": "float", "i": "int64"}
    declared = "".join(f", {kinds[v.dtype.kind]}[{','.join(map(str, v.shape))}] {k}" for k, v in used.items())
    model = parse(f"g (float[N,3,S] x{declared}) => (float[N,3,S] y) {{ {text} }}", **used)

    def step(m: ir.Model) -> bool:
        fold_constants(m)
        eliminate_identity(m)
        return eliminate_dead_code(m)

    after = check(model, step, {"x": random(2, 3, 5)})
    assert after in ({"Neg": 1}, {"Identity": 1})


def test_a_neutral_constant_that_broadcasts_stays() -> None:
    model = parse(
        "g (float[1] x, float[3] zero) => (float[3] y) { d = Add(x, zero) y = Neg(d) }", zero=np.zeros(3, np.float32)
    )
    assert check(model, eliminate_identity, {"x": random(1)}) == {"Add": 1, "Neg": 1}


def test_adjacent_movements_merge() -> None:
    model = parse(
        """g (float[N,3,4,5] x, int64[2] a, int64[3] b) => (float[U,V,W] y) {
        t = Transpose<perm=[0,2,3,1]>(x) u = Transpose<perm=[1,0,2,3]>(t) r = Reshape(u, a) y = Reshape(r, b) }""",
        a=np.array([4, -1]), b=np.array([2, 2, -1]),
    )  # fmt: skip
    assert check(model, eliminate_identity, {"x": random(2, 3, 4, 5)}) == {"Transpose": 1, "Reshape": 1}


def test_shape_arithmetic_leaves_the_graph() -> None:
    model = parse("""g (float[N,S,768] x) => (float[N,12,S,64] y) {
        shape = Shape(x)
        i0 = Constant<value_int=0>() i1 = Constant<value_int=1>() axis = Constant<value_ints=[0]>()
        n = Gather(shape, i0) s = Gather(shape, i1) n1 = Unsqueeze(n, axis) s1 = Unsqueeze(s, axis)
        heads = Constant<value_ints=[12, 64]>()
        target = Concat<axis=0>(n1, s1, heads)
        r = Reshape(x, target)
        y = Transpose<perm=[0,2,1,3]>(r) }""")

    def step(m: ir.Model) -> bool:
        fold_constants(m)
        simplify_shapes(m)
        return eliminate_dead_code(m)

    assert check(model, step, {"x": random(2, 3, 768)}) == {"Reshape": 1, "Transpose": 1}
    assert list(model.graph[0].inputs[1].const_value.numpy()) == [0, 0, 12, 64]


def test_subgraphs_are_rewritten_too() -> None:
    model = parse("""g (bool c, float[3] x) => (float[3] y) {
        k = Constant<value_float=0.0>()
        y = If(c) <then_branch = t () => (float[3] p) { q = Add(x, k) r = Neg(q) p = Identity(r) },
                   else_branch = e () => (float[3] p2) { q2 = Exp(x) q3 = Exp(x) p2 = Add(q2, q3) }> }""")
    for condition in (True, False):
        inputs = {"c": np.array(condition), "x": random(3)}
        expected = verify.run_reference(model, inputs)
        rewritten = passes.run_pipeline(model.clone(), verify=True, sample_inputs=inputs)
        verify.check_results(expected, verify.run_reference(rewritten, inputs))
        assert counts(rewritten) == {"If": 1, "Neg": 1, "fastinfer.Pointwise": 1}


def test_a_broken_pass_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_it(model: ir.Model) -> bool:
        model.graph[0].op_type = "Abs"
        return True

    monkeypatch.setattr(passes, "PIPELINE", [eliminate_dead_code, break_it])
    model = parse("g (float[2] x) => (float[2] y) { y = Neg(x) }")
    with pytest.raises(
        verify.VerificationError, match="after pass break_it .done before: eliminate_dead_code.: output 0 is off"
    ):
        passes.run_pipeline(model, verify=True, sample_inputs={"x": random(2)})
