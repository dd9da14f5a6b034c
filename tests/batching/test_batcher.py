# SPDX-License-Identifier: Apache-2.0
"""The mechanism on a virtual clock: an engine that sleeps stands in for the model; then the real one, from tasks and threads."""

import asyncio
import threading
import time

import numpy as np
import pytest
from small_encoder import feeds, same
from virtual import run

import fastinfer as fi
from fastinfer.batching.dispatcher import Dispatcher
from fastinfer.batching.queue import Queue, Request


class Engine:
    """Takes one second per call; a feed that is an exception is its own outcome."""

    def __init__(self, seconds=1.0):
        self.seconds = seconds
        self.calls = []

    async def __call__(self, batch):
        feeds = [r.feed for r in batch]
        self.calls.append((asyncio.get_running_loop().time(), list(feeds)))
        await asyncio.sleep(self.seconds)
        return [f if isinstance(f, Exception) else f"did {f}" for f in feeds]


def dispatcher(max_batch=4, delay=0.0, engines=1, max_queue=100):
    engine = Engine()
    return engine, Dispatcher(Queue(max_batch, delay, max_queue), engine, engines)


def submit(d, feed, timeout=None, **fields):
    return asyncio.ensure_future(d.run(Request(feed, **{"group": "g", **fields}), timeout))


def test_a_lone_request_never_waits_and_the_next_call_takes_what_came():
    async def main():
        engine, d = dispatcher()
        tasks = [submit(d, 0)]
        await asyncio.sleep(0.5)
        tasks += [submit(d, i) for i in range(1, 6)]
        assert await asyncio.gather(*tasks) == [f"did {i}" for i in range(6)]
        assert engine.calls == [(0.0, [0]), (1.0, [1, 2, 3, 4]), (2.0, [5])]
        await d.close()

    run(main)


def test_max_delay_waits_for_company():
    async def main():
        engine, d = dispatcher(delay=0.3)
        first = submit(d, 0)
        await asyncio.sleep(0.2)
        second = submit(d, 1)
        await asyncio.gather(first, second)
        await asyncio.gather(*(submit(d, i) for i in range(2, 6)))
        assert engine.calls == [(0.3, [0, 1]), (1.3, [2, 3, 4, 5])]
        await d.close()

    run(main)


def test_a_deadline_fires_while_the_engine_is_busy():
    async def main():
        loop = asyncio.get_running_loop()
        engine, d = dispatcher()
        running = submit(d, "running", timeout=0.4)
        await asyncio.sleep(0)  # it submits
        await asyncio.sleep(0)  # its call begins: what comes in the same turn would share it
        patient = submit(d, "patient")
        waiting = submit(d, "waiting", timeout=0.25)
        with pytest.raises(fi.DeadlineExceeded):
            await waiting
        assert loop.time() == pytest.approx(0.25)
        with pytest.raises(TimeoutError):
            await running
        assert loop.time() == pytest.approx(0.4)
        assert await patient == "did patient"
        assert engine.calls == [(0.0, ["running"]), (1.0, ["patient"])]
        await d.close()

    run(main)


def test_no_time_at_all_is_a_deadline_too():
    async def main():
        engine, d = dispatcher()
        with pytest.raises(fi.DeadlineExceeded):
            await submit(d, 0, timeout=0)
        assert engine.calls == []
        await d.close()

    run(main)


def test_cancelled_requests_leave_the_queue():
    async def main():
        engine, d = dispatcher(max_queue=2)
        running = submit(d, 0)
        await asyncio.sleep(0.1)
        waiting = [submit(d, i) for i in (1, 2)]
        await asyncio.sleep(0)
        with pytest.raises(fi.QueueFull):
            await submit(d, 3)
        waiting[0].cancel()
        running.cancel()
        await asyncio.sleep(0)
        last = submit(d, 4)
        assert await asyncio.gather(waiting[1], last) == ["did 2", "did 4"]
        assert engine.calls == [(0.0, [0]), (1.0, [2, 4])]
        await d.close()

    run(main)


def test_one_poisoned_request_fails_alone():
    async def main():
        _, d = dispatcher()
        first = submit(d, "warm")
        await asyncio.sleep(0)
        bad = ValueError("poisoned")
        results = await asyncio.gather(*(submit(d, f) for f in ("a", bad, "b")), return_exceptions=True)
        assert results == ["did a", bad, "did b"]
        await first
        await d.close()

    run(main)


def test_an_engine_that_breaks_goes_on():
    async def main():
        async def engine(batch):
            feeds = [r.feed for r in batch]
            if "break" in feeds:
                raise RuntimeError("broken")
            return feeds[:-1] if "short" in feeds else feeds

        d = Dispatcher(Queue(4), engine)
        for feed, error in (("break", RuntimeError), ("short", fi.FastinferError)):
            with pytest.raises(error):
                await submit(d, feed)
        assert await submit(d, "fine") == "fine"
        await d.close()

    run(main)


def test_two_calls_at_once():
    async def main():
        engine, d = dispatcher(max_batch=1, engines=2)
        await asyncio.gather(*(submit(d, i) for i in range(4)))
        assert [at for at, _ in engine.calls] == [0.0, 0.0, 1.0, 1.0]
        await d.close()

    run(main)


@pytest.mark.parametrize("drain", [True, False])
def test_close(drain):
    async def main():
        engine, d = dispatcher(max_batch=1)
        tasks = [submit(d, i) for i in range(3)]
        await asyncio.sleep(0.5)
        await d.close(drain)
        assert asyncio.get_running_loop().time() == (3.0 if drain else 1.0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[0] == "did 0" and isinstance(results[2], str if drain else fi.Closed)
        with pytest.raises(fi.Closed):
            await submit(d, 9)

    run(main)


def test_an_idle_batcher_sets_no_timer():
    async def main():
        _, d = dispatcher()
        await submit(d, 0)
        assert d._timer is None
        await d.close()

    run(main)


def test_what_comes_in_one_turn_shares_a_call():
    async def main():
        engine, d = dispatcher()
        await asyncio.gather(*(submit(d, i) for i in range(3)))
        assert engine.calls == [(0.0, [0, 1, 2])]
        await d.close()

    run(main)


def test_quick_calls_run_on_the_loop_and_slow_ones_do_not():
    async def main():
        engine, quick = Engine(), []

        def direct(batch):
            if any(r.feed == "break" for r in batch):
                raise RuntimeError("broken")
            if any(r.feed == "slow" for r in batch):
                return None
            quick.append([r.feed for r in batch])
            return [r.feed for r in batch]

        d = Dispatcher(Queue(2), engine, 1, direct)
        assert await asyncio.gather(*(submit(d, i) for i in range(5))) == list(range(5))
        assert quick == [[0, 1], [2, 3], [4]] and engine.calls == []
        with pytest.raises(RuntimeError):
            await submit(d, "break")
        assert await asyncio.gather(submit(d, "slow"), submit(d, 5)) == ["did slow", "did 5"]
        assert await submit(d, 6) == 6
        await d.close()

    run(main)


def test_a_limit_makes_calls_smaller_than_max_batch():
    async def main():
        engine = Engine()
        d = Dispatcher(Queue(8), engine, limit=lambda group: {"g": 3}.get(group))
        await asyncio.gather(*(submit(d, i) for i in range(5)), submit(d, "large", work=7, group="g"))
        assert [f for _, f in engine.calls] == [[0, 1, 2], [3, 4], ["large"]]
        await asyncio.gather(*(submit(d, i, group="other") for i in range(5)))
        assert engine.calls[-1][1] == [0, 1, 2, 3, 4]
        await d.close()

    run(main)


# ------------------------------------------------------------------------------------------------------- with a model


def test_model_from_tasks(model):
    async def main():
        given = feeds(50)
        given[7] = {"ids": np.full((1, 5), 50)}  # beyond the table
        given[9] = {"ids": np.zeros((1, 5), np.float32)}
        async with fi.Batcher(model, max_batch=16) as b:
            got = await asyncio.gather(*(b.run(f) for f in given), return_exceptions=True)
            with pytest.raises(fi.InputError, match="nonsense"):
                await b.run({"nonsense": np.zeros(3)})
            with pytest.raises(fi.Closed, match="block the loop"):
                b.call(given[0])
        for i, (g, f) in enumerate(zip(got, given)):
            if i in (7, 9):
                assert isinstance(g, fi.FastinferError)
            else:
                same(g, model.run(f))
        with pytest.raises(fi.Closed):
            await b.run(given[0])

    asyncio.run(main())


def test_model_from_threads(model):
    failures = []

    def client(b, seed):
        try:
            for f in feeds(20, seed):
                same(b.call(f, priority=seed % 3, timeout=60), model.run(f))
        except BaseException as e:
            failures.append(e)

    with fi.Batcher(model, max_batch=8, max_delay=0.001, calls=2) as b:
        threads = [threading.Thread(target=client, args=(b, s)) for s in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert not failures
    with pytest.raises(fi.Closed):
        b.call(feeds(1)[0])


class Slow:
    """A model of 20 ms a request."""

    def batch_group(self, inputs):
        return None, 1, 1

    def run_each(self, feeds):
        time.sleep(0.02 * len(feeds))
        return [dict(f) for f in feeds]


def test_what_could_not_run_in_time_is_refused_at_once():
    async def main():
        async with fi.Batcher(Slow(), max_wait=0.15) as b:
            assert b.wait() == 0
            await b.run({"x": 0})
            loop, refused, begun = asyncio.get_running_loop(), [], []

            async def client(i):
                start = loop.time()
                try:
                    begun.append((await b.submit({"x": i}))[1])
                except fi.QueueFull as e:
                    refused.append((loop.time() - start, e.retry_after))

            await asyncio.gather(*(client(i) for i in range(40)))
            assert 4 <= len(begun) <= 12 and len(refused) == 40 - len(begun)  # about 0.15 s of 20 ms each
            assert max(seconds for seconds, _ in refused) < 0.1 and min(after for _, after in refused) > 0
            assert max(t.waited for t in begun) < 0.15 * 3  # sleeps are late on a busy machine
            running = asyncio.ensure_future(b.run({"x": 1}))
            await asyncio.sleep(0.001)
            with pytest.raises(fi.QueueFull, match="would wait"):  # its own deadline cannot be kept
                await b.run({"x": 2}, timeout=0.001)
            assert await running == {"x": 1}

    asyncio.run(main())


def test_submit_tells_times_and_costs_are_kept(model):
    async def main():
        async with fi.Batcher(model, max_batch=16) as b:
            assert b.costs() == {}
            for _ in range(5):
                out, timing = await b.submit({"ids": np.zeros((2, 9), np.int64)})
                same(out, model.run({"ids": np.zeros((2, 9), np.int64)}))
                assert timing.waited >= 0 and timing.seconds > 0
                assert (timing.rows, timing.call_rows) == (2, 2)
            (size,) = b.costs()["packed"]
            assert size["calls"] == 5 and size["work"] == 18 and 0 < size["seconds"] < 1

    asyncio.run(main())


class Instant:
    """A model whose calls take no time at all, or as many seconds as their feeds say."""

    def batch_group(self, feed):
        return "all", 1, 1

    def run_each(self, feeds):
        if any(feeds):
            time.sleep(sum(feeds))
        return [{"rows": len(feeds)} for _ in feeds]


def test_what_costs_less_than_waiting_runs_at_once():
    async def main():
        async with fi.Batcher(Instant()) as b:
            for _ in range(40):
                await b.run(0)
            turns = []
            asyncio.get_running_loop().call_soon(turns.append, 1)
            assert await b.run(0) == {"rows": 1} and not turns  # no turn of the loop has passed
            assert await asyncio.gather(*(b.run(0) for _ in range(4))) == [{"rows": 1}] * 4
            for _ in range(30):  # taken for quick ones at first: they block until they count as what they are
                await b.run(0.001)
            turns.clear()
            asyncio.get_running_loop().call_soon(turns.append, 1)
            assert await b.run(0) == {"rows": 1} and turns

    asyncio.run(main())


def test_with_max_delay_even_quick_requests_wait_for_company():
    async def main():
        async with fi.Batcher(Instant(), max_delay=0.02, max_batch=2) as b:
            for _ in range(4):
                assert await b.run(0) == {"rows": 1}
            assert await asyncio.gather(b.run(0), b.run(0)) == [{"rows": 2}] * 2

    asyncio.run(main())


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_batch": 0},
        {"max_delay": -1},
        {"max_delay": float("nan")},
        {"max_queue": 0},
        {"calls": 0},
        {"max_wait": -1},
    ],
)
def test_wrong_settings(model, wrong):
    with pytest.raises(fi.InputError, match="needed: at least"):
        fi.Batcher(model, **wrong)
