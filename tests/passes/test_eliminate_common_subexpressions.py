# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from fastinfer.passes.eliminate_common_subexpressions import eliminate_common_subexpressions

from .graphs import check, parse, random


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
