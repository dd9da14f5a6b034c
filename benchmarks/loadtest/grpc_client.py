# SPDX-License-Identifier: Apache-2.0
"""The load generator over gRPC: client.py's plan and figures; requests are whole ModelInferRequests. One client calls from
a thread of its own, several call as tasks over one channel, both as their users do."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import grpc

sys.path[:0] = [str(Path(__file__).parent.parent)]
from loadtest.client import Plan, Seen, figures  # noqa: E402

METHOD = "/inference.GRPCInferenceService/ModelInfer"


def alone(plan: Plan) -> Seen:
    seen, turn = Seen(), 0
    begin = time.perf_counter()
    first, last = begin + plan.warm, begin + plan.warm + plan.seconds
    with grpc.insecure_channel(f"127.0.0.1:{plan.port}") as channel:
        call = channel.unary_unary(METHOD)
        while (start := time.perf_counter()) < last:
            turn = (turn + 1) % len(plan.requests)
            try:
                seen.answers[turn] = call(plan.requests[turn], timeout=30)
            except grpc.RpcError as e:
                seen.fail(str(e))
                break
            if start >= first:
                seen.latencies.append(time.perf_counter() - start)
    return seen


async def together(plan: Plan) -> Seen:
    seen = Seen()
    begin = time.perf_counter()
    first, last = begin + plan.warm, begin + plan.warm + plan.seconds

    async def caller(call: grpc.aio.UnaryUnaryMultiCallable, turn: int) -> None:
        while (start := time.perf_counter()) < last:
            turn = (turn + 1) % len(plan.requests)
            try:
                seen.answers[turn] = await call(plan.requests[turn], timeout=30)
            except grpc.RpcError as e:
                seen.fail(str(e))
                return
            if start >= first:
                seen.latencies.append(time.perf_counter() - start)

    async with grpc.aio.insecure_channel(f"127.0.0.1:{plan.port}") as channel:
        call = channel.unary_unary(METHOD)
        await asyncio.gather(*(caller(call, i) for i in range(plan.connections)))
    return seen


if __name__ == "__main__":
    given = Plan.of(sys.stdin.read())
    print(json.dumps(figures(alone(given) if given.connections == 1 else asyncio.run(together(given)), given)))
