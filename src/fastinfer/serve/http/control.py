# SPDX-License-Identifier: Apache-2.0
"""The handlers that run no model: health, metadata, statistics, the repository, shared memory, settings."""

from __future__ import annotations

from dataclasses import replace

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.http import fields
from fastinfer.serve.http.jsontext import parse_object
from fastinfer.serve.http.reply import Call, Handler, Reply, answer, readable
from fastinfer.serve.messages import Limits
from fastinfer.serve.regions import NoRegions, Regions
from fastinfer.serve.service import Service
from fastinfer.serve.settings import Settings


class Control:
    def __init__(self, service: Service, limits: Limits, settings: Settings | None = None) -> None:
        self._service = service
        self._limits = limits
        settings = settings or Settings()
        self.trace, self.log = settings.trace, settings.log

    # ------------------------------------------------------------------------------------------------ health, metadata

    async def live(self, call: Call) -> Reply:
        if not self._service.live():
            raise ServeError(Kind.UNAVAILABLE, "the server is not live")
        return answer({"live": True})

    async def ready(self, call: Call) -> Reply:
        if not self._service.ready():
            raise ServeError(Kind.UNAVAILABLE, "the server is not ready", retry_after=1)
        return answer({"ready": True})

    async def server(self, call: Call) -> Reply:
        return answer(self._service.server_metadata())

    async def model(self, call: Call) -> Reply:
        return answer(self._service.model_metadata(*call.arguments))

    async def model_ready(self, call: Call) -> Reply:
        name = call.arguments[0]
        if not self._service.model_ready(*call.arguments):
            raise ServeError(Kind.UNAVAILABLE, f"model '{name}' is not ready", retry_after=1)
        return answer({"name": name, "ready": True})

    async def config(self, call: Call) -> Reply:
        return answer(self._service.model_config(*call.arguments))

    async def statistics(self, call: Call) -> Reply:
        return answer({"model_stats": readable(call, await self._service.statistics(*call.arguments))})

    # ------------------------------------------------------------------------------------------------------ repository

    async def index(self, call: Call) -> Reply:
        given = parse_object(call.body, self._limits)
        ready = fields.flag(given, "ready", "the request", False)
        return answer(readable(call, await self._service.repository_index(ready)))

    async def load(self, call: Call) -> Reply:
        # It may bring a model file as base64: the limit of bodies holds, not that of JSON.
        given = parse_object(call.body, replace(self._limits, json=self._limits.body))
        await self._service.load(call.arguments[0], fields.parameters(given, "the request"))
        return answer({})

    async def unload(self, call: Call) -> Reply:
        given = parse_object(call.body, self._limits)
        await self._service.unload(call.arguments[0], fields.parameters(given, "the request"))
        return answer({})

    # -------------------------------------------------------------------------------------------------------- settings

    async def get_trace(self, call: Call) -> Reply:
        return answer(self.trace.get(self._known(call)))

    async def set_trace(self, call: Call) -> Reply:
        return answer(self.trace.update(parse_object(call.body, self._limits), self._known(call)))

    def _known(self, call: Call) -> str:
        """The path's model, or "". Raises ServeError if there is none of this name."""
        if call.arguments:
            self._service.model_metadata(call.arguments[0])
            return call.arguments[0]
        return ""

    async def get_log(self, call: Call) -> Reply:
        return answer(self.log.get())

    async def set_log(self, call: Call) -> Reply:
        return answer(self.log.update(parse_object(call.body, self._limits)))

    # --------------------------------------------------------------------------------------------------- shared memory

    def regions(self, prefix: str, regions: Regions) -> list[tuple[str, str, Handler]]:
        """The routes of one kind of shared memory."""

        async def status(call: Call) -> Reply:
            return answer(regions.status(*call.arguments))

        async def register(call: Call) -> Reply:
            if isinstance(regions, NoRegions):  # what is off is refused before anything is asked for
                regions.register("", "", 0, 0)
            given = parse_object(call.body, self._limits)
            key = fields.text(given, "key", "the request", 1024)
            offset = fields.integer(given, "offset", "the request", 0)
            regions.register(call.arguments[0], key, offset, fields.integer(given, "byte_size", "the request"))
            return answer({})

        async def unregister(call: Call) -> Reply:
            parse_object(call.body, self._limits)
            regions.unregister(*call.arguments)
            return answer({})

        return [
            ("GET", f"/v2/{prefix}/status", status),
            ("GET", f"/v2/{prefix}/region/{{region}}/status", status),
            ("POST", f"/v2/{prefix}/region/{{region}}/register", register),
            ("POST", f"/v2/{prefix}/unregister", unregister),
            ("POST", f"/v2/{prefix}/region/{{region}}/unregister", unregister),
        ]
