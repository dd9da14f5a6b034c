# SPDX-License-Identifier: Apache-2.0
"""Who takes a request: splits, aliases, shadows, canaries that are rolled back."""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from small_models import accumulate, ones, pick, put, request, rows, scale, value
from test_registry import refused, serving

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.repository.log import Live, Log
from fastinfer.serve.repository.settings import CanarySettings
from fastinfer.serve.traffic import CanaryWatch, Splitter


@given(st.lists(st.integers(0, 50), min_size=1, max_size=2), st.integers(1, 300))
def test_shares_hold_at_any_time(percents, n):
    split = Splitter({str(i): p for i, p in enumerate(percents)})
    got = Counter(split.choose("") for _ in range(n))
    for i, p in enumerate(percents):
        assert abs(got[str(i)] - n * p / 100) <= 1 + 1e-6
    assert got[None] == n - sum(got[str(i)] for i in range(len(percents)))


@given(st.lists(st.text(min_size=1), min_size=1, max_size=20), st.floats(0, 100))
def test_one_key_always_goes_one_way(keys, percent):
    split = Splitter({"2": percent})
    first = [split.choose(k) for k in keys]
    split.choose("")
    assert first == [split.choose(k) for k in keys]
    assert percent != 100 or set(first) == {"2"}
    assert percent != 0 or set(first) == {None}


def test_keys_are_spread():
    split = Splitter({"2": 10, "3": 20})
    got = Counter(split.choose(f"request-{i}") for i in range(20_000))
    assert abs(got["2"] - 2000) < 250 and abs(got["3"] - 4000) < 300


def test_a_watch_compares_with_the_stable_version():
    quiet = CanarySettings(error_rate=0.1, latency=2.0, requests=50)
    watch = CanaryWatch(quiet)
    reasons = []
    for i in range(400):  # both fail one time in five: the input's fault
        watch.record(False, None if i % 5 == 0 else 0.001)
        reasons.append(watch.record(True, None if i % 5 == 2 else 0.0015))
    assert not any(reasons)
    watch = CanaryWatch(quiet)
    for _ in range(100):
        watch.record(False, 0.001)
    reasons = [watch.record(True, None) for _ in range(10)]
    assert [bool(r) for r in reasons].index(True) == 5 and sum(map(bool, reasons)) == 1  # 6 of 50 are above 10 %
    watch = CanaryWatch(quiet)
    for _ in range(100):
        watch.record(False, 0.001)
    reasons = [watch.record(True, 0.01) for _ in range(60)]
    assert [bool(r) for r in reasons].index(True) == 49 and "p95 is 10 ms" in reasons[49]
    watch = CanaryWatch(quiet)
    for _ in range(100):
        watch.record(False, 0.0002)
    assert not any(watch.record(True, 0.0007) for _ in range(200))  # half a millisecond is nobody's fault
    assert any(watch.record(True, 0.0025) for _ in range(400))


def two_versions(tmp_path, settings=""):
    for v in (1, 2):
        put(tmp_path, "m", v, scale(v), settings)
    Log(tmp_path).change("m", "promote", lambda live: live.promote("1"))


def test_promote_canary_shadow_alias_and_rollback(tmp_path):
    two_versions(tmp_path)

    async def work(r):
        assert await value(r, "m") == 1 and sorted(r.slots()["m"].endpoints) == ["1", "2"]
        await r.change("m", "canary", lambda live: live.canary("2", 25), by="admin")
        got = Counter([await value(r, "m") for _ in range(100)])
        assert got == {1.0: 75, 2.0: 25}
        for alias, expected in (("stable", 1), ("canary", 2)):
            assert await value(r, "m", version=alias) == await value(r, f"m@{alias}") == expected
        assert len({await value(r, "m", id="the same") for _ in range(50)}) == 1
        with refused(Kind.NOT_FOUND, "no alias"):
            await value(r, "m@other")
        with refused(Kind.INVALID_ARGUMENT, "names a version"):
            await value(r, "m@stable", version="2")
        await r.rollback("m", by="admin")
        assert {await value(r, "m") for _ in range(10)} == {1.0}
        await r.change("m", "promote", lambda live: live.promote("2"))
        assert await value(r, "m") == 2
        assert (await r.rollback("m")).stable == "1" and await value(r, "m") == 1
        with refused(Kind.NOT_FOUND, "version 7"):
            await r.change("m", "canary", lambda live: live.canary("7", 5))
        with refused(Kind.INVALID_ARGUMENT):
            await r.change("m", "canary", lambda live: live.canary("2", 500))
        assert await value(r, "m") == 1
        assert [e.action for e in Log(tmp_path).entries("m")] == [
            "promote",
            "canary",
            "rollback",
            "promote",
            "rollback",
        ]
        assert Log(tmp_path).entries("m")[1].by.startswith("admin at ")

    serving(tmp_path, work)
    serving(tmp_path, _still_one)  # the next server sees what the log says


async def _still_one(r):
    assert await value(r, "m") == 1


def test_what_the_command_line_changes_is_taken_up(tmp_path):
    two_versions(tmp_path)

    async def work(r):
        Log(tmp_path).change("m", "promote", lambda live: live.promote("2"))
        assert await value(r, "m") == 1
        await r.refresh()
        assert await value(r, "m") == 2

    serving(tmp_path, work)


def test_shadows_get_copies_and_answer_nobody(tmp_path):
    two_versions(tmp_path)

    async def work(r):
        await r.change("m", "shadow", lambda live: live.copied_to("2", 50))
        x = ones()
        for _ in range(20):
            asked = request("m", x=x)
            pending = r.infer(asked)
            answer = await pending
            x[:] = 1  # the client's memory is the client's again
            assert answer.outputs[0].array[0, 0] == 1 and answer.version == "1"
        await r.settled()
        assert r.endpoint("m", "2").statistics.success.count == 10
        assert r.endpoint("m", "1").statistics.success.count == 20
        await r.change("m", "shadow", lambda live: live.copied_to("2", 0))
        await value(r, "m")
        await r.settled()
        assert r.endpoint("m", "2").statistics.success.count == 10

    serving(tmp_path, work)


def test_a_failing_canary_is_rolled_back_under_load(tmp_path):
    """Case 32: version 2 lacks most of the table; nobody pins it, few notice, the log says why."""
    put(tmp_path, "m", 1, pick(), "[canary]\nrequests = 40\nerror_rate = 0.1\n")
    broken = pick()
    broken.graph.initializer[0].dims[:] = [1, 2]
    broken.graph.initializer[0].raw_data = np.zeros((1, 2), np.float32).tobytes()
    put(tmp_path, "m", 2, broken)
    Log(tmp_path).change("m", "promote", lambda live: live.promote("1"))

    async def work(r):
        await r.change("m", "canary", lambda live: live.canary("2", 20))
        good, bad = 0, 0

        async def client():
            nonlocal good, bad
            for _ in range(100):
                try:
                    await r.infer(request("m", index=np.array([2], np.int64)))
                    good += 1
                except ServeError:
                    bad += 1

        await asyncio.gather(*(client() for _ in range(4)))
        await r.settled()
        assert good + bad == 400 and 5 <= bad <= 10, bad  # 5 of 40 are above 10 %; then the four under way
        assert r.slots()["m"].live == Live({"stable": "1"})
        last = Log(tmp_path).entries("m")[-1]
        assert last.action == "rollback" and last.version == "2" and "requests failed" in last.note
        index = {e["version"]: e["reason"] for e in await r.repository_index()}
        assert index["2"].startswith("rolled back: ") and index["1"] == ""

    serving(tmp_path, work)


def test_a_canary_with_other_inputs_is_rolled_back(tmp_path):
    put(tmp_path, "m", 1, scale(1))
    put(tmp_path, "m", 2, scale(2, width=5))
    Log(tmp_path).change("m", "promote", lambda live: live.promote("1"))

    async def work(r):
        await r.change("m", "canary", lambda live: live.canary("2", 50))
        outcomes = await asyncio.gather(*(value(r, "m") for _ in range(200)), return_exceptions=True)
        assert {await value(r, "m") for _ in range(20)} == {1.0}
        assert any(isinstance(o, ServeError) for o in outcomes)

    serving(tmp_path, work)


def test_a_repository_that_cannot_be_written_still_rolls_back(tmp_path):
    put(tmp_path, "m", 1, scale(1))
    put(tmp_path, "m", 2, scale(2, width=5))
    Log(tmp_path).change("m", "canary", lambda live: live.promote("1").canary("2", 50))

    async def work(r):
        log = tmp_path / ".fastinfer" / "log.jsonl"
        log.rename(log.with_suffix(".kept"))
        log.mkdir()  # root may write to files of mode 444, but nobody to a folder
        await asyncio.gather(*(value(r, "m") for _ in range(100)), return_exceptions=True)
        await r.settled()
        assert {await value(r, "m") for _ in range(20)} == {1.0}
        with refused(Kind.UNAVAILABLE, "log"):
            await r.change("m", "promote", lambda live: live.promote("2"))
        assert await value(r, "m") == 1  # what was not noted did not happen
        log.rmdir()
        log.with_suffix(".kept").rename(log)

    serving(tmp_path, work)


def test_a_sequence_stays_with_its_version(tmp_path):
    for v in (1, 2):
        put(tmp_path, "s", v, accumulate(), '[sequence]\nstate = {held = "next"}\n')
    Log(tmp_path).change("s", "promote", lambda live: live.promote("1").canary("2", 50))

    async def work(r):
        taken = Counter()
        for key in range(1, 21):
            versions = set()
            for i in range(3):
                asked = request("s", x=rows([1]))
                asked.sequence, asked.sequence_start, asked.sequence_end = key, i == 0, i == 2
                answer = await r.infer(asked)
                versions.add(answer.version)
                assert answer.outputs[0].array.item() == i + 1
            assert len(versions) == 1
            taken[versions.pop()] += 1
        assert len(taken) == 2

    serving(tmp_path, work)
