# SPDX-License-Identifier: Apache-2.0
"""The reference client against the whole server: a repository on disk, its registry, and gRPC in front."""

import uuid

import numpy as np
import pytest
import tritonclient.grpc as tc
import tritonclient.utils.shared_memory as tshm
from grpc_server import Running
from small_models import echo, put, scale, two_outputs
from tritonclient.utils import InferenceServerException

from fastinfer.serve.config import Config
from fastinfer.serve.server import Server

X = np.arange(8, dtype=np.float32).reshape(2, 4)


class Whole(Running):
    async def _open(self, batching):
        self.whole = Server(Config(**self.options))
        assert await self.whole.load() == {}
        await self.whole.listen()
        return self.whole.grpc_port

    def close(self):
        self.channel.close()
        self.run(self.whole.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    root = tmp_path_factory.mktemp("repository")
    put(root, "scale", 1, scale(2))
    put(root, "scale", 2, scale(3))
    put(root, "two", 1, two_outputs())
    put(root, "words", 1, echo())
    running = Whole(repository=root, http_port=0, grpc_port=0, shared_memory=True, grace=5).open()
    with tc.InferenceServerClient(running.address) as client:
        yield client
    running.close()


def given(name, array, datatype="FP32"):
    tensor = tc.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def test_what_it_says_of_itself(client):
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("scale", "2")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata().name == "fastinfer"
    metadata = client.get_model_metadata("scale")
    assert [(i.name, i.datatype, list(i.shape)) for i in metadata.inputs] == [("x", "FP32", [-1, 4])]
    config = client.get_model_config("scale").config
    assert config.name == "scale" and config.input[0].name == "x" and config.max_batch_size > 0
    assert list(config.input[0].dims) == [4]
    assert {m.name for m in client.get_model_repository_index().models} == {"scale", "two", "words"}


def test_infer(client):
    for _ in range(2):  # taken apart, then by template
        result = client.infer("scale", [given("x", X)], request_id="i")
        assert result.get_response().id == "i"
        np.testing.assert_array_equal(result.as_numpy("y"), 3 * X)
    a, b = X[:, :2], X[:, 2:]
    result = client.infer(
        "two", [given("b", b.copy()), given("a", a.copy())], outputs=[tc.InferRequestedOutput("difference")]
    )
    np.testing.assert_array_equal(result.as_numpy("difference"), a - b)
    assert result.as_numpy("sum") is None
    words = np.array([b"one", b"", b"\xc3\xa9"], object)
    assert client.infer("words", [given("words", words, "BYTES")]).as_numpy("same").tolist() == words.tolist()
    best = client.infer("scale", [given("x", X)], outputs=[tc.InferRequestedOutput("y", class_count=1)]).as_numpy("y")
    assert best.tolist() == [[b"9.000000:3"], [b"21.000000:3"]]


def test_statistics_count(client):
    before = client.get_inference_statistics("scale").model_stats[-1].inference_count
    client.infer("scale", [given("x", X)])
    (stats,) = [s for s in client.get_inference_statistics("scale").model_stats if s.version == "2"]
    assert stats.inference_count == before + 2  # rows
    assert stats.inference_stats.success.ns > 0


@pytest.mark.parametrize(
    ("model", "inputs", "status"),
    [
        ("nobody", [given("x", X)], "NOT_FOUND"),
        ("scale", [], "INVALID_ARGUMENT"),
        ("scale", [given("z", X)], "INVALID_ARGUMENT"),
        ("scale", [given("x", X.astype(np.float64), "FP64")], "INVALID_ARGUMENT"),
        ("scale", [given("x", X[:, :3].copy())], "INVALID_ARGUMENT"),
    ],
)
def test_refusals(model, inputs, status, client):
    with pytest.raises(InferenceServerException) as e:
        client.infer(model, inputs)
    assert e.value.status() == f"StatusCode.{status}"


def test_unload_and_load(client):
    client.unload_model("two")
    assert not client.is_model_ready("two")
    with pytest.raises(InferenceServerException) as e:
        client.infer("two", [given("a", X[:, :2].copy()), given("b", X[:, 2:].copy())])
    assert e.value.status() in ("StatusCode.UNAVAILABLE", "StatusCode.NOT_FOUND")
    client.load_model("two")
    assert client.is_model_ready("two")


def test_shared_memory(client):
    key = f"/fi_test_{uuid.uuid4().hex}"
    handle = tshm.create_shared_memory_region("mine", key, 1024)
    try:
        tshm.set_shared_memory_region(handle, [X])
        client.register_system_shared_memory("r", key, 1024)
        tensor, wanted = tc.InferInput("x", [2, 4], "FP32"), tc.InferRequestedOutput("y")
        tensor.set_shared_memory("r", X.nbytes)
        wanted.set_shared_memory("r", X.nbytes, 512)
        client.infer("scale", [tensor], outputs=[wanted])
        np.testing.assert_array_equal(tshm.get_contents_as_numpy(handle, np.float32, [2, 4], offset=512), 3 * X)
    finally:
        client.unregister_system_shared_memory("r")
        tshm.destroy_shared_memory_region(handle)
