# SPDX-License-Identifier: Apache-2.0
"""What operators see and do beyond the protocol: an overview of all models, and what takes requests."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

import fastinfer
from fastinfer.serve import describe
from fastinfer.serve.endpoint import Endpoint
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.observe.metrics import ROWS, SECONDS, Snapshot, quantiles
from fastinfer.serve.registry import Registry
from fastinfer.serve.repository.log import Live
from fastinfer.serve.slot import UNAVAILABLE, Slot, State

ACTIONS = ("promote", "canary", "shadow", "alias", "rollback")


class Operations(Protocol):
    """The server's, of one process or of several."""

    async def overview(self) -> dict[str, Any]:
        """{"server": {...}, "models": [...]}: see `overview` below."""
        ...

    async def change(self, model: str, action: str, given: Mapping[str, Any], by: str) -> dict[str, Any]:
        """action: of ACTIONS; given: {"version", "percent", "alias"}. The new state of aliases, split and shadow."""
        ...

    async def metrics(self) -> tuple[Snapshot, list[dict[str, Any]], dict[str, float]]:
        """What observe.exposition takes: a snapshot, statistics, gauges."""
        ...


def change_of(action: str, given: Mapping[str, Any]) -> Any:
    """The change of what is live that a request asks for: Live → Live. Raises ServeError."""

    def text(name: str) -> str:
        value = given.get(name)
        if not isinstance(value, str) or not value:
            raise ServeError(Kind.INVALID_ARGUMENT, f"{action} needs '{name}', a string")
        return value

    def percent() -> float:
        value = given.get("percent")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ServeError(Kind.INVALID_ARGUMENT, f"{action} needs 'percent', a number")
        return float(value)

    if action == "promote":
        version = text("version")
        return lambda live: live.promote(version)
    if action == "alias":
        name, version = text("alias"), text("version")
        return lambda live: live.alias(name, version)
    if action in ("canary", "shadow"):
        version, share = text("version"), percent()
        return lambda live: (live.canary if action == "canary" else live.copied_to)(version, share)
    raise ServeError(Kind.NOT_FOUND, f"no action is called '{action[:32]}'; known: {', '.join(ACTIONS)}")


async def change(registry: Registry, model: str, action: str, given: Mapping[str, Any], by: str) -> Live:
    if action == "rollback":
        return await registry.rollback(model, by=by)
    return await registry.change(model, action, change_of(action, given), by=by)


def overview(
    registry: Registry, snapshot: Snapshot, statistics: list[dict[str, Any]], started: float
) -> dict[str, Any]:
    """All models as the page shows them; `bounds` are of the versions' histograms, which also count what is beyond the last
    one. snapshot, statistics: of all workers. started: of the monotonic clock."""
    waiting = {(model, version): count for model, version, count in snapshot["waiting"]}
    figures = {(v["model"], v["version"]): v for v in snapshot["versions"]}
    keyed = [((s["name"], s["version"]), s) for s in statistics]
    counts = {key: {**s, "waiting": waiting.get(key, 0)} for key, s in keyed}
    return {
        "bounds": {"seconds": SECONDS, "rows": ROWS},
        "server": {"name": "fastinfer", "version": fastinfer.__version__, "ready": registry.ready(),
                   "uptime": time.monotonic() - started},
        "models": [_model(slot, figures, counts) for _, slot in sorted(registry.slots().items())],
    }  # fmt: skip


def _model(slot: Slot, figures: Mapping[Any, Any], counts: Mapping[Any, Any]) -> dict[str, Any]:
    live = slot.live
    settings = next((e.settings for e in reversed(slot.endpoints.values())), None)
    rest = 100 - sum(live.split.values())
    traffic = [{"version": v, "percent": p, "shadow": False} for v, p in live.split.items()]
    if traffic:
        traffic.insert(0, {"version": slot.default, "percent": rest, "shadow": False})
    traffic += [{"version": v, "percent": p, "shadow": True} for v, p in live.shadow.items()]
    states = {v: State(UNAVAILABLE, "not loaded") for v in slot.on_disk} | slot.states
    return {
        "name": slot.name,
        "description": settings.description if settings else "",
        "owner": settings.owner if settings else "",
        "labels": dict(settings.labels) if settings else {},
        "live": slot.default,
        "aliases": dict(live.aliases),
        "traffic": traffic,
        "versions": [
            _version(v, state.state, state.reason, slot.endpoints.get(v), figures.get((slot.name, v)),
                     counts.get((slot.name, v)))
            for v, state in sorted(states.items(), key=lambda pair: int(pair[0] or 0))
        ],
    }  # fmt: skip


def _version(
    version: str, state: str, reason: str, endpoint: Endpoint | None, figures: Any, counts: Any
) -> dict[str, Any]:
    row: dict[str, Any] = {"version": version, "state": state, "reason": reason, "inputs": [], "outputs": [],
                           "loaded": endpoint is not None, "stateful": False, "requests": 0, "failures": 0, "rows": 0,
                           "calls": 0, "queue": 0, "memory": 0, "device": "", "p50": 0.0, "p90": 0.0, "p99": 0.0,
                           "histograms": {}}  # fmt: skip
    if endpoint is not None:
        metadata = describe.metadata(endpoint, [version])
        row |= {"inputs": metadata["inputs"], "outputs": metadata["outputs"], "memory": endpoint.memory, "device": endpoint.device, "stateful": bool(endpoint.settings.sequence.state)}  # fmt: skip
    if counts is not None:
        stats = counts["inference_stats"]
        row |= {"requests": stats["success"]["count"], "failures": stats["fail"]["count"],
                "rows": counts["inference_count"], "calls": counts["execution_count"], "queue": counts["waiting"]}  # fmt: skip
    if figures is not None:
        row |= quantiles(figures["histograms"]["request"], (0.5, 0.9, 0.99))
        row["histograms"] = {name: figures["histograms"][name][0] for name in ("request", "queue", "rows")}
    return row
