# SPDX-License-Identifier: Apache-2.0
"""Loading, replacing, routing and unloading models of a directory."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import shutil
import threading
import weakref

import numpy as np
import pytest
from small_models import accumulate, heavy, mlp, ones, pick, put, request, rows, scale, value

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.registry import Registry


def serving(root, work, **options):
    """Runs `work(registry)` on an open registry; everything is closed at the end."""

    async def main():
        registry = Registry(root, **options)
        registry.failed = await registry.open()
        try:
            return await work(registry)
        finally:
            await registry.close()

    return asyncio.run(asyncio.wait_for(main(), 120))


def refused(kind, part=""):
    class Check:
        def __enter__(self):
            self.raised = pytest.raises(ServeError)
            self.info = self.raised.__enter__()
            return self.info

        def __exit__(self, *args):
            done = self.raised.__exit__(*args)
            assert self.info.value.kind is kind, self.info.value
            assert part in str(self.info.value)
            return done

    return Check()


async def states(registry):
    return {(e["name"], e["version"]): e["state"] for e in await registry.repository_index()}


def test_serves_what_is_there(tmp_path):
    put(tmp_path, "double", 1, scale(2))
    put(tmp_path, "double", 2, scale(3))
    (tmp_path / "bare.onnx").write_bytes(scale(5).SerializeToString())
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "model.onnx").write_bytes(scale(7).SerializeToString())

    async def work(r):
        assert r.failed == {} and r.ready() and r.live()
        assert [await value(r, m) for m in ("double", "bare", "flat")] == [3, 5, 7]
        assert await states(r) == {
            ("double", "1"): "UNAVAILABLE", ("double", "2"): "READY", ("bare", "1"): "READY", ("flat", "1"): "READY",
        }  # fmt: skip
        assert len(await r.repository_index(ready=True)) == 3
        with refused(Kind.UNAVAILABLE, "version 1 of model 'double' is not loaded"):
            await value(r, "double", version="1")
        with refused(Kind.NOT_FOUND, "no version '9'"):
            await value(r, "double", version="9")
        with refused(Kind.NOT_FOUND, r"'a\nb'"):
            await value(r, "a\nb")
        assert r.model_ready("double") and r.model_ready("double", "2")
        assert not r.model_ready("double", "1") and not r.model_ready("none")

    serving(tmp_path, work)


def test_metadata_config_and_statistics(tmp_path):
    put(tmp_path, "double", 1, scale(2), 'description = "twice"\nlabels = {team = "a"}\n[batching]\nmax_batch = 8\n')

    async def work(r):
        assert r.model_metadata("double") == {
            "name": "double", "versions": ["1"], "platform": "fastinfer",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
        }  # fmt: skip
        config = r.model_config("double")
        assert config["max_batch_size"] == 8 and config["input"][0]["dims"] == [4]
        assert config["input"][0]["data_type"] == "TYPE_FP32"
        assert config["parameters"]["label.team"] == {"string_value": "a"}
        json.dumps(config)
        for n in (1, 3):
            await r.infer(request("double", x=ones(n)))
        with refused(Kind.INVALID_ARGUMENT):
            await r.infer(request("double", x=ones(1, 5)))
        (s,) = await r.statistics("double")
        assert (s["inference_count"], s["execution_count"]) == (4, 2)
        stats = s["inference_stats"]
        assert stats["success"]["count"] == 2 and stats["fail"]["count"] == 1
        assert stats["success"]["ns"] >= stats["compute_infer"]["ns"] > 0
        assert [b["batch_size"] for b in s["batch_stats"]] == [1, 3]
        assert s["last_inference"] > 1_600_000_000_000
        assert await r.statistics() == await r.statistics("double", "1")
        with refused(Kind.NOT_FOUND):
            await r.statistics("none")
        assert r.server_metadata()["name"] == "fastinfer"

    serving(tmp_path, work)


def test_a_failed_load_keeps_the_old_version(tmp_path):
    put(tmp_path, "m", 1, scale(2))

    async def work(r):
        folder = put(tmp_path, "m", 2, scale(3))
        (folder / "model.onnx").write_bytes(b"no model")
        with refused(Kind.INVALID_ARGUMENT, "version 1 still serves") as info:
            await r.load("m", {})
        assert str(tmp_path) not in str(info.value)
        assert await value(r, "m") == 2
        index = {e["version"]: e for e in await r.repository_index()}
        assert index["1"]["state"] == "READY" and index["2"]["state"] == "UNAVAILABLE"
        assert "not an ONNX model" in index["2"]["reason"]
        (folder / "model.onnx").write_bytes(scale(3).SerializeToString())
        await r.load("m", {})
        assert await value(r, "m") == 3
        await r.settled()
        assert (await states(r))["m", "1"] == "UNAVAILABLE"

    serving(tmp_path, work)


def test_a_version_that_was_damaged_in_place_serves_on_from_memory(tmp_path):
    folder = put(tmp_path, "m", 1, scale(2))

    async def work(r):
        (folder / "model.onnx").write_bytes(b"")
        with refused(Kind.INVALID_ARGUMENT):
            await r.load("m", {})
        assert await value(r, "m") == 2
        (entry,) = await r.repository_index()
        assert entry["state"] == "READY" and entry["reason"].startswith("loading it again failed")

    serving(tmp_path, work)


def test_settings_that_do_not_fit_are_reasons(tmp_path):
    put(tmp_path, "m", 1, scale(2), '[[inputs]]\nname = "x"\ndatatype = "INT64"\n')
    put(tmp_path, "n", 1, scale(2), "max_bach = 3\n")
    put(tmp_path, "o", 1, scale(2), "[batching]\nmax_bach = 3\n")

    async def work(r):
        assert set(r.failed) == {"m", "n", "o"}
        assert "INT64" in str(r.failed["m"]) and "FP32" in str(r.failed["m"])
        assert "did you mean 'max_batch'?" in str(r.failed["o"])
        assert r.ready() is False or not r.model_ready("m")

    serving(tmp_path, work)


def test_unload_and_load_again(tmp_path):
    put(tmp_path, "m", 1, scale(2))

    async def work(r):
        await r.unload("m", {})
        with refused(Kind.UNAVAILABLE, "model 'm' is not loaded"):
            await value(r, "m")
        await r.settled()
        assert await states(r) == {("m", "1"): "UNAVAILABLE"}
        await r.refresh()  # what was unloaded by request stays so
        assert not r.model_ready("m") and r.ready()
        await r.load("m", {})
        assert await value(r, "m") == 2
        with refused(Kind.NOT_FOUND):
            await r.unload("nobody", {})
        with refused(Kind.NOT_FOUND):
            await r.load("nobody", {})
        with refused(Kind.INVALID_ARGUMENT):
            await r.load("../m", {})
        assert set(r.slots()) == {"m"}

    serving(tmp_path, work)


def test_refresh_takes_up_what_changed(tmp_path):
    put(tmp_path, "m", 1, scale(2))
    put(tmp_path, "gone", 1, scale(2))

    async def work(r):
        put(tmp_path, "new", 1, scale(5))
        put(tmp_path, "m", 2, scale(3))
        shutil.rmtree(tmp_path / "gone")
        before = r.endpoint("m")
        assert await r.refresh() == {}
        assert [await value(r, "new"), await value(r, "m")] == [5, 3] and r.endpoint("m") is not before
        await r.settled()
        with refused(Kind.NOT_FOUND):
            await value(r, "gone")
        same = r.endpoint("m")
        await r.refresh()
        assert r.endpoint("m") is same  # nothing changed, nothing was loaded

    serving(tmp_path, work)


def test_what_could_not_be_loaded_is_forgotten_once_it_is_gone(tmp_path):
    put(tmp_path, "m", 1, scale(2))
    put(tmp_path, "file", 1, scale(2))
    (tmp_path / "file" / "1" / "model.onnx").write_bytes(b"nonsense")
    put(tmp_path, "settings", 1, scale(2), "[batching")

    async def work(r):
        for name in ("settings", "file"):
            assert not r.ready()
            with refused(Kind.UNAVAILABLE, f"model '{name}' is not loaded: the repository index says why"):
                await value(r, name)
            shutil.rmtree(tmp_path / name)
            await r.refresh()
        assert r.ready() and set(r.slots()) == {"m"} and set(await states(r)) == {("m", "1")}

        put(tmp_path, "settings", 1, scale(2), "[batching")
        await r.refresh()
        assert not r.ready() and (await states(r))["settings", ""] == "UNAVAILABLE"
        put(tmp_path, "settings", 1, scale(3), "[batching]")
        await r.refresh()
        assert r.ready() and await value(r, "settings") == 3 and ("settings", "") not in await states(r)

        await r.unload("settings", {})
        shutil.rmtree(tmp_path / "settings")
        await r.settled()
        await r.refresh()
        assert set(r.slots()) == {"m"}

    serving(tmp_path, work)


def test_ready_while_another_version_or_a_new_model_is_loaded(tmp_path):
    """Or each push would take the server out of its load balancer."""
    put(tmp_path, "m", 1, scale(2))

    async def work(r):
        put(tmp_path, "m", 2, heavy(layers=20))
        put(tmp_path, "new", 1, heavy(layers=20))
        loads = [asyncio.ensure_future(r.load(name, {})) for name in ("m", "new")]
        loading, seen = {("m", "2"), ("new", "1")}, set()
        while not all(done.done() for done in loads):
            seen |= {(n, v) for n, s in r.slots().items() for v, state in s.states.items() if state.state == "LOADING"}
            assert r.ready()
            await asyncio.sleep(0.001)
        assert seen == loading and r.ready()
        await asyncio.gather(*loads)

    serving(tmp_path, work)


def test_policies(tmp_path):
    for v in (1, 2, 10):
        put(tmp_path, "m", v, scale(v), "versions = {latest = 2}\n")

    async def work(r):
        assert list(r.slots()["m"].endpoints) == ["2", "10"]
        (tmp_path / "m" / "model.toml").write_text('versions = "all"\n')
        await r.load("m", {})
        assert r.model_metadata("m")["versions"] == ["1", "2", "10"]
        (tmp_path / "m" / "model.toml").write_text("versions = [1, 3]\n")
        with refused(Kind.NOT_FOUND, "version 3"):
            await r.load("m", {})
        assert r.model_metadata("m")["versions"] == ["1", "2", "10"]
        (tmp_path / "m" / "model.toml").write_text("versions = [1]\n")
        await r.load("m", {})
        assert r.model_metadata("m")["versions"] == ["1"] and await value(r, "m") == 1

    serving(tmp_path, work)


def test_parameters_of_a_load_replace_settings_and_files(tmp_path):
    put(tmp_path, "m", 1, scale(2))
    triton = {
        "name": "m", "max_batch_size": 4, "dynamic_batching": {"max_queue_delay_microseconds": 1000},
        "parameters": {"owner": {"string_value": "me"}},
    }  # fmt: skip
    inline = {"config": "{}", "file:1/model.onnx": base64.b64encode(scale(9).SerializeToString()).decode()}

    async def work(r):
        await r.load("m", {"config": json.dumps(triton)})
        config = r.model_config("m")
        assert config["max_batch_size"] == 4 and config["parameters"]["owner"] == {"string_value": "me"}
        assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 1000
        await r.load("m", inline)
        assert await value(r, "m") == 9
        await r.refresh()
        assert await value(r, "m") == 9
        await r.load("m", {})
        assert await value(r, "m") == 2 and r.model_config("m")["max_batch_size"] == 32
        for wrong in ({"config": "{"}, {"config": "[]"}, {"confg": "{}"}, {"config": '{"max_batch_sise": 3}'},
                      {"config": "{}", "file:../x": ""}, {"config": "{}", "file:1/model.onnx": "%"},
                      {"file:1/model.onnx": ""}, {"config": '{"max_batch_size": -1}'}):  # fmt: skip
            with refused(Kind.INVALID_ARGUMENT):
                await r.load("m", wrong)
        assert await value(r, "m") == 2

    serving(tmp_path, work, allow_files=True)
    serving(tmp_path, lambda r: _forbidden(r, inline))


async def _forbidden(r, inline):
    with refused(Kind.FORBIDDEN):
        await r.load("m", inline)


def test_a_deleted_version_finishes_what_it_holds(tmp_path):
    put(tmp_path, "m", 1, mlp(512))

    async def work(r):
        old = r.endpoint("m")
        x = np.ones((64, 512), np.float32)
        under_way = [asyncio.ensure_future(r.infer(request("m", x=x))) for _ in range(20)]
        await asyncio.sleep(0)
        shutil.rmtree(tmp_path / "m" / "1")
        put(tmp_path, "m", 2, mlp(512, seed=1))
        await r.load("m", {})
        assert (await r.infer(request("m", x=x))).version == "2"
        answers = await asyncio.gather(*under_way)
        assert {a.version for a in answers} == {"1"}
        await r.settled()
        assert old.in_flight == 0 and ("m", "1") not in await states(r)

    serving(tmp_path, work)


def test_memory_is_given_back_without_the_collector(tmp_path):
    put(tmp_path, "m", 1, mlp())

    async def work(r):
        held = []
        original = r._loader._in_thread

        async def keep(work, *args):
            result = await original(work, *args)
            if hasattr(result, "model"):
                held.append(weakref.ref(result.model))
            return result

        r._loader._in_thread = keep
        gc.collect()
        gc.disable()
        try:
            for _ in range(2):
                await r.reload("m")
                await r.infer(request("m", x=ones(2, 256)))
            await r.unload("m", {})
            await r.settled()
            for _ in range(100):  # the loader's thread may still be about to let go of its last result
                await asyncio.sleep(0.01)
                if not any(h() for h in held):
                    break
            assert [h() for h in held] == [None, None]
        finally:
            gc.enable()

    serving(tmp_path, work)


def reload_under_load(root, reloads, put_version):
    """(answers, rss after a quarter, rss at the end, threads before and after): 8 clients while `reloads` loads run."""

    async def work(r):
        stop, answers = False, []
        x = np.ones((2, 256), np.float32)

        async def client():
            while not stop:
                answers.append((await r.infer(request("m", x=x))).version)

        for _ in range(3):
            await r.reload("m")
        await r.settled()
        threads = threading.active_count()
        clients = [asyncio.ensure_future(client()) for _ in range(8)]
        quarter = 0
        for i in range(reloads):
            put_version(i)
            await r.reload("m")
            if i == reloads // 4:
                quarter = rss()
        stop = True
        await asyncio.gather(*clients)  # raises if any request failed
        await r.settled()
        fail = (await r.statistics("m"))[0]["inference_stats"]["fail"]["count"]
        return len(answers), quarter, rss(), threads, threading.active_count(), fail

    return serving(root, work, cache=root.parent / "cache")


def rss():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def check_reloads(tmp_path, reloads):
    root = tmp_path / "models"
    put(root, "m", 1, mlp())
    data = [mlp(seed=s).SerializeToString() for s in (0, 1)]

    def replace(i):
        new = root / "m" / "1" / ".new"
        new.write_bytes(data[i % 2])
        os.replace(new, root / "m" / "1" / "model.onnx")

    answers, quarter, end, before, after, fail = reload_under_load(root, reloads, replace)
    assert answers > reloads and fail == 0
    assert after <= before + 6  # asyncio and the loader start their threads one by one; reloads add none
    assert end < quarter * 1.02 + (2 << 20), (quarter, end)


def test_100_hot_reloads_under_load_lose_nothing(tmp_path):
    check_reloads(tmp_path, 100)


@pytest.mark.slow
def test_1000_hot_reloads_under_load_lose_nothing(tmp_path):
    check_reloads(tmp_path, 1000)


def test_concurrent_loads_of_one_model_serialise(tmp_path):
    put(tmp_path, "m", 1, scale(2))

    async def work(r):
        await asyncio.gather(*(r.reload("m") for _ in range(5)), *(r.unload("m", {}) for _ in range(2)), r.reload("m"))
        assert await value(r, "m") == 2
        await r.settled()
        assert not r.slots()["m"].draining and r.slots()["m"].users == 0

    serving(tmp_path, work)


def test_a_load_goes_on_when_its_caller_leaves(tmp_path):
    put(tmp_path, "m", 1, scale(2))

    async def work(r):
        put(tmp_path, "m", 2, scale(3))
        task = asyncio.ensure_future(r.load("m", {}))
        await asyncio.sleep(0.001)
        task.cancel()
        await r.settled()
        assert await value(r, "m") == 3

    serving(tmp_path, work)


def test_closing_answers_what_has_come(tmp_path):
    put(tmp_path, "m", 1, mlp(512))

    async def main():
        r = Registry(tmp_path)
        await r.open()
        x = np.ones((32, 512), np.float32)
        under_way = [asyncio.ensure_future(r.infer(request("m", x=x))) for _ in range(10)]
        await asyncio.sleep(0)
        r.drain()
        assert not r.ready() and not r.model_ready("m")
        await r.close()
        assert len(await asyncio.gather(*under_way)) == 10
        with refused(Kind.UNAVAILABLE):
            await r.infer(request("m", x=x))
        with refused(Kind.UNAVAILABLE):
            await r.load("m", {})

    asyncio.run(asyncio.wait_for(main(), 60))


def test_sequences_move_to_no_other_version_in_their_middle(tmp_path):
    settings = '[sequence]\nstate = {held = "next"}\n[limits]\ndrain = 5.0\n'
    put(tmp_path, "sum", 1, accumulate(), settings)

    def step(n, start=False, end=False):
        r = request("sum", x=rows([n]))
        r.sequence, r.sequence_start, r.sequence_end = 7, start, end
        return r

    async def work(r):
        assert (await r.infer(step(1, start=True))).outputs[0].array.item() == 1
        put(tmp_path, "sum", 2, accumulate())
        await r.load("sum", {})
        answer = await r.infer(step(2))
        assert (answer.version, answer.outputs[0].array.item()) == ("1", 3)
        answer = await r.infer(step(4, end=True))
        assert (answer.version, answer.outputs[0].array.item()) == ("1", 7)
        await r.settled()
        with refused(Kind.INVALID_ARGUMENT, "sequence_start"):
            await r.infer(step(1))
        assert (await r.infer(step(1, start=True, end=True))).version == "2"

    serving(tmp_path, work)


def test_poisonous_request_is_its_own(tmp_path):
    put(tmp_path, "pick", 1, pick())

    async def work(r):
        asked = [request("pick", index=np.array([i], np.int64)) for i in (0, 99, 2)]
        good, bad, other = await asyncio.gather(*(r.infer(q) for q in asked), return_exceptions=True)
        assert isinstance(bad, ServeError) and bad.kind is Kind.INVALID_ARGUMENT
        assert good.outputs[0].array.tolist() == [[0, 1]] and other.outputs[0].array.tolist() == [[4, 5]]

    serving(tmp_path, work)
