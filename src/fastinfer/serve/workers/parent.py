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

from fastinfer.errors import InputError
from fastinfer.serve.config import Config
from fastinfer.serve.workers.supervisor import Supervisor

log = logging.getLogger("fastinfer.serve.workers")


async def run(config: Config, log_style: str, log_level: str) -> None:
    """Serves until SIGTERM or SIGINT. Raises CrashLoop, OSError, InputError."""
    if config.shared_memory:
        raise InputError("shared memory is registered with one process: it needs workers=1")
    listening = listen(config.host, config.http_port)

    def command(number: int, link: int) -> list[str]:
        plan = {"config": as_json(config), "number": number, "link": link, "socket": listening.fileno(),
                "log": [log_style, log_level]}  # fmt: skip
        return [sys.executable, "-m", "fastinfer.serve.workers.worker", json.dumps(plan)]

    grace = config.drain + config.grace + 5
    supervisor = Supervisor(command, config.workers, [listening.fileno()], grace)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    loop.add_signal_handler(signal.SIGHUP, lambda: supervisor.signal(signal.SIGHUP))
    log.info("starting", extra={"workers": config.workers, "http": config.http_port, "grpc": config.grpc_port})
    try:
        await supervisor.run()
    finally:
        listening.close()
    log.info("ended")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket that all workers take connections from."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    s = socket.socket(family, socket.SOCK_STREAM)
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((host, port))
        s.listen(2048)
        s.set_inheritable(True)
    except BaseException:
        s.close()
        raise
    return s


def as_json(config: Config) -> dict[str, object]:
    if config.trust is not None:
        raise InputError("signatures are checked by a server of one process: it needs workers=1")
    row = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    row["limits"] = dataclasses.asdict(config.limits)
    return {k: str(v) if isinstance(v, Path) else [str(p) for p in v] if k == "keys" else v for k, v in row.items()}
