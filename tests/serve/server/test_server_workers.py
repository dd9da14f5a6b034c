# SPDX-License-Identifier: Apache-2.0
"""Servers of several processes."""

import os
import signal
import time
from pathlib import Path

import pytest
import tritonclient.grpc
from load import GrpcLoad, Load
from process import X, serving, wait_until
from small_models import heavy, put, scale

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are looked up in /proc")


def readies(s):
    return s.log.read_text().count("worker is ready")


def values(s, count):
    """What new connections are answered, which reach all workers."""
    return {s.infer("double", X)[1]["outputs"][0]["data"][0] for _ in range(count)}


def test_a_worker_that_is_killed_takes_with_it_only_what_it_held(root, tmp_path):
    put(root, "double", 2, scale(20.0))
    with serving(root, "--workers", "2", folder=tmp_path) as s:
        first, second = s.workers()
        assert values(s, 20) == {20.0}
        assert s.ask("POST", "/fastinfer/v1/models/double/promote", {"version": "1"})[0] == 200
        assert values(s, 60) == {2.0}

        load, called = Load(s, clients=4), GrpcLoad(s, clients=2)
        wait_until(lambda: load.good > 50 and called.good > 20)
        os.kill(first, signal.SIGKILL)
        killed, before = time.monotonic(), load.good
        wait_until(lambda: load.good > before + 100)
        assert readies(s) == 2 or time.monotonic() - killed < 1  # others serve, and nobody has to wait for the next one
        wait_until(lambda: readies(s) == 3)
        back = time.monotonic() - killed
        load.end()
        called.end()
        assert len(load.lost) <= 4 and list(load.counts) == ["ok"] and back < 10, (load.lost, back)
        # A channel of gRPC loses what it holds and the calls until it is connected again.
        assert called.good > 20 and all("UNAVAILABLE" in text for text in called.lost), called.lost
        now = s.workers()
        assert second in now and first not in now and len(now) == 2
        assert values(s, 60) == {2.0} and s.model("double")["live"] == "1"  # the new one knows what was changed

        assert s.ask("POST", "/v2/repository/models/double/unload", {})[0] == 200
        assert {s.infer("double", X)[0] for _ in range(40)} == {503}
        assert s.end() == 0 and not any(s.alive(pid) for pid in now)


def test_a_model_that_a_load_request_brings_over_grpc_reaches_all_workers(root, tmp_path):
    """tritonclient sends the file as bytes, which the workers' link cannot carry as they are."""
    with serving(root, "--workers", "2", "--allow-files", folder=tmp_path) as s:
        files = {"file:1/model.onnx": scale(5.0).SerializeToString()}
        with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{s.grpc_port}") as client:
            client.load_model("double", config="{}", files=files)
        assert values(s, 40) == {5.0}


def kill_again_and_again(s, first, times):
    """Kills the worker that began as `first`, and those that replace it."""
    others = set(s.workers()) - {first}
    for _ in range(times):
        wait_until(lambda: set(s.workers()) - others)
        (pid,) = set(s.workers()) - others
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: not s.alive(pid))


def test_a_worker_that_crashes_again_and_again_is_let_rest_while_others_serve(root, tmp_path):
    with serving(root, "--workers", "2", folder=tmp_path) as s:
        first, second = s.workers()
        kill_again_and_again(s, first, 6)
        wait_until(lambda: "is started again in 1 s" in s.log.read_text(), 5)
        assert s.workers() == [second] and values(s, 20) == {2.0}
        wait_until(lambda: readies(s) == 3)
        assert len(s.workers()) == 2


def test_a_server_whose_workers_all_crash_ends(root, tmp_path):
    with serving(root, "--workers", "1", folder=tmp_path) as s:
        assert s.workers() == []  # one process needs no supervisor: whoever has started it sees it end
    with serving(root, "--workers", "2", folder=tmp_path) as s:
        for pid in s.workers():
            os.kill(pid, signal.SIGKILL)
        start = time.monotonic()
        while s.process.poll() is None and time.monotonic() - start < 20:
            for pid in s.workers():
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        assert s.process.wait(5) == 1
        log = " ".join(s.log.read_text().split())
        assert "workers ended within 30 s, the last with SIGKILL; none serves" in log and "Traceback" not in log


def test_a_worker_that_runs_out_of_memory_or_crashes_in_a_kernel_is_replaced(root, tmp_path):
    """SIGSEGV and the kernel's SIGKILL look the same from outside: the signal is in the log, with the pid."""
    with serving(root, "--workers", "2", folder=tmp_path) as s:
        first, _ = s.workers()
        os.kill(first, signal.SIGSEGV)
        wait_until(lambda: readies(s) == 3)
        assert f"(pid {first}) ended with SIGSEGV" in s.log.read_text() and values(s, 20) == {2.0}


def test_workers_end_when_their_supervisor_is_killed(root, tmp_path):
    with serving(root, "--workers", "2", folder=tmp_path) as s:
        pids = s.workers()
        s.process.kill()
        s.process.wait(5)
        wait_until(lambda: not any(s.alive(pid) for pid in pids), 10)


def test_figures_are_those_of_all_workers(root, tmp_path):
    put(root, "slow", 1, heavy(layers=4))
    with serving(root, "--workers", "2", folder=tmp_path) as s:
        assert values(s, 40) == {2.0}
        with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{s.grpc_port}") as client:
            for _ in range(10):  # each asks whoever answers
                row = s.statistics("double")
                assert row["inference_stats"]["success"]["count"] == row["inference_count"] == 40
                (stats,) = client.get_inference_statistics("double").model_stats
                assert stats.inference_count == 40 and stats.inference_stats.success.count == 40
                all_rows = s.ask("GET", "/v2/models/stats")[1]["model_stats"]
                assert {r["name"]: r["inference_count"] for r in all_rows} == {"double": 40, "slow": 0}
                (version,) = s.model("double")["versions"]
                assert version["requests"] == 40 and version["p50"] > 0
                assert s.sample("fastinfer_requests_total", model="double", outcome="ok") == 40
                assert s.sample("nv_inference_count", model="double") == 40
                assert s.sample("fastinfer_request_duration_seconds_count", model="double") == 40
                assert s.gauges()["fastinfer_workers"] == 2 and s.gauges()["fastinfer_models_ready"] == 2
        assert s.ask("GET", "/v2/models/none/stats")[0] == 404
        first, _ = s.workers()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: readies(s) == 3)
        assert values(s, 10) == {2.0}  # a counter that went back would look like a thousand requests to Prometheus
        assert s.sample("fastinfer_requests_total", model="double", outcome="ok") == 50
        assert s.gauges()["fastinfer_workers"] == 2
