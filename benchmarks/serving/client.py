# SPDX-License-Identifier: Apache-2.0
"""A load generator that costs little beside the server: requests are bytes made beforehand, responses are read up to
their Content-Length and checked for their status. Runs in a process of its own (`python -m benchmarks.serving.client`),
with the plan as JSON on standard input and the figures as JSON on standard output."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections import deque
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
    latencies: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)  # seconds until a 429 or 503
    failed: int = 0
    error: str = ""
    unsent: int = 0  # open loop: no connection was free


class Connection(asyncio.Protocol):
    """One request at a time. `free` is told when the next may be sent."""

    def __init__(self, seen: Seen, free) -> None:
        self.seen, self.free = seen, free
        self.buffer = bytearray()
        self.sent = 0.0
        self.counted = False
        self.transport: asyncio.Transport

    def connection_made(self, transport) -> None:
        self.transport = transport

    def send(self, request: bytes, at: float, counted: bool) -> None:
        self.sent, self.counted = at, counted
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.buffer[:end]).lower()
        at = head.find(b"content-length:")
        if at < 0:
            raise SystemExit(f"a response without Content-Length: {head!r}")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(self.buffer) < end + 4 + length:
            return
        status = int(head[9:12])
        if self.counted:
            took = time.perf_counter() - self.sent
            if status == 200:
                self.seen.latencies.append(took)
            elif status in (429, 503):
                self.seen.refused.append(took)
            else:
                self.seen.failed += 1
                self.seen.error = self.seen.error or bytes(self.buffer[: end + 300]).decode(errors="replace")
        del self.buffer[: end + 4 + length]
        self.free(self)

    def connection_lost(self, error) -> None:
        if self.sent and self.counted:
            self.seen.failed += 1
            self.seen.error = self.seen.error or f"the connection was closed: {error}"


async def run(plan: Plan) -> dict:
    loop = asyncio.get_running_loop()
    seen, turn = Seen(), 0
    begin = time.perf_counter() + plan.warm
    end = begin + plan.seconds
    idle: deque[Connection] = deque()
    over = asyncio.Event()

    def following() -> bytes:
        nonlocal turn
        turn += 1
        return plan.requests[turn % len(plan.requests)]

    def again(connection: Connection) -> None:
        now = time.perf_counter()
        if plan.rate:
            idle.append(connection)
        elif now < end:
            connection.send(following(), now, now >= begin)
        else:
            idle.append(connection)
            if len(idle) == plan.connections:
                over.set()

    connections = []
    for _ in range(plan.connections):
        _, made = await loop.create_connection(lambda: Connection(seen, again), "127.0.0.1", plan.port)
        connections.append(made)
    for made in connections:
        again(made)
    if plan.rate:
        await _open(plan, seen, idle, following, begin, end)
    else:
        await asyncio.wait_for(over.wait(), plan.warm + plan.seconds + 60)
    for made in connections:
        made.sent = 0.0
        made.transport.close()
    return figures(seen, plan)


async def _open(plan: Plan, seen: Seen, idle, following, begin: float, end: float) -> None:
    """Sends by the clock: a late turn of the loop sends all that are due, each counted from when it was due."""
    due = time.perf_counter()
    while (now := time.perf_counter()) < end:
        while due <= now:
            if idle:
                idle.popleft().send(following(), due, due >= begin)
            elif due >= begin:
                seen.unsent += 1
            due += 1 / plan.rate
        await asyncio.sleep(max(due - time.perf_counter(), 0))
    deadline = time.perf_counter() + 30
    while len(idle) < plan.connections and time.perf_counter() < deadline:
        await asyncio.sleep(0.05)


def figures(seen: Seen, plan: Plan) -> dict:
    """Latencies in seconds; rate: good answers per second of measuring."""
    row = {"ok": len(seen.latencies), "refused": len(seen.refused), "failed": seen.failed, "unsent": seen.unsent,
           "error": seen.error, "rate": len(seen.latencies) / plan.seconds}  # fmt: skip
    for name, values in (("latency", seen.latencies), ("refusal", seen.refused)):
        if values:
            p50, p90, p99 = np.percentile(values, (50, 90, 99))
            row[name] = {"p50": p50, "p90": p90, "p99": p99, "max": max(values)}
    return row


if __name__ == "__main__":
    try:
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    except ModuleNotFoundError:
        pass
    print(json.dumps(asyncio.run(run(Plan.of(sys.stdin.read())))))
