# SPDX-License-Identifier: Apache-2.0
"""What one would write by hand: grpc.aio, protobuf's messages, the model in process, one request after the other, nothing
checked: `python plain_grpc.py PORT MODEL THREADS`."""

import asyncio
import sys
from pathlib import Path

import grpc
import numpy as np
import uvloop

sys.path[:0] = [str(Path(__file__).parent.parent)]
import fastinfer as fi  # noqa: E402
from fastinfer.serve.grpc.schema import message  # noqa: E402
from loadtest.requests import TYPES  # noqa: E402

DTYPES = {name: np.dtype(dtype) for dtype, name in TYPES.items()}


class Handler(grpc.GenericRpcHandler):
    def __init__(self, model: fi.Model) -> None:
        request_class, response_class = message("ModelInferRequest"), message("ModelInferResponse")

        async def handle(raw: bytes, context: grpc.aio.ServicerContext) -> bytes:
            request = request_class.FromString(raw)
            feed = {
                tensor.name: np.frombuffer(data, DTYPES[tensor.datatype]).reshape(tensor.shape)
                for tensor, data in zip(request.inputs, request.raw_input_contents, strict=True)
            }
            response = response_class(model_name=request.model_name, model_version="1", id=request.id)
            for name, output in model.run(feed).items():
                response.outputs.add(name=name, datatype=TYPES[str(output.dtype)], shape=output.shape)
                response.raw_output_contents.append(output.tobytes())
            return response.SerializeToString()

        self._handler = grpc.unary_unary_rpc_method_handler(handle)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return self._handler


async def main(port: int, model: fi.Model) -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Handler(model),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(int(sys.argv[1]), fi.compile(sys.argv[2], threads=int(sys.argv[3]))))
