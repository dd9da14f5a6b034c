# SPDX-License-Identifier: Apache-2.0
"""One server process: registry, HTTP and gRPC on one event loop; how it starts, drains and ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from fastinfer import _core
from fastinfer.errors import InputError
from fastinfer.serve import admin
from fastinfer.serve.config import Config, taken
from fastinfer.serve.errors import ServeError
from fastinfer.serve.grpc.server import GrpcServer
from fastinfer.serve.http.app import App
from fastinfer.serve.http.operator import routes
from fastinfer.serve.http.serve import HttpServer
from fastinfer.serve.http.state import Rules
from fastinfer.serve.http.uploads import Transfers
from fastinfer.serve.observe import Metrics, Requests
from fastinfer.serve.observe.metrics import Snapshot
from fastinfer.serve.registry import Registry
from fastinfer.serve.repository.push import Uploads
from fastinfer.serve.service import Service
from fastinfer.serve.settings import Settings
from fastinfer.serve.shm import Regions
from fastinfer.serve.signals import Signals, leave

log = logging.getLogger("fastinfer.serve")
# Every request is answered when models are closed: what takes longer than so many seconds is a model that is being loaded.
LOADS = 2.0


class Server:
    """start(), wait until it shall end, stop(). For a process of several, `share` puts a service of all in front of the own
    one (workers/)."""

    def __init__(self, config: Config) -> None:
        """Raises InputError for a configuration that cannot be."""
        config.check()
        self.config = config
        self.started = time.monotonic()
        self.metrics = Metrics(self._waiting)
        self.gate = config.gate()
        self._ssl, self._tls = config.ssl(), config.grpc_tls()
        trust = config.trust()
        self._uploads = (
            Uploads(config.repository, quota=config.upload_quota, trust=trust) if config.allow_files else None
        )
        self.registry = Registry(
            config.repository, models=config.models, cache=config.cache, trust=trust,
            allow_files=config.allow_files, on_change=self.changed,
            on_rollback=lambda model: self.on_rollback(model), observe=Requests(self.metrics),
        )  # fmt: skip
        self.on_rollback: Callable[[str], None] = lambda model: None  # of its own accord, and now in the log
        self.service: Service = self.registry
        self.operations: admin.Operations = Alone(self)
        self._regions = Regions() if config.shared_memory else None
        self._settings = Settings()
        self._http: HttpServer | None = None
        self._grpc: GrpcServer | None = None
        self.http_port = self.grpc_port = 0

    def changed(self, model: str = "") -> None:
        """Tells those who watch over gRPC that readiness may be another one."""
        if self._grpc is not None:
            self._grpc.changed()

    async def load(self) -> dict[str, ServeError]:
        """Loads the models; what could not be loaded is logged, is in the index, and keeps nothing else from serving."""
        await self._clean()
        failed = await self.registry.open()
        for name, error in failed.items():
            log.error("model '%s' is not served: %s", name, error)
        await asyncio.to_thread(settle)
        self.changed()
        return failed

    async def _clean(self) -> None:
        """Takes away what was pushed in part and then left."""
        if self._uploads is None:
            return
        try:
            if left := await asyncio.to_thread(self._uploads.clean):
                log.info("abandoned uploads are removed", extra={"uploads": len(left)})
        except OSError as e:
            log.warning("abandoned uploads cannot be looked for: %s", e.strerror)

    async def listen(self, sockets: Sequence[socket.socket] | None = None, reuse_port: bool = False) -> None:
        """sockets: bound ones for HTTP, instead of the configured address. Raises InputError."""
        c = self.config
        transfers = Transfers(c.repository, self._uploads, c.limits)
        more = [*routes(self.operations, c.limits, c.page), *transfers.routes()]
        app = App(
            self.service, c.limits, self._regions, self.gate, more, settings=self._settings,
            responded=partial(self.metrics.responded, "http"),
        )  # fmt: skip
        rules = Rules(connections=c.connections, spin=c.spin if _core.usable_cores() > c.workers else 0.0)
        self._http = HttpServer(app, c.host, c.http_port, sockets=sockets, ssl=self._ssl, rules=rules)
        with taken("HTTP", c.host, c.http_port):
            await self._http.start()
        self.http_port = self._http.addresses[0][1]
        if c.grpc_port is not None:
            self._grpc = GrpcServer(
                self.service, limits=c.limits, regions=self._regions, gate=None if self.gate.open else self.gate,
                responded=partial(self.metrics.responded, "grpc"),
                settings=self._settings,
            )  # fmt: skip
            self.grpc_port = await self._grpc.start(c.host, c.grpc_port, tls=self._tls, reuse_port=reuse_port)

    async def load_unless(self, end: asyncio.Event) -> None:
        """As `load`; given up when `end` is set meanwhile."""
        loading, ending = asyncio.ensure_future(self.load()), asyncio.ensure_future(end.wait())
        await asyncio.wait([loading, ending], return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if loading.done():
            log.info("ready" if not loading.result() else "some models could not be loaded")
        else:
            loading.cancel()

    async def stop(self) -> None:
        """Not ready at once; `drain` seconds later no more connections; requests under way have `grace` seconds."""
        self.registry.drain()
        self.changed()
        if self._http is not None:
            self._http.drain()
        if self.config.drain:
            await asyncio.sleep(self.config.drain)
        ends = [s.stop(self.config.grace) for s in (self._http, self._grpc) if s is not None]
        await asyncio.gather(*ends)
        try:
            await asyncio.wait_for(self.registry.close(), LOADS)
        except asyncio.TimeoutError:
            log.warning("a model is still being loaded or run; it is left")
            leave(0)

    async def refresh(self) -> None:
        """SIGHUP: what has changed on disk: keys, models, settings, what is live."""
        await self._clean()
        for wrong in self.gate.reload():
            log.error("%s; what was read before stays", wrong)
        try:
            trust = await asyncio.to_thread(self.config.trust)
            self.registry.trust(trust)
            if self._uploads is not None:
                self._uploads.trust = trust
        except InputError as e:
            log.error("%s; what was read before stays", e)
        for name, error in (await self.registry.refresh()).items():
            log.error("model '%s' could not be loaded anew: %s", name, error)

    def _waiting(self) -> dict[tuple[str, str], int]:
        return {(e.name, e.version): e.waiting for s in self.registry.slots().values() for e in s.endpoints.values()}

    def gauges(self) -> dict[str, float]:
        endpoints = [e for s in self.registry.slots().values() for e in s.endpoints.values()]
        return {
            "queue_length": float(sum(e.waiting for e in endpoints)),
            "requests_in_flight": float(sum(e.in_flight for e in endpoints)),
            "models_ready": float(sum(s.ready for s in self.registry.slots().values())),
            "ready": float(self.registry.ready()),
            "workers": 1.0,
            "uptime_seconds": time.monotonic() - self.started,
        }


def settle() -> None:
    """Takes what there is now out of the garbage collector's sight: half a million objects of modules and models, at which it
    would look again and again while requests wait (0.1 to 0.2 s each time, with the interpreter's lock held)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5000, 50, 50)


class Alone:
    """Operations of a server that is one process."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def overview(self) -> dict[str, Any]:
        s = self._server
        return admin.overview(s.registry, s.metrics.snapshot(), await s.registry.statistics(), s.started)

    async def change(self, model: str, action: str, given: Mapping[str, Any], by: str) -> dict[str, Any]:
        return (await admin.change(self._server.registry, model, action, given, by)).as_json()

    async def metrics(self) -> tuple[Snapshot, list[dict[str, Any]], dict[str, float]]:
        s = self._server
        return s.metrics.snapshot(), await s.registry.statistics(), s.gauges()


async def run(config: Config) -> None:
    """Serves until SIGTERM or SIGINT (signals.py)."""
    server = Server(config)
    signals = Signals(server.refresh)
    # Probes are answered while models load: live, and not ready.
    await server.listen()
    log.info("listening", extra={"http": server.http_port, "grpc": server.grpc_port or None})
    await server.load_unless(signals.end)
    await signals.end.wait()
    log.info("draining")
    await server.stop()
    log.info("ended")
