# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from fastinfer.passes.lower_contrib import lower_contrib

from .graphs import check, parse, random, run_where_known

X = {"x": random(2, 3, 8), "r": random(2, 3, 8, seed=1)}
ROWS = [
    ("y = com.microsoft.Gelu(x)", {"Gelu": 1}),
    ("y = com.microsoft.BiasGelu(x, b)", {"Add": 1, "Gelu": 1}),
    ("y = com.microsoft.FastGelu(x)", {"Gelu": 1}),
    ("y = com.microsoft.FastGelu(x, b)", {"Add": 1, "Gelu": 1}),
    ("y = com.microsoft.QuickGelu<alpha=1.5>(x)", {"Swish": 1}),
    ("y = com.microsoft.SkipLayerNormalization<epsilon=0.001>(x, r, w, b, c)", {"fastinfer.SkipLayerNorm": 1}),
    ("y = com.microsoft.SkipLayerNormalization(x, r, w)", {"fastinfer.SkipLayerNorm": 1}),
    (
        "n, , , s = com.microsoft.SkipLayerNormalization(x, r, w, b) y = Add(n, s)",
        {"fastinfer.SkipLayerNorm": 1, "Add": 1},
    ),
    ("y = com.microsoft.SkipSimplifiedLayerNormalization<epsilon=0.001>(x, r, w, c)", {"fastinfer.SkipRMSNorm": 1}),
]


@pytest.mark.parametrize(("text", "wanted"), ROWS)
def test_on_rows(text: str, wanted: dict[str, int]) -> None:
    constants = {"w": random(8), "b": random(8, seed=2), "c": random(8, seed=3)}
    declared = "".join(f", float[8] {k}" for k in constants)
    model = parse(f"g (float[2,3,8] x, float[2,3,8] r{declared}) => (float[2,3,8] y) {{ {text} }}", **constants)
    assert check(model, lower_contrib, X, run=run_where_known) == wanted


@pytest.mark.parametrize(
    ("attributes", "op"),
    [
        ('activation="Relu"', "Relu"),
        ('activation="LeakyRelu", activation_params=[0.2]', "LeakyRelu"),
        ('activation="Clip", activation_params=[-0.5, 0.5]', "Clip"),
        ('activation="HardSigmoid", activation_params=[0.2, 0.4]', "HardSigmoid"),
    ],
)
def test_fused_conv(attributes: str, op: str) -> None:
    model = parse(
        f"""g (float[2,4,6,6] x, float[2,5,6,6] z, float[5,4,3,3] w, float[5] b) => (float[2,5,6,6] y) {{
        y = com.microsoft.FusedConv<pads=[1,1,1,1], {attributes}>(x, w, b, z) }}""",
        w=random(5, 4, 3, 3), b=random(5),
    )  # fmt: skip
    inputs = {"x": random(2, 4, 6, 6), "z": random(2, 5, 6, 6)}
    assert check(model, lower_contrib, inputs, run=run_where_known) == {"Conv": 1, "Add": 1, op: 1}
