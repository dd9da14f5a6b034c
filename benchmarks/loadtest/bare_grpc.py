# SPDX-License-Identifier: Apache-2.0
"""What grpc.aio itself costs: a server whose handler gives back the same bytes whatever it gets, with the options of ours:
`python bare_grpc.py PORT < answer`."""

from __future__ import annotations

import asyncio
import sys

import grpc
import uvloop


class Handler(grpc.GenericRpcHandler):
    def __init__(self, answer: bytes) -> None:
        async def handle(raw: bytes, context: grpc.aio.ServicerContext) -> bytes:
            return answer

        self._handler = grpc.unary_unary_rpc_method_handler(handle)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return self._handler


async def main(port: int, answer: bytes) -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Handler(answer),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main(int(sys.argv[1]), sys.stdin.buffer.read()))
