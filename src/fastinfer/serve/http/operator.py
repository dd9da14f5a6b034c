# SPDX-License-Identifier: Apache-2.0
"""The routes for operators: /metrics, the overview and its actions, and the page at /ui."""

from __future__ import annotations

import asyncio
import dataclasses

from fastinfer.serve import ui
from fastinfer.serve.access import ANYONE, SCOPES, Caller
from fastinfer.serve.admin import ACTIONS, Operations
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.http.app import Route
from fastinfer.serve.http.jsontext import parse_object
from fastinfer.serve.http.reply import Call, Handler, Reply, answer, readable
from fastinfer.serve.messages import Limits
from fastinfer.serve.observe.exposition import kind_of, parts

# A change is a few words.
_SMALL = 16 << 10


def routes(operations: Operations, limits: Limits, page: bool = True) -> list[Route]:
    """page: whether /ui is there too."""
    limits = dataclasses.replace(limits, json=_SMALL)

    async def metrics(call: Call) -> Reply:
        accept = call.fields.get(b"accept", b"").decode("latin-1")
        kind = kind_of(accept)
        made = []
        for part in parts(*await operations.metrics(), kind):
            made.append(part)
            await asyncio.sleep(0)
        return 200, [(b"content-type", kind.encode())], b"".join(made)

    async def overview(call: Call) -> Reply:
        """Each model with what the caller may do to it: {"may": [scope, ...]}."""
        caller: Caller = call.scope["fastinfer.caller"]
        shown = await operations.overview()
        models = [
            {**m, "may": [s for s in SCOPES if caller.may(s, m["name"])]} for m in readable(call, shown["models"])
        ]
        return answer({**shown, "models": models, "caller": {"name": caller.name, "anyone": caller is ANYONE}})

    def action(name: str) -> Handler:
        async def change(call: Call) -> Reply:
            given = parse_object(call.body, limits)
            by = call.scope["fastinfer.caller"].name
            return answer(await operations.change(call.arguments[0], name, given, by))

        return change

    return [
        ("GET", "/metrics", "metrics", metrics),
        ("GET", "/fastinfer/v1/overview", "read", overview),
        *(("POST", f"/fastinfer/v1/models/{{model}}/{name}", "admin", action(name)) for name in ACTIONS),
        *(_page() if page else ()),
    ]


def _page() -> list[Route]:
    files = ui.files()
    headers = list(ui.HEADERS)

    def serve(name: str) -> Handler:
        file = files[name]
        own = [(b"content-type", file.content_type.encode()), (b"etag", file.etag.encode()), *headers]

        async def reply(call: Call) -> Reply:
            if call.fields.get(b"if-none-match") == file.etag.encode():
                return 304, own, b""
            return 200, own, file.body

        return reply

    async def slash(call: Call) -> Reply:
        root = call.scope.get("root_path", "").rstrip("/")
        return 308, [(b"location", f"{root}/ui/".encode())], b""

    async def absent(call: Call) -> Reply:
        raise ServeError(Kind.NOT_FOUND, "the page has no such file")

    return [
        ("GET", "/ui", "", slash),
        *(("GET", f"/ui/{name}", "", serve(name)) for name in files),
        ("GET", "/ui/{name}", "", absent),
    ]
