# SPDX-License-Identifier: Apache-2.0
"""Every call of GRPCInferenceService, over a Service. gRPC hands over bytes and gets bytes: messages are taken apart here,
so that what cannot be decoded is the client's error and not ours."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError

from fastinfer.serve.access import Caller, Gate
from fastinfer.serve.errors import Kind, ServeError, as_serve_error, forget
from fastinfer.serve.grpc import codec, schema, settings, wire
from fastinfer.serve.grpc.access import CALLER, CREDENTIALS, PROBES, SCOPES
from fastinfer.serve.grpc.contents import read_parameters
from fastinfer.serve.grpc.failure import refuse
from fastinfer.serve.grpc.stream import Streams
from fastinfer.serve.grpc.templates import Requests
from fastinfer.serve.messages import InferRequest, Limits
from fastinfer.serve.regions import CUDA_OFF, SYSTEM_OFF, NoRegions
from fastinfer.serve.service import Service
from fastinfer.serve.settings import Settings
from fastinfer.serve.shm import Regions

Context = Any  # grpc.aio.ServicerContext
TRACE: ContextVar[str] = ContextVar("trace", default="")


class Servicer(grpc.GenericRpcHandler):
    """in_flight: requests of one stream that are worked on at a time. held: bytes that the messages of all requests under
    way may have together. responded: is told the code of every answer."""

    def __init__(
        self,
        service: Service,
        limits: Limits,
        regions: Regions | None,
        gate: Gate | None,
        in_flight: int,
        held: int,
        shared: Settings,
        responded: Callable[[str], None] = lambda code: None,
    ) -> None:
        self._responded = responded
        self._service = service
        self._limits = limits
        self._regions = regions
        self._gate = gate
        self._settings = shared
        self._held, self._most = 0, max(held, limits.body)
        self._templates = Requests(limits.name)
        self.streams = Streams(self._answer, in_flight)
        special = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self.infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self.streams.run),
            # Who asks has shown no key, so what is sent along is not read: it may be large. Their requests are empty.
            **{n: grpc.stream_unary_rpc_method_handler(self._probe(n)) for n in PROBES},
        }
        self._handlers = {
            f"/{schema.SERVICE}/{name}": special.get(name) or grpc.unary_unary_rpc_method_handler(self._unary(name))
            for name in schema.METHODS
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        for key, value in details.invocation_metadata:
            if key == "traceparent":
                TRACE.set(value)
        return self._handlers.get(details.method)

    # --------------------------------------------------------------------------------------------------------- inference

    async def infer(self, raw: bytes, context: Context) -> bytes:
        try:
            answer = await self._run(raw, context, streamed=False)
            self._responded("OK")
            return answer
        except Exception as error:
            request_id, raw = codec.identity(raw, self._limits), b""  # nothing of it is kept while the status goes out
            return refuse(context, self._told(error, request_id))

    def _told(self, error: Exception, request_id: str = "") -> ServeError:
        told = as_serve_error(error, request_id)
        forget(error)
        self._responded(told.kind.code)
        return told

    async def _answer(self, raw: bytes, context: Context) -> bytes:
        """One message of a stream; what is wrong with it is told in its answer."""
        try:
            answer = await self._run(raw, context, streamed=True)
            self._responded("OK")
            return answer
        except Exception as error:
            request_id = codec.identity(raw, self._limits)
            return codec.encode_error(self._told(error, request_id), request_id)

    async def _run(self, raw: bytes, context: Context, streamed: bool) -> bytes:
        self._held += len(raw)
        try:
            if self._held > self._most:
                raise ServeError(Kind.UNAVAILABLE, "the requests under way are too large together", retry_after=1)
            request = self._templates.match(raw)
            call = await self._decode(raw) if request is None else codec.Call(request, {})
            self._admit(call.request, context, streamed)
            response = await self._service.infer(call.request)
            if codec.slow_to_encode(call, response):
                return await asyncio.to_thread(codec.encode, call, response, streamed)
            return codec.encode(call, response, streamed)
        finally:
            self._held -= len(raw)

    async def _decode(self, raw: bytes) -> codec.Call:
        parsed = codec.Message(raw, self._limits)
        self._service.admit(parsed.message.model_name, parsed.message.model_version)
        if parsed.heavy(self._regions is not None):
            call = await asyncio.to_thread(codec.decode, parsed, self._limits, self._regions)
        else:
            call = codec.decode(parsed, self._limits, self._regions)
        self._templates.learn(raw, call.request)
        return call

    def _admit(self, request: InferRequest, context: Context, streamed: bool) -> None:
        remaining = context.time_remaining()
        if remaining is not None and (request.timeout is None or remaining < request.timeout):
            if remaining <= 0:
                raise ServeError(Kind.DEADLINE, "the request's deadline had passed when it came")
            request.timeout = remaining
        request.trace = TRACE.get()
        if self._gate is not None:
            caller = self._gate.admit(*CREDENTIALS.get()) if streamed else CALLER.get()
            caller.check("infer", request.model)
            request.caller = caller.name

    # --------------------------------------------------------------------------------------------------------- the others

    def _unary(self, name: str) -> Callable[[bytes, Context], Awaitable[bytes]]:
        """The handler of a call from its method below, which gives the response's fields, or an awaitable of them."""
        answer = getattr(self, f"_{name}")
        request_class, response_class = schema.message(f"{name}Request"), schema.message(f"{name}Response")

        async def handle(raw: bytes, context: Context) -> bytes:
            try:
                try:
                    message = request_class.FromString(raw)
                except DecodeError:
                    raise wire.malformed() from None
                self._check(SCOPES[f"/{schema.SERVICE}/{name}"], message)
                fields = answer(message)
                if inspect.isawaitable(fields):
                    fields = await fields
                made = ParseDict(fields, response_class(), ignore_unknown_fields=True).SerializeToString()
                self._responded("OK")
                return made
            except Exception as error:
                raw = message = b""
                return refuse(context, self._told(error))

        return handle

    def _probe(self, name: str) -> Callable[[Any, Context], Awaitable[bytes]]:
        answer = self._unary(name)

        async def handle(requests: Any, context: Context) -> bytes:
            return await answer(b"", context)

        return handle

    def _check(self, scope: str | None, message: Any) -> None:
        model = getattr(message, "model_name", "") or ("" if scope == "admin" else getattr(message, "name", ""))
        if len(model) > self._limits.name or not model.isprintable():
            raise ServeError(
                Kind.INVALID_ARGUMENT, f"a name has at most {self._limits.name} characters, none a control character"
            )
        if self._gate is not None and scope is not None:
            CALLER.get().check(scope, model)

    def _readable(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Of what is said of all models: that of the caller's."""
        caller: Caller = CALLER.get()
        return rows if self._gate is None else [row for row in rows if caller.may("read", row["name"])]

    def _ServerLive(self, request: Any) -> dict[str, Any]:
        return {"live": self._service.live()}

    def _ServerReady(self, request: Any) -> dict[str, Any]:
        return {"ready": self._service.ready()}

    def _ModelReady(self, request: Any) -> dict[str, Any]:
        try:
            return {"ready": self._service.model_ready(request.name, request.version)}
        except ServeError as e:
            if e.kind is not Kind.NOT_FOUND:
                raise
            return {"ready": False}  # clients ask in order to wait for a model to come

    def _ServerMetadata(self, request: Any) -> dict[str, Any]:
        return self._service.server_metadata()

    def _ModelMetadata(self, request: Any) -> dict[str, Any]:
        return self._service.model_metadata(request.name, request.version)

    def _ModelConfig(self, request: Any) -> dict[str, Any]:
        return {"config": self._service.model_config(request.name, request.version)}

    async def _ModelStatistics(self, request: Any) -> dict[str, Any]:
        return {"model_stats": self._readable(await self._service.statistics(request.name, request.version))}

    async def _RepositoryIndex(self, request: Any) -> dict[str, Any]:
        return {"models": self._readable(await self._service.repository_index(request.ready))}

    async def _RepositoryModelLoad(self, request: Any) -> dict[str, Any]:
        await self._service.load(request.model_name, read_parameters(request.parameters, "the request"))
        return {}

    async def _RepositoryModelUnload(self, request: Any) -> dict[str, Any]:
        await self._service.unload(request.model_name, read_parameters(request.parameters, "the request"))
        return {}

    # ---------------------------------------------------------------------------------------------------------- settings

    def _TraceSetting(self, request: Any) -> dict[str, Any]:
        if request.model_name:
            self._service.model_metadata(request.model_name)  # raises for one that there is not
        return settings.trace(request, self._settings.trace)

    def _LogSettings(self, request: Any) -> dict[str, Any]:
        return settings.log(request, self._settings.log)

    # ----------------------------------------------------------------------------------------------------- shared memory

    def _SystemSharedMemoryStatus(self, request: Any) -> dict[str, Any]:
        return {"regions": {region["name"]: region for region in self._system().status(request.name)}}

    def _SystemSharedMemoryRegister(self, request: Any) -> dict[str, Any]:
        self._system().register(request.name, request.key, request.offset, request.byte_size)
        return {}

    def _SystemSharedMemoryUnregister(self, request: Any) -> dict[str, Any]:
        self._system().unregister(request.name)
        return {}

    def _system(self) -> Regions | NoRegions:
        return SYSTEM_OFF if self._regions is None else self._regions

    def _CudaSharedMemoryStatus(self, request: Any) -> dict[str, Any]:
        return {"regions": {region["name"]: region for region in CUDA_OFF.status(request.name)}}

    def _CudaSharedMemoryRegister(self, request: Any) -> dict[str, Any]:
        CUDA_OFF.register("", "", 0, 0)
        return {}

    def _CudaSharedMemoryUnregister(self, request: Any) -> dict[str, Any]:
        CUDA_OFF.unregister(request.name)
        return {}
