# SPDX-License-Identifier: Apache-2.0
"""A load generator that costs little beside the server (about 13 µs a request): requests are bytes made beforehand, an answer
is read up to its Content-Length, its status is checked and its body kept for who wants to check it. One thread on epoll, in
a process of its own (`python client.py`), the plan as JSON on standard input and the figures as JSON on standard output."""

from __future__ import annotations

import base64
import json
import select
import socket
import sys
import time
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Plan:
    """requests: whole HTTP requests, taken in turn. Closed loop: `connections` of them wait for each answer. Open loop: `rate`
    requests per second whatever the answers do, on as many connections as that takes (at most `connections`). seconds: of
    measuring, after `warm` seconds that are not counted."""

    port: int
    requests: list[bytes]
    connections: int = 1
    rate: float = 0.0
    seconds: float = 2.0
    warm: float = 0.5

    def as_json(self) -> str:
        row = {**vars(self), "requests": [base64.b64encode(r).decode() for r in self.requests]}
        return json.dumps(row)

    @staticmethod
    def of(text: str) -> Plan:
        row = json.loads(text)
        return Plan(**{**row, "requests": [base64.b64decode(r) for r in row["requests"]]})


@dataclass
class Seen:
    """answers: the last good one to each request, head and body."""

    latencies: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)  # seconds until a 429 or 503
    failed: int = 0
    error: str = ""
    unsent: int = 0  # open loop: no connection was free
    answers: dict[int, bytes] = field(default_factory=dict)

    def fail(self, text: str) -> None:
        self.failed += 1
        self.error = self.error or text


class Connection:
    """One request at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.sent, self.turn = 0.0, 0

    def receive(self) -> bytes | None:
        """The answer, once it is whole. Raises ConnectionError."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the connection was closed")
        self.buffer = data = self.buffer + data if self.buffer else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = data[:end].lower()
        at = head.find(b"content-length:")
        if at < 0:
            raise ConnectionError(f"an answer without Content-Length: {head!r}")
        if len(data) < end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0]):
            return None
        self.buffer = b""
        return data


def run(plan: Plan) -> dict:
    seen = Seen()
    poll = select.epoll()
    connections: dict[int, Connection] = {}
    for _ in range(plan.connections):
        made = Connection(plan.port)
        connections[made.socket.fileno()] = made
        poll.register(made.socket, select.EPOLLIN)
    idle = list(connections.values())
    begin = due = time.perf_counter()
    first, last = begin + plan.warm, begin + plan.warm + plan.seconds
    give_up = last + 60
    turn = 0

    def send(connection: Connection, at: float) -> None:
        nonlocal turn
        turn += 1
        connection.turn, connection.sent = turn % len(plan.requests), at
        connection.socket.sendall(plan.requests[connection.turn])

    if not plan.rate:
        while idle:
            send(idle.pop(), time.perf_counter())
    while (now := time.perf_counter()) < last or len(idle) < len(connections):
        if now > give_up:
            seen.fail("an answer did not come within a minute")
            break
        while plan.rate and due <= now and now < last:  # a late turn sends all that are due, each counted from its time
            if idle:
                send(idle.pop(), due)
            elif due >= first:
                seen.unsent += 1
            due += 1 / plan.rate
        wait = max(due - time.perf_counter(), 0) if plan.rate and now < last else 1.0
        for number, _ in poll.poll(wait):
            connection = connections[number]
            try:
                answer = connection.receive()
            except OSError as e:
                seen.fail(str(e))
                poll.unregister(number)
                connections.pop(number)
                continue
            if answer is None:
                continue
            now = time.perf_counter()
            _note(seen, connection, answer, now, counted=connection.sent >= first)
            if plan.rate or now >= last:
                idle.append(connection)
            else:
                send(connection, now)
    for connection in connections.values():
        connection.socket.close()
    return figures(seen, plan)


def _note(seen: Seen, connection: Connection, answer: bytes, now: float, counted: bool) -> None:
    status = answer[9:12]
    if status == b"200":
        seen.answers[connection.turn] = answer
        if counted:
            seen.latencies.append(now - connection.sent)
    elif status in (b"429", b"503"):
        if counted:
            seen.refused.append(now - connection.sent)
    else:
        seen.fail(answer[:1000].decode(errors="replace"))


def figures(seen: Seen, plan: Plan) -> dict:
    """Latencies in seconds; rate: good answers per second of measuring."""
    row = {"ok": len(seen.latencies), "refused": len(seen.refused), "failed": seen.failed, "unsent": seen.unsent,
           "error": seen.error, "rate": len(seen.latencies) / plan.seconds,
           "answers": {i: base64.b64encode(a).decode() for i, a in seen.answers.items()}}  # fmt: skip
    for name, values in (("latency", seen.latencies), ("refusal", seen.refused)):
        if values:
            p50, p90, p99 = np.percentile(values, (50, 90, 99))
            row[name] = {"p50": p50, "p90": p90, "p99": p99, "max": max(values)}
    return row


if __name__ == "__main__":
    print(json.dumps(run(Plan.of(sys.stdin.read()))))
