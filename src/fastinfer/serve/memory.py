# SPDX-License-Identifier: Apache-2.0
"""Compiled models of this process behind the Service protocol: no directory, no versions but "1", no reloading."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import fastinfer
from fastinfer.model import Model
from fastinfer.serve import describe
from fastinfer.serve.endpoint import Endpoint
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.messages import InferRequest, InferResponse
from fastinfer.serve.observe import Observation
from fastinfer.serve.ports import Ports
from fastinfer.serve.repository.loading import rows_are_batch
from fastinfer.serve.repository.names import check_name, quoted
from fastinfer.serve.repository.settings import Settings, overlay
from fastinfer.serve.service import EXTENSIONS, NAME

VERSION = "1"


class InMemory:
    """Implements Service. settings: per model, what a model.toml says, as a dict ({"batching": {"max_batch": 8}}). Raises
    ServeError for names and settings that cannot be."""

    def __init__(
        self,
        models: Mapping[str, Model],
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        observe: Callable[[Observation], None] = lambda observation: None,
    ) -> None:
        given = dict(settings or {})
        if strangers := sorted(set(given) - set(models)):
            raise ServeError(Kind.INVALID_ARGUMENT, f"settings for {quoted(strangers[0])}, which is no model here")
        self._models = {check_name(n): m for n, m in models.items()}
        self._settings = {n: overlay(Settings(), given.get(n, {}), n) for n in models}
        self._observe = observe
        self._endpoints: dict[str, Endpoint] = {}

    async def open(self) -> None:
        for name, model in self._models.items():
            self._endpoints[name] = endpoint = await asyncio.to_thread(self._endpoint, name, model)
            await endpoint.open()

    def _endpoint(self, name: str, model: Model) -> Endpoint:
        settings = self._settings[name]
        ports = Ports(model.inputs, model.outputs, settings.sequence.state)
        model.prepare_many()
        max_batch = settings.batching.max_batch if rows_are_batch(model) else 0
        return Endpoint(
            name, VERSION, model, settings, ports, max_batch=max_batch, memory=model.memory().constants,
            observe=self._observe,
        )  # fmt: skip

    async def close(self) -> None:
        """Answers what has come."""
        endpoints, self._endpoints = list(self._endpoints.values()), {}
        await asyncio.gather(*(e.close() for e in endpoints))

    def _find(self, model: str, version: str) -> Endpoint:
        endpoint = self._endpoints.get(model)
        if endpoint is None:
            raise ServeError(Kind.NOT_FOUND, f"no model is called {quoted(model)}")
        if version not in ("", VERSION):
            raise ServeError(Kind.NOT_FOUND, f"model '{model}' has no version {quoted(version)}")
        return endpoint

    def admit(self, model: str, version: str = "") -> None:
        if (endpoint := self._endpoints.get(model)) is not None:
            endpoint.admit()

    async def infer(self, request: InferRequest) -> InferResponse:
        return await self._find(request.model, request.version).infer(request)

    def live(self) -> bool:
        return True

    def ready(self) -> bool:
        return len(self._endpoints) == len(self._models)

    def model_ready(self, model: str, version: str = "") -> bool:
        return model in self._endpoints and version in ("", VERSION)

    def server_metadata(self) -> dict[str, Any]:
        extensions = [e for e in EXTENSIONS if not e.startswith("model_repository")]
        return {"name": NAME, "version": fastinfer.__version__, "extensions": extensions}

    def model_metadata(self, model: str, version: str = "") -> dict[str, Any]:
        return describe.metadata(self._find(model, version), [VERSION])

    def model_config(self, model: str, version: str = "") -> dict[str, Any]:
        return describe.config(self._find(model, version))

    async def statistics(self, model: str = "", version: str = "") -> list[dict[str, Any]]:
        endpoints = [self._find(model, version)] if model else list(self._endpoints.values())
        return [e.statistics_json() for e in endpoints]

    async def repository_index(self, ready: bool = False) -> list[dict[str, Any]]:
        return [{"name": n, "version": VERSION, "state": "READY", "reason": ""} for n in sorted(self._endpoints)]

    async def load(self, model: str, parameters: dict[str, Any]) -> None:
        self._fixed()

    async def unload(self, model: str, parameters: dict[str, Any]) -> None:
        self._fixed()

    @staticmethod
    def _fixed() -> NoReturn:
        raise ServeError(
            Kind.UNSUPPORTED, "the models belong to the process that serves them; none is loaded by request"
        )
