# SPDX-License-Identifier: Apache-2.0
"""Copies of requests for a version on trial: nobody waits for them and nobody sees what they give, save its statistics."""

from __future__ import annotations

import asyncio

from fastinfer.serve.endpoint import Endpoint
from fastinfer.serve.errors import ServeError
from fastinfer.serve.messages import InferRequest, Tensor

# Copies under way; more are left out, so that a slow version on trial takes nothing from the others.
MAX_COPIES = 32
MAX_BYTES = 64 << 20  # of all copies together


class Shadow:
    """sent, left_out, failed: how many copies so far."""

    def __init__(self) -> None:
        self.sent = self.left_out = self.failed = 0
        self._tasks: set[asyncio.Task] = set()
        self._bytes = 0

    def send(self, endpoint: Endpoint, request: InferRequest) -> None:
        """Sequences are not copied: a copy that is left out would break them."""
        size = sum(t.array.nbytes for t in request.inputs)
        if request.sequence or len(self._tasks) >= MAX_COPIES or self._bytes + size > MAX_BYTES:
            self.left_out += 1
            return
        self.sent += 1
        self._bytes += size
        # The arrays may lie in memory that the client takes back once it has its answer.
        inputs = [Tensor(t.name, t.datatype, t.array.copy()) for t in request.inputs]
        copy = InferRequest(request.model, inputs, id=request.id, priority=-1000, timeout=request.timeout)
        task = asyncio.get_running_loop().create_task(self._run(endpoint, copy, size))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, endpoint: Endpoint, request: InferRequest, size: int) -> None:
        try:
            await endpoint.infer(request)
        except ServeError:
            self.failed += 1
        finally:
            self._bytes -= size

    async def settled(self) -> None:
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
