# SPDX-License-Identifier: Apache-2.0
"""How servers start, drain and end."""

import signal
import time

from load import Load
from process import serving


def test_sigterm_under_load_loses_nothing(root, tmp_path):
    with serving(root, "--drain", "0.3", folder=tmp_path) as s:
        load = Load(s)
        time.sleep(0.5)
        before = load.good
        s.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        assert s.ask("GET", "/v2/health/ready")[0] == 503 and s.ask("GET", "/v2/health/live")[0] == 200
        assert s.process.wait(20) == 0
        load.end()
        assert load.lost == [] and before > 10 and load.good > before


def test_a_second_signal_ends_it_at_once(root, tmp_path):
    with serving(root, "--drain", "60", folder=tmp_path) as s:
        s.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        start = time.monotonic()
        assert s.end(signal.SIGTERM, 10) == 0 and time.monotonic() - start < 5


def test_live_while_models_load_and_a_broken_model_keeps_no_other_from_serving(root, tmp_path):
    (root / "broken" / "1").mkdir(parents=True)
    (root / "broken" / "1" / "model.onnx").write_bytes(b"nonsense")
    with serving(root, folder=tmp_path, wait=False) as s:
        s.wait("/v2/health/live")
        s.wait("/v2/models/double/ready")
        assert s.ask("GET", "/v2/health/ready")[0] == 503
        index = {r["name"]: r for r in s.ask("POST", "/v2/repository/index", {})[1]}
        assert index["double"]["state"] == "READY" and index["broken"]["state"] == "UNAVAILABLE"
        assert index["broken"]["reason"] and str(tmp_path) not in index["broken"]["reason"]
