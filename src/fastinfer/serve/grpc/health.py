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


class Health(grpc.GenericRpcHandler):
    """ready: asked at each check. Those who watch are told when :meth:`changed` is called."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready
        self._stopped = False
        self._changed = asyncio.Event()
        self._handlers = {
            f"/{HEALTH}/Check": grpc.unary_unary_rpc_method_handler(self._check),
            f"/{HEALTH}/Watch": grpc.unary_stream_rpc_method_handler(self._watch),
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

    async def _check(self, raw: bytes, context: Any) -> bytes:
        try:
            status = self._status(_service(raw))
            if status == HealthCheckResponse.SERVICE_UNKNOWN:
                raise ServeError(Kind.NOT_FOUND, f"the services here are {', '.join(map(repr, SERVICES))}")
            return HealthCheckResponse(status=status).SerializeToString()
        except Exception as error:
            await fail(context, error)

    async def _watch(self, raw: bytes, context: Any) -> None:
        last = None
        try:
            service = _service(raw)
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


def _service(raw: bytes) -> str:
    try:
        return HealthCheckRequest.FromString(raw).service
    except DecodeError:
        raise wire.malformed() from None
