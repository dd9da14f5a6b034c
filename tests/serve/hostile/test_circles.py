# SPDX-License-Identifier: Apache-2.0
"""What requests bring is given back when they have failed, not when the garbage collector comes by: a hundred failing
requests of the size that is allowed would be all the memory there is."""

import asyncio
import gc
import http.client
import json
import resource
from pathlib import Path

import grpc
import pytest
from small_models import pick, put, scale
from tritonclient.grpc import service_pb2

from fastinfer.serve.grpc import GrpcServer
from fastinfer.serve.http import App
from fastinfer.serve.http.serve import HttpServer
from fastinfer.serve.registry import Registry

SIZE = 16 << 20
TIMES = 12
FILL = b"\x3f"  # as an index it is out of range


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def message(model, name, shape, datatype="FP32", **parameters):
    made = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[FILL * SIZE])
    made.inputs.add(name=name, datatype=datatype, shape=shape)
    for key, value in parameters.items():
        made.parameters[key].int64_param = value
    return made.SerializeToString()


# model, input, shape, type, parameters: an input there is not, a shape that is not the model's, an index out of range, no time
FAILING = {
    "unknown model": ("none", "x", [SIZE // 16, 4], "FP32", {}),
    "unknown input": ("double", "z", [SIZE // 16, 4], "FP32", {}),
    "wrong shape": ("double", "x", [SIZE // 8, 2], "FP32", {}),
    "model fails": ("pick", "index", [SIZE // 8], "INT64", {}),
    "no time": ("double", "x", [SIZE // 16, 4], "FP32", {"timeout": 1}),
}


def http_post(port, case):
    model, name, shape, datatype, parameters = case
    text = json.dumps({"parameters": parameters, "inputs": [
        {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": SIZE}}]}).encode()  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {"Inference-Header-Content-Length": str(len(text)), "Content-Length": str(len(text) + SIZE)}
        connection.request("POST", f"/v2/models/{model}/infer", iter([text, FILL * SIZE]), headers)
        return connection.getresponse().status
    finally:
        connection.close()


async def over_http(server, case):
    return await asyncio.to_thread(http_post, server.addresses[0][1], case) >= 400


async def over_grpc(port, case):
    *given, parameters = case
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_send_message_length", -1)]) as channel:
        try:
            await channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(
                message(*given, **parameters), timeout=30
            )
        except grpc.RpcError:
            return True
    return False


@pytest.mark.parametrize("case", FAILING)
@pytest.mark.parametrize("wire", ["http", "grpc"])
def test_failed_requests_are_not_held(tmp_path, wire, case):
    put(tmp_path, "double", 1, scale(2))
    put(tmp_path, "pick", 1, pick())
    given = FAILING[case]

    async def main():
        registry = Registry(tmp_path)
        assert await registry.open() == {}
        server = HttpServer(App(registry)) if wire == "http" else GrpcServer(registry)
        port = await server.start()
        ask = (lambda: over_http(server, given)) if wire == "http" else (lambda: over_grpc(port, given))
        for _ in range(2):
            assert await ask()
        gc.collect()
        gc.disable()
        try:
            before = resident()
            for _ in range(TIMES):
                assert await ask()
            grown = resident() - before
        finally:
            gc.enable()
        await server.stop(1)
        await registry.close()
        return grown

    grown = asyncio.run(asyncio.wait_for(main(), 120))
    assert grown < TIMES * SIZE * 3 // 4, grown >> 20
