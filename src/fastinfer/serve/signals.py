# SPDX-License-Identifier: Apache-2.0
"""What a server's process does when it is signalled: SIGTERM and SIGINT end it, in order; again, at once. SIGHUP has it read
again what has changed on disk."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger("fastinfer.serve")


class Signals:
    """Installed for the running loop. refresh: what SIGHUP starts. at_once: what else ends with the second signal."""

    def __init__(
        self, refresh: Callable[[], Coroutine[Any, Any, None]] | None = None, at_once: Callable[[], None] = lambda: None
    ) -> None:
        self.end = asyncio.Event()
        self._refresh, self._at_once = refresh, at_once
        self._refreshing: set[asyncio.Task] = set()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending, number)
        loop.add_signal_handler(signal.SIGHUP, self._reread)

    def _ending(self, number: int) -> None:
        if self.end.is_set():
            log.warning("told to end for the second time: ending at once")
            self._at_once()
            leave(128 + number)
        self.end.set()

    def _reread(self) -> None:
        if self._refresh is None or self.end.is_set():
            return
        task = asyncio.get_running_loop().create_task(self._refresh())
        self._refreshing.add(task)
        task.add_done_callback(self._refreshing.discard)


def leave(code: int) -> None:
    """Ends the process now. Python's own end waits for threads, and one that compiles a model cannot be told to stop."""
    logging.shutdown()
    os._exit(code)
