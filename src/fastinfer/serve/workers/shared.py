# SPDX-License-Identifier: Apache-2.0
"""A worker's Service: inference is its own; what changes or counts something goes through the supervisor to all workers."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterable
from typing import Any

from fastinfer.serve.messages import InferRequest, InferResponse
from fastinfer.serve.observe.metrics import Metrics
from fastinfer.serve.service import Service
from fastinfer.serve.workers.link import Handler, Link


def answering(
    own: Service, metrics: Metrics, gauges: Callable[[], dict[str, float]], begun: Callable[[], None]
) -> Handler:
    """What a worker answers when the supervisor asks it. begun: called when it says that every worker has been ready."""

    async def answer(operation: str, arguments: dict[str, Any]) -> Any:
        if operation == "load":
            return await own.load(arguments["model"], arguments["parameters"])
        if operation == "unload":
            return await own.unload(arguments["model"], arguments["parameters"])
        if operation == "statistics":
            return await own.statistics(arguments["model"], arguments["version"])
        if operation == "metrics":
            return metrics.snapshot()
        if operation == "gauges":
            return gauges()
        if operation == "begun":
            return begun()
        raise ValueError(operation)

    return answer


class SharedService:
    """`own`, with what changes models asked of all workers, and statistics summed over them. Everything else (readiness,
    metadata, infer) is this worker's, as all hold the same. It is not ready before
    all workers are (`begun`): a connection may come to any of them."""

    def __init__(self, own: Service, link: Link, begun: asyncio.Event) -> None:
        self._own, self._link, self._begun = own, link, begun

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def ready(self) -> bool:
        return self._begun.is_set() and self._own.ready()

    def admit(self, model: str, version: str = "") -> None:
        self._own.admit(model, version)

    async def infer(self, request: InferRequest) -> InferResponse:
        return await self._own.infer(request)

    async def statistics(self, model: str = "", version: str = "") -> list[dict[str, Any]]:
        arguments = {"model": model, "version": version}
        return add_statistics(await self._link.ask("all", operation="statistics", arguments=arguments))

    async def load(self, model: str, parameters: dict[str, Any]) -> None:
        # Over gRPC a file comes as bytes, which the link's JSON lacks; base64 is what it comes as over HTTP.
        texts = {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in parameters.items()}
        await self._link.ask("all", operation="load", arguments={"model": model, "parameters": texts}, keep=model)

    async def unload(self, model: str, parameters: dict[str, Any]) -> None:
        await self._link.ask(
            "all", operation="unload", arguments={"model": model, "parameters": parameters}, keep=model
        )


def add_gauges(parts: list[dict[str, float]]) -> dict[str, float]:
    """Lengths add up; the server is as ready, and as old, as the worker of which that is least true."""
    least = ("ready", "models_ready", "uptime_seconds")
    return {name: (min if name in least else sum)([p[name] for p in parts]) for name in parts[0]}


def add_statistics(parts: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """ModelStatistics of several workers as one: counts and times add up, the last inference is the latest, and so does
    memory (what workers share by mapping is counted in each)."""
    total: dict[tuple[str, str], dict[str, Any]] = {}
    for part in parts:
        for row in part:
            key = row["name"], row["version"]
            total[key] = _add(total[key], row) if key in total else row
    return list(total.values())


def _add(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = dict(a)
    for name, value in b.items():
        if name == "last_inference":
            out[name] = max(a[name], value)
        elif name == "batch_stats":
            out[name] = _rows(a[name], value, "batch_size")
        elif name == "memory_usage":
            out[name] = _rows(a[name], value, "id")
        elif isinstance(value, dict):
            out[name] = _add(a.get(name, {}), value) if a.get(name) else value
        elif isinstance(value, (int, float)):
            out[name] = a.get(name, 0) + value
    return out


def _rows(a: list[dict[str, Any]], b: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Rows with equal keys added, the key kept."""
    by_key = {row[key]: row for row in a}
    for row in b:
        old = by_key.get(row[key])
        by_key[row[key]] = row if old is None else {**_add(old, row), key: row[key]}
    return [by_key[k] for k in sorted(by_key)]
