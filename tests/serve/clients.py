# SPDX-License-Identifier: Apache-2.0
"""tritonclient's four clients under one face: blocking calls, answers as plain JSON."""

from __future__ import annotations

import asyncio
import inspect

import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio

MODULES = {
    "http": tritonclient.http, "http-aio": tritonclient.http.aio,
    "grpc": tritonclient.grpc, "grpc-aio": tritonclient.grpc.aio,
}  # fmt: skip
KINDS = list(MODULES)


class Client:
    """One of KINDS. Its methods are the client's own, waited for where they are coroutines; json() is for those whose
    answers differ: gRPC's as dicts, with 64-bit integers as strings as protobuf's JSON has them."""

    def __init__(self, kind, address, loop=None, **options):
        """loop: of all asyncio clients, since grpcio has one poller for all."""
        self.kind, self.wire = kind, kind[:4]
        self.module, self.loop = MODULES[kind], loop or asyncio.new_event_loop()
        self._own = loop is None
        self.client = self.wait(self._make(address, options))

    async def _make(self, address, options):  # the asyncio clients want a running loop
        return self.module.InferenceServerClient(address, **options)

    def wait(self, value):
        return self.loop.run_until_complete(value) if inspect.isawaitable(value) else value

    def __getattr__(self, name):
        method = getattr(self.client, name)
        return (lambda *args, **kw: self.wait(method(*args, **kw))) if callable(method) else method

    def json(self, method, *args, **kw):
        value = getattr(self, method)(*args, **kw, **({"as_json": True} if self.wire == "grpc" else {}))
        if method == "get_model_config":
            return value.get("config", value)
        return value.get("models", value) if method == "get_model_repository_index" and self.wire == "grpc" else value

    def tensor(self, name, array, datatype="FP32", **http_only):
        given = self.module.InferInput(name, list(array.shape), datatype)
        given.set_data_from_numpy(array, **(http_only if self.wire == "http" else {}))
        return given

    def wanted(self, name, binary=True, **kw):
        return self.module.InferRequestedOutput(name, **({"binary_data": binary} if self.wire == "http" else {}), **kw)

    def ask(self, model, name, array, datatype="FP32", **options):
        """The result of a request with one input."""
        return self.infer(model, [self.tensor(name, array, datatype)], **options)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.wait(self.client.close())
        if self._own:
            self.loop.close()
