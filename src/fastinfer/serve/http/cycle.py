# SPDX-License-Identifier: Apache-2.0
"""One request and its answer, as ASGI has them: receive and send of a connection's protocol."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.http.body import Scope
from fastinfer.serve.http.encode import Headers
from fastinfer.serve.http.reply import failure

if TYPE_CHECKING:
    from fastinfer.serve.http.protocol import Protocol

log = logging.getLogger("fastinfer.serve.http")

# Head and body go out in one piece up to here; beyond, copying them together costs more than a second write.
ONE_WRITE = 64 << 10
_GONE = {"type": "http.disconnect"}


class Cycle:
    """uvicorn's RequestResponseCycle does the same at 20 µs more: it makes an event, looks at every header with regular
    expressions and writes head and body by themselves."""

    __slots__ = (
        "_chunked", "_expects", "_head", "_left", "_more", "_news", "_parts", "_protocol", "_waiter", "disconnected",
        "keep_alive", "plain", "response_complete", "response_started", "scope",
    )  # fmt: skip

    def __init__(self, protocol: Protocol, scope: Scope, keep_alive: bool, expects: bool) -> None:
        """expects: the client waits for "100 Continue" before it sends the body."""
        self._protocol = protocol
        self.scope = scope
        self.plain = keep_alive and not expects
        self.keep_alive = keep_alive
        self._expects = expects
        self._parts: bytes | bytearray = b""  # of the body, that nobody has asked for yet
        self._more = True  # of the body is to come
        self._news = False  # that receive() has not told
        self._waiter: asyncio.Future | None = None
        self.disconnected = self.response_started = self.response_complete = False
        self._head: tuple[int, Headers] | None = None  # of the answer, not sent yet
        self._chunked = False
        self._left = -1  # bytes of the announced length; -1: none was announced

    # ----------------------------------------------------------------------------------------- what the protocol tells

    def add(self, body: bytes) -> bool:
        """Whether that is enough for now."""
        if not self._parts:
            self._parts = body
        elif isinstance(self._parts, bytearray):
            self._parts += body
        else:
            self._parts = bytearray(self._parts) + body
        self._tell()
        return len(self._parts) > HIGH_WATER_LIMIT

    def complete(self) -> None:
        self._more = False
        self._tell()

    def disconnect(self) -> None:
        self.disconnected = True
        self._tell()

    def _tell(self) -> None:
        self._news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ------------------------------------------------------------------------------------------------------------ ASGI

    async def run(self, app: Any) -> None:
        try:
            await app(self.scope, self.receive, self.send)
            if not self.response_complete and not self.disconnected:
                raise RuntimeError("the application gave no whole answer")
        except asyncio.CancelledError:
            self._give_up()
            raise
        except Exception as e:
            log.error("an error of the application", exc_info=e)
            if not self.response_started:
                self.keep_alive = False
                await self._fail()
            self._give_up()

    async def _fail(self) -> None:
        status, headers, body = failure(ServeError(Kind.INTERNAL, "an internal error, logged by the server"))
        self._head, self._left, self._chunked = None, -1, False
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def _give_up(self) -> None:
        if not self.response_complete and not self.disconnected:
            self._protocol.transport.close()

    async def receive(self) -> dict[str, Any]:
        if self._expects:
            self._expects = False
            if not self._protocol.transport.is_closing() and not self._head:
                self._protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self._news and not self.disconnected and not self.response_complete:
            self._protocol.flow.resume_reading()
            waiter = self._waiter = self._protocol.loop.create_future()
            try:
                await waiter
            finally:
                if self._waiter is waiter:
                    self._waiter = None
        if self.disconnected or self.response_complete:
            return _GONE.copy()
        self._news = False
        body, self._parts = self._parts, b""
        return {"type": "http.request", "body": bytes(body), "more_body": self._more}

    async def send(self, message: dict[str, Any]) -> None:
        """Raises RuntimeError for messages out of order, headers that break the head, and lengths that lie."""
        if self._protocol.flow.write_paused and not self.disconnected:
            await self._protocol.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.start" and self._head is None and not self.response_started:
            self._head = message["status"], list(message.get("headers", ()))
        elif kind == "http.response.body" and (self._head or self.response_started) and not self.response_complete:
            self._body(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"the ASGI message {kind!r} was not expected now")

    def _body(self, body: bytes, more: bool) -> None:
        head = b""
        if self._head is not None:
            head = self._make_head(*self._head, None if more else len(body))
        if self.scope["method"] == "HEAD":
            body, self._left = b"", -1
        elif self._chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body += b"" if more else b"0\r\n\r\n"
        elif self._left >= 0:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the body is not as long as its Content-Length says")
        self._head, self.response_started, self._expects = None, True, False
        transport = self._protocol.transport
        if len(body) < ONE_WRITE:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        if not more:
            self.response_complete = True
            self._tell()
            if not self.keep_alive:
                self._protocol.finish()
            self._protocol.on_response_complete()

    def _make_head(self, status: int, headers: Headers, length: int | None) -> bytes:
        """length: of the body, if this is all of it."""
        head = STATUS_LINE[status] + self._protocol.date
        lines, closes = 2, False
        for name, value in headers:
            if name == b"content-length":
                self._left = int(value)
            elif name == b"connection" and b"close" in value:
                closes = True
            head += b"%b: %b\r\n" % (name, value)
            lines += 1
        if closes:
            self.keep_alive = False
        elif not self.keep_alive:
            head += b"connection: close\r\n"
            lines += 1
        if self._left < 0 and status not in (204, 304):
            if length is not None:
                head += b"content-length: %d\r\n" % length
            elif self.scope["http_version"] == "1.1":
                self._chunked = True
                head += b"transfer-encoding: chunked\r\n"
            else:
                raise RuntimeError("HTTP/1.0 needs a Content-Length")
            lines += 1
        if head.count(b"\n") != lines or head.count(b"\r") != lines:
            raise RuntimeError("a header holds the end of a line")
        return head + b"\r\n"
