# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from fastinfer.passes.fuse_pointwise import MAX_INPUTS, MAX_OPS, fuse_pointwise

from .graphs import check, parse, random

UNARY = """Neg Abs Exp Erf Tanh Sigmoid Relu Softplus HardSwish Floor Ceil Round Sign Sin Cos Mish Softsign Gelu Swish Elu
    LeakyRelu HardSigmoid""".split()


@pytest.mark.parametrize("op", UNARY)
def test_unary(op: str) -> None:
    model = parse(f"g (float[N,7] x) => (float[N,7] y) {{ a = Add(x, x) b = {op}(a) y = Neg(b) }}")
    assert check(model, fuse_pointwise, {"x": 2 * random(3, 7)}) == {"fastinfer.Pointwise": 1}


@pytest.mark.parametrize(
    "text",
    [
        "a = Sub(x, z) y = Mul(a, z)",
        "a = Div(x, z) b = Min(a, x, z) y = Max(b, k)",
        "a = Sum(x, z, x) y = Neg(a)",
        "a = Pow(x, two) b = Add(a, x) y = Pow(b, three)",
        "a = Abs(x) y = Pow(a, k)",
        "a = Abs(x) b = Sqrt(a) c = Reciprocal(b) y = Log(c)",
        "a = Clip(x, k) b = Clip(a, , two) y = Clip(b, k, two)",
        "c = Less(x, z) n = Not(c) y = Where(n, x, k)",
        "c = GreaterOrEqual(x, z) d = LessOrEqual(x, k) e = Or(c, d) h = Greater(z, x) i = And(e, h) y = Where(i, x, z)",
        "n = IsNaN(x) y = Where(n, k, z)",
        "c = Equal(x, z) f = Cast<to=1>(c) y = Add(f, x)",
        "a = PRelu(x, slope) y = Neg(a)",
        'a = Gelu<approximate="tanh">(x) y = Add(a, row)',
        "a = Swish<alpha=1.702>(x) y = Add(a, column)",
    ],
)
def test_operators(text: str) -> None:
    constants = {"k": np.array(0.3, np.float32), "two": np.array([2], np.float32), "three": np.array(3, np.float32)}
    kinds = "".join(f", float[{','.join(map(str, v.shape))}] {k}" for k, v in constants.items())
    model = parse(
        f"g (float[3,7] x, float[3,7] z, float[7] row, float[3,1] column, float[7] slope{kinds}) => (float[3,7] y) {{ {text} }}",
        **constants,
    )
    inputs = {
        "x": random(3, 7),
        "z": random(3, 7, seed=1),
        "row": random(7),
        "column": random(3, 1),
        "slope": random(7),
    }
    if "IsNaN" in text:
        inputs["x"][0, 0] = np.nan
    assert check(model, fuse_pointwise, inputs) == {"fastinfer.Pointwise": 1}


def test_smaller_results_stay_outside() -> None:
    model = parse(
        "g (float[3,1] s, float[3,7] x) => (float[3,7] y) { a = Exp(s) b = Neg(a) c = Mul(x, b) y = Relu(c) }"
    )
    assert check(model, fuse_pointwise, {"s": random(3, 1), "x": random(3, 7)}) == {"fastinfer.Pointwise": 2}
    assert [len(n.attributes["ops"].value) for n in model.graph] == [2, 2]


def test_a_result_that_others_read_ends_the_program() -> None:
    model = parse("g (float[3,7] x) => (float[3,7] y, float[3,7] z) { z = Exp(x) a = Neg(z) y = Tanh(a) }")
    assert check(model, fuse_pointwise, {"x": random(3, 7)}) == {"Exp": 1, "fastinfer.Pointwise": 1}


def test_shapes_that_may_differ_are_not_joined() -> None:
    model = parse(
        "g (float[N,7] x, float[M,7] z) => (float[K,7] y) { a = Exp(x) b = Neg(z) c = Add(a, b) y = Tanh(c) }"
    )
    assert check(model, fuse_pointwise, {"x": random(1, 7), "z": random(3, 7)}) == {
        "Exp": 1,
        "Neg": 1,
        "fastinfer.Pointwise": 1,
    }


def test_integers_stay() -> None:
    model = parse("g (int64[3] x) => (int64[3] y) { a = Add(x, x) y = Neg(a) }")
    assert check(model, fuse_pointwise, {"x": np.array([1, 2, 3])}) == {"Add": 1, "Neg": 1}


def test_long_chains_and_many_inputs_are_cut() -> None:
    chain = "".join(f"a{i + 1} = Sin(a{i}) " for i in range(2 * MAX_OPS))
    model = parse(f"g (float[5] a0) => (float[5] y) {{ {chain} y = Neg(a{2 * MAX_OPS}) }}")
    check(model, fuse_pointwise, {"a0": random(5)})
    assert all(len(n.attributes["ops"].value) <= MAX_OPS for n in model.graph if n.op_type == "Pointwise")
    n = 3 * MAX_INPUTS
    ports = ", ".join(f"float[5] x{i}" for i in range(n))
    total = "".join(f"s{i} = Add({f's{i - 1}' if i > 1 else 'x0'}, x{i}) " for i in range(1, n))
    model = parse(f"g ({ports}) => (float[5] y) {{ {total} y = Neg(s{n - 1}) }}")
    check(model, fuse_pointwise, {f"x{i}": random(5, seed=i) for i in range(n)})
    assert all(len(n.inputs) <= MAX_INPUTS for n in model.graph)
