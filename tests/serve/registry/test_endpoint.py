# SPDX-License-Identifier: Apache-2.0
"""One version: what it refuses, strings, sequences, limits."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import accumulate, echo, ones, put, request, rows, scale, two_outputs

from fastinfer.serve.endpoint import Endpoint
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.messages import InferRequest, RequestedOutput, Tensor
from fastinfer.serve.repository.directory import Directory
from fastinfer.serve.repository.loading import load_version


def with_endpoint(tmp_path, model, work, toml=None):
    put(tmp_path, "m", 1, model, toml)
    found = Directory(tmp_path).find("m")

    async def main():
        loaded = load_version(found.versions["1"], found.settings)
        endpoint = Endpoint("m", "1", loaded.model, found.settings, loaded.ports, max_batch=loaded.max_batch)
        await endpoint.open()
        try:
            return await work(endpoint)
        finally:
            await endpoint.close()

    return asyncio.run(asyncio.wait_for(main(), 60))


async def error(endpoint, asked):
    with pytest.raises(ServeError) as info:
        await endpoint.infer(asked)
    return info.value


def test_inputs_and_outputs_are_checked(tmp_path):
    a = np.ones((1, 2), np.float32)

    async def work(e):
        for asked, kind, part in (
            (request("m", a=a), Kind.INVALID_ARGUMENT, "missing input: b; needed: a, b"),
            (request("m", a=a, b=a, c=a), Kind.INVALID_ARGUMENT, "no input is called 'c'"),
            (InferRequest("m", [Tensor("a", "FP32", a)] * 2), Kind.INVALID_ARGUMENT, "input 'a' is given twice"),
            (
                request("m", a=a.astype(np.float64), b=a),
                Kind.INVALID_ARGUMENT,
                "FP64 [1, 2] was given; needed: FP32 [-1, 2]",
            ),
            (request("m", a=a[0], b=a), Kind.INVALID_ARGUMENT, "FP32 [2] was given"),
            (request("m", a=np.ones((1, 3), np.float32), b=a), Kind.INVALID_ARGUMENT, "FP32 [1, 3] was given"),
            (request("m", a=a, b=a, outputs=["sum", "sum"]), Kind.INVALID_ARGUMENT, "'sum' is asked for twice"),
            (request("m", a=a, b=a, outputs=["x\r\n"]), Kind.INVALID_ARGUMENT, r"no output is called 'x\r\n'"),
        ):
            caught = await error(e, asked)
            assert caught.kind is kind and part in str(caught)
        assert e.statistics.fail.count == 8 and e.statistics.calls == 0
        out = await e.infer(request("m", a=a, b=a, outputs=["difference", "sum"]))
        assert [o.name for o in out.outputs] == ["difference", "sum"]
        assert [o.name for o in (await e.infer(request("m", a=a, b=a))).outputs] == ["sum", "difference"]
        assert (await e.infer(request("m", a=a, b=a, outputs=[]))).outputs == []
        # Rows of one request must agree; the engine says so, not a stack trace.
        assert (await error(e, request("m", a=a, b=np.ones((3, 2), np.float32)))).kind is Kind.INVALID_ARGUMENT

    with_endpoint(tmp_path, two_outputs(), work)


def test_many_unknown_outputs_cost_little(tmp_path):
    async def work(e):
        asked = request("m", x=ones())
        asked.outputs = [RequestedOutput(f"o{i % 1000}") for i in range(100_000)]
        loop = asyncio.get_running_loop()
        start = loop.time()
        assert len(str(await error(e, asked))) < 500
        assert loop.time() - start < 0.5

    with_endpoint(tmp_path, scale(2), work)


def test_strings(tmp_path):
    async def work(e):
        words = np.array([b"one", "zwölf".encode(), b""], object)
        (out,) = (await e.infer(request("m", words=words))).outputs
        assert out.datatype == "BYTES" and list(out.array) == list(words)
        caught = await error(e, request("m", words=np.array([b"ok", b"\xff"], object)))
        assert caught.kind is Kind.INVALID_ARGUMENT and "string 1 is not UTF-8" in str(caught)

    with_endpoint(tmp_path, echo(), work)


def test_id_and_limits(tmp_path):
    async def work(e):
        asked = request("m", x=ones(2))
        asked.id, asked.priority = "7", 10**9
        answer = await e.infer(asked)
        assert (answer.id, answer.model, answer.version) == ("7", "m", "1")
        assert "4 rows" in str(await error(e, request("m", x=ones(4))))
        asked = request("m", x=ones())
        asked.timeout = 0.0
        assert (await error(e, asked)).kind is Kind.DEADLINE
        asked.timeout = float("nan")
        assert (await error(e, asked)).kind is Kind.INVALID_ARGUMENT
        assert e.statistics.rejected == 1

    with_endpoint(tmp_path, scale(2), work, "[limits]\nrows = 3\ntimeout = 10.0\n")


def test_a_full_queue_says_come_back(tmp_path):
    async def work(e):
        outcomes = await asyncio.gather(*(e.infer(request("m", x=ones())) for _ in range(20)), return_exceptions=True)
        full = [o for o in outcomes if isinstance(o, ServeError)]
        assert full and all(o.kind is Kind.UNAVAILABLE and o.retry_after for o in full)
        assert len(full) < 20 and e.statistics.rejected == len(full)

    with_endpoint(tmp_path, scale(2), work, "[batching]\nmax_queue = 3\n")


# ----------------------------------------------------------------------------------------------------------- sequences

STATEFUL = '[sequence]\nidle = 0.05\nmax = 2\nstate = {held = "next"}\n'


def step(n, key=1, start=False, end=False, size=1):
    asked = request("m", x=rows(*[[n]] * size), outputs=["total"])
    asked.sequence, asked.sequence_start, asked.sequence_end = key, start, end
    return asked


async def total(e, *args, **kwargs):
    return (await e.infer(step(*args, **kwargs))).outputs[0].array.reshape(-1).tolist()


def test_state_stays_in_its_sequence(tmp_path):
    async def work(e):
        assert [p.name for p in e.ports.inputs] == ["x"]
        assert await total(e, 1, start=True) == [1] and await total(e, 10, key="b", start=True, size=2) == [10, 10]
        assert await total(e, 2) == [3] and await total(e, 20, key="b", size=2) == [30, 30]
        assert "2 sequences" in str(await error(e, step(1, key=3, start=True)))
        assert await total(e, 5, start=True) == [5]  # begun again
        assert await total(e, 1, end=True) == [6]
        assert "sequence_start" in str(await error(e, step(1)))
        assert "other than 0" in str(await error(e, step(1, key=0)))
        assert len(e.sequences) == 1
        bad = step(1, key="b")
        bad.inputs[0].array = np.ones((3, 1), np.float32)  # does not fit the state of 2 rows: fails alone
        await error(e, bad)
        assert await total(e, 1, key="b", size=2) == [31, 31]

    with_endpoint(tmp_path, accumulate(), work, STATEFUL)


def test_a_sequence_that_nobody_uses_ends(tmp_path):
    async def work(e):
        await total(e, 1, start=True)
        await asyncio.wait_for(e.sequences.empty.wait(), 5)
        assert "not used for 0.05 s" in str(await error(e, step(1)))

    with_endpoint(tmp_path, accumulate(), work, STATEFUL)


@given(st.lists(st.tuples(st.sampled_from([1, 2, "a"]), st.integers(-100, 100)), min_size=1, max_size=30))
@settings(max_examples=25, deadline=None)
def test_any_interleaving_keeps_order_per_sequence(tmp_path_factory, steps):
    """All requests are sent at once; every sequence's sums are those of its own numbers in the order they were sent."""

    async def work(e):
        seen: dict = {}
        jobs, expected = [], []
        for key, n in steps:
            jobs.append(total(e, n, key=key, start=key not in seen))
            seen[key] = seen.get(key, 0) + n
            expected.append([seen[key]])
        assert await asyncio.gather(*jobs) == expected

    toml = STATEFUL.replace("max = 2", "max = 9").replace("0.05", "60")
    with_endpoint(tmp_path_factory.mktemp("s"), accumulate(), work, toml)


def test_a_cancelled_step_leaves_the_sequence_usable(tmp_path):
    async def work(e):
        assert await total(e, 1, start=True) == [1]
        first, second, third = (asyncio.ensure_future(e.infer(step(n))) for n in (1, 2, 4))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(first, second, third, return_exceptions=True)
        assert second.cancelled() and third.result().outputs[0].array.item() == 6
        late = step(1)
        late.timeout = 0.0
        assert (await error(e, late)).kind is Kind.DEADLINE
        assert await total(e, 1) == [7]

    with_endpoint(tmp_path, accumulate(), work, STATEFUL.replace("0.05", "60"))


def test_a_state_that_the_model_lacks_is_refused(tmp_path):
    put(tmp_path, "m", 1, accumulate(), '[sequence]\nstate = {held = "nothing"}\n')
    found = Directory(tmp_path).find("m")

    async def main():
        loaded = load_version(found.versions["1"], found.settings)
        with pytest.raises(ServeError, match="lacks the input 'held' or the output 'nothing'"):
            Endpoint("m", "1", loaded.model, found.settings, loaded.ports)

    asyncio.run(main())
