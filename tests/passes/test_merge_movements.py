# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from fastinfer.passes.merge_movements import merge_movements

from .graphs import check, parse, random


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a = Transpose<perm=[0,2,1,3]>(x) y = Transpose<perm=[0,2,1,3]>(a)", {"Identity": 1}),
        ("a = Reshape(x, flat) b = Transpose<perm=[0,2,1]>(a) y = Reshape(b, swapped)", {"Transpose": 1}),
        ("a = Transpose<perm=[0,2,1,3]>(x) b = Reshape(a, rows) c = Reshape(b, four) y = Transpose<perm=[0,2,1,3]>(c)", {"Identity": 1}),
        ("a = Unsqueeze(x, one) b = Transpose<perm=[0,1,3,2,4]>(a) y = Squeeze(b, one)", {"Transpose": 1}),
        ("a = Transpose<perm=[0,2,1,3]>(x) b = Reshape(a, rows) y = Transpose<perm=[0,2,1]>(b)", {"Transpose": 1, "Reshape": 1}),
    ],
)  # fmt: skip
def test_chains(text: str, wanted: dict[str, int]) -> None:
    constants = {
        "flat": np.array([-1, 5, 6]), "swapped": np.array([0, 3, 6, 5]), "rows": np.array([0, 5, 18]), "four": np.array([0, 5, 3, 6]),
        "one": np.array([1]),
    }  # fmt: skip
    constants["swapped"] = np.array([-1, 3, 6, 5])
    used = {k: v for k, v in constants.items() if f" {k})" in text}
    declared = "".join(f", int64[{v.size}] {k}" for k, v in used.items())
    rank = 3 if "y = Transpose<perm=[0,2,1]>" in text else 4
    model = parse(f"g (float[N,3,5,6] x{declared}) => (float[{','.join('ABCD'[:rank])}] y) {{ {text} }}", **used)
    after = check(model, merge_movements, {"x": random(2, 3, 5, 6)})
    if wanted == {"Identity": 1}:  # an output cannot be the input itself: the last node stays
        assert after["Transpose"] <= 1
    else:
        assert after == wanted


def test_unknown_ranks_are_left_alone() -> None:
    model = parse("g (float x) => (float y) { a = Transpose<perm=[1,0]>(x) b = Flatten(a) y = Neg(b) }")
    check(model, merge_movements, {"x": random(2, 3)})
