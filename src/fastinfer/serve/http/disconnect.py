# SPDX-License-Identifier: Apache-2.0
"""A request whose client is gone is cancelled while it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastinfer.serve.http.body import Disconnected, Receive

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
        if (await self._receive())["type"] == "http.disconnect" and self._request is not None:
            self.gone = True
            self._request.cancel()

    def end(self) -> None:
        self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Cancels it and raises Disconnected when the client goes away meanwhile."""
    watch = _Watch(receive)
    try:
        return await work
    except asyncio.CancelledError:
        if not watch.gone:
            raise
        task = asyncio.current_task()
        if hasattr(task, "uncancel"):  # Python 3.11: the cancellation was ours and ends here
            task.uncancel()  # type: ignore[union-attr]
        raise Disconnected from None
    finally:
        watch.end()
