# SPDX-License-Identifier: Apache-2.0
"""LSTM, GRU and RNN as one product and one launch, against their equations in float64."""

import numpy as np
import pytest
import torch
from cuda_nodes import on_device, run_node
from sm90 import SHARED, compile

from fastinfer.cuda.kernels import rnn

OPS = {"lstm": "LSTM", "gru": "GRU", "gru_after": "GRU", "rnn_tanh": "RNN", "rnn_relu": "RNN"}
TOLERANCE = {"fp32": 1e-5, "tf32": 1e-5, "bf16": 6e-2, "f16": 6e-3}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def step(cell, g, h, c, r, rb):
    """The states after one step; g: the input's part of the gates with its bias."""
    n = h.shape[1]
    if cell.startswith("rnn"):
        s = g + h @ r.T + rb
        return (np.tanh(s) if cell == "rnn_tanh" else np.maximum(s, 0)), c
    if cell == "lstm":
        i, o, f, new = np.split(g + h @ r.T + rb, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(new)
        return sigmoid(o) * np.tanh(c), c
    z, reset = np.split(sigmoid(g[:, : 2 * n] + h @ r[: 2 * n].T + rb[: 2 * n]), 2, axis=1)
    if cell == "gru_after":
        new = g[:, 2 * n :] + reset * (h @ r[2 * n :].T + rb[2 * n :])
    else:
        new = g[:, 2 * n :] + (reset * h) @ r[2 * n :].T + rb[2 * n :]
    return (1 - z) * np.tanh(new) + z * h, c


def oracle(cell, x, w, r, b, lengths, h0, c0, direction):
    """Y, Y_h, Y_c in ONNX's layout 0."""
    steps, batch, _ = x.shape
    directions, hidden, half = r.shape[0], r.shape[2], b.shape[1] // 2
    y = np.zeros((steps, directions, batch, hidden))
    h, c = h0.astype(np.float64), c0.astype(np.float64)
    for d in range(directions):
        back = direction == "reverse" or d == 1
        for t in reversed(range(steps)) if back else range(steps):
            g = x[t].astype(np.float64) @ w[d].T + b[d, :half]
            new_h, new_c = step(cell, g, h[d], c[d], r[d], b[d, half:])
            alive = (t < lengths)[:, None]
            h[d], c[d] = np.where(alive, new_h, h[d]), np.where(alive, new_c, c[d])
            y[t, d] = np.where(alive, new_h, 0)
    return y, h, c


def check(cell, batch, hidden, direction="forward", precision="fp32", given="b", steps=4, depth=7):
    """given: which of b (biases), s (states) and l (lengths) there are."""
    rng = np.random.default_rng(0)
    n, gates = 2 if direction == "bidirectional" else 1, rnn.GATES[cell]

    def numbers(*shape, there=True):
        return (0.5 * there * rng.standard_normal(shape)).astype(np.float32)

    x, w, r = numbers(steps, batch, depth), numbers(n, gates * hidden, depth), numbers(n, gates * hidden, hidden)
    b = numbers(n, 2 * gates * hidden, there="b" in given)
    h0, c0 = numbers(n, batch, hidden, there="s" in given), numbers(n, batch, hidden, there="s" in given)
    lengths = rng.integers(0, steps + 1, batch).astype(np.int32) if "l" in given else np.full(batch, steps, np.int32)
    attrs = {"linear_before_reset": 1} if cell == "gru_after" else {}
    attrs |= {"activations": ["Relu"] * n} if cell == "rnn_relu" else {}
    inputs = [x, w, r, b if "b" in given else None, lengths if "l" in given else None]
    inputs += ([h0] + ([c0] if cell == "lstm" else [])) if "s" in given else []
    got, kernels = run_node(
        OPS[cell], inputs, n_outputs=3 if cell == "lstm" else 2, constants=[i for i in (1, 2, 3) if inputs[i] is not None],
        precision=precision, hidden_size=hidden, direction=direction, **attrs
    )  # fmt: skip
    assert any(k.startswith(f"triton_{OPS[cell].lower()}") for k in kernels), kernels
    assert not any(k.startswith("torch") for k in kernels), kernels
    wanted, tolerance = oracle(cell, x, w, r, b, lengths, h0, c0, direction), TOLERANCE[precision]
    for a, want in zip(got, wanted):
        np.testing.assert_allclose(a.astype(np.float64), want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("cell", rnn.GATES)
def test_directions(cell, direction):
    check(cell, 3, 5, direction, given="bs")
    check(cell, 17, 16, direction)


@pytest.mark.parametrize("precision", ["tf32", "bf16", "f16"])
@pytest.mark.parametrize("cell", rnn.GATES)
def test_precisions(cell, precision):
    check(cell, 3, 17, "bidirectional", precision, given="bs")


@pytest.mark.parametrize("cell", ["lstm", "gru", "gru_after", "rnn_tanh"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_lengths(cell, direction):
    """From 0 to all steps: states wait at a sequence's end, and backwards they begin there."""
    check(cell, 9, 5, direction, given="bsl")


@pytest.mark.parametrize("cell", rnn.GATES)
def test_what_may_be_missing(cell):
    check(cell, 2, 3, given="")
    check(cell, 1, 1, given="s", steps=1, depth=1)
    check(cell, 1, 33, given="l")


@pytest.mark.parametrize("op,gates,outputs", [("LSTM", 4, 3), ("GRU", 3, 2), ("RNN", 1, 2)])
def test_what_is_left_to_torch(op, gates, outputs):
    x = np.zeros((2, 1, 3), np.float32)
    for hidden, attrs in [(130, {}), (4, {"clip": 0.5}), (4, {"activations": ["Sigmoid", "Relu", "Relu"][:outputs]})]:
        w, r = np.zeros((1, gates * hidden, 3), np.float32), np.zeros((1, gates * hidden, hidden), np.float32)
        if op == "RNN" and "activations" in attrs:
            attrs = {"activations": ["Softsign"]}
        _, kernels = run_node(op, [x, w, r], n_outputs=outputs, constants=(1, 2), hidden_size=hidden, **attrs)
        assert f"torch.{op}" in kernels


@pytest.mark.parametrize("cell", rnn.GATES)
def test_bits_do_not_depend_on_the_batch(cell):
    n = rnn.GATES[cell]
    gates, r = torch.randn(3, 20, 1, n, 16), torch.randn(1, n, 16, 16)
    whole, alone = torch.full((3, 1, 20, 16), 9.0), torch.full((3, 1, 1, 16), 9.0)
    for y, g in ((whole, gates), (alone, gates[:, 18:19].contiguous())):
        problem = rnn.Problem(cell, 3, g.shape[1], 16, "forward", torch.float32, False)
        on_device(rnn.run, g, r, None, None, None, None, y, None, None, problem=problem, config=rnn.default(problem))
    assert torch.equal(whole[:, :, 18:19], alone)


@pytest.mark.parametrize(
    "dtype,tf32", [(torch.bfloat16, False), (torch.float32, True), (torch.float32, False)], ids=str
)
@pytest.mark.parametrize("cell", ["lstm", "gru", "gru_after", "rnn_tanh"])
def test_the_most_units_on_hopper(cell, dtype, tf32):
    pointer, h = {torch.bfloat16: "*bf16", torch.float32: "*fp32"}[dtype], rnn.units(dtype, tf32)
    types = dict.fromkeys(["r", "h0", "c0", "y", "y_h", "y_c"], pointer) | {"gates": "*fp32", "bias": "*fp32"}
    types |= {"lengths": "*i32", "steps": "i32", "batch": "i32"}
    constants = {"CELL": cell, "GATES": rnn.GATES[cell], "REVERSE": 0, "D": 1, "H": h, "HP": h, "BT": 16}
    constants |= dict.fromkeys(["BIAS", "LENGTHS", "START_H", "START_C", "Y", "Y_H", "Y_C"], True)
    constants |= {"PRECISION": "tf32" if tf32 else "ieee"}
    for config in rnn.configs(rnn.Problem(cell, 64, 16, h, "forward", dtype, tf32)):
        options = {"num_warps": config.num_warps, "num_stages": 1}
        c = compile("fastinfer.cuda.kernels.rnn:_recurrence", types, constants, options)
        # ptxas stops at 128 registers of its own accord for a GRU in bfloat16, and keeps two of them in memory.
        assert c.spills <= 8 and c.shared <= SHARED, (config, c.spills, c.n_regs, c.shared)
        assert dtype == torch.float32 and not tf32 or c.count("mma.sync") > 0
