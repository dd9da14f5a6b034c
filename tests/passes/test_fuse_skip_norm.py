# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from fastinfer.passes.fuse_skip_norm import fuse_skip_norm

from .graphs import check, parse, random


@pytest.mark.parametrize(
    ("text", "op"),
    [
        ("s = Add(x, r) y = LayerNormalization(s, w, b)", "SkipLayerNorm"),
        ("s = Add(x, r) y = LayerNormalization(s, w)", "SkipLayerNorm"),
        ("s = Add(x, r) y = RMSNormalization(s, w)", "SkipRMSNorm"),
        ("t = Add(x, b) s = Add(t, r) y = LayerNormalization(s, w, b)", "SkipLayerNorm"),
        ("t = Add(x, b) s = Add(r, t) y = RMSNormalization(s, w)", "SkipRMSNorm"),
    ],
)
def test_sum_then_norm(text: str, op: str) -> None:
    model = parse(
        f"g (float[2,3,8] x, float[2,3,8] r, float[8] w, float[8] b) => (float[2,3,8] y) {{ {text} }}",
        w=random(8),
        b=random(8, seed=1),
    )
    after = check(model, fuse_skip_norm, {"x": random(2, 3, 8), "r": random(2, 3, 8, seed=2)})
    assert after == {f"fastinfer.{op}": 1}


def test_the_sum_is_an_output_where_others_read_it() -> None:
    model = parse(
        """g (float[2,3,8] x, float[2,3,8] r, float[8] w) => (float[2,3,8] y, float[2,3,8] s) {
        s = Add(x, r) n = LayerNormalization(s, w) y = Mul(n, s) }""",
        w=random(8),
    )
    after = check(model, fuse_skip_norm, {"x": random(2, 3, 8), "r": random(2, 3, 8, seed=2)})
    assert after == {"fastinfer.SkipLayerNorm": 1, "Mul": 1}


def test_a_sum_that_broadcasts_stays() -> None:
    model = parse(
        "g (float[2,3,8] x, float[1,3,8] r, float[8] w) => (float[2,3,8] y) { s = Add(x, r) y = LayerNormalization(s, w) }",
        w=random(8),
    )
    assert check(model, fuse_skip_norm, {"x": random(2, 3, 8), "r": random(1, 3, 8)}) == {
        "Add": 1,
        "LayerNormalization": 1,
    }
