# SPDX-License-Identifier: Apache-2.0
"""Real processes: they start, share what is changed, die and come back; and the link between two ends in one process."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.workers import Link, LinkClosed, Supervisor
from fastinfer.serve.workers.shared import add_statistics
from fastinfer.serve.workers.supervisor import CrashLoop

WORKER = Path(__file__).with_name("worker.py")


def run(main):
    return asyncio.run(asyncio.wait_for(main(), 60))


def supervisor(workers=2, mode="good", grace=10.0):
    return Supervisor(lambda n, fd: [sys.executable, str(WORKER), str(n), str(fd), mode], workers, grace=grace)


@contextlib.asynccontextmanager
async def running(**options):
    s = supervisor(**options)
    task = asyncio.ensure_future(s.run())
    try:
        while len(s.pids) < options.get("workers", 2):
            await asyncio.sleep(0.01)
        await s.ready()
        yield s
    finally:
        s.stop()
        await task


async def states(s):
    return sorted(await s.all("state", {}), key=lambda r: r["number"])


def load(model):
    return {"operation": "load", "arguments": {"model": model, "parameters": {}}, "keep": model}


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_change_reaches_all_workers_and_those_that_start_later():
    async def main():
        async with running() as s:
            await s.all(**load("a"))
            await s.all(**load("b"))
            before = await states(s)
            assert [r["loaded"] for r in before] == [["a", "b"]] * 2
            os.kill(before[0]["pid"], signal.SIGKILL)
            while s._workers[0].process.pid == before[0]["pid"]:
                await asyncio.sleep(0.01)
            await s.ready()
            after = await states(s)
            assert after[1] == before[1] and after[0]["pid"] != before[0]["pid"] and after[0]["loaded"] == ["a", "b"]
            pids = s.pids
        assert all(gone(p) for p in pids)

    run(main)


def test_a_change_that_is_refused_is_not_remembered():
    async def main():
        async with running() as s:
            with pytest.raises(ServeError, match="the model is bad") as error:
                await s.all(**load("bad"))
            assert error.value.kind is Kind.INVALID_ARGUMENT and s._changes == {}
            with pytest.raises(ServeError, match="internal error"):
                await s.all("nonsense", {})

    run(main)


def test_a_worker_that_dies_under_a_question_is_left_out():
    async def main():
        async with running(workers=1) as s:
            with pytest.raises(ServeError) as error:
                await s.all("die", {})
            assert error.value.kind is Kind.UNAVAILABLE
            while s._workers[0].link.closed.is_set():
                await asyncio.sleep(0.01)
            await s.ready()
            assert len(await states(s)) == 1

    run(main)


def test_workers_that_die_again_and_again_end_it_all():
    async def main():
        with pytest.raises(CrashLoop, match="exit code 3"):
            await supervisor(mode="hopeless").run()

    run(main)


def test_a_worker_that_will_not_end_is_killed():
    async def main():
        async with running(workers=1, mode="stubborn", grace=0.3) as s:
            pids = s.pids
            start = time.monotonic()
        assert 0.3 <= time.monotonic() - start < 10 and all(gone(p) for p in pids)

    run(main)


def test_links():
    async def main():
        one, two = socket.socketpair()
        go_on = asyncio.Event()

        async def handler(operation, arguments):
            if operation == "wait":
                await asyncio.wait_for(go_on.wait(), arguments["seconds"])
            elif operation == "refuse":
                raise ServeError(Kind.RATE, "slowly", retry_after=2.5)
            elif operation == "break":
                raise ValueError("secret")
            return {operation: arguments}

        a, b = await Link.over(one, handler), await Link.over(two, handler)
        slow = asyncio.ensure_future(a.ask("wait", seconds=60))
        big = "x" * 1_000_000  # more than a pipe holds, both ways at once
        answers = await asyncio.gather(*(side.ask("echo", text=big, n=i) for i in range(5) for side in (a, b)))
        assert all(r["echo"]["text"] == big for r in answers) and not slow.done()  # nobody waits for the slow one
        with pytest.raises(ServeError, match="slowly") as error:
            await b.ask("refuse")
        assert error.value.kind is Kind.RATE and error.value.retry_after == 2.5
        with pytest.raises(ServeError) as error:
            await b.ask("break")
        assert "secret" not in str(error.value)
        go_on.set()
        assert await slow == {"wait": {"seconds": 60}}
        go_on.clear()
        waiting = asyncio.ensure_future(a.ask("wait", seconds=30))
        await asyncio.sleep(0.05)
        await b.close()
        with pytest.raises(LinkClosed):
            await waiting
        with pytest.raises(LinkClosed):
            await a.ask("echo")
        await a.close()

    run(main)


def test_statistics_add_up():
    def part(n, last, sizes):
        count = {"count": n, "ns": n * 10}
        return {"name": "m", "version": "1", "last_inference": last, "inference_count": n, "execution_count": n,
                "inference_stats": {"success": count, "fail": count}, "response_stats": {},
                "batch_stats": [{"batch_size": s, "compute_infer": count} for s in sizes],
                "memory_usage": [{"type": "CPU", "id": 0, "byte_size": 100}]}  # fmt: skip

    (total,) = add_statistics([[part(1, 5, [1, 4])], [part(2, 3, [4, 8])]])
    assert (total["name"], total["version"], total["last_inference"], total["inference_count"]) == ("m", "1", 5, 3)
    assert total["inference_stats"]["success"] == {"count": 3, "ns": 30}
    assert [(r["batch_size"], r["compute_infer"]["count"]) for r in total["batch_stats"]] == [(1, 1), (4, 3), (8, 2)]
    assert total["memory_usage"] == [{"type": "CPU", "id": 0, "byte_size": 200}]
    assert add_statistics([[], []]) == []
