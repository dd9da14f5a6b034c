# SPDX-License-Identifier: Apache-2.0
"""`device = "cuda"` in model.toml: served, described, batched; without a GPU that version alone is refused."""

import asyncio
import json

import numpy as np
import pytest
from nets import NETS
from small_models import mlp, ones, put, request, scale, value

import fastinfer as fi
from fastinfer.serve.admin import overview
from fastinfer.serve.errors import ServeError
from fastinfer.serve.memory import InMemory
from fastinfer.serve.registry import Registry
from fastinfer.serve.repository.settings import parse

CUDA = 'device = "cuda"\n'
EMPTY = {"waiting": [], "versions": []}


def serving(root, work, **options):
    async def main():
        registry = Registry(root, **options)
        failed = await registry.open()
        try:
            return await work(registry, failed)
        finally:
            await registry.close()

    return asyncio.run(asyncio.wait_for(main(), 120))


def shown(registry, statistics):
    models = overview(registry, EMPTY, statistics, 0.0)["models"]
    return {(m["name"], v["version"]): v for m in models for v in m["versions"]}


@pytest.mark.parametrize("text", ['"tpu"', '"cuda:"', '"cuda:-1"', '"CUDA"', "1", '""'])
def test_devices_that_cannot_be(text):
    with pytest.raises(ServeError, match='device.*needed: "cpu", "cuda" or "cuda:<number>"'):
        parse(f"device = {text}".encode())


def test_a_model_on_the_device_is_served_and_described(tmp_path):
    put(tmp_path, "gpu", 1, mlp(8), CUDA + 'precision = "bf16"')
    put(tmp_path, "cpu", 1, scale(2))

    async def work(r, failed):
        assert failed == {} and r.ready()
        x = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
        want = fi.compile(mlp(8)).run({"x": x})["y"]
        got = (await r.infer(request("gpu", x=x))).outputs[0].array
        assert 0 < np.abs(got - want).max() <= 3e-2 * np.abs(want).max()
        config = r.model_config("gpu")
        assert config["instance_group"] == [{"name": "gpu_0", "kind": "KIND_GPU", "count": 1, "gpus": [0]}]
        texts = {k: v["string_value"] for k, v in config["parameters"].items()}
        assert (texts["device"], texts["precision"]) == ("cuda:0", "bf16") and config["max_batch_size"] == 32
        assert r.model_config("cpu")["instance_group"][0] == {
            "name": "cpu_0",
            "kind": "KIND_CPU",
            "count": 1,
            "gpus": [],
        }
        statistics = await r.statistics()
        memory = {s["name"]: s["memory_usage"][0] for s in statistics}
        assert memory["gpu"]["type"] == "GPU" and memory["gpu"]["byte_size"] >= 3 * 8 * 8 * 2
        assert memory["cpu"]["type"] == "CPU"
        rows = shown(r, statistics)
        assert rows["gpu", "1"]["device"] == "cuda:0" and rows["cpu", "1"]["device"] == "cpu"
        await r.load("gpu", {"config": json.dumps(config)})  # what it says of itself is what it may be told
        assert r.model_config("gpu") == config

    serving(tmp_path, work)


def test_without_a_gpu_that_version_is_refused_and_the_others_serve(tmp_path, no_gpu):
    put(tmp_path, "fast", 1, scale(2), CUDA)
    put(tmp_path, "plain", 1, scale(3))

    async def work(r, failed):
        assert list(failed) == ["fast"] and no_gpu in str(failed["fast"])
        assert await value(r, "plain") == 3 and not r.ready()
        reasons = {e["name"]: e["reason"] for e in await r.repository_index()}
        assert no_gpu in reasons["fast"] and not reasons["plain"]
        assert r.model_ready("plain") and not r.model_ready("fast")
        with pytest.raises(ServeError, match="the repository index says why"):
            await value(r, "fast")
        await r.load("fast", {"config": '{"device": "cpu"}'})
        assert await value(r, "fast") == 2 and r.ready()

    serving(tmp_path, work)


def test_a_refused_change_of_device_leaves_what_served(tmp_path, no_gpu):
    put(tmp_path, "m", 1, scale(2))

    async def work(r, failed):
        with pytest.raises(ServeError, match=r"version 1 of model 'm' cannot be loaded.*still serves"):
            await r.load("m", {"config": json.dumps({"device": "cuda"})})
        assert await value(r, "m") == 2 and r.ready()

    serving(tmp_path, work)


def test_programs_are_kept_per_kind_of_device(tmp_path):
    for name, settings in (("a", ""), ("b", CUDA), ("c", CUDA + 'precision = "bf16"')):
        put(tmp_path / "models", name, 1, mlp(8), settings)
    kept = []

    async def work(r, failed):
        assert failed == {}
        kept.append(sorted(f.name for f in (tmp_path / "cache").glob("*.safetensors")))
        return [float((await r.infer(request(m, x=ones(2, 8)))).outputs[0].array.sum()) for m in "abc"]

    first, second = (serving(tmp_path / "models", work, cache=tmp_path / "cache") for _ in range(2))
    assert first == second and len(kept[0]) == 3 and kept[0] == kept[1]
    assert first[1] == pytest.approx(first[0], rel=1e-5) and first[2] == pytest.approx(first[0], rel=3e-2)


def test_a_gpu_that_is_gone_takes_no_program_from_the_cache(tmp_path, monkeypatch):
    from fastinfer.serve.repository.programs import ProgramCache

    def gone(path):
        raise fi.UnsupportedError("no device")

    cache = ProgramCache(tmp_path / "c")
    cache.store("k", fi.compile(scale(2)).save)
    assert cache.load("k", gone) is None and cache.load("k", fi.load) is not None


def test_large_models_are_compiled_elsewhere(tmp_path, monkeypatch):
    from fastinfer.serve.repository import compiling

    monkeypatch.setattr(compiling, "LARGE", 1)
    put(tmp_path / "models", "m", 1, scale(2), CUDA)

    async def work(r, failed):
        return failed, await value(r, "m"), r.endpoint("m").device

    assert serving(tmp_path / "models", work, cache=tmp_path / "cache") == ({}, 2, "cuda:0")


def test_requests_share_calls_in_buckets(tmp_path):
    """Callers that come together run as one batch, in the graph of its bucket; each gets its own rows."""
    put(tmp_path, "m", 1, mlp(8), CUDA + "[warmup]\nrows = [8]\n[batching]\nmax_delay = 0.2")
    inputs = [np.random.default_rng(i).standard_normal((1, 8)).astype(np.float32) for i in range(6)]

    async def work(r, failed):
        answers = await asyncio.gather(*(r.infer(request("m", x=x)) for x in inputs))
        for x, answer in zip(inputs, answers, strict=True):
            want = fi.compile(mlp(8)).run({"x": x})["y"]
            np.testing.assert_allclose(answer.outputs[0].array, want, rtol=1e-4, atol=1e-5)
        (s,) = await r.statistics("m")
        assert s["execution_count"] < s["inference_count"] == 6

    serving(tmp_path, work)


def test_ragged_requests_are_packed():
    proto, _ = NETS["encoder"]()
    cpu, model = fi.compile(proto), fi.compile(proto, device="cuda")
    rng = np.random.default_rng(0)
    feeds = [{s.name: example(s, n, rng) for s in model.inputs} for n in (3, 7, 5, 4)]

    async def work():
        service = InMemory({"m": model}, {"m": {"batching": {"max_delay": 0.2}}})
        await service.open()
        answers = await asyncio.gather(*(service.infer(request("m", **feed)) for feed in feeds))
        counts = (await service.statistics("m"))[0]
        config = service.model_config("m")
        await service.close()
        return answers, counts, config

    answers, counts, config = asyncio.run(work())
    assert counts["execution_count"] < counts["inference_count"] == 4
    assert config["instance_group"][0]["kind"] == "KIND_GPU"
    for feed, answer in zip(feeds, answers, strict=True):
        want = next(iter(cpu.run(feed).values()))
        assert np.abs(answer.outputs[0].array - want).max() <= 1e-4 * np.abs(want).max()


def example(spec, length, rng):
    shape = [1, length, *spec.shape[2:]]
    if "mask" in spec.name:
        return np.ones(shape, spec.dtype)
    whole = rng.integers(0, 20, shape) if "int" in spec.dtype else rng.standard_normal(shape)
    return whole.astype(spec.dtype)
