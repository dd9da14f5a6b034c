# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from fastinfer.passes import verify
from fastinfer.passes.fuse_conv import fuse_conv

from .graphs import check, parse, random, run_onnxruntime

ACTIVATIONS = {
    "relu": "y = Relu(c)",
    "clip": "y = Clip(c, low, high)",
    "leaky_relu": "y = LeakyRelu<alpha=0.1>(c)",
    "sigmoid": "y = Sigmoid(c)",
    "tanh": "y = Tanh(c)",
    "silu": "y = Swish(c)",
    "quick_gelu": "y = Swish<alpha=1.702>(c)",
    "gelu": "y = Gelu(c)",
    "gelu_tanh": 'y = Gelu<approximate="tanh">(c)',
    "hard_swish": "y = HardSwish(c)",
    "hard_sigmoid": "y = HardSigmoid<alpha=0.3, beta=0.4>(c)",
    "elu": "y = Elu<alpha=0.7>(c)",
    "softplus": "y = Softplus(c)",
    "mish": "y = Mish(c)",
}


def _model(text: str, w: tuple[int, ...] = (5, 4, 3, 3), x: str = "2,4,7,6"):
    constants = {
        "w": random(*w), "b": random(w[0], seed=1), "low": np.array(-0.5, np.float32), "high": np.array(1.5, np.float32),
    }  # fmt: skip
    kinds = "".join(f", float[{','.join(map(str, v.shape))}] {k}" for k, v in constants.items())
    return parse(f"g (float[{x}] x, float[2,5,7,6] r{kinds}) => (float[A,B,C,D] y) {{ {text} }}", **constants)


INPUTS = {"x": random(2, 4, 7, 6), "r": random(2, 5, 7, 6, seed=2)}
CONV = "c = Conv<pads=[1,1,1,1]>(x, w, b)"


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    model = _model(f"{CONV} {ACTIVATIONS[name]}")
    assert check(model, fuse_conv, INPUTS) == {"fastinfer.Conv": 1}
    assert model.graph[0].attributes["activation"].value == name


@pytest.mark.parametrize(
    "tail", ["y = Add(c, r)", "y = Add(r, c)", "s = Add(c, r) y = Relu(s)", "s = Relu(c) y = Add(s, r)"]
)
def test_residuals(tail: str) -> None:
    model = _model(f"{CONV} {tail}")
    assert check(model, fuse_conv, INPUTS) == {"fastinfer.Conv": 1}
    assert ("residual_after" in model.graph[0].attributes) == tail.startswith("s = Relu")


def test_of_two_convolutions_one_takes_the_other() -> None:
    model = _model("c = Conv<pads=[1,1,1,1]>(x, w, b) d = Conv<pads=[1,1,1,1]>(x, w) s = Add(c, d) y = Relu(s)")
    assert check(model, fuse_conv, INPUTS) == {"fastinfer.Conv": 2}


@pytest.mark.parametrize(
    "conv",
    [
        'c = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w, b)',
        'c = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w, b)',
        'c = Conv<auto_pad="SAME_UPPER", dilations=[2,2]>(x, w, b)',
        'c = Conv<auto_pad="VALID">(x, w, b)',
        "c = Conv<strides=[2,1], pads=[0,1,2,3]>(x, w)",
        "c = ConvTranspose<strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]>(x, t)",
        "c = ConvTranspose<group=2, strides=[2,1]>(x, t, b5)",
    ],
)
def test_padding_becomes_explicit(conv: str) -> None:
    model = parse(
        f"g (float[2,4,7,6] x, float[5,4,3,3] w, float[5] b, float[4,5,3,3] t, float[10] b5) => (float[A,B,C,D] y) {{ {conv} y = Relu(c) }}",
        w=random(5, 4, 3, 3), b=random(5), t=random(4, 5, 3, 3), b5=random(10),
    )  # fmt: skip
    run = run_onnxruntime if "Transpose" in conv else verify.run_reference  # each is wrong about one of these
    assert sum(check(model, fuse_conv, {"x": random(2, 4, 7, 6)}, run=run).values()) == 1
    assert "pads" in model.graph[0].attributes


def test_same_padding_of_unknown_extents_stays() -> None:
    model = parse(
        'g (float[2,4,H,W] x, float[5,4,3,3] w) => (float[A,B,C,D] y) { y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w) }',
        w=random(5, 4, 3, 3),
    )
    assert check(model, fuse_conv, {"x": random(2, 4, 7, 6)}) == {"Conv": 1}


@pytest.mark.parametrize("tail", ["s = Relu(c) y = Add(s, c)", "s = Relu(c) t = Relu(s) u = Tanh(t) y = Add(u, bc)"])
def test_what_others_read_stays(tail: str) -> None:
    model = _model(f"{CONV} {tail.replace('bc', 'low')}")
    check(model, fuse_conv, INPUTS)


def test_a_residual_that_broadcasts_stays() -> None:
    model = parse(
        "g (float[2,4,7,6] x, float[2,5,1,1] r, float[5,4,1,1] w) => (float[A,B,C,D] y) { c = Conv(x, w) y = Add(c, r) }",
        w=random(5, 4, 1, 1),
    )
    assert check(model, fuse_conv, {"x": random(2, 4, 7, 6), "r": random(2, 5, 1, 1)}) == {
        "fastinfer.Conv": 1,
        "Add": 1,
    }


def test_one_and_three_axes() -> None:
    for x, w in (("2,4,9", (5, 4, 3)), ("2,4,5,4,3", (5, 4, 2, 2, 2))):
        shape = tuple(map(int, x.split(",")))
        model = parse(
            f"g (float[{x}] x, float[{','.join(map(str, w))}] w) => (float[{','.join('ABCDE'[: len(shape)])}] y) {{ c = Conv(x, w) y = Relu(c) }}",
            w=random(*w),
        )
        assert check(model, fuse_conv, {"x": random(*shape)}) == {"fastinfer.Conv": 1}
