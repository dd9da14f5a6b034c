# SPDX-License-Identifier: Apache-2.0
"""A server on a loop of its own in a thread. gRPC's asyncio clients run on that loop too: grpcio has one poller for all."""

import asyncio
import threading

import grpc
from small_service import SmallService
from tritonclient.grpc import service_pb2, service_pb2_grpc

from fastinfer.serve.grpc import GrpcServer


class Running:
    """A server, its service and its address. run(coroutine): on the server's loop, at most 30 seconds."""

    def __init__(self, **options):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.options = options

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    async def _open(self, batching):
        self.service = await SmallService(**batching).__aenter__()
        self.server = GrpcServer(self.service, **self.options)
        return await self.server.start()

    def open(self, **batching):
        self.address = f"127.0.0.1:{self.run(self._open(batching))}"
        self.channel = grpc.insecure_channel(self.address, [("grpc.max_send_message_length", -1)])
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        return self

    def close(self):
        self.channel.close()
        self.run(self.server.stop(0))
        self.run(self.service.__aexit__())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


def request(model="echo", *inputs, raw=None, **fields):
    """A ModelInferRequest by hand. inputs: (name, datatype, shape, {contents}) ; raw: raw_input_contents."""
    message = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=raw or [], **fields)
    for name, datatype, shape, *contents in inputs:
        tensor = message.inputs.add(name=name, datatype=datatype, shape=shape)
        for field, values in (contents[0] if contents else {}).items():
            getattr(tensor.contents, field).extend(values)
    return message
