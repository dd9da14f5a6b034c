# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest

from fastinfer.passes.recognize_gelu import recognize_gelu

from .graphs import check, parse, random

ERF = {
    "torch": "a = Div(x, root2) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)",
    "half first": "a = Mul(x, root_half) b = Erf(a) c = Add(one, b) d = Mul(half, x) y = Mul(d, c)",
    "half on the bracket": "a = Div(x, root2) b = Erf(a) c = Add(b, one) d = Mul(c, half) y = Mul(x, d)",
    "divided by two": "a = Div(x, root2) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Div(d, two)",
}
TANH = {
    "torch": """a = Pow(x, three) b = Mul(a, k) c = Add(x, b) d = Mul(c, s) e = Tanh(d) f = Add(e, one) h = Mul(x, half)
        y = Mul(h, f)""",
    "products": """a = Mul(x, x) b = Mul(a, x) c = Mul(k, b) d = Add(c, x) e = Mul(s, d) f = Tanh(e) h = Add(one, f)
        i = Mul(f, zero) j = Mul(x, h) y = Mul(half, j)""",
    "factored": """a = Mul(x, x) b = Mul(a, k) c = Add(b, one) d = Mul(x, c) e = Mul(d, s) f = Tanh(e) h = Add(f, one)
        i = Mul(x, h) y = Mul(i, half)""",
}
CONSTANTS = {
    "root2": math.sqrt(2), "root_half": math.sqrt(0.5), "one": 1.0, "half": 0.5, "two": 2.0, "three": 3.0, "k": 0.044715,
    "s": math.sqrt(2 / math.pi), "zero": 0.0, "wrong": 1.2,
}  # fmt: skip


def _model(text: str):
    constants = {k: np.array(v, np.float32) for k, v in CONSTANTS.items()}
    declared = "".join(f", float[] {k}" for k in constants)
    return parse(f"g (float[2,5] x{declared}) => (float[2,5] y) {{ {text} }}", **constants)


@pytest.mark.parametrize("form", ERF)
def test_erf(form: str) -> None:
    model = _model(ERF[form])
    assert check(model, recognize_gelu, {"x": random(2, 5)})["Gelu"] == 1
    assert model.graph[-1].attributes["approximate"].value == "none"


@pytest.mark.parametrize("form", TANH)
def test_tanh(form: str) -> None:
    model = _model(TANH[form])
    assert check(model, recognize_gelu, {"x": random(2, 5)})["Gelu"] == 1
    assert model.graph[-1].attributes["approximate"].value == "tanh"


def test_other_constants_are_another_function() -> None:
    model = _model("a = Mul(x, wrong) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)")
    assert check(model, recognize_gelu, {"x": random(2, 5)})["Gelu"] == 0
