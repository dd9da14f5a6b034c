# SPDX-License-Identifier: Apache-2.0
"""The supervising process of a server of several: binds the port, starts the workers, passes signals on."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import signal
import socket
import sys
from pathlib import Path

from fastinfer.serve.config import Config, taken
from fastinfer.serve.signals import Signals
from fastinfer.serve.workers.supervisor import Supervisor

log = logging.getLogger("fastinfer.serve.workers")


async def run(config: Config, log_style: str, log_level: str) -> None:
    """Serves until SIGTERM or SIGINT. Raises CrashLoop, InputError."""
    check(config)
    listening = listen(config.host, config.http_port)
    try:
        if config.grpc_port is not None:
            reserve(config.host, config.grpc_port)
        await _supervise(config, listening, [log_style, log_level])
    finally:
        listening.close()
    log.info("ended")


async def _supervise(config: Config, listening: socket.socket, style: list[str]) -> None:
    def command(number: int, link: int) -> list[str]:
        plan = {"config": as_json(config), "number": number, "link": link, "socket": listening.fileno(), "log": style}
        return [sys.executable, "-m", "fastinfer.serve.workers.worker", json.dumps(plan)]

    grace = config.drain + config.grace + 5
    supervisor = Supervisor(command, config.workers, [listening.fileno()], grace)

    async def refresh() -> None:
        supervisor.signal(signal.SIGHUP)

    signals = Signals(refresh, at_once=supervisor.kill)
    log.info("starting", extra={"workers": config.workers, "http": config.http_port, "grpc": config.grpc_port})
    running = asyncio.ensure_future(supervisor.run())
    ending = asyncio.ensure_future(signals.end.wait())
    await asyncio.wait([running, ending], return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    supervisor.stop()
    await running


def check(config: Config) -> None:
    """What each worker would fail with, said once and before any is started. Raises InputError."""
    as_json(config)
    config.gate()
    config.trust()
    config.ssl()
    config.grpc_tls()


def reserve(host: str, port: int) -> None:
    """Raises InputError when somebody has gRPC's port: the workers share it, so they would share it with him too."""
    with socket.socket(_family(host), socket.SOCK_STREAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with taken("gRPC", host, port):
            s.bind((host, port))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket that all workers take connections from. Raises InputError."""
    s = socket.socket(_family(host), socket.SOCK_STREAM)
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with taken("HTTP", host, port):
            s.bind((host, port))
        s.listen(2048)
        s.set_inheritable(True)
    except BaseException:
        s.close()
        raise
    return s


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def as_json(config: Config) -> dict[str, object]:
    row = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    row["limits"] = dataclasses.asdict(config.limits)
    return {k: str(v) if isinstance(v, Path) else [str(p) for p in v] if k == "keys" else v for k, v in row.items()}
