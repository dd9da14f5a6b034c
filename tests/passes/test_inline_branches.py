# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from fastinfer.passes.inline_branches import inline_branches

from .graphs import check, parse, random


@pytest.mark.parametrize("condition", [True, False])
@pytest.mark.parametrize("inner", [True, False])
def test_nested(condition: bool, inner: bool) -> None:
    model = parse(
        """g (float[3] x, bool c, bool d) => (float[3] y, float[3] z) {
        z = If(c) <then_branch = t () => (float[3] p) { q = Neg(x) p = If(d) <then_branch = a () => (float[3] r) { r = Exp(q) },
            else_branch = b () => (float[3] s) { s = Abs(q) }> },
            else_branch = e () => (float[3] u) { k = Constant<value_float=2.0>() q = Mul(x, k) u = Sin(q) }>
        y = Neg(z) }""",
        c=np.array(condition), d=np.array(inner),
    )  # fmt: skip
    after = check(model, inline_branches, {"x": random(3)})
    assert after["If"] == 0 and sum(after.values()) == (3 if condition else 4)


def test_an_unknown_condition_stays() -> None:
    model = parse("""g (bool c, float[3] x) => (float[3] y) {
        y = If(c) <then_branch = t () => (float[3] p) { p = Neg(x) }, else_branch = e () => (float[3] q) { q = Exp(x) }> }""")
    assert check(model, inline_branches, {"c": np.array(True), "x": random(3)})["If"] == 1
