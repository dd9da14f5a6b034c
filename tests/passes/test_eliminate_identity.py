# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from fastinfer.passes.eliminate_dead_code import eliminate_dead_code
from fastinfer.passes.eliminate_identity import eliminate_identity
from fastinfer.passes.fold_constants import fold_constants

from .graphs import check, parse, random


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
