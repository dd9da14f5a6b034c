# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from fastinfer.passes.fold_constants import fold_constants

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
