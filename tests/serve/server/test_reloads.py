# SPDX-License-Identifier: Apache-2.0
"""Versions come and go under load."""

import shutil

import numpy as np
import pytest
from load import GrpcLoad, Load
from process import X, serving, wait_until
from small_models import heavy, put, scale


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_reloads_fail_no_request_and_leave_nothing_behind(root, tmp_path, count):
    with serving(root, folder=tmp_path) as s:
        file = root / "double" / "1" / "model.onnx"
        loads = [Load(s, clients=2, pause=0.002), GrpcLoad(s, clients=1, pause=0.002)]
        first = None
        for i in range(count):
            file.touch()
            status, answer = s.ask("POST", "/v2/repository/models/double/load", {})
            assert status == 200, answer
            if i == count // 4:  # pools and caches have grown to their size
                first = s.resources()
        served = [load.good for load in loads]
        for load in loads:
            load.end()
        # A pool may have started another thread since; a leak would be one for each of 150 reloads.
        wait_until(lambda: s.resources()["threads"] <= first["threads"] + 8)
        last = s.resources()
        assert s.statistics("double")["inference_stats"]["success"]["count"] < min(served)  # a new version counts anew
    for load in loads:
        assert load.lost == [] and list(load.counts) == ["ok"] and np.percentile(load.times, 99) < 1
    assert last["rss"] <= (1.02 if count >= 1000 else 1.05) * first["rss"], (first, last)
    assert last["fds"] <= first["fds"] + 2, (first, last)


def test_a_version_that_is_deleted_or_unloaded_finishes_what_it_has(root, tmp_path):
    put(root, "slow", 1, heavy(), "threads = 1\n[batching]\nmax_batch = 64\n")
    put(root, "slow", 2, heavy())
    with serving(root, folder=tmp_path) as s:
        load = Load(s, clients=6, model="slow", x=X * 64, expected=X[0])
        wait_until(lambda: load.good >= 6)
        shutil.rmtree(root / "slow" / "2")
        assert s.ask("POST", "/v2/repository/models/slow/load", {})[0] == 200
        assert s.ask("GET", "/v2/models/slow")[1]["versions"] == ["1"]
        before = load.good
        wait_until(lambda: load.good >= before + 6)
        assert list(load.counts) == ["ok"]
        assert s.ask("POST", "/v2/repository/models/slow/unload", {})[0] == 200
        wait_until(lambda: load.counts["503"] >= 6)
        load.end()
        assert load.lost == [] and set(load.counts) == {"ok", "503"}


def test_a_version_that_cannot_be_loaded_keeps_the_old_one(root, tmp_path):
    with serving(root, folder=tmp_path) as s:
        load = Load(s, clients=2)
        for version, content in ((2, b"nonsense"), (3, b"")):
            (root / "double" / str(version)).mkdir()
            (root / "double" / str(version) / "model.onnx").write_bytes(content)
            status, answer = s.ask("POST", "/v2/repository/models/double/load", {})
            assert status >= 400 and "version 1 still serves" in answer["error"]
        put(root, "double", 4, scale(2.0))
        assert s.ask("POST", "/v2/repository/models/double/load", {})[0] == 200
        assert s.ask("GET", "/v2/models/double")[1]["versions"] == ["4"]
        load.end()
        assert load.lost == [] and list(load.counts) == ["ok"]
