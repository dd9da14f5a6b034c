# SPDX-License-Identifier: Apache-2.0
"""ModelStreamInfer: requests and answers both ways on one call, answers in the order of the requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import grpc

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.grpc.failure import fail

Answer = Callable[[bytes, Any], Coroutine[Any, Any, bytes]]


class Streams:
    """All streams of a server. answer: gives each message its answer and raises nothing. in_flight: how many messages of
    a stream may be read before the oldest is answered; a client that sends more, or does not read, is made to wait by
    HTTP/2's flow control."""

    def __init__(self, answer: Answer, in_flight: int) -> None:
        self._answer = answer
        self._in_flight = in_flight
        self._readers: set[asyncio.Task[None]] = set()
        self._draining = False

    async def run(self, requests: Any, context: Any) -> None:
        """One stream: till the client has closed its side and has all answers, or is gone."""
        slots = asyncio.Semaphore(self._in_flight)
        pending: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()
        work: set[asyncio.Task[bytes]] = set()
        reader = asyncio.create_task(self._read(context, slots, pending, work))
        self._readers.add(reader)
        if self._draining:
            reader.cancel()
        try:
            while (task := await pending.get()) is not None:
                await context.write(await task)
                slots.release()
            if not reader.cancelled():
                reader.result()
        finally:  # the client is gone, perhaps
            self._readers.discard(reader)
            reader.cancel()
            for task in work:
                task.cancel()
        if self._draining:
            await fail(context, ServeError(Kind.UNAVAILABLE, "the server is shutting down", retry_after=1))

    async def _read(
        self,
        context: Any,
        slots: asyncio.Semaphore,
        pending: asyncio.Queue[asyncio.Task[bytes] | None],
        work: set[asyncio.Task[bytes]],
    ) -> None:
        try:
            while True:
                await slots.acquire()
                raw = await context.read()
                if raw is grpc.aio.EOF:
                    return
                # Tasks begin in the order in which they were made, so the requests of a sequence keep theirs.
                task: asyncio.Task[bytes] = asyncio.create_task(self._answer(raw, context))
                work.add(task)
                task.add_done_callback(work.discard)
                pending.put_nowait(task)
        finally:
            pending.put_nowait(None)

    def drain(self) -> None:
        """Reads no more requests; what was read is answered, then the streams end as UNAVAILABLE."""
        self._draining = True
        for reader in self._readers:
            reader.cancel()
