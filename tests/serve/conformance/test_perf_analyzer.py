# SPDX-License-Identifier: Apache-2.0
"""What perf_analyzer asks of a server, call by call, and what it reads in the answers (it asserts on missing or differently
typed members instead of saying so). No perf_analyzer is needed here."""

import http.client
import json
import struct

import numpy as np
import pytest
import tritonclient.grpc as over_grpc

BATCH = 4  # as with `-b 4`


@pytest.fixture
def get(whole):
    connection = http.client.HTTPConnection(whole.http, timeout=20)

    def ask(path, method="GET", body=None, headers=None):
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        data = answer.read()
        assert answer.status == 200, data
        return answer.headers, data

    yield ask
    connection.close()


def of_json(value):
    return json.loads(value[1])


def batched_shape(metadata, config):
    """The shape of one request: where max_batch_size says so, the metadata's first extent is the batch's."""
    (given,) = metadata["inputs"]
    shape, most = [int(d) for d in given["shape"]], config["max_batch_size"]
    assert type(most) is int and most >= BATCH and shape[0] == -1
    assert [int(d) for d in config["input"][0]["dims"]] == shape[1:]
    return [BATCH, *shape[1:]]


def check_config(config):
    """ModelParser::InitTriton: its scheduler, inputs that may be left out, and whether it is decoupled."""
    assert "dynamic_batching" in config and "sequence_batching" not in config and "ensemble_scheduling" not in config
    assert config.get("model_transaction_policy", {}).get("decoupled", False) is False
    for given in config["input"]:
        assert type(given["name"]) is str and given["data_type"].startswith("TYPE_")
        assert given.get("optional", False) is False and given.get("is_shape_tensor", False) is False
    assert [set(made) >= {"name", "data_type", "dims"} for made in config["output"]] == [True]


def check_statistics(before, after, requests):
    (old,), (new,) = before["model_stats"], after["model_stats"]
    for stats in (old, new):
        assert stats["name"] == "double" and stats["version"] == "2"
        for part in (
            "success",
            "fail",
            "queue",
            "compute_input",
            "compute_infer",
            "compute_output",
            "cache_hit",
            "cache_miss",
        ):
            duration = stats["inference_stats"][part]
            assert int(duration.get("count", 0)) >= 0 and int(duration.get("ns", 0)) >= 0
    count = lambda s: int(s["inference_stats"]["success"].get("count", 0))  # noqa: E731
    rows = lambda s: int(s.get("inference_count", 0))  # noqa: E731
    assert count(new) - count(old) == requests and rows(new) - rows(old) == BATCH * requests


def test_over_http(get):
    assert "statistics" in of_json(get("/v2"))["extensions"]
    metadata = of_json(get("/v2/models/double"))
    config = of_json(get("/v2/models/double/config"))
    check_config(config)
    shape = batched_shape(metadata, config)
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    header = {
        "id": "1",
        "inputs": [{"name": "x", "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    text = json.dumps(header).encode()
    before = of_json(get("/v2/models/double/versions/2/stats"))
    for _ in range(3):  # one connection for all
        headers, data = get("/v2/models/double/infer", "POST", text + x.tobytes(),
                            {"Inference-Header-Content-Length": str(len(text)), "Expect": ""})  # fmt: skip
        cut = int(headers["Inference-Header-Content-Length"])
        (entry,) = json.loads(data[:cut])["outputs"]
        assert entry["shape"] == shape and entry["parameters"]["binary_data_size"] == x.nbytes
        np.testing.assert_array_equal(np.frombuffer(data[cut:], np.float32), (3 * x).ravel())
    check_statistics(before, of_json(get("/v2/models/double/versions/2/stats")), 3)
    for kind in ("systemsharedmemory", "cudasharedmemory"):  # with --shared-memory, before it begins
        get(f"/v2/{kind}/unregister", "POST")


def test_over_grpc(whole):
    with over_grpc.InferenceServerClient(whole.grpc) as client:
        assert "statistics" in client.get_server_metadata(as_json=True)["extensions"]
        metadata = client.get_model_metadata("double", as_json=True)
        config = client.get_model_config("double", as_json=True)["config"]
        check_config(config)
        shape = batched_shape(metadata, config)
        given = over_grpc.InferInput("x", shape, "FP32").set_data_from_numpy(np.ones(shape, np.float32))
        before = client.get_inference_statistics("double", "2", as_json=True)
        client.start_stream(lambda result, error: None)  # --streaming
        client.stop_stream()
        for _ in range(3):
            assert client.infer("double", [given]).as_numpy("y").shape == tuple(shape)
        check_statistics(before, client.get_inference_statistics("double", "2", as_json=True), 3)
        client.unregister_system_shared_memory()
        client.unregister_cuda_shared_memory()


def test_strings_are_batched_too(get):
    """--string-data on a model of BYTES: each element with its length in front."""
    config = of_json(get("/v2/models/same-bytes/config"))
    assert config["input"][0]["data_type"] == "TYPE_STRING"
    data = b"".join(struct.pack("<I", len(s)) + s for s in (b"one", b"", b"three", b"4"))
    header = {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}],
              "parameters": {"binary_data_output": True}}  # fmt: skip
    text = json.dumps(header).encode()
    headers, answer = get(
        "/v2/models/same-bytes/infer", "POST", text + data, {"Inference-Header-Content-Length": str(len(text))}
    )
    assert answer[int(headers["Inference-Header-Content-Length"]) :] == data
