# SPDX-License-Identifier: Apache-2.0
"""Servers of several processes."""

import os
import signal
import time
from pathlib import Path

import pytest
from load import Load
from process import X, serving
from small_models import put, scale


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are looked up in /proc")
def test_workers(root, tmp_path):
    put(root, "double", 2, scale(20.0))
    with serving(root, "--workers", "2", folder=tmp_path) as s:
        end = time.monotonic() + 30
        while s.log.read_text().count("worker is ready") < 2 and time.monotonic() < end:
            time.sleep(0.05)
        first, second = s.workers()
        values = lambda n: {s.infer("double", X)[1]["outputs"][0]["data"][0] for _ in range(n)}  # noqa: E731
        assert values(10) == {20.0}
        assert s.ask("POST", "/fastinfer/v1/models/double/promote", {"version": "1"})[0] == 200
        assert values(60) == {2.0}  # new connections reach both workers

        load = Load(s, clients=4)
        time.sleep(0.3)
        os.kill(first, signal.SIGKILL)
        end = time.monotonic() + 30
        while s.log.read_text().count("worker is ready") < 3 and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.2)
        load.end()
        assert len(load.lost) <= 4 and load.good > 20  # what it held
        now = s.workers()
        assert second in now and first not in now and len(now) == 2
        assert values(60) == {2.0}
        assert s.ask("GET", "/fastinfer/v1/overview")[1]["models"][0]["live"] == "1"

        assert s.ask("POST", "/v2/repository/models/double/unload", {})[0] == 200
        assert {s.infer("double", X)[0] for _ in range(40)} == {503}
        assert s.end() == 0
        assert all(not Path(f"/proc/{pid}").exists() for pid in now)
