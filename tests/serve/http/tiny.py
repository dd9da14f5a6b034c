# SPDX-License-Identifier: Apache-2.0
"""A small Service for the wire's tests: compiled ONNX models behind real batchers, no files."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h

import fastinfer as fi
from fastinfer.serve.datatypes import BYTES, datatype_of
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.messages import InferRequest, InferResponse, Tensor
from fastinfer.serve.service import EXTENSIONS, NAME


def model_of(nodes, inputs, outputs, constants=()):
    value = lambda name, code, shape: h.make_tensor_value_info(name, code, shape)  # noqa: E731
    graph = h.make_graph(nodes, "g", [value(*i) for i in inputs], [value(*o) for o in outputs], list(constants))
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10)


def mlp():
    rng = np.random.default_rng(0)
    weights = [("w0", (64, 128)), ("b0", (128,)), ("w1", (128, 10)), ("b1", (10,))]
    constants = [onnx.numpy_helper.from_array(rng.standard_normal(s, np.float32) / 8, n) for n, s in weights]
    nodes = [
        h.make_node("Gemm", ["x", "w0", "b0"], ["a"]),
        h.make_node("Relu", ["a"], ["r"]),
        h.make_node("Gemm", ["r", "w1", "b1"], ["y"]),
    ]
    return model_of(nodes, [("x", T.FLOAT, ["n", 64])], [("y", T.FLOAT, ["n", 10])], constants)


def echo(codes=(T.FLOAT, T.INT64, T.BOOL)):
    """in0 … → out0 …, any shape of rank two; one of each type."""
    shape = ["a", "b"]
    return model_of(
        [h.make_node("Identity", [f"in{i}"], [f"out{i}"]) for i in range(len(codes))],
        [(f"in{i}", c, shape) for i, c in enumerate(codes)],
        [(f"out{i}", c, shape) for i, c in enumerate(codes)],
    )


MODELS = {
    "mlp": mlp,
    "echo": echo,
    "half": lambda: echo([T.FLOAT16]),
    "strings": lambda: echo([T.STRING]),
    "floats": lambda: echo([T.FLOAT]),
    "divide": lambda: model_of(
        [h.make_node("Div", ["x", "y"], ["z"])],
        [("x", T.FLOAT, ["n"]), ("y", T.FLOAT, ["n"])],
        [("z", T.FLOAT, ["n"])],
    ),
}


class TinyService:
    """``async with TinyService() as service``. `hold`: while cleared, requests wait before they run."""

    def __init__(self, names=tuple(MODELS)) -> None:
        self._names = names
        self._stack = contextlib.AsyncExitStack()
        self.models: dict[str, fi.Model] = {}
        self.batchers: dict[str, fi.Batcher] = {}
        self.loaded: set[str] = set(names)
        self.count: dict[str, int] = dict.fromkeys(names, 0)
        self.hold = asyncio.Event()
        self.hold.set()
        self.waiting = 0
        self.cancelled = 0
        self.changed = asyncio.Event()
        self.last: InferRequest | None = None
        self.last_load: dict[str, Any] = {}

    async def __aenter__(self):
        for name in self._names:
            self.models[name] = fi.compile(MODELS[name](), threads=1)
            self.batchers[name] = await self._stack.enter_async_context(fi.Batcher(self.models[name]))
        return self

    async def __aexit__(self, *exc):
        self.hold.set()
        await self._stack.aclose()

    def _model(self, model: str, version: str = "") -> fi.Model:
        if model not in self.models or version not in ("", "1"):
            raise ServeError(
                Kind.NOT_FOUND, f"no model is called '{model}'" + (f" in version {version}" if version else "")
            )
        if model not in self.loaded:
            raise ServeError(Kind.UNAVAILABLE, f"model '{model}' is not loaded")
        return self.models[model]

    def admit(self, model, version=""):
        """Its queues are never full."""

    async def infer(self, request: InferRequest) -> InferResponse:
        self._model(request.model, request.version)
        self.last = request
        self.waiting += 1
        self.changed.set()
        try:
            await self.hold.wait()
            feeds = {t.name: _text(t.array) if t.datatype == BYTES else t.array for t in request.inputs}
            batcher = self.batchers[request.model]
            outputs = await batcher.run(feeds, priority=request.priority, timeout=request.timeout)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
            self.changed.set()
        self.count[request.model] += 1
        tensors = [Tensor(n, datatype_of(a.dtype), a) for n, a in outputs.items()]
        return InferResponse(request.model, "1", tensors, request.id)

    def live(self) -> bool:
        return True

    def ready(self) -> bool:
        return bool(self.loaded)

    def model_ready(self, model: str, version: str = "") -> bool:
        if model not in self.models:
            raise ServeError(Kind.NOT_FOUND, f"no model is called '{model}'")
        return model in self.loaded

    def server_metadata(self):
        return {"name": NAME, "version": "0", "extensions": list(EXTENSIONS)}

    def model_metadata(self, model: str, version: str = ""):
        compiled = self._model(model, version)
        extents = lambda shape: [-1] if shape is None else [d if isinstance(d, int) else -1 for d in shape]  # noqa: E731
        specs = lambda specs: [  # noqa: E731
            {
                "name": s.name,
                "datatype": datatype_of(s.dtype),
                "shape": extents(s.shape),
            }
            for s in specs
        ]
        return {
            "name": model, "versions": ["1"], "platform": "fastinfer",
            "inputs": specs(compiled.inputs), "outputs": specs(compiled.outputs),
        }  # fmt: skip

    def model_config(self, model: str, version: str = ""):
        self._model(model, version)
        return {"name": model, "platform": "fastinfer", "max_batch_size": 0}

    async def statistics(self, model: str = "", version: str = ""):
        if model:
            self._model(model, version)
        return [
            {"name": n, "version": "1", "inference_stats": {"success": {"count": c, "ns": 0}}}
            for n, c in self.count.items()
            if model in ("", n)
        ]

    async def repository_index(self, ready: bool = False):
        state = lambda n: "READY" if n in self.loaded else "UNAVAILABLE"  # noqa: E731
        index = [{"name": n, "version": "1", "state": state(n), "reason": ""} for n in self.models]
        return [entry for entry in index if not ready or entry["state"] == "READY"]

    async def load(self, model: str, parameters: dict[str, Any]) -> None:
        if model not in self.models:
            raise ServeError(Kind.NOT_FOUND, f"no model is called '{model}'")
        self.last_load = parameters
        self.loaded.add(model)

    async def unload(self, model: str, parameters: dict[str, Any]) -> None:
        if model not in self.models:
            raise ServeError(Kind.NOT_FOUND, f"no model is called '{model}'")
        self.last_load = parameters
        self.loaded.discard(model)


def _text(array):
    text = np.empty(array.shape, object)
    text.reshape(-1)[:] = [s.decode() for s in array.reshape(-1)]
    return text
