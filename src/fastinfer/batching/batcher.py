# SPDX-License-Identifier: Apache-2.0
"""The queue in front of a model: requests of many callers share calls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from fastinfer.batching.dispatcher import Closed, Dispatcher
from fastinfer.batching.queue import Queue, Request
from fastinfer.errors import InputError


class Batchable(Protocol):
    """What a batcher needs of a model; fastinfer.Model is one."""

    def batch_group(self, inputs: Mapping[str, Any]) -> tuple[Hashable | None, int]:
        """(group, rows): feeds of equal groups may share a call, of group None none; how many rows this one has."""

    def run_each(self, feeds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | Exception]:
        """Each feed's outputs, or the error that is its own."""


class Batcher:
    """Runs the requests of many callers together, each with the result, bit by bit, that it has alone.

    Asynchronous::

        async with fi.Batcher(model, max_batch=32) as b:
            out = await b.run({"input_ids": ids})

    or, from any thread, ``with fi.Batcher(model) as b: out = b.call({...})``, which keeps an event loop of its own.

    max_batch: rows per call. max_delay: seconds that a request may wait for company while the model is free; with 0 a
    call takes what has come while the one before it ran, and a lone request never waits. max_queue: requests that may
    wait; QueueFull is raised beyond. calls: how many calls may run at once.
    """

    def __init__(
        self, model: Batchable, *, max_batch: int = 32, max_delay: float = 0.0, max_queue: int = 1024, calls: int = 1
    ) -> None:
        for name, value, least in (("max_batch", max_batch, 1), ("max_delay", max_delay, 0), ("max_queue", max_queue, 1),
                                   ("calls", calls, 1)):  # fmt: skip
            if not value >= least:
                raise InputError(f"{name}={value}; needed: at least {least}")
        self._model = model
        self._queue = Queue(max_batch, max_delay, max_queue)
        self._calls = calls
        self._dispatcher: Dispatcher | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    async def run(
        self, inputs: Mapping[str, Any], *, priority: int = 0, timeout: float | None = None
    ) -> dict[str, Any]:
        """The outputs by name, as ``model.run`` gives them.

        priority: higher goes first, but never for so long that others starve. timeout: seconds from now; it also ends
        the wait for a call that is under way. Cancelling the task takes the request out of the queue.
        Raises InputError, QueueFull, DeadlineExceeded, Closed.
        """
        if self._dispatcher is None or asyncio.get_running_loop() is not self._loop:
            raise Closed(
                "the batcher runs inside `async with`, on the loop that opened it; from other threads use call()"
            )
        group, rows = self._model.batch_group(inputs)
        return await self._dispatcher.run(Request(inputs, group, rows, priority), timeout)

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
        self._dispatcher = Dispatcher(self._queue, self._engine, self._calls)
        # The packed form is built here, not in front of the first pair of requests.
        await self._loop.run_in_executor(self._pool, getattr(self._model, "prepare_many", lambda: None))
        return self

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Waits for what is under way; what still waits runs too, unless the block was left by an exception."""
        assert self._dispatcher is not None and self._pool is not None
        await self._dispatcher.close(drain=kind is None)
        self._pool.shutdown(wait=False)
        self._loop = self._dispatcher = self._pool = None

    async def _engine(self, feeds: Sequence[Any]) -> Sequence[Any]:
        assert self._loop is not None
        return await self._loop.run_in_executor(self._pool, self._model.run_each, feeds)

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
