# SPDX-License-Identifier: Apache-2.0
"""tritonclient.grpc and tritonclient.grpc.aio, every call of theirs, unmodified."""

import json
import queue

import numpy as np
import pytest
import tritonclient.grpc as tc
import tritonclient.grpc.aio as tca
from small_service import NUMERIC
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

import fastinfer as fi
from fastinfer.serve.datatypes import DTYPES


@pytest.fixture(scope="module")
def client(server):
    with tc.InferenceServerClient(server.address) as client:
        yield client


def given(name, array, datatype=None, cls=tc):
    tensor = cls.InferInput(name, list(array.shape), datatype or np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(array)
    return tensor


X = np.random.default_rng(1).standard_normal((3, 16)).astype(np.float32)


def expected(server, x=X):
    return server.service.model.run({"x": x})["y"]


def test_health_and_metadata(server, client):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("mlp") and client.is_model_ready("mlp", "1")
    assert not client.is_model_ready("nobody") and not client.is_model_ready("mlp", "7")
    meta = client.get_server_metadata()
    assert (meta.name, meta.version) == ("fastinfer", fi.__version__) and "statistics" in meta.extensions
    model = client.get_model_metadata("mlp")
    assert (model.name, list(model.versions), model.platform) == ("mlp", ["1"], "onnx")
    assert (model.inputs[0].name, model.inputs[0].datatype, list(model.inputs[0].shape)) == ("x", "FP32", [-1, 16])


def test_config_and_statistics(server, client):
    config = client.get_model_config("mlp", as_json=True)["config"]
    assert config["max_batch_size"] == 32 and config["version_policy"] == {"latest": {"num_versions": 1}}
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["16"]}]
    assert config["instance_group"][0]["kind"] == "KIND_CPU"
    before = client.get_inference_statistics("mlp").model_stats[0].inference_count
    client.infer("mlp", [given("x", X)])
    stats = client.get_inference_statistics("mlp").model_stats
    assert len(stats) == 1 and stats[0].inference_count == before + 1
    assert stats[0].inference_stats.success.ns == 1 << 33 and stats[0].response_stats["0"].success.count == before + 1
    assert {s.name for s in client.get_inference_statistics().model_stats} == {"mlp", "echo", "stuck", "broken"}


def test_repository(server, client):
    index = client.get_model_repository_index(as_json=True)["models"]
    assert {"name": "mlp", "version": "1", "state": "READY"} in index
    try:
        client.unload_model("echo", unload_dependents=True)
        assert server.service.loads[-1] == ("echo", {"unload_dependents": True})
        assert not client.is_model_ready("echo")
        with pytest.raises(InferenceServerException, match="model 'echo' is not loaded") as e:
            client.infer("echo", [given("x", X)])
        assert e.value.status() == "StatusCode.UNAVAILABLE"
    finally:
        client.load_model("echo", config=json.dumps({"a": 1}), files={"file:1/model.onnx": b"\0\xff"})
    assert server.service.loads[-1] == ("echo", {"config": '{"a": 1}', "file:1/model.onnx": b"\0\xff"})
    assert client.is_model_ready("echo")


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_infer(compression, server, client):
    result = client.infer("mlp", [given("x", X)], request_id="seven", compression_algorithm=compression,
                          outputs=[tc.InferRequestedOutput("y")], model_version="1")  # fmt: skip
    np.testing.assert_array_equal(result.as_numpy("y"), expected(server))
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("seven", "mlp", "1")
    assert not response.outputs[0].HasField("contents")


def test_what_the_protocol_reserves_goes_to_the_service(server, client):
    client.infer(
        "mlp", [given("x", X)], priority=1, timeout=2_500_000, parameters={"mine": 0.5, "n": -3, "b": True, "s": "é"}
    )
    seen = server.service.seen[-1]
    assert (seen.priority, seen.timeout) == (3, 2.5) and seen.parameters == {"mine": 0.5, "n": -3, "b": True, "s": "é"}
    client.infer("mlp", [given("x", X)], sequence_id="talk", sequence_start=True, client_timeout=20)
    seen = server.service.seen[-1]
    assert (seen.sequence, seen.sequence_start, seen.sequence_end, seen.priority) == ("talk", True, False, 0)
    assert 15 < seen.timeout < 21  # the header rounds up
    client.infer("mlp", [given("x", X)], sequence_id=1 << 40, sequence_end=True, timeout=1_000_000, client_timeout=20)
    seen = server.service.seen[-1]
    assert (seen.sequence, seen.sequence_end, seen.timeout) == (1 << 40, True, 1.0)


@pytest.mark.parametrize("datatype", NUMERIC)
@pytest.mark.parametrize("shape", [(), (1,), (2, 0, 3), (2, 3)], ids=str)
def test_every_datatype_there_and_back(datatype, shape, client):
    array = np.array(np.arange(np.prod(shape, dtype=int)) % 3).reshape(shape).astype(DTYPES[datatype])
    tensor = tc.InferInput("x", list(shape), datatype)
    tensor.set_data_from_numpy(array)
    result = client.infer("echo", [tensor])
    back = result.as_numpy("x")
    assert result.get_output("x").datatype == datatype and back.shape == shape
    assert back.tobytes() == array.tobytes()


def test_strings_there_and_back(client):
    array = np.array([[b"", b"a\0b"], ["é".encode(), b"\xff" * 1000]], object)
    back = client.infer("echo", [given("s", array, "BYTES"), given("x", X)])
    assert back.as_numpy("s").tolist() == array.tolist()
    np.testing.assert_array_equal(back.as_numpy("x"), X)
    many = np.array([b"%d" % i for i in range(20_000)], object)  # long enough for a thread
    assert client.infer("echo", [given("s", many, "BYTES")]).as_numpy("s").tolist() == many.tolist()


def test_outputs_come_as_asked(server, client):
    a, b = np.arange(4, dtype=np.int64), X
    result = client.infer("echo", [given("a", a), given("b", b)], outputs=[tc.InferRequestedOutput("b")])
    assert result.as_numpy("a") is None
    np.testing.assert_array_equal(result.as_numpy("b"), b)
    both = client.infer("echo", [given("a", a), given("b", b)], outputs=[tc.InferRequestedOutput(n) for n in "ba"])
    assert [o.name for o in both.get_response().outputs] == ["b", "a"]
    np.testing.assert_array_equal(both.as_numpy("a"), a)


def test_classification(client):
    scores = np.array([[0.25, 3.5, np.nan, 3.5], [-1, -2, -np.inf, 0]], np.float32)
    asked = [tc.InferRequestedOutput("x", class_count=3)]
    best = client.infer("echo", [given("x", scores)], outputs=asked).as_numpy("x")
    assert best.tolist() == [
        [b"3.500000:1", b"3.500000:3", b"0.250000:0"],
        [b"0.000000:3", b"-1.000000:0", b"-2.000000:1"],
    ]
    flat = client.infer("echo", [given("x", np.array([3, 9], np.int64))], outputs=asked).as_numpy("x")
    assert flat.tolist() == [b"9:1", b"3:0"]


def test_a_message_larger_than_grpcs_default(client):
    large = np.random.default_rng(0).standard_normal((1500, 1024)).astype(np.float32)  # 6 MB
    np.testing.assert_array_equal(client.infer("echo", [given("x", large)]).as_numpy("x"), large)


@pytest.mark.parametrize(
    ("model", "array", "status", "text"),
    [
        ("nobody", X, "NOT_FOUND", "no model is called 'nobody'"),
        ("mlp", X.astype(np.float64), "INVALID_ARGUMENT", "x"),
        ("mlp", X[:, :5], "INVALID_ARGUMENT", "x"),
        ("broken", X, "INTERNAL", "an internal error, logged by the server"),
    ],
)
def test_errors_have_a_code_and_a_text(model, array, status, text, client):
    with pytest.raises(InferenceServerException) as e:
        client.infer(model, [given("x", array)])
    assert e.value.status() == f"StatusCode.{status}" and text in e.value.message()
    assert "passwd" not in str(e.value)


def test_async_infer_with_callbacks_and_futures(server, client):
    done = queue.Queue()
    calls = [client.async_infer("mlp", [given("x", X[i : i + 1])], lambda result, error, i=i: done.put((i, result, error)))
             for i in range(3)]  # fmt: skip
    rows = dict(done.get(timeout=20)[:2] for _ in calls)
    np.testing.assert_array_equal(np.concatenate([rows[i].as_numpy("y") for i in range(3)]), expected(server))


def test_the_asyncio_client(server):
    async def main():
        async with tca.InferenceServerClient(server.address) as client:
            assert (
                await client.is_server_live() and await client.is_server_ready() and await client.is_model_ready("mlp")
            )
            assert (await client.get_server_metadata()).name == "fastinfer"
            assert (await client.get_model_metadata("mlp")).platform == "onnx"
            assert (await client.get_model_config("mlp")).config.max_batch_size == 32
            assert (await client.get_inference_statistics("mlp")).model_stats[0].name == "mlp"
            assert len((await client.get_model_repository_index()).models) == 4
            await client.unload_model("echo")
            await client.load_model("echo")
            assert not (await client.get_system_shared_memory_status()).regions
            result = await client.infer("mlp", [given("x", X, cls=tca)], request_id="i", compression_algorithm="gzip")
            assert result.get_response().id == "i"
            with pytest.raises(InferenceServerException, match="no model is called"):
                await client.infer("nobody", [given("x", X, cls=tca)])
            return result.as_numpy("y")

    np.testing.assert_array_equal(server.run(main()), expected(server))
