# SPDX-License-Identifier: Apache-2.0
"""LSTM as one product and one launch, against its equations in float64."""

import numpy as np
import pytest
import torch
from cuda_nodes import run_node
from sm90 import SHARED, compile

from fastinfer.cuda.kernels import rnn


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(x, w, r, b, h0, c0, direction):
    """Y, Y_h, Y_c in ONNX's layout 0; gates in the order i, o, f, c."""
    steps, batch, _ = x.shape
    directions, hidden = r.shape[0], r.shape[2]
    y = np.zeros((steps, directions, batch, hidden))
    h, c = h0.astype(np.float64), c0.astype(np.float64)
    for d in range(directions):
        back = direction == "reverse" or d == 1
        for t in reversed(range(steps)) if back else range(steps):
            g = x[t].astype(np.float64) @ w[d].T + h[d] @ r[d].T + b[d, : 4 * hidden] + b[d, 4 * hidden :]
            i, o, f, n = np.split(g, 4, axis=1)
            c[d] = sigmoid(f) * c[d] + sigmoid(i) * np.tanh(n)
            h[d] = y[t, d] = sigmoid(o) * np.tanh(c[d])
    return y, h, c


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("precision,tolerance", [("fp32", 1e-5), ("bf16", 6e-2), ("f16", 6e-3)])
@pytest.mark.parametrize("batch,hidden,starts", [(3, 5, True), (17, 16, False)])
def test_lstm(direction, precision, tolerance, batch, hidden, starts):
    rng = np.random.default_rng(0)
    n, steps, depth = 2 if direction == "bidirectional" else 1, 4, 7
    numbers = lambda *s: (0.5 * rng.standard_normal(s)).astype(np.float32)  # noqa: E731
    x, w, r, b = (
        numbers(steps, batch, depth),
        numbers(n, 4 * hidden, depth),
        numbers(n, 4 * hidden, hidden),
        numbers(n, 8 * hidden),
    )
    h0, c0 = (numbers(n, batch, hidden) if starts else np.zeros((n, batch, hidden), np.float32) for _ in range(2))
    inputs = [x, w, r, b, None, h0 if starts else None, c0 if starts else None]
    got, kernels = run_node(
        "LSTM", inputs, n_outputs=3, constants=(1, 2, 3), precision=precision, hidden_size=hidden, direction=direction
    )  # fmt: skip
    assert any(k.startswith("triton_lstm") for k in kernels) and not any(k.startswith("torch") for k in kernels), (
        kernels
    )
    for a, want in zip(got, lstm(x, w, r, b, h0, c0, direction), strict=True):
        np.testing.assert_allclose(a.astype(np.float64), want, rtol=tolerance, atol=tolerance)


def test_what_is_left_to_torch():
    x = np.zeros((2, 1, 3), np.float32)
    w, r = np.zeros((1, 4 * 130, 3), np.float32), np.zeros((1, 4 * 130, 130), np.float32)
    _, kernels = run_node("LSTM", [x, w, r], constants=(1, 2), hidden_size=130)
    assert "torch.LSTM" in kernels


def test_bits_do_not_depend_on_the_batch():
    gates, r = torch.randn(3, 20, 1, 4, 16), torch.randn(1, 4, 16, 16)
    whole, alone = torch.full((3, 1, 20, 16), 9.0), torch.full((3, 1, 1, 16), 9.0)
    for y, g in ((whole, gates), (alone, gates[:, 18:19].contiguous())):
        problem = rnn.Problem(3, g.shape[1], 16, "forward", torch.float32, False)
        rnn.run(g, r, None, None, y, None, None, problem, rnn.default(problem))
    assert torch.equal(whole[:, :, 18:19], alone)


@pytest.mark.parametrize(
    "dtype,tf32", [(torch.bfloat16, False), (torch.float32, True), (torch.float32, False)], ids=str
)
def test_the_most_units_on_hopper(dtype, tf32):
    pointer, h = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}[dtype], rnn.units(dtype, tf32)
    types = {
        **dict.fromkeys(["r", "h0", "c0", "y", "y_h", "y_c"], pointer),
        "gates": "*fp32",
        "steps": "i32",
        "batch": "i32",
    }
    constants = {"REVERSE": 0, "D": 1, "H": h, "HP": h, "BT": 16, "START_H": True, "START_C": True}
    constants |= {"Y": True, "Y_H": True, "Y_C": True, "PRECISION": "tf32" if tf32 else "ieee"}
    for config in rnn.configs(rnn.Problem(64, 16, h, "forward", dtype, tf32)):
        options = {"num_warps": config.num_warps, "num_stages": 1}
        c = compile("fastinfer.cuda.kernels.rnn:_lstm", types, constants, options)
        assert c.spills == 0 and c.shared <= SHARED
        assert dtype == torch.float32 and not tf32 or c.count("mma.sync") > 0
