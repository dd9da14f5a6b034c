# SPDX-License-Identifier: Apache-2.0
"""The server inside somebody else's: an ASGI application for uvicorn, hypercorn, or a mount in FastAPI or Starlette."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import Any

from fastinfer.model import Model
from fastinfer.serve.access import Gate
from fastinfer.serve.http.app import App
from fastinfer.serve.http.body import Receive, Scope, Send
from fastinfer.serve.memory import InMemory
from fastinfer.serve.messages import Limits
from fastinfer.serve.registry import Registry

log = logging.getLogger("fastinfer.serve")


class Asgi:
    """The Open Inference Protocol over HTTP as an ASGI application.

    models: compiled models by name, or the directory of a repository. settings: per compiled model, what a model.toml
    would say, as a dict. limits: of requests. gate: who may call (everyone by default: the surrounding application
    guards it).

    It opens on the lifespan's startup and closes on its shutdown. Frameworks pass no lifespan to what they mount: use
    ``async with`` in theirs; without that it opens with the first request and nothing closes it. It belongs to the
    event loop that it was opened on. Raises ServeError for names and settings that cannot be.
    """

    def __init__(
        self,
        models: Mapping[str, Model] | str | os.PathLike[str],
        *,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        limits: Limits | None = None,
        gate: Gate | None = None,
    ) -> None:
        if isinstance(models, Mapping):
            self.service: InMemory | Registry = InMemory(models, settings)
        elif settings:
            raise TypeError("settings are given with compiled models; a repository has them in its model.toml files")
        else:
            self.service = Registry(models)
        self._app = App(self.service, limits, gate=gate)
        self._lock = asyncio.Lock()
        self._open = self._closed = False

    async def __aenter__(self) -> Asgi:
        await self._ensure_open()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._closed = True
        await self.service.close()

    async def _ensure_open(self) -> None:
        async with self._lock:
            if self._closed:
                raise RuntimeError("this application was closed; make a new one")
            if not self._open:
                for name, error in (await self.service.open() or {}).items():
                    log.error("model '%s' is not served: %s", name, error)
                self._open = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if not self._open:
            await self._ensure_open()
        await self._app(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._ensure_open()
        except Exception as e:
            await send({"type": "lifespan.startup.failed", "message": str(e)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.__aexit__()
        await send({"type": "lifespan.shutdown.complete"})
