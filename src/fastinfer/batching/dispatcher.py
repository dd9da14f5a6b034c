# SPDX-License-Identifier: Apache-2.0
"""Requests as asyncio futures, calls of an engine, timers for deadlines: mechanism alone. All on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any

from fastinfer.batching.queue import DeadlineExceeded, Queue, Request
from fastinfer.errors import FastinferError

# Runs the requests of one call; gives each one's result, or the exception that is its own.
Engine = Callable[[Sequence[Request]], Awaitable[Sequence[Any]]]
# The same at once, on the loop: None where that would take too long.
Direct = Callable[[Sequence[Request]], Sequence[Any] | None]
Limit = Callable[[Hashable], int | None]


class Closed(FastinferError):
    """The batcher takes no more requests."""


class Dispatcher:
    """Takes batches out of `queue` whenever one of `engines` calls is free. Nothing polls: arrivals, ends of calls,
    cancellations and one timer for the next deadline (or end of a wait for company) are all that wakes it. Requests that
    come in one turn of the loop are looked at together.

    limit: rows of a group's call, where fewer than the queue's max_batch are better. immediate: runs a request that
    costs so little that it need not queue when nothing waits; None for others.
    """

    def __init__(
        self,
        queue: Queue,
        engine: Engine,
        engines: int = 1,
        direct: Direct = lambda batch: None,
        limit: Limit = lambda group: None,
        immediate: Callable[[Request], Sequence[Any] | None] = lambda request: None,
    ) -> None:
        self._queue = queue
        self._engine = engine
        self._direct = direct
        self._limit = limit
        self._immediate = immediate
        self._woken = False
        self._free = engines
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task] = set()
        self._in_call: set[Request] = set()
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def ahead(self) -> int:
        """Requests that wait or are in a call."""
        return len(self._queue) + len(self._in_call)

    async def run(self, request: Request, timeout: float | None = None) -> Any:
        """The request's result. Raises what its feed raises; QueueFull, DeadlineExceeded, Closed."""
        if self._closed:
            raise Closed("the batcher is closed")
        if self._free > 0 and not len(self._queue) and (timeout is None or timeout > 0):
            outcomes = self._immediate(request)
            if outcomes is not None:
                return _result(outcomes[0])
        now = self._loop.time()
        request.deadline = None if timeout is None else now + timeout
        self._queue.add(request, now)
        request.handle = self._loop.create_future()
        self._idle.clear()
        if not self._woken:
            self._woken = True
            self._loop.call_soon(self._wake)
        try:
            return await request.handle
        finally:  # cancelled, perhaps
            request.handle = None  # or an exception in it would lead to itself, and wait for the garbage collector
            self._in_call.discard(request)
            if self._queue.remove(request):
                self._wake()

    def _wake(self) -> None:
        """Whatever has happened: settle what is due, start what can start, set the timer."""
        self._woken = False
        now = self._loop.time()
        for request in self._queue.expire(now):
            _fail(request)
        for request in [r for r in self._in_call if r.deadline is not None and r.deadline <= now]:
            self._in_call.discard(request)  # the engine goes on; nobody waits for this result any more
            _fail(request)
        while self._free > 0 and (batch := self._queue.take(now, self._limit)):
            outcomes = self._direct_outcomes(batch)
            if outcomes is not None:
                self._settle(batch, outcomes)
                now = self._loop.time()
                continue
            self._free -= 1
            self._in_call.update(batch)
            task = self._loop.create_task(self._call(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        if self._timer is not None:
            self._timer.cancel()
        at = self._next_event()
        self._timer = None if at is None else self._loop.call_at(at, self._wake)
        if not self._running and not len(self._queue):
            self._idle.set()

    def _next_event(self) -> float | None:
        times = [r.deadline for r in self._in_call if r.deadline is not None]
        if (queued := self._queue.next_event(waits=self._free > 0)) is not None:
            times.append(queued)
        return min(times, default=None)

    def _direct_outcomes(self, batch: list[Request]) -> Sequence[Any] | None:
        """None where the call belongs into a thread."""
        rows = 0
        for request in batch:
            rows += request.rows
        for request in batch:
            request.call_rows = rows
        try:
            return _as_many(self._direct(batch), batch)
        except Exception as e:
            return [e] * len(batch)

    async def _call(self, batch: list[Request]) -> None:
        try:
            outcomes = _as_many(await self._engine(batch), batch)
        except Exception as e:
            outcomes = [e] * len(batch)
        except BaseException:  # the loop is being torn down: nobody may be left waiting
            for request in batch:
                if request.handle is not None:
                    request.handle.cancel()
            raise
        self._settle(batch, outcomes)
        self._free += 1
        self._running.discard(asyncio.current_task())
        self._wake()

    def _settle(self, batch: list[Request], outcomes: Sequence[Any]) -> None:
        for request, outcome in zip(batch, outcomes, strict=True):
            self._in_call.discard(request)
            if request.handle is None or request.handle.done():
                continue
            if isinstance(outcome, Exception):
                request.handle.set_exception(outcome)
            else:
                request.handle.set_result(outcome)

    async def close(self, drain: bool = True) -> None:
        """Takes no more requests; waits for those that there are, or (not drain) fails those that have not started."""
        self._closed = True
        if not drain:
            for request in self._queue.drop():
                if request.handle is not None and not request.handle.done():
                    request.handle.set_exception(Closed("the batcher was closed before this request ran"))
            self._wake()
        await self._idle.wait()
        if self._timer is not None:
            self._timer.cancel()


def _as_many(outcomes: Any, batch: Sequence[Request]) -> Any:
    if outcomes is not None and len(outcomes) != len(batch):
        raise FastinferError(f"the engine gave {len(outcomes)} results for {len(batch)} requests")
    return outcomes


def _result(outcome: Any) -> Any:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _fail(request: Request) -> None:
    if request.handle is not None and not request.handle.done():
        request.handle.set_exception(DeadlineExceeded("the request's time was up before its result was there"))
