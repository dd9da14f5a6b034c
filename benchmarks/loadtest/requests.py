# SPDX-License-Identifier: Apache-2.0
"""Feeds as the HTTP requests of each server, and its answers as arrays: the binary tensor extension for us, JSON of the
protocol for MLServer (which refuses binary input over HTTP), plain JSON for LitServe."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from fastinfer.serve.grpc.schema import message

TYPES = {"float32": "FP32", "int64": "INT64"}
Feed = Mapping[str, np.ndarray]


def _post(path: str, body: bytes, *headers: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


def binary(model: str, feed: Feed) -> bytes:
    tensors = [{"name": n, "datatype": TYPES[str(a.dtype)], "shape": a.shape, "parameters": {"binary_data_size": a.nbytes}}
               for n, a in feed.items()]  # fmt: skip
    header = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    body = header + b"".join(a.tobytes() for a in feed.values())
    kind = "Content-Type: application/octet-stream"
    return _post(f"/v2/models/{model}/infer", body, kind, f"Inference-Header-Content-Length: {len(header)}")


def protocol(model: str, feed: Feed) -> bytes:
    tensors = [{"name": n, "datatype": TYPES[str(a.dtype)], "shape": a.shape, "data": a.reshape(-1).tolist()}
               for n, a in feed.items()]  # fmt: skip
    body = json.dumps({"inputs": tensors}).encode()
    return _post(f"/v2/models/{model}/infer", body, "Content-Type: application/json")


def plain(model: str, feed: Feed) -> bytes:
    body = json.dumps({n: a.tolist() for n, a in feed.items()}).encode()
    return _post("/predict", body, "Content-Type: application/json")


def output(answer: bytes) -> np.ndarray:
    """The first output of any of the three, float32."""
    head, _, body = answer.partition(b"\r\n\r\n")
    at = head.lower().find(b"inference-header-content-length:")
    length = int(head[at:].split(b":")[1].split(b"\r\n")[0]) if at >= 0 else len(body)
    row = json.loads(body[:length])
    if "outputs" not in row:
        return np.array(row["output"], np.float32)
    tensor = row["outputs"][0]
    if at >= 0:
        return np.frombuffer(body[length:], np.float32)[: int(np.prod(tensor["shape"]))].reshape(tensor["shape"])
    return np.array(tensor["data"], np.float32).reshape(tensor["shape"])


def grpc(model: str, feed: Feed) -> bytes:
    request = message("ModelInferRequest")(model_name=model, raw_input_contents=[a.tobytes() for a in feed.values()])
    for name, a in feed.items():
        request.inputs.add(name=name, datatype=TYPES[str(a.dtype)], shape=a.shape)
    return request.SerializeToString()


def grpc_answer(model: str, name: str, output: np.ndarray) -> bytes:
    response = message("ModelInferResponse")(
        model_name=model, model_version="1", raw_output_contents=[output.tobytes()]
    )
    response.outputs.add(name=name, datatype=TYPES[str(output.dtype)], shape=output.shape)
    return response.SerializeToString()


def grpc_output(answer: bytes) -> np.ndarray:
    response = message("ModelInferResponse").FromString(answer)
    return np.frombuffer(response.raw_output_contents[0], np.float32).reshape(response.outputs[0].shape)
