# SPDX-License-Identifier: Apache-2.0
"""What the registry says of its models, through both wires and the reference client."""

from __future__ import annotations

import asyncio
import json
import threading

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from small_models import accumulate, echo, put, scale
from tritonclient.utils import InferenceServerException

from fastinfer.serve.grpc import GrpcServer
from fastinfer.serve.http import App
from fastinfer.serve.http.serve import HttpServer
from fastinfer.serve.messages import Limits
from fastinfer.serve.registry import Registry


class Running:
    """A registry behind both wires, on a loop of its own in a thread."""

    def __init__(self, root):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.root = root

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    async def _open(self):
        self.registry = Registry(self.root, allow_files=True)
        assert await self.registry.open() == {}
        self.http = HttpServer(App(self.registry, Limits()), "127.0.0.1", 0)
        await self.http.start()
        self.grpc = GrpcServer(self.registry)
        return await self.grpc.start()

    async def _close(self):
        await self.http.stop(2)
        await self.grpc.stop(0)
        await self.registry.close()

    def __enter__(self):
        self.thread.start()
        port = self.run(self._open())
        host, http_port = self.http.addresses[0]
        self.clients = {
            "http": over_http.InferenceServerClient(f"{host}:{http_port}"),
            "grpc": over_grpc.InferenceServerClient(f"127.0.0.1:{port}"),
        }
        return self

    def __exit__(self, *exc):
        for client in self.clients.values():
            client.close()
        self.run(self._close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    put(root, "double", 1, scale(2), 'owner = "me"\n[limits]\ntimeout = 5.0\n')
    put(root, "double", 2, scale(3))
    put(root, "words", 1, echo())
    put(root, "sum", 1, accumulate(), '[sequence]\nstate = {held = "next"}\n')
    with Running(root) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def wire(request, running):
    """(client, module, keywords that make answers plain dicts)"""
    grpc = request.param == "grpc"
    return running.clients[request.param], over_grpc if grpc else over_http, {"as_json": True} if grpc else {}


def ask(module, client, model, name, array, kind, **options):
    given = module.InferInput(name, list(array.shape), kind)
    given.set_data_from_numpy(array)
    return client.infer(model, [given], **options)


def test_metadata_and_config(wire):
    client, _, plain = wire
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("double")
    assert not client.is_model_ready("double", "1") and not client.is_model_ready("none")
    meta = client.get_model_metadata("double", **plain)
    assert meta["versions"] == ["2"] and [int(d) for d in meta["inputs"][0]["shape"]] == [-1, 4]
    config = client.get_model_config("double", **plain)
    config = config.get("config", config)
    assert int(config["max_batch_size"]) == 32 and [int(d) for d in config["input"][0]["dims"]] == [4]
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert config["parameters"]["owner"] == {"string_value": "me"}
    policy = config["dynamic_batching"]["default_queue_policy"]
    assert int(policy["default_timeout_microseconds"]) == 5_000_000
    state = client.get_model_config("sum", **plain)
    state = state.get("config", state)
    assert int(state["sequence_batching"]["max_sequence_idle_microseconds"]) == 60_000_000


def test_index_and_statistics(wire):
    client, module, plain = wire
    ask(module, client, "double", "x", np.ones((3, 4), np.float32), "FP32")
    stats = client.get_inference_statistics("double", **plain)["model_stats"]
    assert len(stats) == 1 and int(stats[0]["inference_count"]) >= 3 and stats[0]["version"] == "2"
    assert int(stats[0]["inference_stats"]["success"]["count"]) >= 1
    index = client.get_model_repository_index(**plain)
    index = {(m["name"], m["version"]): m["state"] for m in index.get("models", index)} if isinstance(index, dict) else {
        (m["name"], m["version"]): m["state"] for m in index
    }  # fmt: skip
    assert index["double", "2"] == "READY" and index["double", "1"] == "UNAVAILABLE"


def test_load_with_parameters_unload_and_errors(wire, running):
    client, module, _ = wire
    x = np.ones((1, 4), np.float32)
    value = lambda **o: float(ask(module, client, "double", "x", x, "FP32", **o).as_numpy("y")[0, 0])  # noqa: E731
    assert value() == 3
    client.load_model("double", config=json.dumps({"version_policy": {"all": {}}}))
    assert value(model_version="1") == 2
    client.load_model("double", config="{}", files={"file:5/model.onnx": scale(9).SerializeToString()})
    assert value() == 9
    client.load_model("double")
    assert value() == 3
    client.unload_model("double")
    with pytest.raises(InferenceServerException, match="model 'double' is not loaded"):
        value()
    client.load_model("double")
    for wrong, part in (
        (lambda: value(model_version="7"), "no version '7'"),
        (lambda: client.load_model("nobody"), "no model is called 'nobody'"),
        (lambda: client.load_model("double", config='{"dynamic_bathing": {}}'), "no key is called"),
        (lambda: ask(module, client, "double", "x", np.ones((1, 3), np.float32), "FP32"), "needed: FP32"),
    ):
        with pytest.raises(InferenceServerException, match=part):
            wrong()
    assert value() == 3


def test_strings_and_sequences(wire):
    client, module, _ = wire
    words = np.array([b"one", "zwölf".encode()], object)
    assert list(ask(module, client, "words", "words", words, "BYTES").as_numpy("same")) == list(words)
    one = np.ones((1, 1), np.float32)
    key = 5 if module is over_http else 6
    totals = [
        ask(module, client, "sum", "x", one, "FP32", sequence_id=key, sequence_start=i == 0, sequence_end=i == 2)
        for i in range(3)
    ]
    assert [t.as_numpy("total").item() for t in totals] == [1, 2, 3]
    with pytest.raises(InferenceServerException, match="sequence_start"):
        ask(module, client, "sum", "x", one, "FP32", sequence_id=key)
