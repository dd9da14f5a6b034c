# SPDX-License-Identifier: Apache-2.0
"""The handlers that run a model."""

from __future__ import annotations

from fastinfer.serve.errors import ServeError
from fastinfer.serve.http import compression
from fastinfer.serve.http.body import LENGTH, number
from fastinfer.serve.http.decode import decode_plain, decode_raw, decode_request
from fastinfer.serve.http.disconnect import unless_gone
from fastinfer.serve.http.encode import BINARY_TYPE, JSON_TYPE, Headers, encode_plain, encode_response
from fastinfer.serve.http.reply import Call, Reply
from fastinfer.serve.http.templates import Answers, Requests
from fastinfer.serve.messages import InferRequest, InferResponse, Limits, RequestedOutput
from fastinfer.serve.regions import Regions
from fastinfer.serve.service import Service


class Inference:
    def __init__(self, service: Service, limits: Limits, shm: Regions) -> None:
        self._service = service
        self._limits = limits
        self._shm = shm
        self._requests, self._answers = Requests(), Answers()

    def refusal(self, arguments: tuple[str, ...]) -> ServeError | None:
        """Whether a request for this model (and version) would be refused now, whatever it brings."""
        try:
            self._service.admit(*arguments)
        except ServeError as e:
            e.__context__ = None  # with frames in it that lead to the request, it would wait for the garbage collector
            return e.with_traceback(None)
        return None

    async def infer(self, call: Call) -> Reply:
        model, version = call.arguments if len(call.arguments) > 1 else (call.arguments[0], "")
        header = call.fields.get(LENGTH)
        length = None if header is None else number(header, "Inference-Header-Content-Length")
        if length == 0:
            request, binary = decode_raw(model, version, call.body, self._service.model_metadata(model, version)), True
        else:
            request, binary = self._decode(model, version, call.body, length)
        response = await self._run(call, request)
        body, headers = self._encode(response, request.outputs, binary)
        coding = compression.asked(call.fields.get(b"accept-encoding"))
        if coding and (small := await compression.compress(body, coding)) is not None:
            return 200, [*headers, (b"content-encoding", coding.encode()), (b"vary", b"accept-encoding")], small
        return 200, headers, body

    def _decode(
        self, model: str, version: str, body: bytes | bytearray, length: int | None
    ) -> tuple[InferRequest, bool]:
        if length is None:
            return decode_request(model, version, body, None, self._limits, self._shm)
        if (known := self._requests.match(model, version, body, length)) is not None:
            return known
        request, binary = decode_request(model, version, body, length, self._limits, self._shm)
        self._requests.learn(request, body, length, binary)
        return request, binary

    def _encode(
        self, response: InferResponse, wanted: list[RequestedOutput] | None, binary: bool
    ) -> tuple[bytes, Headers]:
        key = self._answers.key(response, wanted, binary)
        if key is None:
            return encode_response(response, wanted, binary, self._shm)
        if (known := self._answers.write(key, response)) is not None:
            body, length = known
            return body, [BINARY_TYPE, (LENGTH, b"%d" % length)]
        body, headers = encode_response(response, wanted, binary, self._shm)
        self._answers.learn(key, body[: int(dict(headers)[LENGTH])])
        return body, headers

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
