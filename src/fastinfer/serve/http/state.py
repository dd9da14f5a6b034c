# SPDX-License-Identifier: Apache-2.0
"""What the connections of a server share: their rules, and the date."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from email.utils import formatdate

from uvicorn.server import ServerState

from fastinfer.serve.http.spin import Spinner


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
    spin: float = 200e-6  # the loop stays awake for so long after an answer (spin.py); 0: never
    pipelined: int = 16  # requests behind the one that is being answered


class State(ServerState):
    """What the connections of a server share."""

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self.rules = rules
        loop = asyncio.get_running_loop()
        self.spinner = Spinner(loop, rules.spin, lambda: self.tasks) if rules.spin else None
        self.left = asyncio.Event()  # set when a connection ends
        self.draining = False  # each answer is its connection's last
        self._second = -1
        self.date = b""

    def tick(self) -> bytes:
        """The line with the date that every answer has; costs 0.1 µs but once a second."""
        if (now := int(time.time())) != self._second:
            self._second = now
            self.date = b"date: %b\r\n" % formatdate(now, usegmt=True).encode()
        return self.date
