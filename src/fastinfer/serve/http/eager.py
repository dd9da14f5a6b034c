# SPDX-License-Identifier: Apache-2.0
"""Coroutines whose first step is taken at once: most requests for small models end in it, and a task costs more than
their inference."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable, Coroutine, Generator
from typing import Any


def start(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> asyncio.Task | None:
    """Runs `work` up to where it waits for something; what is left goes on as a task, None if nothing is. Until it first
    waits there is no current task (before Python 3.12). To be called from callbacks, which have none either. Raises what the
    first step raises."""
    if sys.version_info >= (3, 12):
        task = asyncio.Task(work, loop=loop, eager_start=True)
        return task if not task.done() else task.result()
    run = contextvars.copy_context().run
    try:
        waits_for = run(work.send, None)
    except StopIteration:
        return None
    return loop.create_task(Resumed(work, waits_for, run))


class Resumed(Coroutine[Any, Any, Any]):
    """The rest of a coroutine that has come to wait for `waits_for`, to be awaited or made a task. run: calls a function
    in the coroutine's context."""

    __slots__ = ("_first", "_run", "_waits_for", "_work")

    def __init__(self, work: Coroutine[Any, Any, Any], waits_for: Any, run: Callable[..., Any] | None = None) -> None:
        self._work, self._waits_for, self._first = work, waits_for, True
        self._run = run or _call

    def send(self, value: Any) -> Any:
        if self._first:
            self._first = False
            return self._waits_for
        return self._run(self._work.send, value)

    def throw(self, *error: Any) -> Any:
        self._first = False
        return self._run(self._work.throw, *error)

    def close(self) -> None:
        self._run(self._work.close)

    def __next__(self) -> Any:
        return self.send(None)

    def __iter__(self) -> Resumed:
        return self

    def __await__(self) -> Generator[Any, Any, Any]:
        return self


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)
