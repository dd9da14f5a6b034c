# SPDX-License-Identifier: Apache-2.0
"""Requests of a model with a canary: how each side does is looked at, and a canary that does badly is taken back."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

from fastinfer.serve.endpoint import Endpoint
from fastinfer.serve.errors import ServeError
from fastinfer.serve.messages import InferRequest, InferResponse
from fastinfer.serve.repository.log import Live, Log
from fastinfer.serve.repository.names import quoted
from fastinfer.serve.slot import Slot, State

log = logging.getLogger("fastinfer.serve")
Changed = Callable[[str], None]


class Trial:
    """on_change: told the name of a model whose canary takes no more requests; on_rollback: once that is in the log too,
    so that others who serve it can read it there."""

    def __init__(
        self,
        journal: Log,
        on_change: Changed,
        on_rollback: Changed,
        background: Callable[[Coroutine[Any, Any, None]], Any],
    ) -> None:
        self._log, self._background = journal, background
        self._on_change, self._on_rollback = on_change, on_rollback

    async def infer(self, slot: Slot, endpoint: Endpoint, request: InferRequest) -> InferResponse:
        watch, canary = slot.watch, endpoint.version != slot.default
        began = time.perf_counter()
        seconds: float | None = None
        try:
            response = await endpoint.infer(request)
            seconds = time.perf_counter() - began
            return response
        except asyncio.CancelledError:
            watch = None  # it says nothing of the version
            raise
        finally:
            if watch is not None and watch is slot.watch and (reason := watch.record(canary, seconds)):
                self._give_up(slot, endpoint.version, reason)

    def _give_up(self, slot: Slot, version: str, reason: str) -> None:
        """The canary takes no more requests from now on; that is noted where the next server will look."""
        log.warning("model '%s': canary version %s is rolled back: %s", slot.name, version, reason)
        slot.direct(slot.live.settled())
        slot.states[version] = State(slot.states[version].state, f"rolled back: {reason}")
        self._on_change(slot.name)
        self._background(self._note(slot, version, reason))

    async def _note(self, slot: Slot, version: str, reason: str) -> None:
        def settled(live: Live) -> Live:
            return live.settled() if version in live.split else live  # somebody was faster

        try:
            await asyncio.to_thread(
                self._log.change, slot.name, "rollback", settled, version=version, note=reason, by=who("")
            )
        except ServeError as e:
            log.error("model '%s': the rollback is not in the log: %s", slot.name, e)
        else:
            self._on_rollback(slot.name)


def who(name: str) -> str:
    """As the log of what is live has it."""
    return (
        f"{quoted(name)[1:-1]} at {socket.gethostname()}" if name else f"server {os.getpid()} at {socket.gethostname()}"
    )
