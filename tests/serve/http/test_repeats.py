# SPDX-License-Identifier: Apache-2.0
"""Requests with the head of the one before them: answered as by the parser, and nothing else is taken for one."""

import time

import numpy as np
import pytest
from wire import GOOD, ROW, Connection, ask, binary, chunked, mlp_input, request

from fastinfer.serve.access import Gate
from fastinfer.serve.access.keys import KeyFile, new_key
from fastinfer.serve.http.protocol import Protocol


def row(seed):
    return binary([mlp_input()], np.random.default_rng(seed).standard_normal(64, np.float32).tobytes())


@pytest.fixture
def repeated(monkeypatch):
    """The pieces of data that were taken for repeats."""
    seen, original = [], Protocol._repeat
    monkeypatch.setattr(Protocol, "_repeat", lambda self, data: (seen.append(data), original(self, data))[1])
    return seen


def told(answer):
    kept = {k: v for k, v in answer.headers.items() if k != "date"}
    return answer.status, kept, answer.body


def test_each_body_has_its_own_answer(server, repeated):
    asked = [row(i) for i in range(5)] + [binary([mlp_input()], b"\0" * 256)] + [row(9)]
    with Connection(server) as c:
        for data in asked:
            c.send(data)
            assert told(c.answer()) == told(ask(server, data))
    assert repeated == asked[1:]


PIECES = {
    "good": [GOOD],
    "another row": [row(1)],
    "not finite": [binary([mlp_input()], np.full(64, np.nan, np.float32).tobytes())],
    "bad JSON of the same size": [GOOD.replace(b'"inputs"', b'"inpu',1).replace(b'"FP32"', b'"FP32"xxx', 1)],
    "a shape of the same size": [GOOD.replace(b"[1, 64]", b"[64, 1]")],
    "another version": [binary([mlp_input()], ROW.tobytes(), path="/v2/models/mlp/versions/1/infer")],
    "no such model": [binary([mlp_input()], ROW.tobytes(), path="/v2/models/mlq/infer")],
    "one byte of the head": [GOOD.replace(b"host: x", b"host: y")],
    "in two pieces": [GOOD[:40], GOOD[40:]],
    "head, then body": [GOOD[: GOOD.index(b"\r\n\r\n") + 4], GOOD[GOOD.index(b"\r\n\r\n") + 4 :]],
    "an empty line before it": [b"\r\n" + GOOD],
    "live": [request("/v2/health/live", method="GET", length=False)],
    "twice in one piece": [GOOD + row(2)],
    "twice the same in one piece": [GOOD * 2],
    "a half behind it": [GOOD + row(3)[:77], row(3)[77:]],
    "chunked": [
        request("/v2/models/mlp/infer", chunked(b'{"inputs": [', b"]}"), headers=[("transfer-encoding", "chunked")], length=False)
    ],
    "expecting": [request("/v2/models/mlp/infer", b"{}", headers=[("expect", "something")])],
}  # fmt: skip


def answers_to(connection, pieces):
    got = []
    for piece in pieces:
        connection.send(piece)
        time.sleep(0.002)  # a piece by itself
    count = b"".join(pieces).count(b" HTTP/1.1\r\n")
    for _ in range(count):
        got.append(told(connection.answer()))
    return got


@pytest.mark.parametrize("seed", range(4))
def test_whatever_came_before(server, repeated, seed):
    """Any request behind any other one on a connection is answered as it is alone."""
    alone = {}
    for name, pieces in PIECES.items():
        with Connection(server) as c:
            alone[name] = answers_to(c, pieces)
    rng, names = np.random.default_rng(seed), list(PIECES)
    with Connection(server) as c:
        for _ in range(80):
            name = names[rng.integers(len(names))] if rng.random() < 0.5 else ("good", "another row")[rng.integers(2)]
            assert answers_to(c, PIECES[name]) == alone[name], name
    assert repeated and all(data.count(b" HTTP/1.1\r\n") == 1 for data in repeated)


def test_what_ends_the_connection_is_not_repeated(server, repeated):
    closing = binary([mlp_input()], ROW.tobytes(), extra=[("connection", "close")])
    with Connection(server) as c:
        c.send(closing)
        assert c.answer().status == 200 and c.ended()
    with Connection(server) as c:
        c.send(GOOD * 2)  # one piece, and again: two requests, both times
        assert [c.answer().status, c.answer().status] == [200, 200]
        c.send(GOOD * 2)
        assert [c.answer().status, c.answer().status] == [200, 200]
    assert not repeated


def test_a_key_is_looked_at_each_time(server, repeated, tmp_path, monkeypatch):
    """What the head said is known; whether its key is still good is not."""
    key, digest = new_key()
    path = tmp_path / "keys"
    write = lambda keys: path.write_text(keys)  # noqa: E731
    write(f'[[key]]\nname = "app"\nsha256 = "{digest}"\nscopes = ["infer"]\n')
    path.chmod(0o600)
    gate = Gate([KeyFile(path)])
    monkeypatch.setattr(server.app, "_gate", gate)
    data = binary([mlp_input()], ROW.tobytes(), extra=[("x-api-key", key)])
    with Connection(server) as c:
        for _ in range(3):
            c.send(data)
            assert c.answer().status == 200
        write("")
        gate.reload()
        c.send(data)
        assert c.answer().status == 401
    assert len(repeated) == 3
