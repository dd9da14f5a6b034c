# SPDX-License-Identifier: Apache-2.0
"""The queue in front of a model: requests of many callers share calls."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from fastinfer.batching.costs import Costs
from fastinfer.batching.dispatcher import Closed, Dispatcher
from fastinfer.batching.queue import Queue, QueueFull, Request
from fastinfer.errors import InputError

# A call that takes less than this many seconds runs on the event loop: handing it to a thread and back costs about 60 µs
# and the lock's switches.
DIRECT = 1e-4
# One of less than this does not even wait for others that may come in the same turn of the loop: a place in the queue, a
# future and its wake-up cost 25 µs, twice that between requests, when caches are cold.
IMMEDIATE = 5e-5
# With max_wait="auto" a request may wait so many seconds, or for so many calls.
PATIENCE, CALLS_AHEAD = 1.0, 8


class Batchable(Protocol):
    """What a batcher needs of a model; fastinfer.Model is one."""

    def batch_group(self, inputs: Mapping[str, Any]) -> tuple[Hashable | None, int, int]:
        """(group, rows, work): feeds of equal groups may share a call, of group None none; how many rows this one has, and
        how much work it is (rows, or tokens)."""

    def run_each(self, feeds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | Exception]:
        """Each feed's outputs, or the error that is its own."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds that a request waited and that its call then took. rows: the request's own; call_rows: of all that shared
    the call."""

    waited: float
    seconds: float
    rows: int
    call_rows: int


class Batcher:
    """Runs the requests of many callers together, each with the result, bit by bit, that it has alone.

    Asynchronous::

        async with fi.Batcher(model, max_batch=32) as b:
            out = await b.run({"input_ids": ids})

    or, from any thread, ``with fi.Batcher(model) as b: out = b.call({...})``, which keeps an event loop of its own.

    max_batch: rows per call. max_delay: seconds that a request may wait for company while the model is free; with 0 a
    call takes what has come while the one before it ran, and a lone request never waits. max_queue: requests that may
    wait; QueueFull is raised beyond. max_wait: seconds: a request that would wait longer, by what requests have cost
    lately, is refused at once with QueueFull, as is one that could not begin before its own timeout: under overload those
    that are taken in are answered in time; "auto": a second, or what eight calls take where that is longer. calls: how many calls may run at once.

    What calls cost is measured as they run (:meth:`costs`): a call takes no more than makes a row cheaper, and calls
    of less than a tenth of a millisecond run on the event loop itself, as a thread would cost more than they do. Requests
    of less than 50 µs run when they come, as waiting for company would.
    """

    def __init__(
        self,
        model: Batchable,
        *,
        max_batch: int = 32,
        max_delay: float = 0.0,
        max_queue: int = 1024,
        max_wait: float | Literal["auto"] | None = None,
        calls: int = 1,
    ) -> None:
        for name, value, least in (("max_batch", max_batch, 1), ("max_delay", max_delay, 0), ("max_queue", max_queue, 1),
                                   ("max_wait", 0 if isinstance(max_wait, (str, type(None))) else max_wait, 0), ("calls", calls, 1)):  # fmt: skip
            if not value >= least:
                raise InputError(f"{name}={value}; needed: at least {least}")
        self._model = model
        self._queue = Queue(max_batch, max_delay, max_queue)
        self._calls = calls
        self._max_wait = max_wait
        self._costs = Costs()
        # Seconds, lately: of a call, and a request's share of it.
        self._per_call = self._per_request = 0.0
        self._dispatcher: Dispatcher | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def wait(self) -> float:
        """Seconds until a request that comes now would begin, by what requests have cost lately."""
        return 0.0 if self._dispatcher is None else self._per_request * self._dispatcher.ahead / self._calls

    def admit(self, timeout: float | None = None) -> None:
        """Raises QueueFull when a request that comes now would be refused; cheap, and needs no inputs."""
        if len(self._queue) >= self._queue.max_queue:
            raise QueueFull(
                f"{len(self._queue)} requests are waiting, max_queue is {self._queue.max_queue}", self.wait()
            )
        most = self._max_wait
        if most == "auto":
            most = max(PATIENCE, CALLS_AHEAD * self._per_call)
        limits = [s for s in (most, timeout) if s is not None]
        if limits and (wait := self.wait()) > min(limits):
            raise QueueFull(f"a request would wait {wait:.2g} s, the limit is {min(limits):.2g} s", wait - min(limits))

    async def run(
        self, inputs: Mapping[str, Any], *, priority: int = 0, timeout: float | None = None
    ) -> dict[str, Any]:
        """The outputs by name, as ``model.run`` gives them.

        priority: higher goes first, but never for so long that others starve. timeout: seconds from now; it also ends
        the wait for a call that is under way. Cancelling the task takes the request out of the queue.
        Raises InputError, QueueFull, DeadlineExceeded, Closed.
        """
        return (await self.submit(inputs, priority=priority, timeout=timeout))[0]

    async def submit(
        self, inputs: Mapping[str, Any], *, priority: int = 0, timeout: float | None = None
    ) -> tuple[dict[str, Any], Timing]:
        """As :meth:`run`, with the times of this request."""
        if self._dispatcher is None or asyncio.get_running_loop() is not self._loop:
            raise Closed(
                "the batcher runs inside `async with`, on the loop that opened it; from other threads use call()"
            )
        began = time.perf_counter()
        self.admit(timeout)
        group, rows, work = self._model.batch_group(inputs)
        request = Request(inputs, group, rows, work, priority)
        outputs = await self._dispatcher.run(request, timeout)
        waited = max(0.0, time.perf_counter() - began - request.seconds)
        return outputs, Timing(waited, request.seconds, rows, request.call_rows)

    def costs(self) -> dict[str, list[dict[str, float]]]:
        """What calls have cost so far: {group: [{"work", "calls", "seconds"}]}; seconds and work (rows,
        or tokens where sequences are packed) are running means."""
        return self._costs.table()

    def call(self, inputs: Mapping[str, Any], *, priority: int = 0, timeout: float | None = None) -> dict[str, Any]:
        """As :meth:`run`, from any other thread than the loop's; blocks."""
        if self._loop is None:
            raise Closed("the batcher is not open: use it in a `with` block")
        try:
            if asyncio.get_running_loop() is self._loop:
                raise Closed("call() would block the loop that it waits for: use `await run()`")
        except RuntimeError:
            pass  # no loop in this thread
        return self._wait(self.run(inputs, priority=priority, timeout=timeout))

    def _wait(self, work: Coroutine) -> Any:
        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C in the caller: the request leaves the queue
            raise

    # -------------------------------------------------------------------------------------------------- open and close

    async def __aenter__(self) -> Batcher:
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(self._calls, thread_name_prefix="fastinfer-batcher")
        self._dispatcher = Dispatcher(
            self._queue, self._engine, self._calls, self._direct, self._costs.limit, self._immediate
        )
        # The packed form is built here, not in front of the first pair of requests.
        await self._loop.run_in_executor(self._pool, getattr(self._model, "prepare_many", lambda: None))
        return self

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Waits for what is under way; what still waits runs too, unless the block was left by an exception."""
        assert self._dispatcher is not None and self._pool is not None
        await self._dispatcher.close(drain=kind is None)
        self._pool.shutdown()  # idle: nothing of ours runs any more
        self._loop = self._dispatcher = self._pool = None

    def _timed(self, feeds: Sequence[Any]) -> tuple[Sequence[Any], float]:
        start = time.perf_counter()
        outcomes = self._model.run_each(feeds)
        return outcomes, time.perf_counter() - start

    def _record(
        self, batch: Sequence[Request], outcomes: Sequence[Any], seconds: float, occupied: float
    ) -> Sequence[Any]:
        """seconds: of the call; occupied: until the next one can begin, with the ways to the thread and back, which a busy
        event loop makes longer."""
        for request in batch:
            request.seconds = seconds
        # A feed that failed in company is run once more: such a call says nothing about costs.
        if not any([isinstance(o, Exception) for o in outcomes]):
            self._costs.record(batch[0].group, sum([r.work for r in batch]), seconds)
            weight = 0.1 if self._per_call else 1.0
            self._per_call += (occupied - self._per_call) * weight
            self._per_request += (occupied / len(batch) - self._per_request) * weight
        return outcomes

    async def _engine(self, batch: Sequence[Request]) -> Sequence[Any]:
        assert self._loop is not None
        feeds, begin = [r.feed for r in batch], self._loop.time()
        outcomes, seconds = await self._loop.run_in_executor(self._pool, self._timed, feeds)
        return self._record(batch, outcomes, seconds, self._loop.time() - begin)

    def _immediate(self, request: Request) -> Sequence[Any] | None:
        if request.group is None or self._queue.max_delay:
            return None
        # The first calls of a size are slower than the rest: a few more are tried before their figure decides.
        calls, seconds = self._costs.seen(request.group, request.work)
        if calls < 2 or seconds > (DIRECT if calls < 32 else IMMEDIATE):
            return None
        request.call_rows = request.rows
        outcomes, seconds = self._timed((request.feed,))
        return self._record((request,), outcomes, seconds, seconds)

    def _direct(self, batch: Sequence[Request]) -> Sequence[Any] | None:
        # Without a group nothing says that the next call is like the last one.
        group = batch[0].group
        predicted = None if group is None else self._costs.predict(group, sum(r.work for r in batch))
        if predicted is None or predicted > DIRECT:
            return None
        outcomes, seconds = self._timed([r.feed for r in batch])
        return self._record(batch, outcomes, seconds, seconds)

    def __enter__(self) -> Batcher:
        loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=loop.run_forever, name="fastinfer-batcher-loop", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.__aenter__(), loop).result()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        loop = self._loop
        assert loop is not None and self._thread is not None
        asyncio.run_coroutine_threadsafe(self.__aexit__(kind, error, trace), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()
