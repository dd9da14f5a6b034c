# SPDX-License-Identifier: Apache-2.0
"""Who calls, and whether they may: an interceptor around every method, known or not, unary or stream, health and
reflection included. A call that is refused here is answered before its message is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any

import grpc

from fastinfer.serve.access import ANYONE, Caller, Gate
from fastinfer.serve.errors import ServeError
from fastinfer.serve.grpc import schema
from fastinfer.serve.grpc.failure import fail

Credentials = tuple[list[str], list[str]]  # values of authorization, of x-api-key
Metadata = Sequence[tuple[str, str | bytes]]

CALLER: ContextVar[Caller] = ContextVar("caller", default=ANYONE)
CREDENTIALS: ContextVar[Credentials] = ContextVar("credentials", default=([], []))

HEALTH = "grpc.health.v1.Health"
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"

# What each call needs. Nothing (None): probes have no credentials.
_NEEDS = {
    "infer": ("ModelInfer", "ModelStreamInfer"),
    "read": ("ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex"),
}
PROBES = ("ServerLive", "ServerReady")
SCOPES: dict[str, str | None] = {
    **dict.fromkeys((f"/{schema.SERVICE}/{name}" for name in schema.METHODS), "admin"),
    **{f"/{schema.SERVICE}/{name}": scope for scope, names in _NEEDS.items() for name in names},
    **dict.fromkeys((f"/{schema.SERVICE}/{name}" for name in PROBES), None),
    **dict.fromkeys((f"/{HEALTH}/{name}" for name in ("Check", "Watch")), None),
    f"/{REFLECTION}/ServerReflectionInfo": "read",
}


def _values(metadata: Metadata, name: str) -> list[str]:
    return [value for key, value in metadata if key == name and isinstance(value, str)]


class Door(grpc.aio.ServerInterceptor):
    """The outermost layer. What the gate says of the caller is in CALLER for the rest of the call."""

    def __init__(self, gate: Gate, responded: Callable[[str], None] = lambda code: None) -> None:
        self._gate, self._responded = gate, responded

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        scope = SCOPES.get(details.method, "")
        if scope is None:
            return await continuation(details)
        try:
            metadata = details.invocation_metadata
            credentials = _values(metadata, "authorization"), _values(metadata, "x-api-key")
            caller = self._gate.admit(*credentials)
            if scope and scope not in caller.scopes:  # of which model, the message says
                caller.check(scope)
        except ServeError as e:
            self._responded(e.kind.code)
            return _refusal(e)
        CALLER.set(caller)
        CREDENTIALS.set(credentials)
        return await continuation(details)


def _refusal(error: ServeError) -> grpc.RpcMethodHandler:
    async def refuse(requests: Any, context: grpc.aio.ServicerContext) -> None:
        await fail(context, error)

    # A stream's handler reads only what it asks for.
    return grpc.stream_stream_rpc_method_handler(refuse)
