# SPDX-License-Identifier: Apache-2.0
"""grpc.health.v1: whether the server, or the inference service of it, takes requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.grpc import schema, wire
from fastinfer.serve.grpc.access import HEALTH
from fastinfer.serve.grpc.failure import fail

SERVICES = ("", schema.SERVICE)
PROMPT = 1.0  # seconds
WATCHES = 512  # all calls together are bounded too: those who watch may not take all places


class Health(grpc.GenericRpcHandler):
    """ready: asked at each check. Those who watch are told when :meth:`changed` is called."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready
        self._stopped = False
        self._changed = asyncio.Event()
        self._watches = 0
        self._turns: dict[str, asyncio.Lock] = {}  # by connection
        self._handlers = {
            # As streams, so that we read the request, and not gRPC, which would wait for all of a large one.
            f"/{HEALTH}/Check": grpc.stream_unary_rpc_method_handler(self._check),
            f"/{HEALTH}/Watch": grpc.stream_stream_rpc_method_handler(self._watch),
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._handlers.get(details.method)

    def changed(self) -> None:
        """Readiness may be another one."""
        self._changed.set()
        self._changed = asyncio.Event()

    def stop(self) -> None:
        """NOT_SERVING from now on; watches end."""
        self._stopped = True
        self.changed()

    def _status(self, service: str) -> int:
        if service not in SERVICES:
            return HealthCheckResponse.SERVICE_UNKNOWN
        serving = not self._stopped and self._ready()
        return HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING

    async def _check(self, requests: Any, context: Any) -> bytes:
        try:
            status = self._status(await self._service(context))
            if status == HealthCheckResponse.SERVICE_UNKNOWN:
                raise ServeError(Kind.NOT_FOUND, f"the services here are {', '.join(map(repr, SERVICES))}")
            return HealthCheckResponse(status=status).SerializeToString()
        except Exception as error:
            await fail(context, error)

    async def _watch(self, requests: Any, context: Any) -> None:
        last = None
        self._watches += 1
        try:
            if self._watches > WATCHES:
                raise ServeError(Kind.UNAVAILABLE, f"{WATCHES} clients are watching, as many as may", retry_after=10)
            service = await self._service(context)
            while True:
                changed = self._changed
                status = self._status(service)
                if status != last:
                    await context.write(HealthCheckResponse(status=status).SerializeToString())
                    last = status
                if self._stopped:
                    return
                await changed.wait()
        except Exception as error:
            await fail(context, error)
        finally:
            self._watches -= 1

    async def _service(self, context: Any) -> str:
        """The service that is asked for. Whoever asks has shown no key, and a thousand requests of the size that is allowed
        would fill the memory: one at a time is read of a connection, and not waited for if it is not there at once."""
        turn = self._turns.setdefault(peer := context.peer(), asyncio.Lock())
        try:
            async with turn:
                raw = await asyncio.wait_for(context.read(), PROMPT)
        except (asyncio.TimeoutError, TimeoutError):
            raise ServeError(Kind.REQUEST_TIMEOUT, "the request came too slowly") from None
        finally:
            if not turn.locked():
                self._turns.pop(peer, None)
        try:
            if raw is grpc.aio.EOF:
                raise wire.malformed()
            return HealthCheckRequest.FromString(raw).service
        except DecodeError:
            raise wire.malformed() from None
