# SPDX-License-Identifier: Apache-2.0
"""One HTTP/1.1 connection: uvicorn's protocol on llhttp, and what that leaves open.

uvicorn 0.54 with httptools 0.9 bounds neither the head of a request nor the time it takes nor the number of connections; it
waits forever for a new connection's first byte, for a body, and for a client that reads nothing; it queues pipelined requests
without end and does not tell the first of them that its client is gone; it adds trailers to the headers; it answers with plain
text; it closes on a request that is still being sent, which takes the answer away from the client (RST); and it starts a task
for every request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.http.cycle import Cycle
from fastinfer.serve.http.eager import start
from fastinfer.serve.http.repeats import Repeats
from fastinfer.serve.http.reply import failure
from fastinfer.serve.http.state import State

_ASGI = {"version": "3.0", "spec_version": "2.3"}


class Protocol(HttpToolsProtocol):
    def __init__(self, config: Config, state: State) -> None:
        super().__init__(config, state, {}, asyncio.get_running_loop())
        self._state = state
        self._rules = state.rules
        self._spinner = state.spinner
        self._repeats = Repeats()
        self.cycle: Cycle | None = None  # of the request that came last
        self._active: Cycle | None = None  # the one that is being answered
        self._begun: Cycle | None = None  # in the data that is being read; starts when all of that is
        self.pipeline: deque[Cycle] = deque()  # behind the active one
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
        self.connections.discard(self)
        self.pipeline.clear()
        for cycle in (self._active, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnect()
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()
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
        if self._spinner is not None:
            self._spinner.asked()
        app, between = self.app, not self._in_head and not self._in_body
        if between and self._repeats.matches(data) and self._at_rest():
            app = self._repeat(data)
        else:
            self._fresh = False
            self._read(data)
            # One request, and all of it; with a second one behind it that would be the last cycle.
            if between and self._begun is self.cycle is not None and not self._in_head and not self._in_body:
                self._repeats.offer(self, data, self._content)
        if (cycle := self._begun) is not None:
            self._begun = None
            if (task := start(self.loop, cycle.run(app))) is not None:
                self._keep(task)

    def _at_rest(self) -> bool:
        """Every request is answered, and the connection goes on."""
        return self.cycle is not None and self.cycle.response_complete and not self._state.draining

    def _repeat(self, data: bytes) -> Any:
        """As the parser would, for a request with the last one's head; the application for it."""
        known = self._repeats
        cycle = self._active = self._begun = self.cycle = Cycle(self, known.next_scope(), True, False)
        self._deadline = None
        cycle.add(data[len(known.head) :])
        cycle.complete()
        return known.app

    def _read(self, data: bytes) -> None:
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
        self.url, self.expect_100_continue = b"", False
        self.headers: list[tuple[bytes, bytes]] = []
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
        upgrade = self.parser.should_upgrade()
        if upgrade and any(n in (b"content-length", b"transfer-encoding") for n, _ in self.headers):
            self._stop(Kind.UNSUPPORTED, "no protocol can be upgraded to, least of all with a body")
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._stop(Kind.UNSUPPORTED, "needed: HTTP/1.1")
        keep_alive = version == "1.1" and not upgrade and self.parser.should_keep_alive() and not self._state.draining
        before, self.cycle = self.cycle, Cycle(self, self._scope(version), keep_alive, self.expect_100_continue)
        self._in_head, self._in_body = False, True
        self._deadline = None
        if before is None or before.response_complete:
            self._active = self._begun = self.cycle
        else:
            self.flow.pause_reading()
            self.pipeline.append(self.cycle)

    def _scope(self, version: str) -> dict[str, Any]:
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        return {
            "type": "http", "asgi": _ASGI, "http_version": version, "server": self.server, "client": self.client,
            "scheme": self.scheme, "root_path": "", "method": self.parser.get_method().decode("ascii"),
            "headers": self.headers, "path": unquote(path) if "%" in path else path, "raw_path": url.path,
            "query_string": url.query or b"", "state": {},
        }  # fmt: skip

    def on_body(self, body: bytes) -> None:
        self._content += len(body)
        if self.cycle is not None and not self.cycle.response_complete and self.cycle.add(body):
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        self._in_body = False
        self._deadline = None
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.complete()

    def _stop(self, kind: Kind, text: str) -> None:
        self._refusal = ServeError(kind, text)
        raise self._refusal

    def _broken(self, error: ServeError) -> None:
        """The input is no use any more. What was asked before is answered first, since answers go in order."""
        self._deaf = True
        cycle = self.cycle if self.cycle is not None and not self.cycle.response_complete else None
        if cycle is not None and not self._in_body:
            cycle.keep_alive = False  # it is the last
        elif cycle is not None and (self.pipeline or cycle.response_started):
            self.transport.close()
        else:
            if cycle is not None:
                cycle.disconnect()
            self._refuse(error)

    def _refuse(self, error: ServeError) -> None:
        status, headers, body = failure(error)
        headers += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
        self.transport.write(STATUS_LINE[status] + self.date + lines + b"\r\n" + body)
        self._deaf = True
        self.finish()

    # ---------------------------------------------------------------------------------------------------------- answers

    @property
    def date(self) -> bytes:
        return self._state.tick()

    def _keep(self, task: asyncio.Task) -> None:
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def on_response_complete(self) -> None:
        self._state.total_requests += 1
        if self._spinner is not None:
            self._spinner.answered()
        last = self.cycle is not None and self.cycle.response_complete
        if self.transport.is_closing() or (self._deaf and not self.pipeline and last):
            return
        if self._in_body and last:  # answered before it was all sent
            self.finish()
            return
        self.flow.resume_reading()
        if self.pipeline:  # in a task: one request after the other must not go ever deeper
            self._active = self.pipeline.popleft()
            self._keep(self.loop.create_task(self._active.run(self.app)))
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
