# SPDX-License-Identifier: Apache-2.0
"""One HTTP/1.1 connection: uvicorn's protocol on llhttp, and what that leaves open.

uvicorn 0.54 with httptools 0.9 bounds neither the head of a request nor the time it takes nor the number of connections; it
waits forever for a new connection's first byte, for a body, and for a client that reads nothing; it queues pipelined requests
without end and does not tell the first of them that its client is gone; it adds trailers to the headers; it answers with plain
text; and it closes on a request that is still being sent, which takes the answer away from the client (RST).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.http.reply import failure


@dataclass(frozen=True, slots=True)
class Rules:
    """What a connection may do. Times in seconds, sizes in bytes."""

    connections: int = 8192
    head: float = 10.0  # from its first byte (or from the connection's begin) to the end of the headers
    head_size: int = 80 << 10
    url: int = 8 << 10
    idle: float = 75.0  # between requests
    window: float = 10.0  # in which body and answer must move by...
    rate: int = 1 << 10  # ...this, per second
    linger: float = 2.0  # for a refused request to be sent to its end, so that the client gets to read why
    pipelined: int = 16  # requests behind the one that is being answered


class State(ServerState):
    """What the connections of a server share."""

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.rules = rules
        self.left = asyncio.Event()  # set when a connection ends
        self.draining = False  # each answer is its connection's last
        self._second = -1

    def tick(self) -> None:
        """Keeps the date that every answer has; costs 0.1 µs but once a second."""
        if (now := int(time.time())) != self._second:
            self._second = now
            self.default_headers = [(b"date", formatdate(now, usegmt=True).encode())]


class _Exit:
    """What a cycle sees of the transport: it can be told to close, and the protocol decides how."""

    def __init__(self, protocol: Protocol, transport: asyncio.Transport) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = protocol.finish


class Protocol(HttpToolsProtocol):
    def __init__(self, config: Config, state: State) -> None:
        super().__init__(config, state, {}, asyncio.get_running_loop())
        self._state = state
        self._rules = state.rules
        self._active: RequestResponseCycle | None = None
        self._in_head = self._in_body = False
        self._fresh = False  # the request began in the data that came last
        self._head_bytes = self._framing = self._content = 0
        self._refusal: ServeError | None = None
        self._deaf = False  # what still comes is thrown away
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._moved = 0
        self._writing: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------------------------------------------------ connection

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._exit = _Exit(self, transport)
        if len(self.connections) > self._rules.connections:
            self._refuse(ServeError(Kind.UNAVAILABLE, "the server has as many connections as it takes", retry_after=1))
        else:
            self._expect(self._rules.head)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._writing):
            if timer is not None:
                timer.cancel()
        self._timer = self._writing = None
        self._deaf = True
        self.pipeline.clear()
        if self._active is not None and not self._active.response_complete:
            self._active.disconnected = True
            self._active.message_event.set()
        super().connection_lost(exc)
        self._state.left.set()

    def end_after_answer(self) -> None:
        """The answer to the request under way, if there is one, is the connection's last."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def finish(self) -> None:
        """Closes once what was written is sent. A request that still comes in is read to its end, for a moment."""
        if self.transport.is_closing():
            return
        if (self._in_body or self._in_head or self._deaf) and self.scheme == "http":
            self._deaf = True
            self.flow.resume_reading()
            self.transport.write_eof()
            self._expect(self._rules.linger)
        else:
            self.transport.close()
        self._watch_writes()

    # ----------------------------------------------------------------------------------------------------------- input

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._fresh = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # answered as if it had not asked, and then the connection ends
            self._deaf = True
        except httptools.HttpParserError as e:
            text = f"this is no HTTP/1.1 request: {str(e)[:100]}"
            self._broken(self._refusal or ServeError(Kind.INVALID_ARGUMENT, text))
            return
        if self._in_head:
            self._head_bytes += 0 if self._fresh else len(data)
            if self._head_bytes > self._rules.head_size:
                self._broken(ServeError(Kind.HEADERS_TOO_LARGE, "the head of the request is too large"))
            elif self._fresh:
                self._expect(self._rules.head)
        elif self._in_body:
            self._framing += 0 if self._fresh else len(data)
            # One-byte chunks take five bytes each around them; endless chunk extensions and trailers take more.
            if self._framing - self._content > 2 * self._rules.head_size + 8 * self._content:
                self._broken(ServeError(Kind.INVALID_ARGUMENT, "more chunk framing than content"))
            elif self._deadline is None:
                self._moved = self._content
                self._expect(self._rules.window)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._fresh = True
        self._head_bytes = self._framing = self._content = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self._rules.url:
            self._stop(Kind.URI_TOO_LONG, f"the URL has more than {self._rules.url} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else a trailer: nobody who checked the headers has seen it
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= self._rules.pipelined:
            self._stop(Kind.RATE, "too many pipelined requests")
        if self.parser.should_upgrade() and any(
            n in (b"content-length", b"transfer-encoding") for n, _ in self.headers
        ):
            self._stop(Kind.UNSUPPORTED, "no protocol can be upgraded to, least of all with a body")
        if self.parser.get_http_version() not in ("1.1", "1.0"):
            self._stop(Kind.UNSUPPORTED, "needed: HTTP/1.1")
        self._state.tick()
        super().on_headers_complete()
        self.cycle.transport = self._exit
        self._in_head, self._in_body = False, True
        self._deadline = None
        if self._state.draining or self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._content += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._deadline = None
        super().on_message_complete()

    def _stop(self, kind: Kind, text: str) -> None:
        self._refusal = ServeError(kind, text)
        raise self._refusal

    def _broken(self, error: ServeError) -> None:
        """The input is no use any more. What was asked before is answered first, since answers go in order."""
        self._deaf = True
        waiting = self.cycle is not None and not self.cycle.response_complete
        if waiting and not self._in_body:
            self.cycle.keep_alive = False  # it is the last
        elif waiting and (self.pipeline or self.cycle.response_started):
            self.transport.close()
        else:
            if waiting:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self._refuse(error)

    def _refuse(self, error: ServeError) -> None:
        status, headers, body = failure(error)
        headers += [(b"content-length", b"%d" % len(body)), (b"connection", b"close"), *self._state.default_headers]
        lines = b"".join(b"%s: %s\r\n" % pair for pair in headers)
        self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + body)
        self._deaf = True
        self.finish()

    # ---------------------------------------------------------------------------------------------------------- answers

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._active = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self._state.total_requests += 1
        if self.transport.is_closing() or (self._deaf and not self.pipeline and self.cycle.response_complete):
            return
        if self._in_body and self.cycle.response_complete:  # answered before it was all sent
            self.finish()
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif not self._in_head:
            self._expect(self._rules.idle)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writes()

    # ------------------------------------------------------------------------------------------------------------ times

    def _expect(self, seconds: float) -> None:
        """One timer per connection. It is not moved for every request: when it fires early, it is set again."""
        self._deadline = deadline = self.loop.time() + seconds
        if self._timer is not None and self._timer.when() > deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self.loop.call_at(deadline, self._due)

    def _due(self) -> None:
        self._timer = None
        if self._deadline is None or self.transport.is_closing():
            return
        if self.loop.time() < self._deadline:
            self._timer = self.loop.call_at(self._deadline, self._due)
        elif self._in_body and not self._deaf and self._content - self._moved >= self._rules.rate * self._rules.window:
            self._moved = self._content
            self._expect(self._rules.window)
        elif self._in_body and not self._deaf and self.flow.read_paused:  # it is us who do not read
            self._expect(self._rules.window)
        elif (self._in_body or self._in_head) and not self._deaf:
            self._broken(ServeError(Kind.REQUEST_TIMEOUT, "the request came too slowly"))
        elif self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _watch_writes(self) -> None:
        if self._writing is None and (size := self.transport.get_write_buffer_size()):
            self._writing = self.loop.call_later(self._rules.window, self._check_writes, size)

    def _check_writes(self, before: int) -> None:
        """A client that reads nothing holds its answer in our memory."""
        self._writing = None
        size = self.transport.get_write_buffer_size()
        if size and before - size < min(before, self._rules.rate * self._rules.window):
            self.transport.abort()
        else:
            self._watch_writes()
