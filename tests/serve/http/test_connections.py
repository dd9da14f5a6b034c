# SPDX-License-Identifier: Apache-2.0
"""Cases 22 to 24: framing, smuggling, slow clients, clients that go away, paths and methods."""

import socket
import struct
import threading
import time

import pytest
from http_server import RULES, Running
from wire import GOOD, Connection, alive, ask, chunked, request

INFER = "/v2/models/mlp/infer"


@pytest.fixture(autouse=True)
def lives_on(server):
    yield
    alive(server)


def get(path, method="GET", headers=()):
    return request(path, method=method, headers=headers, length=False)


# ------------------------------------------------------------------------------------------------------- 22: framing


@pytest.mark.parametrize(
    "data",
    [
        b"POST /v2 HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"POST /v2 HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
        b"POST /v2 HTTP/1.1\r\ncontent-length: -5\r\n\r\n", b"POST /v2 HTTP/1.1\r\ncontent-length: 5, 5\r\n\r\nhello",
        b"POST /v2 HTTP/1.1\r\ncontent-length: " + b"9" * 30 + b"\r\n\r\n", b"POST /v2 HTTP/1.1\r\ncontent-length: 0x5\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n", b"POST /v2 HTTP/1.1\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n", b"POST /v2 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n",
        b"POST /v2 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n",
        b"POST /v2 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nhost: x\r\n folded\r\n\r\n", b"GET /v2 HTTP/1.1\r\nno colon\r\n\r\n", b"GET /v2 HTTP/1.1\r\na\0b: c\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\na: b\0c\r\n\r\n", b"GET /v2 HTTP/9.9\r\n\r\n", b"GET /v2\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + b"\0" * 50, b"\0" * 100, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"EVIL /v2 HTTP/1.1\r\n\r\n",
        b"CONNECT x:80 HTTP/1.1\r\n\r\n", b"GET \xff\xfe HTTP/1.1\r\n\r\n", b"GET /\x01 HTTP/1.1\r\n\r\n", b"GET http:// HTTP/1.1\r\n\r\n",
        b"POST /v2 HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 30\r\n\r\nGET /evil HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
    ids=lambda data: repr(data[:60]),
)  # fmt: skip
def test_what_is_no_request_ends_the_connection(server, data):
    with Connection(server) as c:
        c.send(data)
        answer = c.answer()
        assert answer.status in (400, 405, 501) and answer.error
        assert answer.headers["connection"] == "close"
        assert c.ended()  # and nothing behind it was taken for a request


def test_trailers_are_no_headers(server):
    text = b'{"inputs":[{"name":"x","shape":[1,64],"datatype":"FP32","data":[' + b",".join([b"1"] * 64) + b"]}]}"
    head = request(INFER, headers=[("transfer-encoding", "chunked")], length=False)
    body = b"%x\r\n%b\r\n0\r\nInference-Header-Content-Length: 3\r\nTimeout: x\r\n\r\n" % (len(text), text)
    with Connection(server) as c:
        for _ in range(2):  # nor of the request behind them
            c.send(head + body)
            assert c.answer().status == 200
        c.send(head + body + GOOD)
        assert [c.answer().status, c.answer().status] == [200, 200]
    with Connection(server) as c:
        c.send(head + b"%x\r\n%b\r\n0\r\n" % (len(text), text) + b"a: " + b"b" * 500_000)
        assert c.answer().status == 400


@pytest.mark.parametrize("part", [b"5;" + b"e" * 4096, b"1\r\nX\r\n1;" + b"e" * 4096])
def test_chunk_extensions_without_end(server, part):
    with Connection(server) as c:
        c.send(request(INFER, headers=[("transfer-encoding", "chunked")], length=False) + part)
        for _ in range(300):
            try:
                c.send(b"e" * 4096)
            except OSError:
                break
        answer = c.answer()
        assert answer.status == 400 and "framing" in answer.error


def test_pipelining(server):
    with Connection(server) as c:
        c.send((get("/v2/health/live") + GOOD) * 5)
        statuses = [c.answer() for _ in range(10)]
    assert [a.status for a in statuses] == [200] * 10
    assert ["live" in a.json for a in statuses] == [True, False] * 5


def test_pipelining_is_bounded(server):
    server.service.hold.clear()
    try:
        with Connection(server) as c:
            c.send(GOOD * 10_000)
            server.until(lambda: server.service.waiting == 1)
            server.loop.call_soon_threadsafe(server.service.hold.set)
            answers = 0
            while (answer := c.answer()) is not None:
                assert answer.status == 200
                answers += 1
        assert answers == RULES.pipelined + 1
    finally:
        server.loop.call_soon_threadsafe(server.service.hold.set)


def test_rubbish_behind_a_request_that_waits(server):
    server.service.hold.clear()
    try:
        with Connection(server) as c:
            c.send(GOOD + b"\0\0\0 rubbish\r\n\r\n")
            server.until(lambda: server.service.waiting == 1)
            server.loop.call_soon_threadsafe(server.service.hold.set)
            assert c.answer().status == 200  # its own answer, not that of the rubbish
            assert c.ended()
    finally:
        server.loop.call_soon_threadsafe(server.service.hold.set)


# ------------------------------------------------------------------------------------------------------------ 23: time


def slowly(connection, data, step=0.05):
    """Byte by byte until the server has had enough; how long that took."""
    begin = time.monotonic()
    for i in range(200):
        try:
            connection.send(data[i : i + 1] or b"x")
        except OSError:
            break
        connection.socket.settimeout(step)
        try:
            if connection.socket.recv(1, socket.MSG_PEEK) is not None:
                break
        except TimeoutError:
            continue
        except ConnectionResetError:
            break
    connection.socket.settimeout(10)
    return time.monotonic() - begin


@pytest.mark.parametrize(
    "data",
    [
        b"GET /v2 HTTP/1.1\r\n" + b"a: " + b"b" * 500,
        request(INFER, b"", headers=[], length=False)[:-2] + b"content-length: 1000\r\n\r\n" + b"{" * 500,
        request(INFER, headers=[("transfer-encoding", "chunked")], length=False) + b"5\r\nhello\r\n" * 50,
    ],
    ids=["head", "body", "chunks"],
)
def test_slow_senders(server, data):
    head = data.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in data else 5
    with Connection(server) as c:
        c.send(data[:head])
        assert slowly(c, data[head:]) < 4 * RULES.window
        answer = c.answer()
        assert answer.status == 408 and "slowly" in answer.error


def test_a_connection_that_says_nothing(server):
    with Connection(server) as c:
        begin = time.monotonic()
        assert c.ended()
        assert RULES.head * 0.9 < time.monotonic() - begin < 4 * RULES.head


def test_idle_connections_end():
    rules = type(RULES)(idle=0.3)
    with Running(rules=rules) as server, Connection(server) as c:
        for _ in range(3):
            c.send(GOOD)
            assert c.answer().status == 200
        begin = time.monotonic()
        assert c.ended()
        assert 0.25 < time.monotonic() - begin < 2


def test_slow_readers_of_large_answers(server):
    """The answer is dropped, and with it the memory that it takes."""
    body = b'{"inputs":[{"name":"in0","shape":[1,262144],"datatype":"FP32","parameters":{"binary_data_size":1048576}}]}'
    headers = [("inference-header-content-length", len(body))]
    data = request("/v2/models/floats/infer", body + bytes(1 << 20), headers=headers)
    connection = Connection(server)
    try:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(8):  # more than the kernel takes
            connection.socket.settimeout(0.3)
            try:
                connection.send(data)
            except TimeoutError:
                break
        before = time.monotonic()
        while server.server.state.connections:
            assert time.monotonic() - before < 10 * RULES.window
            time.sleep(0.05)
    finally:
        connection.socket.close()


def test_half_close_is_a_goodbye(server):
    with Connection(server) as c:
        c.send(GOOD[:-10])
        c.socket.shutdown(socket.SHUT_WR)
        assert c.ended()


def test_connections_are_bounded(server):
    open_ones = [Connection(server) for _ in range(RULES.connections)]
    try:
        for c in open_ones:
            c.send(b"GET")
        with Connection(server) as c:
            answer = c.answer()
            assert answer.status == 503 and answer.headers["retry-after"] == "1" and answer.error
    finally:
        for c in open_ones:
            c.socket.close()
    until_closed(server)


def until_closed(server):
    before = time.monotonic()
    while server.server.state.connections:
        assert time.monotonic() - before < 5
        time.sleep(0.01)


# --------------------------------------------------------------------------------------------------- clients that go


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("pipelined", [False, True])
def test_a_request_whose_client_goes_is_cancelled(server, reset, pipelined):
    service = server.service
    before, service.cancelled = service.cancelled, 0
    service.hold.clear()
    try:
        c = Connection(server)
        c.send(GOOD * (3 if pipelined else 1))
        server.until(lambda: service.waiting == 1)
        if reset:
            c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        c.socket.close()
        server.until(lambda: service.cancelled == 1 and service.waiting == 0)
    finally:
        server.loop.call_soon_threadsafe(service.hold.set)
        service.cancelled += before


def test_many_clients_that_go(server):
    """Nine of ten give up; the tenth is served."""
    service = server.service
    service.hold.clear()
    service.cancelled = 0
    connections = [Connection(server) for _ in range(40)]
    try:
        for c in connections:
            c.send(GOOD)
        server.until(lambda: service.waiting == 40)
        for c in connections[4:]:
            c.socket.close()
        server.until(lambda: service.cancelled == 36)
        server.loop.call_soon_threadsafe(service.hold.set)
        assert [c.answer().status for c in connections[:4]] == [200] * 4
    finally:
        server.loop.call_soon_threadsafe(service.hold.set)
        for c in connections:
            c.socket.close()


# ------------------------------------------------------------------------------------------- 24: limits, paths, methods


def test_content_length_beyond_the_limit(server):
    with Connection(server) as c:
        c.send(request(INFER, headers=[("content-length", 1 << 40)], length=False))
        answer = c.answer()  # before any of it is sent
        assert answer.status == 413 and answer.headers["connection"] == "close"


def test_the_answer_reaches_a_client_that_still_sends(server):
    with Connection(server) as c:
        c.send(request(INFER, headers=[("content-length", 64 << 20)], length=False))
        for _ in range(64):
            try:
                c.send(bytes(1 << 20))
            except OSError:
                break
        assert c.answer().status == 413


def test_expect_continue(server):
    with Connection(server) as c:
        c.send(GOOD.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n", 1))
        assert c.answer().status == 100
        assert c.answer().status == 200
    with Connection(server) as c:
        c.send(request(INFER, headers=[("content-length", 1 << 40), ("expect", "100-continue")], length=False))
        assert c.answer().status == 413


def test_content_length_that_is_too_short_or_too_long(server):
    with Connection(server) as c:
        c.send(request(INFER, b"{}", headers=[("content-length", 2)], length=False) + b"rubbish\r\n\r\n")
        assert c.answer().status == 400
        assert c.ended()
    with Connection(server) as c:
        c.send(request(INFER, b"{}", headers=[("content-length", 5)], length=False))
        assert c.answer().status == 408


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404), ("/v2/", 404), ("//v2", 404), ("/v2//models/mlp", 404), ("/v2/models/mlp/", 404), ("/V2", 404), ("/v2/models", 404),
        ("/v2/models/", 404), ("/v2/models/../health/live", 404), ("/v2/models/%2e%2e", 400), ("/v2/models/..", 400),
        ("/v2/models/a%2Fb", 400), ("/v2/models/a%5Cb", 400), ("/v2/models/mlp%00", 400), ("/v2/models/%0d%0aevil", 400), ("/v2/models/%ff", 400),
        ("/v2/models/%252e%252e", 404), ("/v2/models/%1b[31m", 400), ("/v2/models/mlp%", 404), ("/v2/models/" + "x" * 300, 400),
        ("/v2/models/mlp/versions/01", 400), ("/v2/models/mlp/versions/-1", 400), ("/v2/models/mlp/versions/99999999999", 404),
        ("/v2/models/mlp/versions/0", 400), ("/v2/models/mlp/versions/" + "9" * 25, 400), ("/v2/models/mlp/versions/1.0", 400),
        ("/v2/models/mlp/versions/%31", 200), ("/v2/models/mlp/versions/%D9%A1", 400), ("/v2/models/mlp/versions/", 404), ("/v2/models/%6Dlp", 200),
        ("/v2?x=../../etc", 200), ("/v2#", 200), ("http://evil/v2", 200), ("/v2/models/stats", 200), ("/v2/models/stats/config", 404), ("*", 404), ("/v2/models/{", 404), ("/v2/models/{/infer", 405), ("/v2/models/{model}", 404),
        ("/" + "a" * 9000, 414), ("/?" + "a" * 64 * 1024, 414), ("/" + "a" * 7000, 404), ("/v2/systemsharedmemory/region/../status", 400),
    ],
    ids=lambda v: None if isinstance(v, int) else v[:40],
)  # fmt: skip
def test_paths(server, path, status):
    answer = ask(server, get(path))
    assert answer.status == status
    assert status == 200 or answer.error


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("HEAD", "/v2", 200, None), ("OPTIONS", "/v2", 204, "GET, HEAD, OPTIONS"), ("OPTIONS", INFER, 204, "POST, OPTIONS"),
        ("TRACE", "/v2", 405, "GET, HEAD, OPTIONS"), ("DELETE", "/v2/models/mlp", 405, "GET, HEAD, OPTIONS"), ("GET", INFER, 405, "POST, OPTIONS"),
        ("HEAD", INFER, 405, "POST, OPTIONS"), ("POST", "/v2", 405, "GET, HEAD, OPTIONS"), ("PUT", "/v2/logging", 405, "GET, POST, HEAD, OPTIONS"),
        ("PATCH", INFER, 405, "POST, OPTIONS"), ("HEAD", "/none", 404, None), ("OPTIONS", "/none", 404, None), ("PROPFIND", "/v2", 405, "GET, HEAD, OPTIONS"),
    ],
)  # fmt: skip
def test_methods(server, method, path, status, allow):
    with Connection(server) as c:
        c.send(get(path, method))
        answer = c.answer(head=method == "HEAD")
        assert answer.status == status and answer.headers.get("allow") == allow
        if method == "HEAD":
            assert int(answer.headers["content-length"]) > 10
        elif status != 204:
            assert answer.error
        c.send(get("/v2"))
        assert c.answer().status == 200  # no byte too many came before


def test_http_1_0(server):
    with Connection(server) as c:
        c.send(GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert c.answer().status == 200
        assert c.ended()


@pytest.mark.parametrize(
    "headers",
    [[("a", "b" * 70_000)], [(f"h{i}", "v" * 100) for i in range(700)], [("n" * 70_000, "v")], [("a", "")] * 3000],
    ids=["value", "many", "name", "empty"],
)
def test_large_headers(server, headers):
    answer = ask(server, get("/v2", headers=headers))
    assert answer.status == 431 and answer.error


def test_headers_without_end(server):
    with Connection(server) as c:
        c.send(b"GET /v2 HTTP/1.1\r\nx: ")
        for _ in range(1000):
            try:
                c.send(b"a" * 4096)
            except OSError:
                break
        assert c.answer().status == 431


def test_upgrades_are_ignored(server):
    with Connection(server) as c:
        c.send(
            get(
                "/v2/health/live",
                headers=[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "")],
            )
        )
        answer = c.answer()
        assert answer.status == 200 and answer.headers["connection"] == "close"
        assert c.ended()


def test_chunked_and_gzip(server):
    import gzip

    text = b'{"inputs":[{"name":"x","shape":[1,64],"datatype":"FP32","data":[' + b",".join([b"1"] * 64) + b"]}]}"
    head = request(INFER, headers=[("transfer-encoding", "chunked"), ("content-encoding", "gzip")], length=False)
    packed = gzip.compress(text)
    assert ask(server, head + chunked(packed[:20], packed[20:])).status == 200


# ---------------------------------------------------------------------------------------------------------- start, stop


def test_stop_waits_for_requests_and_ends_idle_connections():
    with Running() as server:
        idle, busy = Connection(server), Connection(server)
        server.service.hold.clear()
        busy.send(GOOD)
        server.until(lambda: server.service.waiting == 1)
        stopping = threading.Thread(target=lambda: server.call(server.server.stop(grace=5)))
        stopping.start()
        assert idle.ended()
        with pytest.raises(OSError):
            Connection(server)
        server.loop.call_soon_threadsafe(server.service.hold.set)
        answer = busy.answer()
        assert answer.status == 200 and answer.headers["connection"] == "close"
        stopping.join(5)
        assert not stopping.is_alive()


def test_stop_does_not_wait_forever():
    with Running() as server, Connection(server) as c:
        server.service.hold.clear()
        c.send(GOOD)
        server.until(lambda: server.service.waiting == 1)
        begin = time.monotonic()
        server.call(server.server.stop(grace=0.2))
        assert time.monotonic() - begin < 2 and server.service.cancelled == 1
        assert c.answer().status == 503
