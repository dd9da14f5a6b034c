# SPDX-License-Identifier: Apache-2.0
"""The server as a part of somebody else's: its ASGI application by itself, mounted, and under uvicorn."""

import asyncio
import json

import numpy as np
import pytest
import tritonclient.http.aio as client
from small_models import put, scale

import fastinfer as fi
from fastinfer.serve import Asgi, ServeError
from fastinfer.serve.http.serve import HttpServer

X = np.arange(8, dtype=np.float32).reshape(2, 4)


def models():
    return {"double": fi.compile(scale(2.0)), "triple": fi.compile(scale(3.0))}


async def ask(app, method, path, body=None, root=""):
    """(status, JSON)."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "root_path": root, "query_string": b"", "headers": [],
    }  # fmt: skip
    data = b"" if body is None else json.dumps(body).encode()
    if data:
        scope["headers"] = [(b"content-length", str(len(data)).encode())]
    sent = []
    requests = iter([{"type": "http.request", "body": data, "more_body": False}])

    async def receive():
        try:
            return next(requests)
        except StopIteration:
            await asyncio.Event().wait()  # the client stays

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"] or b"null")


def infer(values):
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": values}]}


def test_compiled_models_under_their_names():
    async def run():
        async with Asgi(models()) as app:
            assert (await ask(app, "GET", "/v2/health/ready"))[0] == 200
            for name, factor in (("double", 2), ("triple", 3)):
                status, answer = await ask(app, "POST", f"/v2/models/{name}/infer", infer([1, 2, 3, 4]))
                assert (status, answer["outputs"][0]["data"]) == (200, [factor * v for v in (1, 2, 3, 4)])
                assert answer["model_version"] == "1"
            status, config = await ask(app, "GET", "/v2/models/double/versions/1/config")
            assert status == 200 and config["max_batch_size"] == 32
            status, stats = await ask(app, "GET", "/v2/models/stats")
            assert {s["name"]: s["inference_count"] for s in stats["model_stats"]} == {"double": 1, "triple": 1}
            status, index = await ask(app, "POST", "/v2/repository/index")
            assert [i["name"] for i in index] == ["double", "triple"]

    asyncio.run(run())


def test_what_is_not_there_and_what_cannot_be_done_is_said():
    async def run():
        async with Asgi(models()) as app:
            assert (
                "no model is called"
                in (await ask(app, "POST", "/v2/models/none/infer", infer([1, 2, 3, 4])))[1]["error"]
            )
            assert (await ask(app, "GET", "/v2/models/double/versions/2"))[0] == 404
            status, answer = await ask(app, "POST", "/v2/repository/models/double/load")
            assert status == 501 and "belong to the process" in answer["error"]
            assert (await ask(app, "POST", "/v2/repository/models/double/unload"))[0] == 501
            assert not any(e.startswith("model_rep") for e in (await ask(app, "GET", "/v2"))[1]["extensions"])

    asyncio.run(run())


def test_settings_are_those_of_model_toml():
    async def run():
        async with Asgi(models(), settings={"double": {"batching": {"max_batch": 3}, "limits": {"rows": 1}}}) as app:
            assert (await ask(app, "GET", "/v2/models/double/config"))[1]["max_batch_size"] == 3
            body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 4], "data": [0] * 8}]}
            status, answer = await ask(app, "POST", "/v2/models/double/infer", body)
            assert status == 400 and "2 rows" in answer["error"]

    asyncio.run(run())
    with pytest.raises(ServeError, match="max_batch"):
        Asgi(models(), settings={"double": {"batching": {"max_batc": 3}}})
    with pytest.raises(ServeError, match="no model here"):
        Asgi(models(), settings={"other": {}})
    with pytest.raises(ServeError, match="name"):
        Asgi({"a/b": models()["double"]})


def test_mounted_below_a_path_it_opens_with_the_first_request():
    async def run():
        app = Asgi(models())
        status, answer = await ask(app, "GET", "/ml/v2/models/double", root="/ml")
        assert status == 200 and answer["name"] == "double"
        first = [ask(app, "POST", "/ml/v2/models/double/infer", infer([1, 1, 1, 1]), root="/ml") for _ in range(20)]
        assert {s for s, _ in await asyncio.gather(*first)} == {200}
        await app.__aexit__()
        with pytest.raises(RuntimeError, match="closed"):
            await app.__aenter__()

    asyncio.run(run())


def test_lifespan_opens_and_closes():
    async def run():
        app = Asgi(models())
        to_app, from_app = asyncio.Queue(), asyncio.Queue()
        task = asyncio.create_task(app({"type": "lifespan"}, to_app.get, from_app.put))
        await to_app.put({"type": "lifespan.startup"})
        assert (await from_app.get())["type"] == "lifespan.startup.complete"
        assert app.service.ready()
        await to_app.put({"type": "lifespan.shutdown"})
        assert (await from_app.get())["type"] == "lifespan.shutdown.complete"
        await task
        assert not app.service.ready()

    asyncio.run(run())


def test_a_lifespan_that_cannot_start_says_why(tmp_path):
    async def run():
        app = Asgi(tmp_path / "absent")
        sent = []
        messages = iter([{"type": "lifespan.startup"}])

        async def receive():
            return next(messages)

        async def send(message):
            sent.append(message)

        await app({"type": "lifespan"}, receive, send)
        assert sent[0]["type"] == "lifespan.startup.failed" and sent[0]["message"]

    asyncio.run(run())


def test_a_repository_and_the_reference_client(tmp_path):
    put(tmp_path, "scale", 1, scale(2.0))

    async def run():
        async with Asgi(tmp_path) as app:
            server = HttpServer(app)
            await server.start()
            triton = client.InferenceServerClient(f"127.0.0.1:{server.addresses[0][1]}")
            try:
                x = client.InferInput("x", [2, 4], "FP32").set_data_from_numpy(X)
                result = await triton.infer("scale", [x])
                np.testing.assert_array_equal(result.as_numpy("y"), 2 * X)
            finally:
                await triton.close()
                await server.stop()

    asyncio.run(run())
    with pytest.raises(TypeError, match="model.toml"):
        Asgi(tmp_path, settings={"scale": {}})
