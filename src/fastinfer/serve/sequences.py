# SPDX-License-Identifier: Apache-2.0
"""Requests that belong together: one at a time per sequence, in the order they came, with the state between them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastinfer.batching import DeadlineExceeded, QueueFull
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.messages import InferRequest
from fastinfer.serve.repository.names import quoted
from fastinfer.serve.repository.settings import SequenceSettings

Key = tuple[str, int | str]


def key_of(request: InferRequest) -> Key:
    """Callers cannot reach, or guess, the sequences of others."""
    return request.caller, request.sequence


class Sequence:
    """state: what the last request left, input → array; empty at first."""

    __slots__ = ("ended", "holders", "key", "lock", "state", "used")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.lock = asyncio.Lock()
        self.state: dict[str, Any] = {}
        self.holders = 0  # requests that run or wait for their turn
        self.ended = False
        self.used = 0.0


class Sequences:
    """The sequences of one version, on one event loop. One that no request has used for `settings.idle` seconds ends."""

    def __init__(self, settings: SequenceSettings, max_waiting: int) -> None:
        self._settings = settings
        self._max_waiting = max_waiting
        self._waiting = 0
        self._held: OrderedDict[Key, Sequence] = OrderedDict()  # the longest unused first
        self._timer: asyncio.TimerHandle | None = None
        self.empty = asyncio.Event()
        self.empty.set()

    def __contains__(self, key: Key) -> bool:
        return key in self._held

    def __len__(self) -> int:
        return len(self._held)

    @asynccontextmanager
    async def turn(self, request: InferRequest, timeout: float | None) -> AsyncIterator[Sequence]:
        """The request's sequence, when all requests of it that came before are done. Raises ServeError, QueueFull,
        DeadlineExceeded."""
        sequence = self._enter(request)
        try:
            await self._wait(sequence, timeout)
            try:
                if sequence.ended and not request.sequence_start:
                    raise self._unknown(request)
                if request.sequence_start:
                    sequence.ended, sequence.state = False, {}
                yield sequence
                # A request that failed leaves the state as it was, and the sequence alive unless it was the end.
            finally:
                sequence.ended |= request.sequence_end
                sequence.lock.release()
        finally:
            self._leave(sequence)

    def _enter(self, request: InferRequest) -> Sequence:
        sequence = self._held.get(key := key_of(request))
        if sequence is None:
            if self._settings.state and not request.sequence_start:
                raise self._unknown(request)
            if len(self._held) >= self._settings.max:
                raise ServeError(
                    Kind.UNAVAILABLE, f"{len(self._held)} sequences are under way, as many as may be", retry_after=1
                )
            sequence = self._held[key] = Sequence(key)
            self.empty.clear()
        sequence.holders += 1
        return sequence

    def _unknown(self, request: InferRequest) -> ServeError:
        return ServeError(
            Kind.INVALID_ARGUMENT,
            f"sequence {quoted(str(request.sequence))} has not begun, has ended, or was not used for "
            f"{self._settings.idle:g} s: its first request must say sequence_start",
        )

    async def _wait(self, sequence: Sequence, timeout: float | None) -> None:
        if sequence.holders == 1:  # then acquire() does not wait
            await sequence.lock.acquire()
            return
        if self._waiting >= self._max_waiting:
            raise QueueFull(f"{self._waiting} requests are waiting for their sequences")
        self._waiting += 1
        try:
            await asyncio.wait_for(sequence.lock.acquire(), timeout)
        except (asyncio.TimeoutError, TimeoutError):
            raise DeadlineExceeded("the request's time was up before its sequence came to it") from None
        finally:
            self._waiting -= 1

    def _leave(self, sequence: Sequence) -> None:
        sequence.holders -= 1
        sequence.used = asyncio.get_running_loop().time()
        self._held.move_to_end(sequence.key)
        if not sequence.holders and (sequence.ended or not self._settings.state):
            self._forget(sequence)
        elif self._timer is None:
            self._arm()

    def _forget(self, sequence: Sequence) -> None:
        del self._held[sequence.key]
        if not self._held:
            self.empty.set()

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        first = next((s for s in self._held.values() if not s.holders), None)
        self._timer = None if first is None else loop.call_at(first.used + self._settings.idle, self._expire)

    def _expire(self) -> None:
        before = asyncio.get_running_loop().time() - self._settings.idle
        for sequence in [s for s in self._held.values() if not s.holders and s.used <= before]:
            self._forget(sequence)
        self._arm()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
