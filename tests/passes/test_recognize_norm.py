# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from fastinfer.passes.recognize_group_norm import recognize_group_norm
from fastinfer.passes.recognize_norm import recognize_norm

from .graphs import check, parse, random

SQUARES = {"Pow": "q = Pow(d, two)", "Mul": "q = Mul(d, d)", "again": "d2 = Sub(x, m) q = Pow(d2, two)"}
ROOTS = {
    "Div": "r = Sqrt(e) n = Div(d, r)",
    "Reciprocal": "r = Sqrt(e) i = Reciprocal(r) n = Mul(d, i)",
    "1/": "r = Sqrt(e) i = Div(one, r) n = Mul(i, d)",
    "Pow": "i = Pow(e, minus_half) n = Mul(d, i)",
}
NUMBERS = {"two": 2.0, "one": 1.0, "eps": 1e-5, "minus_half": -0.5}


def _norm(body: str, shape: str, axes: list[int], **arrays: np.ndarray):
    constants = {k: np.array(v, np.float32) for k, v in NUMBERS.items()} | arrays
    kinds = "".join(f", float[{','.join(map(str, v.shape))}] {k}" for k, v in constants.items())
    text = f"g (float[{shape}] x, int64[{len(axes)}] axes{kinds}) => (float[{shape}] y) {{ {body} }}"
    return parse(text, axes=np.array(axes, np.int64), **constants)


@pytest.mark.parametrize("square", SQUARES)
@pytest.mark.parametrize("root", ROOTS)
def test_layer_norm(square: str, root: str) -> None:
    body = f"""m = ReduceMean(x, axes) d = Sub(x, m) {SQUARES[square]} v = ReduceMean(q, axes) e = Add(v, eps) {ROOTS[root]}
        s = Mul(n, w) y = Add(s, b)"""
    model = _norm(body, "N,3,8", [-1], w=random(8), b=random(8, seed=1))
    assert check(model, recognize_norm, {"x": random(2, 3, 8)}) == {"LayerNormalization": 1}


@pytest.mark.parametrize(
    ("tail", "rest"), [("y = Identity(n)", 1), ("y = Mul(w, n)", 0), ("t = Add(n, z) y = Mul(t, w)", 2)]
)
def test_without_scale_or_bias(tail: str, rest: int) -> None:
    body = f"m = ReduceMean(x, axes) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, axes) e = Add(v, eps) r = Sqrt(e) n = Div(d, r) {tail}"
    model = _norm(body, "2,3,8", [2], w=random(8), z=random(2, 3, 8))
    after = check(model, recognize_norm, {"x": random(2, 3, 8)})
    assert after["LayerNormalization"] == 1 and sum(after.values()) == 1 + rest


def test_over_channels_of_images() -> None:
    body = """m = ReduceMean(x, axes) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, axes) e = Add(v, eps) r = Sqrt(e) n = Div(d, r)
        s = Mul(n, w) y = Add(s, b)"""
    model = _norm(body, "N,8,3,4", [1], w=random(8, 1, 1), b=random(8, 1, 1, seed=1))
    assert check(model, recognize_norm, {"x": random(2, 8, 3, 4)}) == {"Transpose": 2, "LayerNormalization": 1}


def test_over_pixels() -> None:
    body = """m = ReduceMean(x, axes) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, axes) e = Add(v, eps) r = Sqrt(e) n = Div(d, r)
        s = Mul(n, w) y = Add(s, b)"""
    model = _norm(body, "N,8,3,4", [2, 3], w=random(1, 8, 1, 1), b=random(8, 1, 1, seed=1))
    assert check(model, recognize_norm, {"x": random(2, 8, 3, 4)}) == {"InstanceNormalization": 1}


@pytest.mark.parametrize(
    "tail", ["i = Reciprocal(r) n = Mul(x, i) y = Mul(w, n)", "n = Div(x, r) y = Mul(n, w)", "y = Div(x, r)"]
)
def test_rms_norm(tail: str) -> None:
    body = f"q = Pow(x, two) v = ReduceMean(q, axes) e = Add(v, eps) r = Sqrt(e) {tail}"
    model = _norm(body, "N,S,8", [-1], w=random(8))
    assert check(model, recognize_norm, {"x": random(2, 3, 8)}) == {"RMSNormalization": 1}


def test_group_norm() -> None:
    model = parse(
        """g (float[N,6,H,W] x, int64[3] three, float[2] s, float[2] z, float[6,1,1] w, float[6,1,1] b) => (float[N,6,H,W] y) {
        shape = Shape(x) r = Reshape(x, three) n = InstanceNormalization<epsilon=1e-5>(r, s, z) k = Reshape(n, shape)
        m = Mul(k, w) y = Add(m, b) }""",
        three=np.array([0, 2, -1]), s=np.ones(2, np.float32), z=np.zeros(2, np.float32), w=random(6, 1, 1),
        b=random(6, 1, 1, seed=1),
    )  # fmt: skip
    after = check(model, recognize_group_norm, {"x": random(2, 6, 3, 4)})
    assert after["GroupNormalization"] == 1 and after["InstanceNormalization"] == 0
