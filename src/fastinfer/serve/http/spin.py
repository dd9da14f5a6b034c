# SPDX-License-Identifier: Apache-2.0
"""Waiting awake. A process that sleeps until the next request is woken late and with cold caches; for a model that takes
microseconds this is much of the latency: 60 of 235 µs for one client of an MLP (p50, benchmarks/serving.py's client)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Spinner:
    """After an answer the loop polls for `window` seconds instead of sleeping, as long as requests have lately come within
    that time of the answer before them: sparse traffic costs nothing, and no request is in a model's thread meanwhile.

    busy: whether requests are under way elsewhere, which need the processor.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, window: float, busy: Callable[[], object]) -> None:
        self._loop, self._window, self._busy = loop, window, busy
        self._gap = 10 * window  # from an answer to the next request, lately
        self._answered = self._until = 0.0
        self._awake = False

    def asked(self) -> None:
        """A request has come."""
        if self._answered:
            gap = time.perf_counter() - self._answered
            self._answered = 0.0
            self._gap += (min(gap, 10 * self._window) - self._gap) / 8

    def answered(self) -> None:
        self._answered = now = time.perf_counter()
        if self._gap < self._window:
            self._until = now + self._window
            if not self._awake:
                self._awake = True
                self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        if time.perf_counter() < self._until and not self._busy():
            self._loop.call_soon(self._turn)
        else:
            self._awake = False
