# SPDX-License-Identifier: Apache-2.0
"""The ASGI application: the Open Inference Protocol's REST calls over a Service."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote_to_bytes

from fastinfer.serve.errors import Kind, ServeError, as_serve_error
from fastinfer.serve.http import openapi
from fastinfer.serve.http.body import (
    Disconnected,
    Fields,
    Receive,
    Scope,
    Send,
    announces_body,
    check_length,
    read_body,
    read_fields,
)
from fastinfer.serve.http.control import Control
from fastinfer.serve.http.encode import JSON_TYPE, dumps
from fastinfer.serve.http.inference import Inference
from fastinfer.serve.http.regions import CUDA_OFF, SYSTEM_OFF, Regions
from fastinfer.serve.http.reply import CLOSE, Call, Handler, Reply, failure
from fastinfer.serve.http.router import Router
from fastinfer.serve.messages import Limits
from fastinfer.serve.service import Service


class App:
    """A raw ASGI application; can be mounted anywhere (it respects ``root_path``). shm: None for no shared memory.

    Every answer but the empty one to OPTIONS is JSON or tensors; every error is {"error": text}. ``scope["fastinfer.caller"]``,
    which an authenticating layer around it may set, names who asks.
    """

    def __init__(self, service: Service, limits: Limits | None = None, shm: Regions | None = None) -> None:
        self.limits = limits or Limits()
        control = self.control = Control(service, self.limits)
        inference = Inference(service, self.limits, shm or SYSTEM_OFF)
        document = dumps(openapi.document(self.limits))

        async def describe(call: Call) -> Reply:
            return 200, [JSON_TYPE], document

        versioned = [
            ("GET", "", control.model),
            ("GET", "/ready", control.model_ready),
            ("GET", "/config", control.config),
            ("GET", "/stats", control.statistics),
            ("POST", "/infer", inference.infer),
        ]
        routes: list[tuple[str, str, Handler]] = [
            ("GET", "/openapi.json", describe),
            ("GET", "/v2", control.server),
            ("GET", "/v2/health/live", control.live),
            ("GET", "/v2/health/ready", control.ready),
            *((m, f"/v2/models/{{model}}{end}", h) for m, end, h in versioned),
            *((m, f"/v2/models/{{model}}/versions/{{version}}{end}", h) for m, end, h in versioned),
            ("GET", "/v2/models/stats", control.statistics),
            ("POST", "/v2/repository/index", control.index),
            ("POST", "/v2/repository/models/{model}/load", control.load),
            ("POST", "/v2/repository/models/{model}/unload", control.unload),
            *control.regions("systemsharedmemory", shm or SYSTEM_OFF),
            *control.regions("cudasharedmemory", CUDA_OFF),
            *((m, f"/v2{of}/trace/setting", h) for of in ("", "/models/{model}")
              for m, h in (("GET", control.get_trace), ("POST", control.set_trace))),
            ("GET", "/v2/logging", control.get_log),
            ("POST", "/v2/logging", control.set_log),
            ("POST", "/predict/{model}", inference.predict),
        ]  # fmt: skip
        self._router = Router(routes, self.limits.name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _other(scope, receive, send)
            return
        fields: Fields | None = None
        rest = True  # of the request is still to come
        try:
            fields = read_fields(scope, self.limits)
            methods, arguments = self._router.find(_path(scope))
            method = scope["method"]
            handler = methods.get("GET" if method == "HEAD" else method)
            if handler is None and method != "OPTIONS":
                reply = _not_allowed(method, methods)
            else:
                check_length(fields, self.limits)
                body = await read_body(receive, fields, self.limits)
                rest = False
                if handler is None:
                    reply = 204, [_allow(methods)], b""
                else:
                    reply = await handler(Call(arguments, fields, body, scope, receive))
        except Disconnected:
            return
        except asyncio.CancelledError:  # the server is told to stop now
            await _send(scope, send, failure(ServeError(Kind.UNAVAILABLE, "the server stops", retry_after=1)), True)
            raise
        except Exception as e:
            reply = failure(as_serve_error(e))
        await _send(scope, send, reply, rest and (fields is None or announces_body(fields)))


async def _send(scope: Scope, send: Send, reply: Reply, close: bool) -> None:
    """close: the connection cannot go on, since nobody reads what is left of the request."""
    status, headers, body = reply
    if status != 204:
        headers = [*headers, (b"content-length", b"%d" % len(body))]
    if close and scope.get("http_version", "1.1").startswith("1"):
        headers = [*headers, CLOSE]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _path(scope: Scope) -> bytes:
    """The path as it came, percent-encoded, below where the application is mounted."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    root: str = scope.get("root_path", "").rstrip("/")
    if root:
        segments = path.split(b"/")
        above = root.count("/") + 1
        if unquote_to_bytes(b"/".join(segments[:above])) == root.encode() and len(segments) > above:
            return b"/" + b"/".join(segments[above:])
    return path


def _allow(methods: dict[str, Any]) -> tuple[bytes, bytes]:
    names = [*methods, *(["HEAD"] if "GET" in methods else []), "OPTIONS"]
    return b"allow", ", ".join(names).encode()


def _not_allowed(method: str, methods: dict[str, Any]) -> Reply:
    allow = _allow(methods)
    status, headers, body = failure(
        ServeError(Kind.METHOD, f"{method[:16]} is not possible here; possible: {allow[1].decode()}")
    )
    return status, [*headers, allow], body


async def _other(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
