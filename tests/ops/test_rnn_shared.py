# SPDX-License-Identifier: Apache-2.0
"""Recurrences whose hidden units are shared by several threads: values, bits, and that nobody waits for ever."""

import concurrent.futures

import numpy as np
import pytest
from support import build, node_model, run_everywhere
from test_rnn import GATES, check, oracle, tensors

# 1 row x gates x hidden units long enough that a time step is cut (rnn_cut: 32 K multiply-adds per share).
HIDDEN = {"LSTM": 144, "GRU": 150, "RNN": 272}


def wide(op, *sizes):
    """Many hidden units amplify rounding from step to step unless the recurrence is damped."""
    t = tensors(op, *sizes)
    return {**t, "r": t["r"] * np.float32(0.2)}


@pytest.mark.parametrize("use", [{"b"}, {"b", "lens", "h0", "c0", "p"}], ids=["plain", "everything"])
@pytest.mark.parametrize("op", GATES)
def test_values(op, use):
    check(op, wide(op, 7, 1, 9, HIDDEN[op], 1), use)


def test_gru_in_one_phase():
    check("GRU", wide("GRU", 5, 1, 9, HIDDEN["GRU"], 1), {"b", "h0"}, linear_before_reset=1)


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
@pytest.mark.parametrize("op", GATES)
def test_bits_do_not_depend_on_threads_or_company(op, batch):
    t = tensors(op, 5, 5, 6, HIDDEN[op], 2)
    model = node_model(op, [t["x"], t["w"], t["r"], t["b"]], 2, constants=(1, 2, 3), direction="bidirectional",
                       hidden_size=HIDDEN[op])  # fmt: skip
    x = np.ascontiguousarray(t["x"][:, :batch])
    alone = np.ascontiguousarray(t["x"][:, :1])
    first = {label.split(",")[0]: outputs[0] for label, outputs in run_everywhere(model, {"x0": alone}, threads=(1,))}
    for label, outputs in run_everywhere(model, {"x0": x}, threads=(1, 2, 3, 4, 7)):
        np.testing.assert_array_equal(outputs[0][:, :, :1], first[label.split(",")[0]], err_msg=label)


def test_more_threads_than_cores_and_callers():
    """Eight callers share the pool's workers: most find them busy and do all parts themselves, one after the other."""
    t = wide("LSTM", 40, 1, 16, 160, 1)
    model = build(node_model("LSTM", [t["x"], t["w"], t["r"], t["b"]], 3, constants=(1, 2, 3), hidden_size=160),
                  threads=5)  # fmt: skip
    want = [a.copy() for a in model.run({"x0": t["x"]}).values()]
    np.testing.assert_allclose(want[0], oracle("LSTM", t["x"], t["w"], t["r"], t["b"])[0], atol=2e-5, rtol=1e-4)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for got in pool.map(lambda _: list(model.run({"x0": t["x"]}).values()), range(200)):
            for a, b in zip(got, want, strict=True):
                np.testing.assert_array_equal(a, b)
