# SPDX-License-Identifier: Apache-2.0
"""ModelInferRequest → InferRequest, InferResponse → ModelInferResponse. Raw tensors are arrays over the message's own bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from fastinfer.serve import datatypes
from fastinfer.serve.classification import classify
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.grpc import schema, wire
from fastinfer.serve.grpc.contents import read_parameters, typed, write_parameters
from fastinfer.serve.grpc.failure import text_of
from fastinfer.serve.grpc.templates import Answers
from fastinfer.serve.messages import InferRequest, InferResponse, Limits, RequestedOutput, Tensor
from fastinfer.serve.reserved import take_reserved
from fastinfer.serve.shm import Region, Regions

_Request = schema.message("ModelInferRequest")
_Response = schema.message("ModelInferResponse")
_StreamResponse = schema.message("ModelStreamInferResponse")

ANSWERS = Answers()

# Work of more than a few hundred microseconds belongs in a thread: so many bytes of strings or typed contents,
# of shared memory to copy, and so many elements to write as text.
HEAVY_TEXT = 32 << 10
HEAVY_COPY = 2 << 20
HEAVY_ELEMENTS = 4096
MAX_EXTENTS = 64


@dataclass(slots=True)
class Call:
    """A decoded request, and what its answer needs besides the response. placed: outputs that go to shared memory."""

    request: InferRequest
    placed: dict[str, tuple[Region, int, int]] = field(default_factory=dict)


class Message:
    """A request on its way in: split and parsed; its tensors are not looked at yet."""

    __slots__ = ("message", "raw")

    def __init__(self, raw: bytes, limits: Limits) -> None:
        """Raises ServeError for what is no ModelInferRequest."""
        head, self.raw = wire.split(raw, 4 * limits.tensors)
        if len(head) > limits.json:
            raise ServeError(
                Kind.TOO_LARGE,
                f"{len(head)} bytes of the request are not raw_input_contents; at most {limits.json} are taken",
            )
        try:
            self.message = _Request.FromString(head)
        except DecodeError:
            raise wire.malformed() from None

    def heavy(self, shared: bool) -> bool:
        """Whether :func:`decode` would hold the event loop for long."""
        text = copied = 0
        raws = iter(self.raw)
        for tensor in self.message.inputs:
            if shared and "shared_memory_region" in tensor.parameters:
                size = tensor.parameters.get("shared_memory_byte_size")
                copied += 0 if size is None else size.int64_param + size.uint64_param
            elif tensor.datatype == datatypes.BYTES:
                text += len(next(raws, b""))
            else:
                next(raws, None)
            if tensor.HasField("contents"):
                text += tensor.contents.ByteSize()
        return text > HEAVY_TEXT or copied > HEAVY_COPY


def identity(raw: bytes, limits: Limits) -> str:
    """The id of a request that has failed, if it can be seen."""
    try:
        return Message(raw, limits).message.id
    except ServeError:
        return ""


def decode(parsed: Message, limits: Limits, regions: Regions | None) -> Call:
    """Raises ServeError for everything that is wrong with a request, whatever the model."""
    message = parsed.message
    request = InferRequest(
        _name(message.model_name, "model_name", limits),
        _inputs(message.inputs, parsed.raw, limits, regions),
        _name(message.model_version, "model_version", limits),
        _name(message.id, "id", limits),
    )
    if message.parameters:
        request.parameters = read_parameters(message.parameters, "the request")
        take_reserved(request)
    call = Call(request)
    if message.outputs:
        request.outputs = _outputs(message.outputs, call.placed, limits, regions)
    return call


def _name(text: str, what: str, limits: Limits) -> str:
    if len(text) > limits.name:
        raise ServeError(Kind.INVALID_ARGUMENT, f"{what} has {len(text)} characters; at most {limits.name} are taken")
    if not text.isprintable():
        raise ServeError(Kind.INVALID_ARGUMENT, f"{what} holds control characters")
    return text


def _inputs(given: Any, raw: Sequence[memoryview], limits: Limits, regions: Regions | None) -> list[Tensor]:
    if len(given) > limits.tensors:
        raise ServeError(Kind.INVALID_ARGUMENT, f"{len(given)} inputs were given; at most {limits.tensors} are taken")
    inputs: dict[str, Tensor] = {}
    used = 0
    for tensor in given:
        name, datatype, shape = _name(tensor.name, "an input's name", limits), tensor.datatype, tensor.shape
        if name in inputs:
            raise ServeError(Kind.INVALID_ARGUMENT, f"input '{name}' is given twice")
        if len(shape) > MAX_EXTENTS:
            raise ServeError(
                Kind.INVALID_ARGUMENT, f"input '{name}' has {len(shape)} extents; at most {MAX_EXTENTS} are possible"
            )
        extents = list(shape)
        parameters = read_parameters(tensor.parameters, f"input '{name}'")
        has_contents = tensor.HasField("contents")
        if "shared_memory_region" in parameters:
            if has_contents:
                raise ServeError(
                    Kind.INVALID_ARGUMENT, f"input '{name}' has contents and shared memory; needed: one of them"
                )
            array = _shared(name, datatype, extents, parameters, regions)
        elif raw:
            if has_contents:
                raise ServeError(
                    Kind.INVALID_ARGUMENT, f"input '{name}' has contents; with raw_input_contents no input may have any"
                )
            if used == len(raw):
                raise ServeError(
                    Kind.INVALID_ARGUMENT, f"{len(raw)} raw_input_contents were given; input '{name}' has none left"
                )
            array = datatypes.decode(name, datatype, extents, raw[used])
            used += 1
        else:
            array = typed(name, datatype, extents, tensor.contents)
        inputs[name] = Tensor(name, datatype, array, parameters)
    if used != len(raw):
        raise ServeError(
            Kind.INVALID_ARGUMENT, f"{len(raw)} raw_input_contents were given; {used} inputs take theirs from there"
        )
    return list(inputs.values())


def _place(name: str, parameters: dict[str, Any], regions: Regions | None) -> tuple[Region, int, int]:
    """(region, offset, size) that a tensor's parameters name, and no longer hold."""
    if regions is None:
        raise ServeError(Kind.UNSUPPORTED, f"tensor '{name}': this server has shared memory switched off")
    region = parameters.pop("shared_memory_region")
    offset = parameters.pop("shared_memory_offset", 0)
    size = parameters.pop("shared_memory_byte_size", None)
    if size is None:
        raise ServeError(Kind.INVALID_ARGUMENT, f"tensor '{name}': shared_memory_byte_size is missing")
    return regions.get(region), offset, size


def _shared(
    name: str, datatype: str, shape: list[int], parameters: dict[str, Any], regions: Regions | None
) -> np.ndarray:
    region, offset, size = _place(name, parameters, regions)
    return datatypes.decode(name, datatype, shape, region.read(offset, size))


def _outputs(
    given: Any, placed: dict[str, tuple[Region, int, int]], limits: Limits, regions: Regions | None
) -> list[RequestedOutput]:
    if len(given) > limits.tensors:
        raise ServeError(
            Kind.INVALID_ARGUMENT, f"{len(given)} outputs were asked for; at most {limits.tensors} are taken"
        )
    outputs: dict[str, RequestedOutput] = {}
    for output in given:
        name = _name(output.name, "an output's name", limits)
        if name in outputs:
            raise ServeError(Kind.INVALID_ARGUMENT, f"output '{name}' is asked for twice")
        parameters = read_parameters(output.parameters, f"output '{name}'")
        if "shared_memory_region" in parameters:
            if "classification" in parameters:
                raise ServeError(Kind.INVALID_ARGUMENT, f"output '{name}': a classification cannot go to shared memory")
            region, offset, size = placed[name] = _place(name, parameters, regions)
            region.check(offset, size)  # before the model runs
        outputs[name] = RequestedOutput(name, parameters)
    return list(outputs.values())


# ------------------------------------------------------------------------------------------------------------- responses


def slow_to_encode(call: Call, response: InferResponse) -> bool:
    """Whether :func:`encode` would hold the event loop for long."""
    classified = call.request.outputs is not None and any(
        "classification" in o.parameters for o in call.request.outputs
    )
    return any(
        tensor.array.size > HEAVY_ELEMENTS and (classified or tensor.datatype == datatypes.BYTES)
        or tensor.name in call.placed and tensor.array.nbytes > HEAVY_COPY
        for tensor in response.outputs
    )  # fmt: skip


def encode(call: Call, response: InferResponse, streamed: bool = False) -> bytes:
    """The message, raw; streamed: as a ModelStreamInferResponse. Raises ServeError."""
    key = None if call.placed else ANSWERS.key(response, call.request.outputs, streamed)
    if key is not None:
        message = ANSWERS.write(key, response, streamed)
        if message is not None:
            return message
    head = _Response(model_name=response.model, model_version=response.version)
    if response.parameters:
        write_parameters(response.parameters, head.parameters)
    if streamed:  # one request has one response here: clients of models that give several look for the last
        head.parameters["triton_final_response"].bool_param = True
    raw: list[bytes | memoryview] = []
    for tensor, asked in _in_order(call.request.outputs, response.outputs):
        if asked is not None and "classification" in asked.parameters:
            tensor = classify(tensor, asked.parameters["classification"])
        output = head.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        if tensor.parameters:
            write_parameters(tensor.parameters, output.parameters)
        data = datatypes.encode(tensor.array)
        if call.placed and tensor.name in call.placed:
            write_parameters(_put(tensor.name, data, *call.placed[tensor.name]), output.parameters)
            data = b""  # clients count outputs and raw contents alike
        raw.append(data)
    if key is not None:
        ANSWERS.learn(key, head.SerializeToString(), response)
    head.id = response.id
    return wire.join(head.SerializeToString(), raw, streamed)


def _in_order(
    wanted: list[RequestedOutput] | None, outputs: list[Tensor]
) -> Sequence[tuple[Tensor, RequestedOutput | None]]:
    if wanted is None:
        return [(tensor, None) for tensor in outputs]
    tensors = {tensor.name: tensor for tensor in outputs}
    for asked in wanted:
        if asked.name not in tensors:
            raise ServeError(
                Kind.INVALID_ARGUMENT, f"no output is called '{asked.name}'; the model has: {', '.join(tensors)}"
            )
    return [(tensors[asked.name], asked) for asked in wanted]


def _put(name: str, data: bytes | memoryview, region: Region, offset: int, size: int) -> dict[str, Any]:
    if len(data) > size:
        raise ServeError(
            Kind.INVALID_ARGUMENT, f"output '{name}' has {len(data)} bytes; shared_memory_byte_size is {size}"
        )
    region.write(offset, data)
    return {
        "shared_memory_region": region.name, "shared_memory_offset": offset, "shared_memory_byte_size": len(data)
    }  # fmt: skip


def encode_error(error: BaseException, request_id: str) -> bytes:
    """What went wrong with a request of a stream; the id says which."""
    message = _StreamResponse(error_message=text_of(error, request_id) or "unknown error")
    message.infer_response.id = request_id
    message.infer_response.parameters["triton_final_response"].bool_param = True
    return message.SerializeToString()
