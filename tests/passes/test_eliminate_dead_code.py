# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from fastinfer.passes.eliminate_dead_code import eliminate_dead_code

from .graphs import check, parse, random


def test_dead_code_goes_with_its_constants() -> None:
    model = parse("g (float[2] x, float[2] w) => (float[2] y) { a = Add(x, w) b = Relu(a) y = Neg(x) }", w=random(2))
    assert check(model, eliminate_dead_code, {"x": random(2)}) == {"Neg": 1}
    assert not model.graph.initializers


def test_unused_optional_outputs_go() -> None:
    model = parse("g (float[2,4] x, float[4] s) => (float[2,4] y) { y, m, v = LayerNormalization(x, s) }", s=random(4))
    check(model, eliminate_dead_code, {"x": random(2, 4)})
    assert len(model.graph[0].outputs) == 1
