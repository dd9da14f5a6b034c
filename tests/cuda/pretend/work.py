# SPDX-License-Identifier: Apache-2.0
"""Streams, events and graphs: closures in queues, and the order in which they run."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

Work = Callable[[], object]


class Record:
    """A place in a stream's queue that others can wait for."""

    def __init__(self) -> None:
        self.reached_at = 0.0  # seconds; 0: not yet

    def __call__(self) -> None:
        self.reached_at = time.perf_counter()


class Wait:
    """The stream goes on when the place is reached."""

    def __init__(self, record: Record) -> None:
        self.record = record


class Queue:
    """A stream: what was launched and has not run. capture: the graph that launches go into instead."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.work: deque[Work | Wait] = deque()
        self.capture: Capture | None = None

    @property
    def ready(self) -> bool:
        if not self.work:
            return False
        head = self.work[0]
        return not isinstance(head, Wait) or bool(head.record.reached_at)


class Capture:
    """The launches of a graph, and what has spoiled it."""

    def __init__(self, queue: Queue, mode: str) -> None:
        self.queue, self.mode, self.thread = queue, mode, threading.get_ident()
        self.launches: list[Work] = []
        self.spoiled = ""
        self.freed: list[Work] = []  # of memory outside the graph's, for after the capture


class Device:
    """All queues. late: work waits until the host waits for it; else it runs at once where it can."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.late, self.random = True, random.Random(0)
        self.queues: list[Queue] = []
        self.captures: list[Capture] = []
        self.local = threading.local()
        self.launched = 0
        self.default = self.queue("default")

    def queue(self, name: str) -> Queue:
        with self.lock:
            self.queues.append(Queue(name))
            return self.queues[-1]

    @property
    def current(self) -> Queue:
        return getattr(self.local, "queue", self.default)

    def capturing(self) -> Capture | None:
        """What the current stream's launches go into."""
        return self.current.capture

    # ------------------------------------------------------------------------------------------------------------ launch

    def launch(self, work: Work, queue: Queue | None = None) -> None:
        queue = queue or self.current
        with self.lock:
            self.launched += 1
            if queue.capture is not None:
                queue.capture.launches.append(work)
                return
            queue.work.append(work)
            if not self.late:
                self._drain()

    def record(self, queue: Queue) -> Record:
        record = Record()
        self.launch(record, queue)
        return record

    def wait(self, queue: Queue, record: Record) -> None:
        with self.lock:
            if queue.capture is not None:
                if record not in queue.capture.launches:
                    self.spoil(queue.capture, "a captured stream waits for an event of another stream's")
                return
            queue.work.append(Wait(record))
            if not self.late:
                self._drain()

    # --------------------------------------------------------------------------------------------------------- host waits

    def reach(self, record: Record) -> None:
        """Runs what must run before the place, and of the other streams what chance takes."""
        with self.lock:
            order = None if self.random.random() < 0.5 else self.random.sample(self.queues, len(self.queues))
            while not record.reached_at:
                ready = [q for q in order or self.queues if q.ready]
                if not ready:
                    raise RuntimeError("pretended device: the streams wait for each other")
                self._advance(ready[0] if order else self.random.choice(ready))

    def finish(self, queue: Queue) -> None:
        with self.lock:
            if queue.work:
                self.reach(self.record(queue))

    def finish_all(self) -> None:
        with self.lock:
            while any(q.work for q in self.queues):
                ready = [q for q in self.queues if q.ready]
                if not ready:
                    raise RuntimeError("pretended device: the streams wait for each other")
                self._advance(self.random.choice(ready))

    def _drain(self) -> None:
        while ready := [q for q in self.queues if q.ready]:
            self._advance(ready[0])

    @staticmethod
    def _advance(queue: Queue) -> None:
        head = queue.work.popleft()
        if not isinstance(head, Wait):
            head()

    # ------------------------------------------------------------------------------------------------------------ captures

    def begin(self, mode: str) -> Capture:
        with self.lock:
            if self.current is self.default:
                raise RuntimeError("CUDA graphs must be captured on a non-default stream.")
            if self.current.capture is not None:
                raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
            capture = self.current.capture = Capture(self.current, mode)
            self.captures.append(capture)
            return capture

    def end(self, capture: Capture) -> None:
        with self.lock:
            capture.queue.capture = None
            self.captures.remove(capture)
            for work in capture.freed:
                self.launch(work, capture.queue)
        if capture.spoiled:
            raise RuntimeError(
                f"CUDA error: operation failed due to a previous error during capture ({capture.spoiled})"
            )

    @staticmethod
    def spoil(capture: Capture, why: str) -> None:
        capture.spoiled = capture.spoiled or why
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({why})")

    def host_waits(self, what: str, queue: Queue | None = None) -> None:
        """Before the host waits for a stream (None: for all): a captured one cannot be waited for, and the thread that
        captures waits for nothing."""
        for capture in list(self.captures):
            if queue is None or queue is capture.queue or self._held(capture):
                self.spoil(capture, what)

    def host_allocates(self, what: str) -> None:
        """Before a call that may reach cudaMalloc, cudaHostAlloc or cudaEventQuery in a thread that captures nothing: a
        capture of mode "global" forbids it to all threads."""
        for capture in list(self.captures):
            if capture.mode == "global" and capture.thread != threading.get_ident():
                self.spoil(capture, f"{what} in another thread, and the capture is a global one")

    @staticmethod
    def _held(capture: Capture) -> bool:
        return capture.mode != "relaxed" and capture.thread == threading.get_ident()


DEVICE: Any = Device()
