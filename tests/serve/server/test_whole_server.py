# SPDX-License-Identifier: Apache-2.0
"""Whole servers, as processes: what users and operators do with them, on both wires."""

import json

import numpy as np
import tritonclient.grpc
import tritonclient.http
from process import X, serving
from prometheus_client.parser import text_string_to_metric_families
from small_models import put, scale


def test_one_server_end_to_end(root, tmp_path):
    with serving(root, "--log", "json", folder=tmp_path) as s:
        status, answer = s.infer("double", X)
        assert status == 200 and answer["outputs"][0]["data"] == [2.0, 4.0, 6.0, 8.0]
        with tritonclient.http.InferenceServerClient(f"127.0.0.1:{s.port}") as client:
            given = tritonclient.http.InferInput("x", [1, 4], "FP32")
            given.set_data_from_numpy(np.array(X, np.float32))
            np.testing.assert_array_equal(client.infer("double", [given]).as_numpy("y"), np.array(X) * 2)
        with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{s.grpc_port}") as client:
            given = tritonclient.grpc.InferInput("x", [1, 4], "FP32")
            given.set_data_from_numpy(np.array(X, np.float32))
            np.testing.assert_array_equal(client.infer("double", [given]).as_numpy("y"), np.array(X) * 2)
        assert s.ask("POST", "/predict/double", {"x": X}) == (200, {"y": [[2.0, 4.0, 6.0, 8.0]]})

        status, overview = s.ask("GET", "/fastinfer/v1/overview")
        (model,) = overview["models"]
        (version,) = model["versions"]
        assert status == 200 and overview["server"]["ready"] and model["name"] == "double" and model["live"] == "1"
        assert (version["state"], version["requests"], version["failures"]) == ("READY", 4, 0) and version["p50"] > 0

        samples = {
            (m.name, m.labels.get("outcome")): m.value
            for family in text_string_to_metric_families(s.ask("GET", "/metrics")[1])
            for m in family.samples
        }
        assert samples["fastinfer_requests_total", "ok"] == 4 and samples["nv_inference_request_success", None] == 4
        assert samples["fastinfer_ready", None] == 1

        assert "<title>fastinfer" in s.ask("GET", "/ui/")[1] and s.ask("GET", "/ui")[0] == 308
        assert s.ask("GET", "/ui/main.js")[0] == 200 and s.ask("GET", "/ui/passwd")[0] == 404
        assert s.end() == 0
        lines = [json.loads(line) for line in s.log.read_text().splitlines()]
    assert lines[-1]["message"] == "ended" and any(line["message"] == "listening" for line in lines)


def test_operators_change_what_is_live(root, tmp_path):
    put(root, "double", 2, scale(20.0))
    with serving(root, folder=tmp_path) as s:
        value = lambda: s.infer("double", X)[1]["outputs"][0]["data"][0]  # noqa: E731
        act = lambda name, **given: s.ask("POST", f"/fastinfer/v1/models/double/{name}", given)  # noqa: E731
        assert act("promote", version="1")[0] == 200 and value() == 2.0
        status, live = act("canary", version="2", percent=50)
        assert status == 200 and live["split"] == {"2": 50.0}
        assert {value() for _ in range(40)} == {2.0, 20.0}
        assert act("promote", version="2")[0] == 200 and {value() for _ in range(10)} == {20.0}
        assert act("rollback")[0] == 200 and value() == 2.0
        for name, given in (("promote", {}), ("promote", {"version": "9"}), ("canary", {"version": "1", "percent": 5}),
                            ("canary", {"version": "2", "percent": "all"}), ("alias", {"version": "1"})):  # fmt: skip
            status, answer = act(name, **given)
            assert status in (400, 404) and "error" in answer, (name, given)
        assert act("explode")[0] == 404 and value() == 2.0
