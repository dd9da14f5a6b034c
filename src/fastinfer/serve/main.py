# SPDX-License-Identifier: Apache-2.0
"""From a configuration to a running server, of one process or of several."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Coroutine
from typing import Any

from fastinfer.serve import server
from fastinfer.serve.config import Config
from fastinfer.serve.observe import logs
from fastinfer.serve.workers import parent

DESCRIPTORS = 1 << 16


def main(config: Config, log_style: str, log_level: str) -> None:
    """Returns when the server has ended. Raises InputError, CrashLoop."""
    config.check()
    logs.configure(log_style, log_level)
    raise_file_limit()
    run_loop(server.run(config) if config.workers == 1 else parent.run(config, log_style, log_level))


def raise_file_limit() -> None:
    """Each connection takes a descriptor, of which a shell allows 1024 unless asked for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """On uvloop's event loop, where there is one."""
    try:
        import uvloop
    except ModuleNotFoundError:
        asyncio.run(work)
    else:
        uvloop.run(work)
