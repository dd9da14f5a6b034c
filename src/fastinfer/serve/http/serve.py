# SPDX-License-Identifier: Apache-2.0
"""Listening sockets in front of an ASGI application. Signals and draining are the caller's (server.py)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl as tls
from collections.abc import Sequence
from typing import Any, cast

from uvicorn.config import Config

from fastinfer.serve.http.protocol import Protocol
from fastinfer.serve.http.state import Rules, State

BACKLOG = 2048
LINGER = 0.05  # seconds that idle connections are still read when the server stops


class HttpServer:
    """start() and stop() on one running event loop (uvloop's for speed, but any)."""

    def __init__(
        self,
        app: Any,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        sockets: Sequence[socket.socket] | None = None,
        ssl: tls.SSLContext | None = None,
        rules: Rules | None = None,
    ) -> None:
        """port: 0 for any free one. sockets: bound ones, instead of host and port. ssl: a server's context, with
        ``verify_mode`` and CA loaded where clients need certificates."""
        self._config = Config(
            app, interface="asgi3", http=Protocol, ws="none", lifespan="off", log_config=None, access_log=False,
            proxy_headers=False, server_header=False, date_header=False,
        )  # fmt: skip
        self._config.load()
        self._address = host, port
        self._sockets = sockets
        self._ssl = ssl
        self._rules = rules or Rules()
        self._servers: list[asyncio.AbstractServer] = []
        self.state: State | None = None

    async def start(self) -> None:
        """Listens when it returns. Raises OSError."""
        loop = asyncio.get_running_loop()
        state = self.state = State(self._rules)
        make = lambda: Protocol(self._config, state)  # noqa: E731
        options: dict[str, Any] = {"backlog": BACKLOG}
        if self._ssl is not None:
            options |= {"ssl": self._ssl, "ssl_handshake_timeout": self._rules.head}
        if self._sockets is None:
            host, port = self._address
            self._servers = [await loop.create_server(make, host, port, **options)]
        else:
            self._servers = [await loop.create_server(make, sock=s, **options) for s in self._sockets]

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """(host, port) of every listening socket."""
        return [s.getsockname()[:2] for server in self._servers for s in server.sockets]  # type: ignore[attr-defined]

    def drain(self) -> None:
        """From now on each answer is its connection's last, and says so: clients go on elsewhere, and none sends a request
        into a connection that is about to be closed."""
        if self.state is not None:
            self.state.draining = True
            for connection in cast("set[Protocol]", self.state.connections):
                connection.end_after_answer()

    async def stop(self, grace: float = 10.0) -> None:
        """Takes no more connections, ends idle ones, waits `grace` seconds for requests under way, and then cancels them."""
        state = self.state
        if state is None:
            return
        self.drain()
        for server in self._servers:
            server.close()
        # What has reached the machine but not yet this loop is a request too.
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_left(state), min(LINGER, grace))
        for connection in list(state.connections):
            connection.shutdown()
        try:
            await asyncio.wait_for(_left(state), grace)
        except asyncio.TimeoutError:
            for task in (tasks := list(state.tasks)):
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=1)
            for connection in list(state.connections):
                connection.transport.abort()
            await asyncio.wait_for(_left(state), 1)
        for server in self._servers:
            await server.wait_closed()
        self._servers = []


async def _left(state: State) -> None:
    while state.connections:
        state.left.clear()
        await state.left.wait()


async def run(app: Any, host: str = "127.0.0.1", port: int = 8000, *, until: asyncio.Event, **options: Any) -> None:
    """Serves until the event is set; options are HttpServer's."""
    server = HttpServer(app, host, port, **options)
    await server.start()
    try:
        await until.wait()
    finally:
        await server.stop()
