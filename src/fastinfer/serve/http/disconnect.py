# SPDX-License-Identifier: Apache-2.0
"""A request whose client is gone is cancelled while it waits."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

from fastinfer.serve.http.body import Disconnected, Receive
from fastinfer.serve.http.eager import Resumed

T = TypeVar("T")

# Listening takes a task (8 µs), a timer takes 1: most requests are answered before it is time to listen.
AFTER = 0.005


class _Watch:
    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._request = asyncio.current_task()
        self._listener: asyncio.Task | None = None
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(AFTER, self._begin)
        self.gone = False

    def _begin(self) -> None:
        self._listener = self._loop.create_task(self._listen())

    async def _listen(self) -> None:
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            return  # kept by its task, the exception would hold all of the request until the collector finds them
        if message["type"] == "http.disconnect" and self._request is not None:
            self.gone = True
            self._request.cancel()

    def end(self) -> None:
        self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()
        self._request = self._listener = None


@types.coroutine
def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """The result of `work`. Cancels it and raises Disconnected when the client goes away meanwhile."""
    try:
        waits_for = work.send(None)
    except StopIteration as end:  # it had nothing to wait for
        return end.value
    rest, watch = Resumed(work, waits_for), None
    try:
        if asyncio.current_task() is None:  # begun by eager.start: after one turn of the loop we are in a task
            yield
        watch = _Watch(receive)
        return (yield from rest)
    except asyncio.CancelledError:
        if watch is None or not watch.gone:
            raise
        task = asyncio.current_task()
        if hasattr(task, "uncancel"):  # Python 3.11: the cancellation was ours and ends here
            task.uncancel()  # type: ignore[union-attr]
        raise Disconnected from None
    finally:
        if watch is not None:
            watch.end()
        work.close()  # nothing, if it has ended
