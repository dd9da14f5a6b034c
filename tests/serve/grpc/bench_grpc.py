# SPDX-License-Identifier: Apache-2.0
"""What a unary ModelInfer of a small MLP costs over a bare grpc.aio handler: python tests/serve/grpc/bench_grpc.py

Servers, each in a process of its own: `nothing` gives back fixed bytes; `wire` is GrpcServer over a service that gives back a
fixed response; `model` runs the service on a fixed request and gives back fixed bytes; `ours` is GrpcServer over that service.
One client process measures them in turn, in short bursts. Loopback only.
"""

import asyncio
import collections
import multiprocessing
import statistics
import sys
import time
from pathlib import Path

import grpc
import numpy as np

sys.path[:0] = [str(Path(__file__).parent)]
METHOD = "/inference.GRPCInferenceService/ModelInfer"
SERVERS = ("nothing", "wire", "model", "ours")


def example():
    """(request, response) as bytes, of one row."""
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name="mlp", raw_input_contents=[np.ones(16, np.float32).tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[1, 16])
    response = service_pb2.ModelInferResponse(model_name="mlp", model_version="1", raw_output_contents=[bytes(16)])
    response.outputs.add(name="y", datatype="FP32", shape=[1, 4])
    return request.SerializeToString(), response.SerializeToString()


class Bare(grpc.GenericRpcHandler):
    def __init__(self, handle):
        self._handler = grpc.unary_unary_rpc_method_handler(handle)

    def service(self, details):
        return self._handler


async def serve(kind, pipe):
    from small_service import SmallService

    from fastinfer.serve.grpc import GrpcServer
    from fastinfer.serve.messages import InferRequest, InferResponse, Tensor

    answer = example()[1]
    fixed = InferRequest("mlp", [Tensor("x", "FP32", np.ones((1, 16), np.float32))])
    service = await SmallService().__aenter__()
    service.seen = collections.deque(maxlen=1)
    done = InferResponse("mlp", "1", [Tensor("y", "FP32", np.zeros((1, 4), np.float32))])

    async def nothing(raw, context):
        return answer

    async def model(raw, context):
        await service.infer(fixed)
        return answer

    async def fixed_response(request):
        return done

    if kind == "wire":
        service.infer = fixed_response
    if kind in ("wire", "ours"):
        server = GrpcServer(service)
        port = await server.start()
    else:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((Bare(nothing if kind == "nothing" else model),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
    pipe.send(port)
    await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
    await server.stop(0)
    await service.__aexit__()


def process(kind, pipe, loop):
    if loop == "uvloop":
        import uvloop

        uvloop.install()
    asyncio.run(serve(kind, pipe))


def alone(call, request, seconds):
    """Latencies of one call after the other, in µs."""
    latencies = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        call(request)
        latencies.append((time.perf_counter() - start) * 1e6)
    return latencies


async def together(port, request, concurrency, seconds):
    """Calls per second, from `concurrency` callers."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(METHOD)
        count, end = 0, time.perf_counter() + seconds

        async def caller():
            nonlocal count
            while time.perf_counter() < end:
                await call(request)
                count += 1

        start = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(concurrency)))
        return count / (time.perf_counter() - start)


def main(rounds=8, seconds=0.7, loop="uvloop"):
    context = multiprocessing.get_context("spawn")
    pipes, workers, ports = {}, {}, {}
    for kind in SERVERS:
        pipes[kind], there = context.Pipe()
        workers[kind] = context.Process(target=process, args=(kind, there, loop))
        workers[kind].start()
        ports[kind] = pipes[kind].recv()
    request = example()[0]
    channels = {k: grpc.insecure_channel(f"127.0.0.1:{p}") for k, p in ports.items()}
    latencies, rates = {k: [] for k in SERVERS}, {k: [] for k in SERVERS}
    for kind in SERVERS:
        alone(channels[kind].unary_unary(METHOD), request, 0.5)
    for _ in range(rounds):
        for kind in SERVERS:
            latencies[kind].append(statistics.median(alone(channels[kind].unary_unary(METHOD), request, seconds)))
    for channel in channels.values():
        channel.close()
    for _ in range(rounds):
        for kind in SERVERS:
            rates[kind].append(asyncio.run(together(ports[kind], request, 32, seconds)))
    for kind in SERVERS:
        pipes[kind].send(None)
        workers[kind].join(10)
    for kind in SERVERS:
        p50, rate = statistics.median(latencies[kind]), statistics.median(rates[kind])
        share = p50 / statistics.median(latencies["nothing"]), rate / statistics.median(rates["nothing"])
        print(f"{kind:8} p50 {p50:6.1f} µs ({share[0]:.2f})  {rate:6.0f} calls/s at 32 ({share[1]:.2f})")


if __name__ == "__main__":
    main(loop=sys.argv[1] if len(sys.argv) > 1 else "uvloop")
