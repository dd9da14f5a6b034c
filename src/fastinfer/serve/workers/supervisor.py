# SPDX-License-Identifier: Apache-2.0
"""Starts worker processes, replaces those that die, passes on what concerns all of them, and ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastinfer.errors import FastinferError
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.observe.metrics import Snapshot, merge
from fastinfer.serve.workers.link import Link, LinkClosed

log = logging.getLogger("fastinfer.serve.workers")

# A worker that dies is replaced at once; more than so many deaths in so many seconds mean that the next one dies too. While
# others serve the replacement then waits, twice as long each time; when none does, it all ends.
DEATHS, WINDOW = 5, 30.0
PAUSE, LONGEST = 1.0, 60.0


class CrashLoop(FastinferError):
    """Workers die faster than it makes sense to start them."""


@dataclass(eq=False)
class _Worker:
    number: int
    process: asyncio.subprocess.Process
    link: Link
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    seen: Snapshot | None = None  # when it was last asked for its metrics

    @property
    def serves(self) -> bool:
        return self.ready.is_set() and self.process.returncode is None


class Supervisor:
    """command: the worker's command line for (its number, the number of its link's file descriptor); fds: those of the
    listening sockets, which it inherits under the same numbers. grace: seconds that a worker has to finish when it is told
    to end."""

    def __init__(
        self, command: Callable[[int, int], Sequence[str]], workers: int, fds: Sequence[int] = (), grace: float = 30.0
    ) -> None:
        self._command, self._count, self._fds, self._grace = command, workers, tuple(fds), grace
        self._workers: dict[int, _Worker] = {}
        self._deaths: deque[float] = deque()
        # Metrics of workers that have died, as far as anybody has asked for them: counters never go back.
        self._past: list[Snapshot] = []
        self._pause = 0.0
        self._begun = False  # every worker has been ready
        # The last change of each model, for workers that start later.
        self._changes: dict[str, dict[str, Any]] = {}
        self._change = asyncio.Lock()
        self._ending = asyncio.Event()
        self._failed: BaseException | None = None
        self._watchers: set[asyncio.Task] = set()

    async def run(self) -> None:
        """Until stop() is called. Raises CrashLoop; workers are then ended as well."""
        for number in range(self._count):
            await self._start(number)
        await self._ending.wait()
        await self._end()
        if self._failed is not None:
            raise self._failed

    async def ready(self) -> None:
        """Returns when every worker has said that it is ready."""
        while waiting := [w for w in self._workers.values() if not w.ready.is_set()]:
            await waiting[0].ready.wait()

    def stop(self) -> None:
        self._ending.set()

    def kill(self) -> None:
        """Ends the workers now, whatever they do."""
        self._ending.set()
        self.signal(signal.SIGKILL)

    @property
    def pids(self) -> list[int]:
        return [w.process.pid for w in self._workers.values()]

    async def _start(self, number: int) -> None:
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command(number, theirs.fileno()), pass_fds=(*self._fds, theirs.fileno()), start_new_session=True
            )
        finally:
            theirs.close()
        worker: _Worker

        async def handler(operation: str, arguments: dict[str, Any]) -> Any:
            return await self._handle(worker, operation, arguments)

        worker = self._workers[number] = _Worker(number, process, await Link.over(ours, handler))
        task = asyncio.get_running_loop().create_task(self._watch(worker))
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    async def _watch(self, worker: _Worker) -> None:
        """Waits for a worker's end, and starts another one in its place."""
        code = await worker.process.wait()
        await worker.link.close()
        worker.ready.set()  # nobody waits for it any more
        if worker.seen is not None:
            self._past = [merge([*self._past, worker.seen])]
        if self._ending.is_set():
            return
        log.error("worker %d (pid %d) ended with %s", worker.number, worker.process.pid, _ending(code))
        pause = self._pause_after(worker, code)
        while not self._ending.is_set():
            if pause:
                log.error("worker %d is started again in %g s", worker.number, pause)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), pause)
                    return
            try:
                return await self._start(worker.number)
            except OSError as e:  # no memory, or no more processes, for now
                log.error("worker %d cannot be started: %s", worker.number, e.strerror)
                pause = max(pause, PAUSE)

    def _pause_after(self, worker: _Worker, code: int) -> float:
        """Seconds until a dead worker is replaced. Ends it all when workers die in a row and none serves."""
        now = time.monotonic()
        self._deaths.append(now)
        while self._deaths[0] < now - WINDOW:
            self._deaths.popleft()
        if len(self._deaths) <= DEATHS:
            self._pause = 0.0
            return 0.0
        if not any(w.serves for w in self._workers.values() if w is not worker):
            text = f"{len(self._deaths)} workers ended within {WINDOW:g} s, the last with {_ending(code)}; none serves"
            self._failed = CrashLoop(text)
            self._ending.set()
        self._pause = min(max(PAUSE, 2 * self._pause), LONGEST)
        return self._pause

    async def _handle(self, worker: _Worker, operation: str, arguments: dict[str, Any]) -> Any:
        if operation == "changes":
            return list(self._changes.values())
        if operation == "begun":
            return self._begun
        if operation == "ready":
            worker.ready.set()
            if not self._begun and all(w.serves for w in self._workers.values()):
                self._begun = True
                told = (w.link.ask("begun") for w in self._workers.values())
                await asyncio.gather(*told, return_exceptions=True)
            return None
        if operation == "all":
            return await self.all(**arguments)
        raise ValueError(operation)

    async def all(self, operation: str, arguments: dict[str, Any], keep: str = "") -> list[Any]:
        """The answers of all workers. keep: the model that this changes: one change at a time, and workers that start later
        make it too. Raises the first error that a worker gave; those who die meanwhile are left out."""
        if not keep:
            return await self._ask(operation, arguments)
        async with self._change:
            answers = await self._ask(operation, arguments)
            self._changes.pop(keep, None)
            self._changes[keep] = {"operation": operation, "arguments": arguments}
            return answers

    async def _ask(self, operation: str, arguments: dict[str, Any]) -> list[Any]:
        workers = [w for w in self._workers.values() if not w.link.closed.is_set()]
        results = await asyncio.gather(*(w.link.ask(operation, **arguments) for w in workers), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, LinkClosed):
                raise result
        answers = [r for r in results if not isinstance(r, BaseException)]
        if not answers:
            raise ServeError(Kind.UNAVAILABLE, "no worker is running", retry_after=1)
        if operation == "metrics":
            for worker, result in zip(workers, results, strict=True):
                worker.seen = worker.seen if isinstance(result, BaseException) else result
            return [*answers, *self._past]
        return answers

    def signal(self, number: int) -> None:
        """Sends a signal to every worker."""
        for worker in self._workers.values():
            if worker.process.returncode is None:
                worker.process.send_signal(number)

    async def _end(self) -> None:
        self.signal(signal.SIGTERM)
        running = [w.process for w in self._workers.values() if w.process.returncode is None]
        done = [asyncio.create_task(p.wait()) for p in running]
        if done:
            _, late = await asyncio.wait(done, timeout=self._grace)
            if late:
                log.error("%d workers did not end within %g s and are killed", len(late), self._grace)
                self.signal(signal.SIGKILL)
                await asyncio.wait(late)
        await asyncio.gather(*self._watchers)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
