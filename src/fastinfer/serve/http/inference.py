# SPDX-License-Identifier: Apache-2.0
"""The handlers that run a model."""

from __future__ import annotations

from fastinfer.serve.errors import ServeError
from fastinfer.serve.http import compression
from fastinfer.serve.http.body import LENGTH, number
from fastinfer.serve.http.decode import decode_plain, decode_raw, decode_request
from fastinfer.serve.http.disconnect import unless_gone
from fastinfer.serve.http.encode import JSON_TYPE, encode_plain, encode_response
from fastinfer.serve.http.reply import Call, Reply
from fastinfer.serve.messages import InferRequest, InferResponse, Limits
from fastinfer.serve.regions import Regions
from fastinfer.serve.service import Service


class Inference:
    def __init__(self, service: Service, limits: Limits, shm: Regions) -> None:
        self._service = service
        self._limits = limits
        self._shm = shm

    def refusal(self, arguments: tuple[str, ...]) -> ServeError | None:
        """Whether a request for this model (and version) would be refused now, whatever it brings."""
        try:
            self._service.admit(*arguments)
        except ServeError as e:
            e.__context__ = None  # with frames in it that lead to the request, it would wait for the garbage collector
            return e.with_traceback(None)
        return None

    async def infer(self, call: Call) -> Reply:
        model, *rest = call.arguments
        version = rest[0] if rest else ""
        header = call.fields.get(LENGTH)
        length = None if header is None else number(header, "Inference-Header-Content-Length")
        if length == 0:
            request, binary = decode_raw(model, version, call.body, self._service.model_metadata(model, version)), True
        else:
            request, binary = decode_request(model, version, call.body, length, self._limits, self._shm)
        response = await self._run(call, request)
        body, headers = encode_response(response, request.outputs, binary, self._shm)
        coding = compression.asked(call.fields.get(b"accept-encoding"))
        if coding and (small := await compression.compress(body, coding)) is not None:
            return 200, [*headers, (b"content-encoding", coding.encode()), (b"vary", b"accept-encoding")], small
        return 200, headers, body

    async def predict(self, call: Call) -> Reply:
        (model,) = call.arguments
        request = decode_plain(model, call.body, self._service.model_metadata(model), self._limits)
        return 200, [JSON_TYPE], encode_plain(await self._run(call, request))

    async def _run(self, call: Call, request: InferRequest) -> InferResponse:
        fields = call.fields
        if request.timeout is None and (header := fields.get(b"timeout")) is not None:
            request.timeout = number(header, "the header timeout") / 1e6 or None
        if (trace := fields.get(b"traceparent")) is not None:
            request.trace = trace.decode("latin-1")
        request.caller = call.scope["fastinfer.caller"].name
        return await unless_gone(call.receive, self._service.infer(request))
