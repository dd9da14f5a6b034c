# SPDX-License-Identifier: Apache-2.0
"""The application without a server: mounted below a path, in other servers, with odd scopes."""

import asyncio
import gzip
import json

import pytest
from tiny import TinyService
from wire import ROW

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.http import App
from fastinfer.serve.http.router import REMEMBERED, Router
from fastinfer.serve.messages import Limits


class Failing(TinyService):
    """Knows no models; what it does with a request is said by the test."""

    def __init__(self, error=None):
        super().__init__(())
        self.error = error

    async def infer(self, request):
        raise self.error


def scope_of(path, method="GET", headers=(), **more):
    return {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": list(headers), "http_version": "1.1", **more,
    }  # fmt: skip


def call(app, scope, *messages):
    """(status, headers, body), or None where nothing was sent."""
    sent = []
    left = list(messages) or [{"type": "http.request", "body": b""}]

    async def receive():
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    if not sent:
        return None
    start, body = sent
    return start["status"], dict(start["headers"]), body["body"]


@pytest.fixture
def app():
    return App(Failing())


@pytest.mark.parametrize(
    ("path", "raw", "root", "status"),
    [
        ("/v2", b"/v2", "", 200), ("/ai/v2", b"/ai/v2", "/ai", 200), ("/v2", b"/v2", "/ai", 200), ("/a b/v2", b"/a%20b/v2", "/a b", 200),
        ("/ai/v2", None, "/ai", 200), ("/ai/v2", b"/ai/v2", "", 404), ("/aiv2", b"/aiv2", "/ai", 404), ("/v2/v2", b"/v2/v2", "/v2", 200),
        ("/x/y/v2/health/live", b"/x/y/v2/health/live", "/x/y", 200), ("/ai/v2", b"/ai/v2", "/ai/", 200),
    ],
)  # fmt: skip
def test_mounted(app, path, raw, root, status):
    """Servers differ: raw_path may be missing, or be without the root."""
    assert call(app, scope_of(path, raw_path=raw, root_path=root))[0] == status


def test_close_is_said_where_the_request_is_not_read(app):
    body = [(b"content-length", b"5")]
    assert call(app, scope_of("/none", "POST", body))[1][b"connection"] == b"close"
    assert b"connection" not in call(app, scope_of("/none", "POST"))[1]
    assert b"connection" not in call(app, scope_of("/none", "POST", body, http_version="2"))[1]


@pytest.mark.parametrize(
    ("error", "status", "text", "retry"),
    [
        (ServeError(Kind.UNAVAILABLE, "full", retry_after=0.2), 503, "full", b"1"), (ServeError(Kind.RATE, "fast", retry_after=2.5), 429, "fast", b"3"),
        (ServeError(Kind.DEADLINE, "late"), 504, "late", None), (ValueError("/secret/path"), 500, "an internal error", None),
        (ServeError(Kind.INTERNAL, "x\ud800"), 500, "x", None),
    ],
)  # fmt: skip
def test_errors(error, status, text, retry):
    body = json.dumps({"inputs": [{"name": "x", "shape": [64], "datatype": "FP32", "data": ROW.tolist()}]}).encode()
    message = {"type": "http.request", "body": body}
    got, headers, answer = call(App(Failing(error)), scope_of("/v2/models/m/infer", "POST"), message)
    assert got == status and json.loads(answer)["error"].startswith(text) and b"secret" not in answer
    assert headers.get(b"retry-after") == retry


def test_a_client_that_goes_before_its_request_is_complete(app):
    part = {"type": "http.request", "body": b"{", "more_body": True}
    assert call(app, scope_of("/v2/models/m/infer", "POST"), part, {"type": "http.disconnect"}) is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"content-length", b"11")], 413), ([(b"content-length", b"-1")], 400), ([(b"content-length", b"x")], 400), ([(b"content-length", b"5")] * 2, 400),
        ([(b"content-length", b"5"), (b"transfer-encoding", b"chunked")], 400), ([(b"transfer-encoding", b"gzip, chunked")], 501), ([(b"a", b"b" * 200)], 431),
    ],
)  # fmt: skip
def test_headers_in_any_server(headers, status):
    app = App(Failing(), Limits(body=10, header=200, url=50))
    assert call(app, scope_of("/v2/logging", "POST", headers))[0] == status


def test_limits_in_any_server():
    app = App(Failing(), Limits(body=10, header=200, url=50))
    chunk = {"type": "http.request", "body": b" " * 6, "more_body": True}
    assert call(app, scope_of("/v2/logging", "POST"), chunk, chunk)[0] == 413
    assert call(app, scope_of("/v2/logging", "POST"), {"type": "http.request", "body": b" " * 11})[0] == 413
    assert call(app, scope_of("/" + "a" * 51))[0] == 414
    assert call(app, scope_of("/v2", query_string=b"a" * 50))[0] == 414


def test_lifespan_and_websockets(app):
    async def run(kind, *messages):
        sent, left = [], list(messages)

        async def receive():
            return left.pop(0)

        async def send(message):
            sent.append(message["type"])

        await app({"type": kind}, receive, send)
        return sent

    lifespan = asyncio.run(run("lifespan", {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}))
    assert lifespan == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert asyncio.run(run("websocket", {"type": "websocket.connect"})) == ["websocket.close"]


def test_the_router_remembers_no_more_than_it_should():
    router = Router([("GET", "/v2/models/{model}", "h")], 16)
    for i in range(3 * REMEMBERED):
        assert router.find(b"/v2/models/m%d" % i) == ({"GET": "h"}, (f"m{i}",))
    assert len(router._known) <= REMEMBERED
    for _ in range(2):  # what is refused is refused again
        with pytest.raises(ServeError):
            router.find(b"/v2/models/..")


def test_large_bodies_are_held_by_few():
    """Whatever ends a request, its bytes are given back."""
    app = App(Failing(ServeError(Kind.DEADLINE, "late")), Limits(body=100), held=150)
    scope = scope_of("/v2/logging", "POST")
    part = {"type": "http.request", "body": b" " * 60, "more_body": True}

    async def two():
        async def waits():
            sent = []
            begun = asyncio.Event()

            async def receive():
                if begun.is_set():
                    return await ended
                begun.set()
                return part

            async def send(message):
                sent.append(message)

            task = asyncio.create_task(app(scope, receive, send))
            return task, sent

        ended = asyncio.get_running_loop().create_future()
        tasks = [await waits() for _ in range(3)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert app._held.used == 120  # the third has none
        ended.set_result({"type": "http.disconnect"})
        for task, _ in tasks:
            await task
        return [sent[0]["status"] if sent else None for _, sent in tasks]

    assert asyncio.run(two()) == [None, None, 503]
    assert app._held.used == 0
    body = [(b"content-encoding", b"gzip")]
    for data, status in (
        (gzip.compress(b"{}" + b" " * 98), 200),
        (gzip.compress(b" " * 101), 413),
        (b"x", 400),
        (b" " * 101, 413),
    ):
        assert call(app, scope_of("/v2/logging", "POST", body), {"type": "http.request", "body": data})[0] == status
        assert app._held.used == 0
