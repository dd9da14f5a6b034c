# SPDX-License-Identifier: Apache-2.0
"""A canary that does badly is taken back under load; only its own requests notice."""

import pytest
from load import Load
from process import X, serving, wait_until
from small_models import heavy, lookup, put

CLIENTS = 4


def rolled_back(s, model):
    return s.log.read_text().count(f"model '{model}': canary version 2 is rolled back")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_canary_is_rolled_back(root, tmp_path, workers):
    put(root, "table", 1, lookup(10), "[canary]\nrequests = 50\nerror_rate = 0.05\n")
    with serving(root, "--workers", workers, folder=tmp_path) as s:
        put(root, "table", 2, lookup(2))
        assert s.ask("POST", "/fastinfer/v1/models/table/promote", {"version": "1"})[0] == 200
        load = Load(s, clients=CLIENTS, model="table")
        wait_until(lambda: load.good > 50)
        assert load.lost == [] and list(load.counts) == ["ok"]
        assert s.ask("POST", "/fastinfer/v1/models/table/canary", {"version": "2", "percent": 20})[0] == 200
        wait_until(lambda: rolled_back(s, "table"))
        wait_until(lambda: not any(t["version"] == "2" for t in s.model("table")["traffic"]))
        bad, before = sum(load.counts.values()) - load.good, load.good
        wait_until(lambda: load.good > before + 100)
        load.end()
        # Three failures of 50 requests are enough for each worker, and what was under way then.
        failures = sum(load.counts.values()) - load.good
        assert load.lost == [] and 3 <= failures <= 3 * workers + CLIENTS and failures - bad <= CLIENTS
        # All workers know, though one has found out.
        wait_until(lambda: all(s.model("table")["traffic"] == [] for _ in range(20)))
        assert rolled_back(s, "table") <= workers
        assert s.end() == 0
    with serving(root, folder=tmp_path) as s:  # and the next server knows of it
        assert s.model("table")["live"] == "1" and s.model("table")["traffic"] == []
        assert s.infer("table", X)[0] == 200


def test_a_slow_canary_is_rolled_back(root, tmp_path):
    put(root, "table", 1, lookup(10), "threads = 1\n[canary]\nrequests = 40\nlatency = 3\n")
    with serving(root, folder=tmp_path) as s:
        put(root, "table", 2, heavy(layers=60))
        assert s.ask("POST", "/fastinfer/v1/models/table/promote", {"version": "1"})[0] == 200
        assert s.ask("POST", "/fastinfer/v1/models/table/canary", {"version": "2", "percent": 50})[0] == 200
        load = Load(s, clients=2, model="table", expected=())
        wait_until(lambda: rolled_back(s, "table"))
        before = load.good
        wait_until(lambda: load.good > before + 100)
        load.end()
        assert load.lost == [] and list(load.counts) == ["ok"]
        assert "p95" in s.log.read_text() and s.model("table")["traffic"] == []
