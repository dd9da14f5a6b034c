# SPDX-License-Identifier: Apache-2.0
"""A worker process: `python -m fastinfer.serve.workers.worker PLAN`, started by the supervisor (parent.py)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastinfer.serve import admin
from fastinfer.serve.config import Config
from fastinfer.serve.errors import ServeError
from fastinfer.serve.messages import Limits
from fastinfer.serve.observe import logs
from fastinfer.serve.observe.metrics import Snapshot, merge
from fastinfer.serve.server import Server
from fastinfer.serve.signals import Signals
from fastinfer.serve.workers.link import Handler, Link
from fastinfer.serve.workers.shared import SharedService, add_gauges, answering

log = logging.getLogger("fastinfer.serve.workers")


def config_of(row: dict[str, Any]) -> Config:
    row["limits"] = Limits(**row["limits"])
    for name in ("repository", "cache", "jwks", "certificate", "key", "client_ca", "trusted"):
        row[name] = None if row[name] is None else Path(row[name])
    row["keys"] = [Path(k) for k in row["keys"]]
    return Config(**row)


class All:
    """Operations of all workers: figures are summed, changes are made here and then known to the others."""

    def __init__(self, server: Server, link: Link) -> None:
        self._server, self._link = server, link
        self._tasks: set[asyncio.Task] = set()
        server.on_rollback = self._rolled_back

    def _rolled_back(self, model: str) -> None:
        """A canary that one worker has taken back is taken back in all."""
        task = asyncio.get_running_loop().create_task(self._tell(model))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, model: str) -> None:
        try:
            await self._ask("load", model=model, parameters={})
        except ServeError as e:
            log.error("model '%s': the other workers do not know of the rollback: %s", model, e)

    async def _ask(self, operation: str, **arguments: Any) -> list[Any]:
        return await self._link.ask("all", operation=operation, arguments=arguments)

    async def overview(self) -> dict[str, Any]:
        snapshot, statistics, _ = await self.metrics()
        return admin.overview(self._server.registry, snapshot, statistics, self._server.started)

    async def change(self, model: str, action: str, given: Mapping[str, Any], by: str) -> dict[str, Any]:
        live = await admin.change(self._server.registry, model, action, given, by)
        await self._ask("load", model=model, parameters={})  # each reads the log of what is live
        return live.as_json()

    async def metrics(self) -> tuple[Snapshot, list[dict[str, Any]], dict[str, float]]:
        snapshots = await self._ask("metrics")
        statistics = await self._server.service.statistics()
        return merge(snapshots), statistics, add_gauges(await self._ask("gauges"))


async def run(plan: dict[str, Any]) -> None:
    server = Server(config_of(plan["config"]))
    signals = Signals(server.refresh)
    begun = asyncio.Event()

    def all_begun() -> None:
        begun.set()
        server.changed()

    answer = answering(server.registry, server.metrics, server.gauges, all_begun)
    link = await Link.over(socket.socket(fileno=plan["link"]), answer)
    server.service = SharedService(server.registry, link, begun)
    server.operations = All(server, link)
    work = asyncio.ensure_future(_serve(server, link, plan, begun, answer, signals.end))
    # Without its supervisor a worker ends too.
    ends = [asyncio.ensure_future(e.wait()) for e in (signals.end, link.closed)]
    await asyncio.wait([work, *ends], return_when=asyncio.FIRST_COMPLETED)
    if work.done() and work.exception() is None:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    await server.stop()
    await link.close()


async def _serve(
    server: Server, link: Link, plan: dict[str, Any], begun: asyncio.Event, answer: Handler, end: asyncio.Event
) -> None:
    """Loads and listens. The first workers listen before they have loaded, so that probes are answered; one that replaces
    another takes connections when it can answer them: the others serve meanwhile."""

    async def listen() -> None:
        await server.listen([socket.socket(fileno=plan["socket"])], reuse_port=True)

    replaces = await link.ask("begun")
    if replaces:
        begun.set()
    else:
        await listen()
    await server.load_unless(end)
    for change in await link.ask("changes"):
        try:
            await answer(change["operation"], change["arguments"])
        except Exception as e:
            log.error("worker %d could not make a change that the others made: %s", plan["number"], e)
    if replaces:
        await listen()
    await link.ask("ready")
    log.info("worker is ready", extra={"worker": plan["number"]})


def main(text: str) -> None:
    from fastinfer.serve.main import run_loop

    plan = json.loads(text)
    logs.configure(*plan["log"])
    run_loop(run(plan))


if __name__ == "__main__":
    main(sys.argv[1])
