# SPDX-License-Identifier: Apache-2.0
"""benchmarks/gpu from end to end at sizes that an interpreter can do: that its code runs, not how fast."""

import json
import os
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif("FASTINFER_PRETEND" not in os.environ, reason="needs -p pretend.plugin")
BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def test_every_section(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setenv("FASTINFER_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["gpu", "--tiny", "--no-tune", "--out", str(tmp_path / "gpu.json")])
    from gpu import __main__ as gpu

    gpu.main()
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["device"].startswith("NVIDIA")
    assert not found["failed"]
    for section in ("products", "convolutions", "models", "ragged"):
        assert found[section]
        for row in found[section]:
            assert row["error"] < 0.2 and "ours" in row["times"], row
            assert section in ("models", "ragged") or row["share of ceiling"] > 0, row
    assert 0.3 < found["ragged"][0]["mean / max"] < 0.5
    assert {"ours", "torch, graph"} <= found["models"][0]["times"].keys()
    assert found["buckets"]["plans before"] == found["buckets"]["plans after sizes 17 to 20"]
