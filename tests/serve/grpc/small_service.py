# SPDX-License-Identifier: Apache-2.0
"""A small Service: a compiled MLP behind a Batcher, a model that gives back what it is given, and one that never ends."""

import asyncio

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import fastinfer as fi
from fastinfer.serve.datatypes import DTYPES, datatype_of
from fastinfer.serve.errors import Kind, ServeError, as_serve_error
from fastinfer.serve.messages import InferResponse, Tensor
from fastinfer.serve.service import EXTENSIONS, NAME

CONFIG = {
    "platform": "onnx", "backend": "fastinfer", "version_policy": {"latest": {"num_versions": 1}}, "max_batch_size": 32,
    "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [16]}],
    "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [4]}],
    "dynamic_batching": {"max_queue_delay_microseconds": 0, "default_queue_policy": {"max_queue_size": 1024}},
    "instance_group": [{"name": "cpu", "kind": "KIND_CPU", "count": 1}],
    "parameters": {"precision": {"string_value": "fp32"}},
    "something_new": [1, 2],
}  # fmt: skip


def mlp(widths=(16, 32, 4), seed=0):
    """x [N, widths[0]] → y [N, widths[-1]], float32, ReLU between the layers."""
    rng = np.random.default_rng(seed)
    nodes, weights, last = [], [], "x"
    for i, (a, b) in enumerate(zip(widths, widths[1:])):
        w = rng.standard_normal((a, b)).astype(np.float32) / np.float32(a**0.5)
        weights.append(numpy_helper.from_array(w, f"w{i}"))
        final = i == len(widths) - 2
        nodes.append(helper.make_node("MatMul", [last, f"w{i}"], ["y" if final else f"m{i}"]))
        if not final:
            nodes.append(helper.make_node("Relu", [f"m{i}"], [f"r{i}"]))
        last = f"r{i}"
    value = lambda name, width: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])  # noqa: E731
    graph = helper.make_graph(nodes, "mlp", [value("x", widths[0])], [value("y", widths[-1])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class SmallService:
    """Models: mlp, echo (any inputs), stuck (waits until it is cancelled), broken. Opened and closed on the server's loop."""

    def __init__(self, **batching):
        self.model = fi.compile(mlp())
        self.batcher = fi.Batcher(self.model, **batching)
        self.loaded = {"mlp": True, "echo": True, "stuck": True, "broken": True}
        self.draining = False
        self.seen = []  # requests, as they came
        self.loads = []
        self.stuck = asyncio.Event()  # a request has come to the stuck model
        self.cancelled = asyncio.Event()  # and was cancelled
        self.count = 0

    async def __aenter__(self):
        await self.batcher.__aenter__()
        return self

    async def __aexit__(self, *exc):
        await self.batcher.__aexit__(None, None, None)

    def _known(self, model, version=""):
        if model not in self.loaded or version not in ("", "1"):
            raise ServeError(Kind.NOT_FOUND, f"no model is called '{model}', or it has no version '{version}'")

    def admit(self, model, version=""):
        """Its queues are never full."""

    async def infer(self, request):
        self._known(request.model, request.version)
        if not self.loaded[request.model]:
            raise ServeError(Kind.UNAVAILABLE, f"model '{request.model}' is not loaded", retry_after=2.5)
        self.seen.append(request)
        outputs = await getattr(self, f"_{request.model}")(request)
        if request.outputs is not None:
            unknown = {o.name for o in request.outputs} - {t.name for t in outputs}
            if unknown:
                raise ServeError(Kind.INVALID_ARGUMENT, f"no output is called {sorted(unknown)}")
        self.count += 1
        return InferResponse(request.model, "1", outputs, request.id)

    async def _mlp(self, request):
        feed = {t.name: t.array for t in request.inputs}
        try:
            outputs = await self.batcher.run(feed, priority=request.priority, timeout=request.timeout)
        except Exception as e:
            raise as_serve_error(e, request.id) from None
        return [Tensor(name, datatype_of(array.dtype), array) for name, array in outputs.items()]

    async def _echo(self, request):
        return [Tensor(t.name, t.datatype, t.array, t.parameters) for t in request.inputs]

    async def _stuck(self, request):
        self.stuck.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _broken(self, request):
        raise ZeroDivisionError("secret in /etc/passwd")

    def live(self):
        return True

    def ready(self):
        return not self.draining

    def model_ready(self, model, version=""):
        self._known(model, version)
        return self.loaded[model]

    def server_metadata(self):
        return {"name": NAME, "version": fi.__version__, "extensions": list(EXTENSIONS)}

    def model_metadata(self, model, version=""):
        self._known(model, version)
        port = lambda name, width: {"name": name, "datatype": "FP32", "shape": [-1, width]}  # noqa: E731
        return {
            "name": model,
            "versions": ["1"],
            "platform": "onnx",
            "inputs": [port("x", 16)],
            "outputs": [port("y", 4)],
        }

    def model_config(self, model, version=""):
        self._known(model, version)
        return {"name": model, **CONFIG}

    async def statistics(self, model="", version=""):
        if model:
            self._known(model, version)
        lasted = lambda ns: {"count": self.count, "ns": ns}  # noqa: E731
        return [
            {
                "name": name, "version": "1", "last_inference": 1 << 40, "inference_count": self.count,
                "execution_count": self.count, "inference_stats": {"success": lasted(1 << 33), "fail": {}},
                "batch_stats": [{"batch_size": 1, "compute_infer": lasted(5)}],
                "memory_usage": [{"type": "CPU", "id": 0, "byte_size": 1 << 20}], "response_stats": {"0": {"success": lasted(1)}},
            }
            for name in ([model] if model else self.loaded)
        ]  # fmt: skip

    async def repository_index(self, ready=False):
        states = {True: "READY", False: "UNAVAILABLE"}
        rows = [{"name": n, "version": "1", "state": states[on], "reason": ""} for n, on in self.loaded.items()]
        return [row for row in rows if not ready or row["state"] == "READY"]

    async def load(self, model, parameters):
        self.loads.append((model, parameters))
        self._known(model)
        self.loaded[model] = True

    async def unload(self, model, parameters):
        self.loads.append((model, parameters))
        self._known(model)
        self.loaded[model] = False


NUMERIC = list(DTYPES)
