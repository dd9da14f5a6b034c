# SPDX-License-Identifier: Apache-2.0
"""fastinfer.bench: agreement, interleaving, random inputs."""

import time

import numpy as np
import pytest

import fastinfer as fi
from fastinfer import bench, peers

A = np.array([1.0, -2.0, 4.0], np.float32)


@pytest.mark.parametrize(
    "ours, reference, want",
    [
        ([A], [A], 0.0),
        ([A + 0.04], [A], 0.01),
        ([A, A + 4], [A, A], 1.0),
        ([A], [A, A], np.inf),
        ([A[:2]], [A], np.inf),
        ([A[:0]], [A[:0]], 0.0),
        ([np.array([1, 2])], [np.array([1, 2])], 0.0),
        ([np.array([1, 2])], [np.array([1, 3])], np.inf),
        ([np.array([np.nan, 1.0])], [np.array([np.nan, 1.0])], 0.0),
        ([np.array([0.0, 1.0])], [np.array([np.nan, 1.0])], np.inf),
        ([np.array([-np.inf, 1.0])], [np.array([np.inf, 1.0])], np.inf),
        ([np.array([np.inf])], [np.array([np.inf])], 0.0),
        ([np.array([1j])], [np.array([2j])], 0.5),
        ([np.array(["a"], object)], [np.array(["a"], object)], 0.0),
    ],
)
def test_disagreement(ours, reference, want):
    assert bench.disagreement(ours, reference) == pytest.approx(want, rel=1e-5)


def test_disagreement_of_zeros():
    assert bench.disagreement([np.zeros(3)], [np.zeros(3)]) == 0
    assert bench.disagreement([np.full(3, 1e-3)], [np.zeros(3)]) > 1


@pytest.mark.parametrize("longest, calls", [(0.5, 3), (0.1, 2), (0.01, 1)])
def test_interleave_takes_turns_both_ways(monkeypatch, longest, calls):
    monkeypatch.setattr(bench, "LONGEST_BLOCK", longest)
    order = []
    runs = {name: lambda name=name: (order.append(name), time.sleep(0.06)) for name in "ab"}
    taken = bench.interleave(runs, 0, min_rounds=2)
    turn = 1 + calls  # the first does not count
    assert "".join(order) == "a" * turn + "b" * 2 * turn + "a" * turn
    assert all(len(t) == 2 * calls and all(s >= 0.06 for s in t) for t in taken.values())


def test_interleave_reports_progress():
    seen = []
    bench.interleave({"a": lambda: None}, 0, seen.append, min_rounds=2)
    assert seen[-1] == 1.0 and seen == sorted(seen)


@pytest.fixture(scope="module")
def model(network):
    return fi.compile(network, threads=1)


def test_random_inputs_fill_free_extents(model):
    x = bench.random_inputs(model, seed=3)["x"]
    assert x.shape == (1, 16, 16, 16) and x.dtype == np.float32
    assert bench.random_inputs(model, {"x": (2, 16, 16, 16)})["x"].shape[0] == 2
    assert bench.random_inputs(model, free=3)["x"].shape[0] == 3
    np.testing.assert_array_equal(x, bench.random_inputs(model, seed=3)["x"])


def test_random_arrays_by_name():
    rng = np.random.default_rng(0)
    assert bench.random_array(rng, "attention_mask", np.dtype(np.int64), (4,)).tolist() == [1] * 4
    assert bench.random_array(rng, "token_type_ids", np.dtype(np.int64), (4,)).tolist() == [0] * 4
    ids = bench.random_array(rng, "input_ids", np.dtype(np.int32), (99,))
    assert ids.dtype == np.int32 and 0 <= ids.min() and ids.max() < 64
    assert bench.random_array(rng, "flag", np.dtype(bool), (2,)).all()


def peer(outputs, plain=None):
    return lambda *_: peers.Run(lambda: outputs, lambda: outputs, plain and (lambda: plain))


def test_compare_refuses_who_disagrees(model, monkeypatch):
    x = {"x": np.ones((1, 16, 16, 16), np.float32)}
    right = list(model.run(x).values())
    monkeypatch.setitem(peers.PEERS, "good", peer(right))
    monkeypatch.setitem(peers.PEERS, "bad", peer([right[0] + 1, right[1]]))
    result = bench.compare(model, x, against=("good", "bad"), seconds=0, min_rounds=1)
    ours, good, bad = result.rows()
    assert result.reference == "good" and result.ratio == pytest.approx(good["p50_ms"] / ours["p50_ms"])
    assert ours["max_error"] == 0 and ours["gflops"] > 0 and "refused" not in ours
    assert "outputs differ from good" in bad["refused"] and "p50_ms" not in bad
    assert result.as_dict()["runtimes"] == result.rows()


def test_unoptimised_reference_judges(model, monkeypatch):
    x = {"x": np.ones((1, 16, 16, 16), np.float32)}
    right = list(model.run(x).values())
    off = [right[0] * 1.001, right[1]]
    monkeypatch.setitem(peers.PEERS, "odd", peer(off, plain=right))
    result = bench.compare(model, x, against=("odd",), seconds=0, min_rounds=1)
    assert "unoptimised" in result.ours.note and result.ours.error == 0 and result.ours.seconds


def test_unknown_peer(model):
    with pytest.raises(KeyError, match="no peer is called 'x'"):
        bench.compare(model, {"x": np.ones((1, 16, 16, 16), np.float32)}, against=("x",))
