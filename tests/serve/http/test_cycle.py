# SPDX-License-Identifier: Apache-2.0
"""ASGI as an application sees it: whole answers, streams, and what an application does wrong; coroutines started at once."""

import asyncio
import contextvars
import socket

import pytest

from fastinfer.serve.http import eager
from fastinfer.serve.http.disconnect import unless_gone
from fastinfer.serve.http.serve import HttpServer

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def ask(app, data=GET, until=b"\r\n\r\n"):
    """All that an application's server sends after `data`, up to the end of the connection or a quiet half second."""

    async def main():
        server = HttpServer(app)
        await server.start()
        reader, writer = await asyncio.open_connection(*server.addresses[0])
        writer.write(data)
        got = b""
        try:
            while part := await asyncio.wait_for(reader.read(1 << 16), 0.5):
                got += part
        except (TimeoutError, asyncio.TimeoutError):
            pass
        writer.close()
        await server.stop(1)
        return got

    return asyncio.run(main())


def answering(*messages, headers=(), status=200):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": list(headers)})
        for body, more in messages:
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": body, "more_body": more})

    return app


def test_one_body_gets_its_length():
    head, _, body = ask(answering((b"hello", False))).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\ndate: ") and b"content-length: 5" in head and body == b"hello"


def test_a_large_body_is_whole():
    large = bytes(range(256)) * 2000
    assert ask(answering((large, False))).partition(b"\r\n\r\n")[2] == large


def test_a_stream_goes_in_chunks():
    head, _, body = ask(answering((b"one", True), (b"", True), (b"three", False))).partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head and body == b"3\r\none\r\n5\r\nthree\r\n0\r\n\r\n"


def test_a_stream_of_announced_length():
    app = answering((b"one", True), (b"two", False), headers=[(b"content-length", b"6")])
    head, _, body = ask(app).partition(b"\r\n\r\n")
    assert b"chunked" not in head and body == b"onetwo"


def test_head_has_no_body_and_204_no_length():
    head, _, body = ask(answering((b"hello", False)), b"HEAD / HTTP/1.1\r\n\r\n").partition(b"\r\n\r\n")
    assert b"content-length: 5" in head and body == b""
    assert b"content-length" not in ask(answering((b"", False), status=204))


async def raises(scope, receive, send):
    raise KeyError("secret")


async def silent(scope, receive, send):
    pass


async def body_first(scope, receive, send):
    await send({"type": "http.response.body", "body": b"x"})


@pytest.mark.parametrize(
    "app",
    [
        raises,
        silent,
        body_first,
        answering((b"x", False), headers=[(b"a", b"b\r\nset-cookie: evil")]),
        answering((b"x", False), headers=[(b"a", b"b\nc")]),
        answering((b"x", False), headers=[(b"a\r\nb", b"c")]),
        answering(),
        answering((b"longer", False), headers=[(b"content-length", b"3")]),
        answering((b"short", False), headers=[(b"content-length", b"9")]),
        answering((b"", False), status=299 + 1000),
    ],
)
def test_an_application_that_does_it_wrong(app):
    got = ask(app)
    assert got.startswith(b"HTTP/1.1 500 ") and b'{"error":"an internal error' in got and b"connection: close" in got
    assert b"evil" not in got and b"secret" not in got


def test_a_stream_that_breaks_off_ends_the_connection():
    got = ask(answering((b"one", True)))
    assert got.endswith(b"3\r\none\r\n")  # and no last chunk


def test_the_body_comes_in_parts_and_then_the_end():
    seen = []

    async def app(scope, receive, send):
        while True:
            message = await receive()
            seen.append(message)
            if not message["more_body"]:
                break
        await answering((b"", False))(scope, receive, send)
        seen.append(await receive())

    async def main():
        server = HttpServer(app)
        await server.start()
        with socket.create_connection(server.addresses[0]) as s:
            s.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(s, b"POST / HTTP/1.1\r\ncontent-length: 6\r\nexpect: 100-continue\r\n\r\n")
            assert (await loop.sock_recv(s, 100)).startswith(b"HTTP/1.1 100 ")
            await loop.sock_sendall(s, b"abc")
            await asyncio.sleep(0.05)
            await loop.sock_sendall(s, b"def")
            assert (await loop.sock_recv(s, 1000)).startswith(b"HTTP/1.1 200 ")
        await server.stop(1)

    asyncio.run(main())
    assert b"".join(m["body"] for m in seen[:-1]) == b"abcdef" and seen[-1]["type"] == "http.disconnect"


# ---------------------------------------------------------------------------------------------------- started at once


def test_what_waits_for_nothing_is_done_when_start_returns():
    done = []

    async def work():
        done.append(1)

    async def main():
        assert eager.start(asyncio.get_running_loop(), work()) is None and done == [1]

    asyncio.run(main())


def test_what_waits_goes_on_in_its_own_context_and_can_be_cancelled():
    variable = contextvars.ContextVar("variable", default=0)
    ended = []

    async def work(value, event):
        token = variable.set(value)
        try:
            await event.wait()
            await asyncio.sleep(0)
            ended.append(variable.get())
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        finally:
            variable.reset(token)

    async def main():
        loop, event = asyncio.get_running_loop(), asyncio.Event()
        tasks = [eager.start(loop, work(i, event)) for i in (1, 2, 3)]
        assert variable.get() == 0 and not ended
        tasks[0].cancel()
        await asyncio.sleep(0)
        event.set()
        await asyncio.wait(tasks)
        assert tasks[0].cancelled() and sorted(map(str, ended)) == ["2", "3", "cancelled"]

    asyncio.run(main())


def test_what_is_watched_and_started_at_once_is_cancelled_when_the_client_goes():
    async def main():
        loop, gone, ended = asyncio.get_running_loop(), asyncio.Event(), []

        async def receive():
            await gone.wait()
            return {"type": "http.disconnect"}

        async def work():
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        async def request():
            try:
                await unless_gone(receive, work())
            except Exception as e:
                ended.append(type(e).__name__)

        started = loop.create_future()
        loop.call_soon(lambda: started.set_result(eager.start(loop, request())))
        task = await started
        await asyncio.sleep(0.02)
        gone.set()
        await asyncio.wait_for(task, 2)
        assert ended == ["cancelled", "Disconnected"]

    asyncio.run(main())
