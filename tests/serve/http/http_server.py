# SPDX-License-Identifier: Apache-2.0
"""A real server (uvloop, httptools) on a loopback port, on a thread of its own, over tiny.TinyService."""

import asyncio
import contextlib
import threading

import uvloop
from tiny import TinyService

from fastinfer.serve.http import App
from fastinfer.serve.http.serve import HttpServer
from fastinfer.serve.http.state import Rules
from fastinfer.serve.messages import Limits
from fastinfer.serve.shm import Regions

LIMITS = Limits(body=4 << 20, json=1 << 20)
# Short times, so that the tests of slow clients are short; rate: nobody honest is that slow on loopback
RULES = Rules(head=0.5, idle=30, window=0.5, rate=1 << 10, linger=0.5, connections=64)


class Running:
    """The server, seen from the test's thread."""

    def __init__(self, limits=LIMITS, rules=RULES, ssl=None):
        self.loop = uvloop.new_event_loop()
        self.shm = Regions("fi_http_test_")
        self._limits, self._rules, self._ssl = limits, rules, ssl
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def call(self, coroutine, timeout=20):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def __enter__(self):
        self._thread.start()

        async def start():
            self.stack = contextlib.AsyncExitStack()
            self.service = await self.stack.enter_async_context(TinyService())
            self.app = App(self.service, self._limits, self.shm)
            self.server = HttpServer(self.app, ssl=self._ssl, rules=self._rules)
            await self.server.start()

        self.call(start())
        self.host, self.port = self.server.addresses[0]
        self.address = f"{self.host}:{self.port}"
        return self

    def __exit__(self, *exc):
        async def stop():
            await self.server.stop(grace=2)
            await self.stack.aclose()

        self.call(stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()

    def until(self, condition, timeout=5):
        """Waits for what changes when requests arrive, end or are cancelled."""

        async def wait():
            while not condition():
                self.service.changed.clear()
                await asyncio.wait_for(self.service.changed.wait(), timeout)

        self.call(wait())
