# SPDX-License-Identifier: Apache-2.0
"""The ASGI application: the Open Inference Protocol's REST calls over a Service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from fastinfer.serve.access import ANYONE, Caller, Gate
from fastinfer.serve.errors import Kind, ServeError, as_serve_error, forget
from fastinfer.serve.http import openapi, origin
from fastinfer.serve.http.body import (
    Disconnected,
    Fields,
    Held,
    Receive,
    Scope,
    Send,
    announces_body,
    check_length,
    discard_body,
    read_body,
    read_fields,
)
from fastinfer.serve.http.control import Control
from fastinfer.serve.http.encode import JSON_TYPE, dumps
from fastinfer.serve.http.inference import Inference
from fastinfer.serve.http.repeats import REPEATS
from fastinfer.serve.http.reply import CLOSE, Call, Handler, Reply, failure
from fastinfer.serve.http.router import Router
from fastinfer.serve.messages import Limits
from fastinfer.serve.regions import CUDA_OFF, SYSTEM_OFF, Regions
from fastinfer.serve.service import Service
from fastinfer.serve.settings import Settings

Known = tuple[Fields, bytes, dict[str, Any], tuple[str, ...]]  # fields, path, methods of the route, arguments
Route = tuple[str, str, str, Handler]  # method, pattern, scope, handler
# Paths that need no credentials; their routes state no scope either.
_OPEN = frozenset((b"/v2/health/live", b"/v2/health/ready", b"/ui"))


class App:
    """A raw ASGI application; can be mounted anywhere (it respects ``root_path``). shm: None for no shared memory.

    Every error is {"error": text}. gate: who may call; it is asked before anything else, and every route states the scope
    that it needs ("" for probes and the page's own files). more: further routes, (method, pattern, scope, handler).
    """

    def __init__(
        self,
        service: Service,
        limits: Limits | None = None,
        shm: Regions | None = None,
        gate: Gate | None = None,
        more: Sequence[Route] = (),
        held: int = 1 << 30,
        settings: Settings | None = None,
        responded: Callable[[str], None] = lambda status: None,
    ) -> None:
        """held: bytes that the bodies of all requests under way may have together; 503 beyond. settings: what the wires share.
        responded: is told the status of every response."""
        self._responded = responded
        self.limits = limits or Limits()
        self._gate = gate or Gate()
        self._held = Held(max(held, self.limits.body))
        control = self.control = Control(service, self.limits, settings)
        inference = self._inference = Inference(service, self.limits, shm or SYSTEM_OFF)
        document = dumps(openapi.document(self.limits, more))

        async def describe(call: Call) -> Reply:
            return 200, [JSON_TYPE], document

        versioned: list[tuple[str, str, str, Handler]] = [
            ("GET", "", "read", control.model),
            ("GET", "/ready", "read", control.model_ready),
            ("GET", "/config", "read", control.config),
            ("GET", "/stats", "read", control.statistics),
            ("POST", "/infer", "infer", inference.infer),
        ]
        routes: list[Route] = [
            ("GET", "/openapi.json", "read", describe),
            ("GET", "/v2", "read", control.server),
            ("GET", "/v2/health/live", "", control.live),
            ("GET", "/v2/health/ready", "", control.ready),
            *((m, f"/v2/models/{{model}}{end}", s, h) for m, end, s, h in versioned),
            *((m, f"/v2/models/{{model}}/versions/{{version}}{end}", s, h) for m, end, s, h in versioned),
            ("GET", "/v2/models/stats", "read", control.statistics),
            ("POST", "/v2/repository/index", "read", control.index),
            ("POST", "/v2/repository/models/{model}/load", "admin", control.load),
            ("POST", "/v2/repository/models/{model}/unload", "admin", control.unload),
            *((m, p, "admin", h) for m, p, h in control.regions("systemsharedmemory", shm or SYSTEM_OFF)),
            *((m, p, "admin", h) for m, p, h in control.regions("cudasharedmemory", CUDA_OFF)),
            *((m, f"/v2{of}/trace/setting", "admin", h) for of in ("", "/models/{model}")
              for m, h in (("GET", control.get_trace), ("POST", control.set_trace))),
            ("GET", "/v2/logging", "admin", control.get_log),
            ("POST", "/v2/logging", "admin", control.set_log),
            ("POST", "/predict/{model}", "infer", inference.predict),
            *more,
        ]  # fmt: skip
        self._router = Router([(m, p, (scope, "{model}" in p, h)) for m, p, scope, h in routes], self.limits.name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _other(scope, receive, send)
            return
        await self._answer(scope, receive, send, None)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, known: Known | None) -> None:
        """known: what an earlier request's head said, if this one's is the same."""
        fields: Fields | None = None
        rest = True  # of the request is still to come
        held = 0
        try:
            fields, path = known[:2] if known else (read_fields(scope, self.limits), _path(scope))
            caller = self._admit(scope, fields, path)  # each time: who may call can change
            methods, arguments = known[2:] if known else self._router.find(path)
            if (remember := scope.get("extensions", {}).get(REPEATS)) is not None:
                same = fields, path, methods, arguments
                remember(lambda scope, receive, send: self._answer(scope, receive, send, same))
            method = scope["method"]
            needed, about_model, handler = methods.get("GET" if method == "HEAD" else method, ("", False, None))
            if needed:
                caller.check(needed, arguments[0] if about_model else "")
            scope["fastinfer.caller"] = caller
            if handler is None and method != "OPTIONS":
                reply = _not_allowed(method, methods)
            else:
                check_length(fields, self.limits)
                if needed == "infer" and (refused := self._inference.refusal(arguments)) is not None:
                    await discard_body(receive, self.limits)
                    rest, reply = False, failure(refused)
                else:
                    body = await read_body(receive, fields, self.limits, self._held)
                    rest, held = False, len(body)
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
            forget(e)
        finally:
            self._held.used -= held
        self._responded(str(reply[0]))
        await _send(scope, send, reply, rest and (fields is None or announces_body(fields)))

    def _admit(self, scope: Scope, fields: Fields, path: bytes) -> Caller:
        """Raises ServeError. What needs no scope needs no credentials: wrong ones are not even looked at."""
        if self._gate.open:
            if (site := fields.get(b"origin")) is not None:
                origin.check(site, fields, scope)
            return ANYONE
        if path in _OPEN or path.startswith(b"/ui/"):
            return ANYONE
        given = lambda name: [v.decode("latin-1") for n, v in scope["headers"] if n == name]  # noqa: E731
        return self._gate.admit(given(b"authorization"), given(b"x-api-key"))


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
