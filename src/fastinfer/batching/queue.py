# SPDX-License-Identifier: Apache-2.0
"""What to run next: policy alone, without clock, futures or threads. Times are seconds of any clock that never goes back."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from fastinfer.errors import FastinferError

# A request overtakes those that came up to this many seconds earlier for each level of priority it is above them. Order
# is by arrival less this head start, so every request is overtaken by a bounded stretch of others: none starves.
HEAD_START = 0.05


class QueueFull(FastinferError):
    """More waits in front of the model than may, or than could run in time; come back later. retry_after: seconds after
    which there will probably be room, None where that is not known."""

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class DeadlineExceeded(FastinferError, TimeoutError):
    """A request's time was up before its result was there."""


@dataclass(eq=False, slots=True)
class Request:
    """One feed and where it stands. group: requests of equal groups may share a call; None: only alone."""

    feed: Any
    group: Hashable | None = None
    rows: int = 1
    work: int = 1  # what its time follows: rows, or tokens
    priority: int = 0
    deadline: float | None = None
    arrived: float = 0.0
    seconds: float = 0.0  # that its call took
    call_rows: int = 0  # of the whole call
    queued: bool = False
    handle: Any = None  # the mechanism's

    @property
    def rank(self) -> float:
        return self.arrived - self.priority * HEAD_START


@dataclass
class _Group:
    heap: list[tuple[float, int, Request]] = field(default_factory=list)
    rows: int = 0


class Queue:
    """Requests that wait. max_batch: rows per call (a larger request goes alone); max_delay: how long a request may wait
    for company while the engine is free; max_queue: requests that may wait."""

    def __init__(self, max_batch: int, max_delay: float = 0.0, max_queue: int = 1024) -> None:
        self.max_batch = max_batch
        self.max_delay = max_delay
        self.max_queue = max_queue
        self._clear()

    def _clear(self) -> None:
        self._groups: dict[Hashable, _Group] = {}
        self._full: set[Hashable] = set()
        # Requests leave these three when they come to the front, or when most of what they hold has left the queue.
        self._order: list[tuple[float, int, Request]] = []
        self._deadlines: list[tuple[float, int, Request]] = []
        self._arrivals: deque[Request] = deque()
        self._serial = 0
        self._live = 0

    def __len__(self) -> int:
        return self._live

    def add(self, request: Request, now: float) -> None:
        """Raises QueueFull."""
        if self._live >= self.max_queue:
            raise QueueFull(f"{self._live} requests are waiting, max_queue is {self.max_queue}")
        self._forget_gone()
        request.arrived = now
        self._enter(request)

    def _enter(self, request: Request) -> None:
        self._serial += 1
        self._live += 1
        request.queued = True
        entry = request.rank, self._serial, request
        heapq.heappush(self._order, entry)
        self._arrivals.append(request)
        if request.deadline is not None:
            heapq.heappush(self._deadlines, (request.deadline, self._serial, request))
        key = self._key(request)
        group = self._groups.setdefault(key, _Group())
        heapq.heappush(group.heap, entry)
        group.rows += request.rows
        if request.group is None or group.rows >= self.max_batch:
            self._full.add(key)

    @staticmethod
    def _key(request: Request) -> Hashable:
        return request if request.group is None else (request.group,)

    def remove(self, request: Request) -> bool:
        """Takes a request out (cancelled, or its time is up); whether it was still waiting."""
        if not request.queued:
            return False
        self._leave(request)
        return True

    def _forget_gone(self) -> None:
        """Keeps what is held within a small multiple of what waits."""
        if max(len(self._order), len(self._arrivals), len(self._deadlines)) > 2 * self._live + 64:
            waiting = [r for r in self._arrivals if r.queued]
            self._clear()
            for r in waiting:
                self._enter(r)

    def _leave(self, request: Request) -> None:
        request.queued = False
        self._live -= 1
        key = self._key(request)
        group = self._groups[key]
        group.rows -= request.rows
        while group.heap and not group.heap[0][2].queued:
            heapq.heappop(group.heap)
        if not group.heap:
            del self._groups[key]
        if not group.heap or group.rows < self.max_batch:
            self._full.discard(key)

    def expire(self, now: float) -> list[Request]:
        """Takes out the requests whose deadline has come."""
        due = []
        while self._deadlines and (self._deadlines[0][0] <= now or not self._deadlines[0][2].queued):
            request = heapq.heappop(self._deadlines)[2]
            if request.queued:
                self._leave(request)
                due.append(request)
        return due

    def take(self, now: float, limit: Callable[[Hashable], int | None] = lambda group: None) -> list[Request]:
        """The requests of the next call, best first; empty when there are none or they may still wait for company.

        limit: the most work that a call of a group shall hold, None for no such limit; a larger request goes alone.
        """
        first = self._first(now)
        if first is None:
            return []
        batch, rows, work = [first], first.rows, first.work
        self._leave(first)
        group = self._groups.get(self._key(first))
        most = math.inf if (own := limit(first.group)) is None else own
        # The next in rank that does not fit ends the call: small ones that came later do not pass it by.
        while group is not None and group.heap:
            request = group.heap[0][2]
            if rows + request.rows > self.max_batch or work + request.work > most:
                break
            self._leave(request)
            batch.append(request)
            rows += request.rows
            work += request.work
        return batch

    def _first(self, now: float) -> Request | None:
        while self._order and not self._order[0][2].queued:
            heapq.heappop(self._order)
        while self._arrivals and not self._arrivals[0].queued:
            self._arrivals.popleft()
        if not self._order:
            return None
        if now >= self._arrivals[0].arrived + self.max_delay:
            return self._order[0][2]
        return min((self._groups[key].heap[0] for key in self._full), default=(0, 0, None))[2]

    def drop(self) -> list[Request]:
        """Takes out all."""
        dropped = [r for r in self._arrivals if r.queued]
        for r in dropped:
            r.queued = False
        self._clear()
        return dropped

    def next_event(self, waits: bool) -> float | None:
        """When time alone will change something: a deadline comes, or (`waits`) a wait for company ends."""
        while self._deadlines and not self._deadlines[0][2].queued:
            heapq.heappop(self._deadlines)
        while self._arrivals and not self._arrivals[0].queued:
            self._arrivals.popleft()
        times = [self._deadlines[0][0]] if self._deadlines else []
        if waits and self._arrivals and self.max_delay > 0:
            times.append(self._arrivals[0].arrived + self.max_delay)
        return min(times, default=None)
