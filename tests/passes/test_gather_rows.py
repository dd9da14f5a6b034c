# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from fastinfer.passes.gather_rows import gather_rows

from .graphs import check, parse, random

ROLL = """
a = Slice(x, three, end, one) b = Slice(x, zero, three, one) c = Concat<axis=1>(a, b)
d = Slice(c, three, end, two) e = Slice(c, zero, three, two) r = Concat<axis=2>(d, e)
"""
WINDOWS = "w = Reshape(r, split) t = Transpose<perm=[0,1,3,2,4,5]>(w) v = Reshape(t, rows)"
PATCHES = """
a = Slice(x, zero, end, one, two) b = Slice(a, zero, end, two, two) c = Slice(a, one, end, two, two)
d = Slice(x, one, end, one, two) e = Slice(d, zero, end, two, two) f = Slice(d, one, end, two, two)
v = Concat<axis=-1>(b, e, c, f)
"""
CONSTANTS = {"zero": [0], "one": [1], "two": [2], "three": [3], "end": [2**63 - 1], "split": [1, 2, 4, 3, 4, 16],
             "rows": [6, 16, 16], "back": [1, 8, 12, 16]}  # fmt: skip


def model_of(text: str, source: str, out: str):
    used = {k: np.array(v, np.int64) for k, v in CONSTANTS.items() if f" {k}" in text.replace(")", " ")}
    used = {k: v for k, v in used.items() if f" {k}," in text or f" {k})" in text}
    declared = "".join(f", int64[{v.size}] {k}" for k, v in used.items())
    return parse(f"g ({source} x{declared}) => ({out} y) {{ {text} y = Neg(v) }}", **used)


@pytest.mark.parametrize(
    ("text", "out"),
    [
        (ROLL + WINDOWS, "float[6,16,16]"),
        (ROLL + "v = Reshape(r, rows)", "float[6,16,16]"),
        (PATCHES, "float[1,4,6,64]"),
    ],
    ids=["windows", "roll", "patches"],
)
def test_copies_of_rows_become_one_gather(text: str, out: str) -> None:
    after = check(model_of(text, "float[1,8,12,16]", out), gather_rows, {"x": random(1, 8, 12, 16)})
    assert after["Gather"] == 1
    assert not after["Slice"] and not after["Concat"] and not after["Transpose"]


@pytest.mark.parametrize(
    ("text", "source", "shape", "out"),
    [
        (PATCHES, "float[1,8,12,4]", (1, 8, 12, 4), "float[1,4,6,16]"),  # short rows
        ("v = Transpose<perm=[0,2,1,3]>(x)", "float[1,8,12,16]", (1, 8, 12, 16), "float[1,12,8,16]"),  # one copy
        ("a = Transpose<perm=[0,1,3,2]>(x) b = Slice(a, zero, three, one) c = Slice(b, zero, three, one)"
         " v = Concat<axis=1>(b, c)", "float[1,8,12,16]", (1, 8, 12, 16), "float[1,6,16,12]"),  # rows are taken apart
        (ROLL + "v = Reshape(r, back)", "float[N,8,12,16]", (1, 8, 12, 16), "float[1,8,12,16]"),  # not static
    ],
    ids=["narrow", "single", "inside", "dynamic"],
)  # fmt: skip
def test_left_alone(text: str, source: str, shape: tuple[int, ...], out: str) -> None:
    assert not check(model_of(text, source, out), gather_rows, {"x": random(*shape)})["Gather"]


def test_a_value_that_others_read_stays() -> None:
    text = ROLL + "z = Neg(c) v = Add(r, z)"
    after = check(model_of(text, "float[1,8,12,16]", "float[1,8,12,16]"), gather_rows, {"x": random(1, 8, 12, 16)})
    assert after["Gather"] == 1 and after["Slice"] == 2  # c is still there, and what follows it is one gather
