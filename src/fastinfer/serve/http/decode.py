# SPDX-License-Identifier: Apache-2.0
"""The body of an inference request → InferRequest. Nothing is copied out of a binary body but strings and booleans."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastinfer.serve.datatypes import BYTES, DTYPES, decode, dtype_of, elements
from fastinfer.serve.http import fields, jsontext, numbers
from fastinfer.serve.http.fields import refuse
from fastinfer.serve.messages import InferRequest, Limits, RequestedOutput, Tensor
from fastinfer.serve.regions import Regions
from fastinfer.serve.reserved import take_reserved

Body = bytes | bytearray
BINARY_ONLY = ("FP16", "BF16")  # the protocol has no JSON form of them


def decode_request(
    model: str, version: str, body: Body, header_length: int | None, limits: Limits, shm: Regions
) -> tuple[InferRequest, bool]:
    """The request, and whether outputs go binary where nothing else is said. header_length: of the JSON in front of
    binary tensors, None where all is JSON. Raises ServeError."""
    length = len(body) if header_length is None else header_length
    if length > len(body):
        raise refuse(f"Inference-Header-Content-Length says {length} bytes; the body has {len(body)}")
    view = memoryview(body)
    root = jsontext.parse_object(body if length == len(body) else view[:length], limits)
    given = fields.parameters(root, "the request")
    binary = fields.flag(given, "binary_data_output", "the request", False)
    inputs, end = _inputs(root, view, length, limits, shm)
    if end != len(body):
        raise refuse(f"{len(body) - end} bytes follow the last binary tensor: each needs its 'binary_data_size'")
    given.pop("binary_data_output", None)
    request = InferRequest(model, inputs, version, fields.text(root, "id", "the request", limits.name, ""), given)
    if given:
        take_reserved(request)
    request.outputs = _outputs(root, limits)
    return request, binary


def _inputs(root: dict[str, Any], body: memoryview, at: int, limits: Limits, shm: Regions) -> tuple[list[Tensor], int]:
    """The tensors, and where the last binary one ends."""
    inputs = []
    names = set()
    for entry in fields.objects(root, "inputs", limits.tensors):
        name = fields.text(entry, "name", "an input", limits.name)
        if name in names:
            raise refuse(f"input '{name}' is given twice")
        names.add(name)
        datatype = entry.get("datatype")
        if datatype != BYTES:
            dtype_of(name, datatype)  # type: ignore[arg-type]  # whatever it is, it is refused
        shape = entry.get("shape")
        if type(shape) is not list or len(shape) > 64 or any(type(extent) is not int for extent in shape):
            raise refuse(f"tensor '{name}': 'shape' is {jsontext.kind(shape)}; needed: a list of at most 64 integers")
        parameters = fields.parameters(entry, f"tensor '{name}'") if "parameters" in entry else {}
        if "binary_data_size" in parameters:
            size = fields.integer(parameters, "binary_data_size", f"tensor '{name}'")
            if "data" in entry or "shared_memory_region" in parameters:
                raise refuse(f"tensor '{name}' has binary_data_size and 'data' or shared memory; needed: one of them")
            if size > len(body) - at:
                raise refuse(f"tensor '{name}': binary_data_size is {size}; the body has {len(body) - at} bytes left")
            array = decode(name, datatype, shape, body[at : at + size])  # type: ignore[arg-type]
            at += size
            del parameters["binary_data_size"]
        elif "shared_memory_region" in parameters:
            array = _shared(name, datatype, shape, entry, parameters, shm)  # type: ignore[arg-type]
        else:
            array = _listed(name, datatype, shape, entry)  # type: ignore[arg-type]
        inputs.append(Tensor(name, datatype, array, parameters))  # type: ignore[arg-type]
    return inputs, at


def _listed(name: str, datatype: str, shape: list[int], entry: dict[str, Any]) -> np.ndarray:
    data = entry.pop("data", None)
    if type(data) is not list:
        raise refuse(f"tensor '{name}': 'data' is {jsontext.kind(data)}; needed: a list, or a binary_data_size")
    if datatype in BINARY_ONLY:
        raise refuse(f"tensor '{name}': {datatype} has no JSON form: send it binary (binary_data_size)")
    return numbers.from_lists(name, datatype, shape, data)


def region_of(name: str, parameters: dict[str, Any]) -> tuple[str, int, int]:
    """Region, offset and size of a tensor in shared memory."""
    where = f"tensor '{name}'"
    region = fields.text(parameters, "shared_memory_region", where, 1024)
    offset = fields.integer(parameters, "shared_memory_offset", where, 0)
    return region, offset, fields.integer(parameters, "shared_memory_byte_size", where)


def _shared(
    name: str, datatype: str, shape: list[int], entry: dict[str, Any], parameters: dict[str, Any], shm: Regions
) -> np.ndarray:
    if "data" in entry:
        raise refuse(f"tensor '{name}' has both 'data' and shared memory; needed: one of them")
    region, offset, size = region_of(name, parameters)
    for member in ("shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"):
        parameters.pop(member, None)
    if datatype != BYTES and size != (needed := elements(name, shape) * DTYPES[datatype].itemsize):
        raise refuse(f"tensor '{name}': shared_memory_byte_size is {size}; {datatype} {shape} needs {needed}")
    return decode(name, datatype, shape, shm.read(region, offset, size))


def _outputs(root: dict[str, Any], limits: Limits) -> list[RequestedOutput] | None:
    if not root.get("outputs"):
        if type(root.get("outputs", [])) is list:
            return None  # none named: all
    outputs = []
    names = set()
    for entry in fields.objects(root, "outputs", limits.tensors):
        name = fields.text(entry, "name", "an output", limits.name)
        if name in names:
            raise refuse(f"output '{name}' is asked for twice")
        names.add(name)
        parameters = fields.parameters(entry, f"output '{name}'")
        fields.flag(parameters, "binary_data", f"output '{name}'", False)
        if "classification" in parameters:
            fields.integer(parameters, "classification", f"output '{name}'", least=1)
            if "shared_memory_region" in parameters:
                raise refuse(f"output '{name}': a classification cannot go to shared memory")
        outputs.append(RequestedOutput(name, parameters))
    return outputs


def decode_raw(model: str, version: str, body: Body, metadata: dict[str, Any]) -> InferRequest:
    """A raw request (Inference-Header-Content-Length: 0): the body is the only input's data. One free extent follows
    from its length; of two the first is the batch, 1. The bytes for a BYTES input are one string."""
    inputs = metadata["inputs"]
    if len(inputs) != 1:
        raise refuse(f"a raw request is for models with one input; '{model}' has {len(inputs)}")
    name, datatype, shape = inputs[0]["name"], inputs[0]["datatype"], list(inputs[0]["shape"])
    if shape.count(-1) > 1 and shape[0] == -1:
        shape[0] = 1
    if shape.count(-1) > 1:
        raise refuse(
            f"tensor '{name}': the shape {inputs[0]['shape']} has several free extents, so its bytes do not say it"
        )
    known = elements(name, [extent for extent in shape if extent != -1])
    if datatype == BYTES:
        if known != 1:
            raise refuse(f"tensor '{name}': a raw request brings one string; the shape is {inputs[0]['shape']}")
        string = np.empty(1, object)
        string[0] = bytes(body)
        return InferRequest(model, [Tensor(name, BYTES, string.reshape([abs(e) for e in shape]))], version)
    size = known * dtype_of(name, datatype).itemsize
    if -1 in shape:
        shape[shape.index(-1)] = len(body) // size if size else 0
    return InferRequest(model, [Tensor(name, datatype, decode(name, datatype, shape, memoryview(body)))], version)


def decode_plain(model: str, body: Body, metadata: dict[str, Any], limits: Limits) -> InferRequest:
    """{"input": nested lists, ...}, or bare lists for a model with one input; types are the model's."""
    value = jsontext.parse(body, limits)
    specs = {spec["name"]: spec for spec in metadata["inputs"]}
    if type(value) is not dict:
        if len(specs) != 1:
            raise refuse(f"the body is {jsontext.kind(value)}; needed: an object with {', '.join(map(repr, specs))}")
        value = {next(iter(specs)): value}
    inputs = []
    for name, data in value.items():
        spec = specs.get(name)
        if spec is None:
            raise refuse(f"no input is called {name[: limits.name]!r}; the model has: {', '.join(specs)}")
        inputs.append(Tensor(name, spec["datatype"], numbers.from_lists(name, spec["datatype"], None, data)))
    return InferRequest(model, inputs)
