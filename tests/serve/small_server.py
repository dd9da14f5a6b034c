# SPDX-License-Identifier: Apache-2.0
"""A whole server in this process, on an event loop of its own."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading

from fastinfer.serve.config import Config
from fastinfer.serve.server import Server


class Running:
    """A server on a loop of its own in a thread."""

    def __init__(self, config: Config) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.server = Server(config)
        try:
            self.run(self._start())
        except BaseException:
            self.close()
            raise

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    async def _start(self) -> None:
        await self.server.load()
        await self.server.listen()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.http_port}"

    def ask(self, method, path, body=None, key="", headers=None):
        """(status, headers in lower case, body)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.http_port, timeout=30)
        try:
            given = None if body is None else json.dumps(body)
            connection.request(method, path, given, {**({"X-API-Key": key} if key else {}), **(headers or {})})
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def infer(self, model, values, name="x", key="", version="", rows=1):
        """Raises AssertionError unless the model answers."""
        flat = [v for _ in range(rows) for v in values]
        row = {"name": name, "datatype": "FP32", "shape": [rows, len(values)], "data": flat}
        at = f"/versions/{version}" if version else ""
        status, _, body = self.ask("POST", f"/v2/models/{model}{at}/infer", {"inputs": [row]}, key)
        assert status == 200, body
        return json.loads(body)

    def close(self) -> None:
        try:
            self.run(self.server.stop())
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(10)
            self.loop.close()
