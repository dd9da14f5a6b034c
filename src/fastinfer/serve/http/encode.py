# SPDX-License-Identifier: Apache-2.0
"""InferResponse → the body and headers of the answer.

JSON outputs are flat lists; what is not finite is a string ("NaN", "Infinity", "-Infinity": numbers.py). A classification of
k gives, per row, the k largest elements as strings "value:index"; rows are along the first axis of two or more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from fastinfer.serve.classification import classify
from fastinfer.serve.datatypes import BYTES, encode
from fastinfer.serve.http import numbers
from fastinfer.serve.http.decode import BINARY_ONLY, region_of
from fastinfer.serve.http.fields import refuse
from fastinfer.serve.messages import InferResponse, RequestedOutput, Tensor
from fastinfer.serve.regions import Regions

Headers = list[tuple[bytes, bytes]]

JSON_TYPE = (b"content-type", b"application/json")
BINARY_TYPE = (b"content-type", b"application/octet-stream")


def dumps(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def encode_response(
    response: InferResponse, wanted: list[RequestedOutput] | None, binary: bool, shm: Regions
) -> tuple[bytes, Headers]:
    """The body, and its headers but for the length. binary: for outputs that say nothing else. Raises ServeError."""
    outputs = []
    blobs: list[bytes | memoryview] = []
    for tensor, request in _in_order(response, wanted):
        asked = request.parameters if request is not None else {}
        if "classification" in asked:
            tensor = classify(tensor, asked["classification"])
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.array.shape}
        if "shared_memory_region" in asked:
            entry["parameters"] = _to_region(tensor, asked, shm)
        elif asked.get("binary_data", binary):
            blob = encode(tensor.array)
            entry["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            entry["data"] = _data(tensor)
        if tensor.parameters:
            entry["parameters"] = {**tensor.parameters, **entry.get("parameters", {})}
        outputs.append(entry)
    root: dict[str, Any] = {"model_name": response.model, "model_version": response.version, "outputs": outputs}
    if response.id:
        root["id"] = response.id
    if response.parameters:
        root["parameters"] = response.parameters
    text = dumps(root)
    if not blobs:
        return text, [JSON_TYPE]
    length = (b"inference-header-content-length", b"%d" % len(text))
    return b"".join([text, *blobs]), [BINARY_TYPE, length]


def _in_order(
    response: InferResponse, wanted: list[RequestedOutput] | None
) -> list[tuple[Tensor, RequestedOutput | None]]:
    if wanted is None:
        return [(tensor, None) for tensor in response.outputs]
    tensors = {tensor.name: tensor for tensor in response.outputs}
    for request in wanted:
        if request.name not in tensors:
            raise refuse(f"no output is called '{request.name}'; the model has: {', '.join(tensors)}")
    return [(tensors[request.name], request) for request in wanted]


def _data(tensor: Tensor) -> Any:
    if tensor.datatype == BYTES:
        return numbers.strings(tensor.name, tensor.array)
    if tensor.datatype in BINARY_ONLY:
        raise refuse(f"output '{tensor.name}': {tensor.datatype} has no JSON form: ask for it with binary_data true")
    return numbers.to_json(tensor.array)


def _to_region(tensor: Tensor, asked: dict[str, Any], shm: Regions) -> dict[str, Any]:
    region, offset, size = region_of(tensor.name, asked)
    data = encode(tensor.array)
    if len(data) > size:
        raise refuse(f"output '{tensor.name}' has {len(data)} bytes; shared_memory_byte_size is {size}")
    shm.write(region, offset, data)
    return {"shared_memory_region": region, "shared_memory_offset": offset, "shared_memory_byte_size": len(data)}


def encode_plain(response: InferResponse) -> bytes:
    """{"output": nested lists, ...}"""
    outputs = {}
    for tensor in response.outputs:
        if tensor.datatype == BYTES:
            text = np.empty(tensor.array.size, object)
            text[:] = numbers.strings(tensor.name, tensor.array)
            outputs[tensor.name] = text.reshape(tensor.array.shape).tolist()
        else:
            outputs[tensor.name] = numbers.to_json(tensor.array, nested=True)
    return dumps(outputs)
