# SPDX-License-Identifier: Apache-2.0
"""Questions and answers between two processes over a Unix socket pair: one JSON object a line, both sides may ask."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from fastinfer.serve.errors import Kind, ServeError, as_serve_error

log = logging.getLogger("fastinfer.serve.workers")

# Answers to one operation; raises ServeError.
Handler = Callable[[str, dict[str, Any]], Awaitable[Any]]
MAX_LINE = 256 << 20  # a load request may bring a model's file


class LinkClosed(ServeError):
    def __init__(self) -> None:
        super().__init__(Kind.UNAVAILABLE, "the other process has gone", retry_after=1)


class Link:
    """One end. Each question is handled in a task of its own, so a slow one keeps nobody waiting."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
        self._reader, self._writer, self._handler = reader, writer, handler
        self._numbers = itertools.count()
        self._open: dict[int, asyncio.Future] = {}
        self._tasks: set[asyncio.Task] = set()
        self.closed = asyncio.Event()
        self._receiver = asyncio.get_running_loop().create_task(self._receive())

    @staticmethod
    async def over(sock: socket.socket, handler: Handler) -> Link:
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=MAX_LINE)
        return Link(reader, writer, handler)

    async def ask(self, operation: str, /, **arguments: Any) -> Any:
        """The other side's answer. Raises the ServeError that its handler raised; LinkClosed."""
        if self.closed.is_set():
            raise LinkClosed
        number = next(self._numbers)
        future = self._open[number] = asyncio.get_running_loop().create_future()
        try:
            await self._send({"ask": number, "operation": operation, "arguments": arguments})
            return await future
        finally:
            del self._open[number]

    async def _send(self, message: dict[str, Any]) -> None:
        try:
            self._writer.write(json.dumps(message).encode() + b"\n")
            await self._writer.drain()
        except (ConnectionError, RuntimeError):
            raise LinkClosed from None

    async def _receive(self) -> None:
        try:
            while line := await self._reader.readline():
                message = json.loads(line)
                if "ask" in message:
                    task = asyncio.get_running_loop().create_task(self._handle(message))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                else:
                    self._settle(message)
        except (ConnectionError, ValueError) as e:
            log.warning("a link broke: %s", e)
        finally:
            self.closed.set()
            for future in self._open.values():
                if not future.done():
                    future.set_exception(LinkClosed())
            self._writer.close()

    def _settle(self, message: dict[str, Any]) -> None:
        future = self._open.get(message["answer"])
        if future is None or future.done():
            return
        if "error" in message:
            kind, text, retry_after = message["error"]
            future.set_exception(ServeError(Kind[kind], text, retry_after))
        else:
            future.set_result(message["result"])

    async def _handle(self, message: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"answer": message["ask"]}
        try:
            answer["result"] = await self._handler(message["operation"], message["arguments"])
        except Exception as e:
            told = as_serve_error(e, message["operation"])
            answer["error"] = [told.kind.name, str(told), told.retry_after]
        try:
            await self._send(answer)
        except LinkClosed:
            pass

    async def close(self) -> None:
        self._receiver.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(self._receiver, *self._tasks, return_exceptions=True)
