# SPDX-License-Identifier: Apache-2.0
"""From a configuration to a running server, of one process or of several."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from fastinfer.serve import server
from fastinfer.serve.config import Config
from fastinfer.serve.observe import logs
from fastinfer.serve.workers import parent


def main(config: Config, log_style: str, log_level: str) -> None:
    """Returns when the server has ended. Raises InputError, CrashLoop."""
    config.check()
    logs.configure(log_style, log_level)
    run_loop(server.run(config) if config.workers == 1 else parent.run(config, log_style, log_level))


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """On uvloop's event loop, where there is one."""
    try:
        import uvloop
    except ModuleNotFoundError:
        asyncio.run(work)
    else:
        uvloop.run(work)
