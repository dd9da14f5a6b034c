# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from fastinfer.passes.recognize_activations import recognize_activations

from .graphs import check, parse, random

CONSTANTS = {
    "zero": 0.0, "one": 1.0, "three": 3.0, "six": 6.0, "sixth": 1 / 6, "half": 0.5, "k": 1.702, "twenty": 20.0, "inf": np.inf,
    "fifth": 0.2,
}  # fmt: skip
FORMS = [
    ("s = Sigmoid(x) y = Mul(x, s)", "Swish"),
    ("a = Mul(x, k) s = Sigmoid(a) y = Mul(x, s)", "Swish"),
    ("n = Neg(x) e = Exp(n) d = Add(e, one) y = Div(one, d)", "Sigmoid"),
    ("n = Neg(x) e = Exp(n) d = Add(one, e) y = Reciprocal(d)", "Sigmoid"),
    ("n = Neg(x) e = Exp(n) d = Add(one, e) s = Reciprocal(d) y = Mul(s, x)", "Swish"),
    ("a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)", "HardSigmoid"),
    ("a = Add(x, three) c = Clip(a, zero, six) y = Mul(c, sixth)", "HardSigmoid"),
    ("m = Mul(x, fifth) a = Add(m, half) y = Clip(a, zero, one)", "HardSigmoid"),
    ("a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)", "HardSwish"),
    ("a = Add(x, three) c = Clip(a, zero, six) d = Div(c, six) y = Mul(x, d)", "HardSwish"),
    ("h = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(h, x)", "HardSwish"),
    ("e = Exp(x) a = Add(e, one) y = Log(a)", "Softplus"),
    ("e = Exp(x) a = Add(e, one) l = Log(a) c = Greater(x, twenty) y = Where(c, x, l)", "Softplus"),
    ("s = Softplus(x) t = Tanh(s) y = Mul(x, t)", "Mish"),
    ("e = Exp(x) a = Add(e, one) l = Log(a) t = Tanh(l) y = Mul(x, t)", "Mish"),
    ("y = Max(x, zero)", "Relu"),
    ("y = Clip(x, zero)", "Relu"),
    ("y = Clip(x, zero, inf)", "Relu"),
]


@pytest.mark.parametrize(("text", "op"), FORMS)
def test_forms(text: str, op: str) -> None:
    constants = {k: np.array(v, np.float32) for k, v in CONSTANTS.items()}
    declared = "".join(f", float[] {k}" for k in constants)
    model = parse(f"g (float[2,5] x{declared}) => (float[2,5] y) {{ {text} }}", **constants)
    assert check(model, recognize_activations, {"x": 3 * random(2, 5)}) == {op: 1}


@pytest.mark.parametrize("text", ["s = Sigmoid(z) y = Mul(x, s)", "a = Add(x, one) s = Sigmoid(a) y = Mul(x, s)"])
def test_gates_by_something_else_stay(text: str) -> None:
    model = parse(f"g (float[5] x, float[5] z, float[] one) => (float[5] y) {{ {text} }}", one=np.array(1, np.float32))
    assert check(model, recognize_activations, {"x": random(5), "z": random(5, seed=1)})["Swish"] == 0
