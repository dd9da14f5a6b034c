# SPDX-License-Identifier: Apache-2.0
"""How servers start, drain and end."""

import signal
import time

import pytest
from load import Balancer, GrpcLoad, Load
from process import X, serving, wait_until
from small_models import heavy, put

WORKERS = pytest.mark.parametrize("workers", [1, 2])


@WORKERS
def test_sigterm_under_load_loses_nothing(root, tmp_path, workers):
    """Behind a balancer that takes 0.2 s to notice: each request that is sent is answered, on both wires."""
    with serving(root, "--drain", "0.6", "--workers", workers, folder=tmp_path) as s:
        loads = [Load(s, clients=4, pause=0.001), GrpcLoad(s, clients=4, pause=0.001)]
        balancer = Balancer(s, loads)
        wait_until(lambda: all(load.good > 20 for load in loads))
        before = [load.good for load in loads]
        kept = s.connect()
        assert s.infer("double", X, kept)[0] == 200 and kept.sock is not None
        told = time.monotonic()
        s.process.send_signal(signal.SIGTERM)
        balancer.join()
        live = s.ask("GET", "/v2/health/live")[0]
        assert s.infer("double", X, kept)[0] == 200 and kept.sock is None  # "Connection: close": go elsewhere
        assert s.process.wait(20) == 0
        for load in loads:
            load.end()
    assert balancer.noticed - told < 0.3 and live == 200
    for load, good in zip(loads, before, strict=True):
        assert load.lost == [] and list(load.counts) == ["ok"] and load.good > good, (load.lost, load.counts)


@WORKERS
@pytest.mark.parametrize("load_class", [Load, GrpcLoad])
def test_what_was_taken_in_is_answered(root, tmp_path, load_class, workers):
    """Without any drain: requests that wait or run when the signal comes are answered."""
    put(root, "slow", 1, heavy(), "threads = 1\n[batching]\nmax_batch = 64\n")
    with serving(root, "--workers", workers, folder=tmp_path) as s:
        x = X * 64
        load = load_class(s, clients=8, model="slow", x=x, expected=X[0])
        wait_until(lambda: load.good >= 8)
        before = load.good
        load.stop.set()  # each client's request under way is its last
        s.process.send_signal(signal.SIGTERM)
        assert s.process.wait(20) == 0
        load.end()
    assert load.lost == [] and list(load.counts) == ["ok"] and load.good > before


@WORKERS
def test_a_second_signal_ends_it_at_once(root, tmp_path, workers):
    with serving(root, "--drain", "60", "--workers", workers, folder=tmp_path) as s:
        s.process.send_signal(signal.SIGTERM)
        wait_until(lambda: s.ask("GET", "/v2/health/ready")[0] == 503)
        pids = s.workers()
        start = time.monotonic()
        assert s.end(signal.SIGTERM, 10) == 128 + signal.SIGTERM and time.monotonic() - start < 3
        wait_until(lambda: not any(s.alive(pid) for pid in pids), 5)


@WORKERS
def test_sigterm_while_models_load(root, tmp_path, workers):
    put(root, "slow", 1, heavy(layers=200))
    with serving(root, "--workers", workers, folder=tmp_path, wait=False) as s:
        s.wait("/v2/health/live")
        assert s.ask("GET", "/v2/health/ready")[0] == 503
        start = time.monotonic()
        assert s.end(signal.SIGTERM, 20) == 0 and time.monotonic() - start < 5


@WORKERS
def test_live_while_models_load_and_a_broken_model_keeps_no_other_from_serving(root, tmp_path, workers):
    (root / "broken" / "1").mkdir(parents=True)
    (root / "broken" / "1" / "model.onnx").write_bytes(b"nonsense")
    with serving(root, "--workers", workers, folder=tmp_path, wait=False) as s:
        s.wait("/v2/health/live")
        # Each worker says so of itself, when it has tried all.
        wait_until(lambda: s.log.read_text().count("some models could not be loaded") == workers)
        s.wait("/v2/models/double/ready")
        assert s.ask("GET", "/v2/health/ready")[0] == 503
        index = {r["name"]: r for r in s.ask("POST", "/v2/repository/index", {})[1]}
        assert index["double"]["state"] == "READY" and index["broken"]["state"] == "UNAVAILABLE"
        assert index["broken"]["reason"] and str(tmp_path) not in index["broken"]["reason"]


def test_ready_when_all_workers_are(root, tmp_path):
    """A server of several says that it is ready once: then every connection finds a model."""
    put(root, "slow", 1, heavy(layers=60))
    with serving(root, "--workers", "2", folder=tmp_path) as s:
        assert s.log.read_text().count("worker is ready") == 2
        assert {s.infer("slow", X)[0] for _ in range(20)} == {200}
