# SPDX-License-Identifier: Apache-2.0
"""Requests leave nothing behind that only the garbage collector finds: it is told to look seldom, as it stops the loop when
it does, and what it has not found yet holds tensors."""

import asyncio
import gc
from collections import Counter

import grpc
import numpy as np
import pytest
from process import infer_request
from small_models import heavy, put

from fastinfer.serve.config import Config
from fastinfer.serve.grpc import schema
from fastinfer.serve.messages import InferRequest, Tensor
from fastinfer.serve.server import Server

ROWS = np.ones((16, 4), np.float32)
PER_CLIENT, CLIENTS = 10, 6


async def over_http(server):
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
    outcomes = Counter()
    for _ in range(PER_CLIENT):
        writer.write(infer_request("slow", ROWS))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        outcomes[{b"200": "ok", b"503": "refused"}[head[9:12]]] += 1
    writer.close()
    return outcomes


async def over_grpc(server):
    request = schema.message("ModelInferRequest")(model_name="slow", raw_input_contents=[ROWS.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=ROWS.shape)
    outcomes = Counter()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call = channel.unary_unary(f"/{schema.SERVICE}/ModelInfer")
        for _ in range(PER_CLIENT):
            try:
                await call(request.SerializeToString())
                outcomes["ok"] += 1
            except grpc.aio.AioRpcError as e:
                outcomes[{grpc.StatusCode.UNAVAILABLE: "refused"}.get(e.code(), str(e.code()))] += 1
    return outcomes


@pytest.mark.parametrize("client", [over_http, over_grpc])
@pytest.mark.parametrize("queue, outcome", [(1, "refused"), (100, "ok")])
def test_no_request_waits_for_the_garbage_collector(tmp_path, client, queue, outcome):
    put(tmp_path, "slow", 1, heavy(), f"threads = 1\n[batching]\nmax_batch = 16\nmax_queue = {queue}\n")

    async def main():
        server = Server(Config(tmp_path, http_port=0, grpc_port=0))
        await server.listen()
        await server.load()
        try:
            await client(server)
            gc.collect()
            gc.disable()
            outcomes = sum(await asyncio.gather(*(client(server) for _ in range(CLIENTS))), Counter())
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            held = [o for o in gc.garbage if isinstance(o, (InferRequest, Tensor, np.ndarray))]
            ours = [o for o in gc.garbage if type(o).__name__ == "frame" and "fastinfer" in o.f_code.co_filename]
            return outcomes, len(held), Counter(o.f_code.co_name for o in ours)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
            await server.stop()

    before = gc.get_threshold()
    try:
        outcomes, held, frames = asyncio.run(main())
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
    assert sum(outcomes.values()) == CLIENTS * PER_CLIENT and outcomes[outcome] > 20, outcomes
    assert held == 0 and not frames, (held, frames)
