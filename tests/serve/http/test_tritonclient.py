# SPDX-License-Identifier: Apache-2.0
"""tritonclient[http] 2.73 unmodified, its gevent and its asyncio client: every call it has."""

import uuid

import numpy as np
import pytest
import tritonclient.http as sync
import tritonclient.utils.shared_memory as shared
from clients import Client
from tritonclient.utils import InferenceServerException


@pytest.fixture(params=["http", "http-aio"])
def client(request, server):
    with Client(request.param, server.address) as made:
        yield made


def tensor(name, array, datatype, binary=True):
    given = sync.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def wanted(name, binary=True, **kw):
    return sync.InferRequestedOutput(name, binary_data=binary, **kw)


X = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)


def test_health_and_metadata(client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("mlp") and client.is_model_ready("mlp", "1")
    assert not client.is_model_ready("none")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("mlp", "1")
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}]
    assert client.get_model_config("mlp")["name"] == "mlp"
    with pytest.raises(InferenceServerException, match="no model is called 'none'") as e:
        client.get_model_metadata("none")
    assert e.value.status() == "404"


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_infer(client, server, binary_in, binary_out, compression):
    outputs = None if binary_out is None else [wanted("y", binary_out)]
    result = client.infer(
        "mlp", [tensor("x", X, "FP32", binary_in)], outputs=outputs, request_id="r-1", timeout=5_000_000, priority=1,
        request_compression_algorithm=compression, response_compression_algorithm=compression,
    )  # fmt: skip
    np.testing.assert_array_equal(result.as_numpy("y"), server.service.models["mlp"].run({"x": X})["y"])
    assert result.get_response()["id"] == "r-1" and result.get_response()["model_version"] == "1"
    assert server.service.last.timeout == 5 and server.service.last.priority > 0


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_large_answers_are_compressed(client, server, compression):
    zeros = np.zeros((100, 3000), np.float32)
    result = client.infer("floats", [tensor("in0", zeros, "FP32")], response_compression_algorithm=compression)
    np.testing.assert_array_equal(result.as_numpy("out0"), zeros)


@pytest.mark.parametrize("binary", [True, False])
def test_types(client, binary):
    feeds = [
        ("in0", np.array([[1.5, -2]], np.float32), "FP32"),
        ("in1", np.array([[2**53 + 1, -5]], np.int64), "INT64"),
        ("in2", np.array([[True, False]]), "BOOL"),
    ]
    inputs = [tensor(n, a, d, binary) for n, a, d in feeds]
    names = ["out2", "out0", "out1"]
    result = client.infer("echo", inputs, outputs=[wanted(n, binary) for n in names])
    assert [o["name"] for o in result.get_response()["outputs"]] == names
    for (_, array, _), name in zip(feeds, ["out0", "out1", "out2"], strict=True):
        np.testing.assert_array_equal(result.as_numpy(name), array)


@pytest.mark.parametrize("binary", [True, False])
def test_strings(client, binary):
    array = np.array([["grüße", ""], ["a\0b", '"\\']], object)
    result = client.infer("strings", [tensor("in0", array, "BYTES", binary)], outputs=[wanted("out0", binary)])
    assert [s.decode() if isinstance(s, bytes) else s for s in result.as_numpy("out0").ravel()] == list(array.ravel())


def test_half(client):
    array = np.array([[0.5, -65504]], np.float16)
    np.testing.assert_array_equal(client.infer("half", [tensor("in0", array, "FP16")]).as_numpy("out0"), array)
    with pytest.raises(InferenceServerException, match="FP16 has no JSON form"):
        client.infer("half", [tensor("in0", array, "FP16", binary=False)])
    with pytest.raises(InferenceServerException, match="FP16 has no JSON form"):
        client.infer("half", [tensor("in0", array, "FP16")], outputs=[wanted("out0", False)])


@pytest.mark.parametrize("binary", [True, False])
def test_what_is_not_finite_comes_back(client, binary):
    array = np.array([[np.nan, np.inf, -np.inf, 0.1]], np.float32)
    result = client.infer("floats", [tensor("in0", array, "FP32")], outputs=[wanted("out0", binary)])
    np.testing.assert_array_equal(result.as_numpy("out0"), array)
    with pytest.raises(InferenceServerException, match="NaN or Infinity at byte"):
        client.infer("floats", [tensor("in0", array, "FP32", binary=False)])


@pytest.mark.parametrize("binary", [True, False])
def test_classification(client, binary):
    array = np.array([[0.1, 0.9, 0.5], [np.nan, 3, 3]], np.float32)
    result = client.infer("floats", [tensor("in0", array, "FP32")], outputs=[wanted("out0", binary, class_count=2)])
    best = [s.decode() if isinstance(s, bytes) else s for s in result.as_numpy("out0").ravel()]
    assert result.as_numpy("out0").shape == (2, 2)
    assert best == ["0.900000:1", "0.500000:2", "3.000000:1", "3.000000:2"]


def test_sequences_and_parameters(client, server):
    client.infer(
        "mlp", [tensor("x", X, "FP32")], sequence_id=7, sequence_start=True, sequence_end=True,
        parameters={"temperature": 0.5, "mode": "fast"},
    )  # fmt: skip
    last = server.service.last
    assert (last.sequence, last.sequence_start, last.sequence_end) == (7, True, True)
    assert last.parameters == {"temperature": 0.5, "mode": "fast"}


def test_no_elements(client):
    array = np.zeros((0, 3), np.float32)
    assert client.infer("floats", [tensor("in0", array, "FP32")]).as_numpy("out0").shape == (0, 3)


def test_statistics(client, server):
    before = client.get_inference_statistics("mlp")["model_stats"][0]["inference_stats"]["success"]["count"]
    client.infer("mlp", [tensor("x", X, "FP32")])
    after = client.get_inference_statistics("mlp", "1")["model_stats"][0]["inference_stats"]["success"]["count"]
    assert after == before + 1
    assert {s["name"] for s in client.get_inference_statistics()["model_stats"]} == set(server.service.models)


def test_repository(client, server):
    assert {m["name"]: m["state"] for m in client.get_model_repository_index()}["divide"] == "READY"
    client.unload_model("divide", unload_dependents=True)
    assert server.service.last_load == {"unload_dependents": True}
    assert not client.is_model_ready("divide")
    client.load_model("divide", config='{"max_batch_size": 8}')
    assert server.service.last_load == {"config": '{"max_batch_size": 8}'}
    assert client.is_model_ready("divide")
    with pytest.raises(InferenceServerException, match="no model is called"):
        client.load_model("none")


def test_load_with_files(server):  # the asyncio client cannot: it gives rapidjson bytes
    with sync.InferenceServerClient(server.address) as client:
        client.load_model("divide", config="{}", files={"file:1/model.onnx": b"\0" * 2_000_000})
    assert len(server.service.last_load["file:1/model.onnx"]) > 2_600_000


def test_settings(client):
    assert client.get_trace_settings()["trace_level"] == ["OFF"]
    assert client.update_trace_settings(settings={"trace_rate": "5"})["trace_rate"] == "5"
    assert client.update_trace_settings("mlp", {"trace_level": ["TIMESTAMPS"]})["trace_level"] == ["TIMESTAMPS"]
    assert client.get_trace_settings("mlp")["trace_rate"] == "5"
    assert client.update_trace_settings("mlp", {"trace_level": None})["trace_level"] == ["OFF"]
    assert client.update_trace_settings(settings={"trace_rate": None})["trace_rate"] == "1000"
    assert client.update_log_settings({"log_verbose_level": 1})["log_verbose_level"] == 1
    assert client.update_log_settings({"log_verbose_level": 0})["log_verbose_level"] == 0
    assert client.get_log_settings()["log_info"] is True
    with pytest.raises(InferenceServerException, match="operator's to say"):
        client.update_log_settings({"log_file": "/etc/passwd"})


@pytest.fixture
def memory():
    """Two objects in /dev/shm: for an input behind 8 bytes, and for an output behind 16."""
    keys = [f"/fi_http_test_{uuid.uuid4().hex}" for _ in range(2)]
    handles = [shared.create_shared_memory_region(k, k, n) for k, n in zip(keys, (X.nbytes + 8, 120 + 16), strict=True)]
    yield list(zip(keys, handles, strict=True))
    for handle in handles:
        shared.destroy_shared_memory_region(handle)


def test_system_shared_memory(client, server, memory):
    (key, handle), (key2, handle2) = memory
    client.register_system_shared_memory("in", key, X.nbytes + 8)
    client.register_system_shared_memory("out", key2, 120, offset=16)
    try:
        assert client.get_system_shared_memory_status("out") == [
            {"name": "out", "key": key2, "offset": 16, "byte_size": 120}
        ]
        shared.set_shared_memory_region(handle, [X], offset=8)
        given, output = sync.InferInput("x", [3, 64], "FP32"), wanted("y")
        given.set_shared_memory("in", X.nbytes, offset=8)
        output.set_shared_memory("out", 120)
        entry = client.infer("mlp", [given], outputs=[output]).get_output("y")
        assert entry["parameters"]["shared_memory_region"] == "out" and "data" not in entry
        y = shared.get_contents_as_numpy(handle2, np.float32, [3, 10], offset=16)
        np.testing.assert_array_equal(y, server.service.models["mlp"].run({"x": X})["y"])
        given.set_shared_memory("in", X.nbytes + 4, offset=4)
        with pytest.raises(InferenceServerException, match="needs 768"):
            client.infer("mlp", [given])
        given.set_shared_memory("in", X.nbytes, offset=12)
        with pytest.raises(InferenceServerException, match="in"):
            client.infer("mlp", [given])
        output.set_shared_memory("out", 100)
        with pytest.raises(InferenceServerException, match="120 bytes; shared_memory_byte_size is 100"):
            client.infer("mlp", [tensor("x", X, "FP32")], outputs=[output])
    finally:
        client.unregister_system_shared_memory("in")
        client.unregister_system_shared_memory()
    assert client.get_system_shared_memory_status() == []


def test_cuda_shared_memory_is_refused(client):
    assert client.get_cuda_shared_memory_status() == []
    client.unregister_cuda_shared_memory()  # what examples do before they begin
    with pytest.raises(InferenceServerException, match="no CUDA shared memory") as e:
        client.register_cuda_shared_memory("r", b"handle", 0, 64)
    assert e.value.status() == "501"
    with pytest.raises(InferenceServerException, match="no CUDA"):
        client.get_cuda_shared_memory_status("r")


def test_async_infer(server):
    with sync.InferenceServerClient(server.address, concurrency=4) as client:
        requests = [client.async_infer("mlp", [tensor("x", X[i : i + 1], "FP32")]) for i in range(3)]
        rows = [r.get_result(timeout=10).as_numpy("y") for r in requests]
    np.testing.assert_array_equal(np.concatenate(rows), server.service.models["mlp"].run({"x": X})["y"])


def test_errors_are_readable(client):
    with pytest.raises(InferenceServerException, match="missing input: x"):
        client.infer("mlp", [tensor("z", X, "FP32")])
    with pytest.raises(InferenceServerException, match="no output is called 'q'"):
        client.infer("mlp", [tensor("x", X, "FP32")], outputs=[wanted("q")])
    with pytest.raises(InferenceServerException, match="version '01'"):
        client.infer("mlp", [tensor("x", X, "FP32")], model_version="01")
