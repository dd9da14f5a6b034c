# SPDX-License-Identifier: Apache-2.0
"""Plans, buckets, tuning and the ends of a run, on CPU tensors with interpreted kernels."""

import threading
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from onnx import TensorProto as T
from onnx import helper as h

import fastinfer as fi
from fastinfer.cuda import buckets, tuning
from fastinfer.cuda.device import open_device
from fastinfer.cuda.dtypes import tensor_of
from fastinfer.cuda.plan import Plan
from fastinfer.cuda.replica import Replica
from fastinfer.errors import FastinferError, InputError, UnsupportedError


def model_of(nodes, inputs, outputs, constants=()):
    value = lambda name, code, shape: h.make_tensor_value_info(name, code, shape)  # noqa: E731
    tensors = [h.make_tensor(n, T.INT64 if a.dtype == np.int64 else T.FLOAT, a.shape, a.ravel()) for n, a in constants]
    graph = h.make_graph(nodes, "g", [value(*i) for i in inputs], [value(*o) for o in outputs], tensors)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10)


def network(width=8):
    """Several values at once, reshapes between, an output in the middle, one that is only renamed."""
    rng = np.random.default_rng(0)
    w = [(f"w{i}", rng.standard_normal((width, width)).astype(np.float32)) for i in range(3)]
    nodes = [
        h.make_node("MatMul", ["x", "w0"], ["a"]), h.make_node("Relu", ["a"], ["b"]), h.make_node("MatMul", ["b", "w1"], ["c"]),
        h.make_node("Reshape", ["c", "s"], ["d"]), h.make_node("Transpose", ["d"], ["e"], perm=[0, 2, 1]),
        h.make_node("Reshape", ["e", "t"], ["f"]), h.make_node("MatMul", ["f", "w2"], ["g"]), h.make_node("Add", ["g", "a"], ["y"]),
        h.make_node("Reshape", ["b", "s"], ["z"]),
    ]  # fmt: skip
    return model_of(
        nodes, [("x", T.FLOAT, ["n", width])], [("y", T.FLOAT, ["n", width]), ("b", T.FLOAT, ["n", width]), ("z", T.FLOAT, ["n", 2, width // 2])],
        [*w, ("s", np.array([-1, 2, width // 2])), ("t", np.array([-1, width]))],
    )  # fmt: skip


def close(got, expected, tolerance=1e-5):
    assert got.keys() == expected.keys()
    for name, y in expected.items():
        assert got[name].shape == y.shape and got[name].dtype == y.dtype
        np.testing.assert_allclose(got[name], y, rtol=tolerance, atol=tolerance * max(1e-9, float(np.abs(y).max())))


def rows(n, width=8, seed=1):
    return {"x": np.random.default_rng(seed + n).standard_normal((n, width)).astype(np.float32)}


@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-5), ("bf16", 3e-2), ("f16", 4e-3)])
def test_results_are_the_cpu_engines(precision, tolerance):
    source = network().SerializeToString()
    cpu, gpu = fi.compile(source), fi.compile(source, device="cuda", precision=precision)
    for n in (1, 5, 2, 7, 5):
        close(gpu.run(rows(n)), cpu.run(rows(n)), tolerance)


def test_what_comes_out_is_the_callers():
    """Results stay what they are when the next call overwrites the plan's buffers."""
    model = fi.compile(network().SerializeToString(), device="cuda")
    first = model.run(rows(4))
    kept = {k: v.copy() for k, v in first.items()}
    model.run(rows(4, seed=9))
    close(first, kept, 0)


def test_arena_memory_is_used_again():
    nodes = [h.make_node("Relu", ["x"], ["h0"])]
    nodes += [h.make_node("Transpose", [f"h{i}"], [f"h{i + 1}"], perm=[1, 0]) for i in range(9)]
    nodes += [h.make_node("Transpose", ["h9"], ["y"], perm=[0, 1])]
    nodes = [n for i, n in enumerate(nodes)]
    chain = [h.make_node("Softmax", ["x" if i == 0 else f"s{i}"], [f"s{i + 1}"], axis=i % 2) for i in range(8)]
    chain[-1].output[0] = "y"
    model = fi.compile(
        model_of(chain, [("x", T.FLOAT, [64, 64])], [("y", T.FLOAT, [64, 64])]).SerializeToString(), device="cuda"
    )
    plan = model.explain({"x": np.zeros((64, 64), np.float32)})
    assert plan.arena_bytes <= 2 * 64 * 64 * 4 + 256  # two values live at a time


def test_inputs_and_constants_as_outputs():
    nodes = [h.make_node("Identity", ["x"], ["y"]), h.make_node("Reshape", ["x", "s"], ["z"])]
    model = model_of(
        nodes, [("x", T.FLOAT, ["n", 4])], [("y", T.FLOAT, ["n", 4]), ("z", T.FLOAT, [4, "n"]), ("x", T.FLOAT, ["n", 4]), ("c", T.FLOAT, [3])],
        [("s", np.array([4, -1])), ("c", np.array([1, 2, 3], np.float32))],
    )  # fmt: skip
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    out = fi.compile(model.SerializeToString(), device="cuda").run({"x": x})
    np.testing.assert_array_equal(out["y"], x)
    np.testing.assert_array_equal(out["x"], x)
    np.testing.assert_array_equal(out["z"], x.reshape(4, 2))
    np.testing.assert_array_equal(out["c"], [1, 2, 3])


def test_wrong_inputs_are_told_as_on_the_cpu():
    model = fi.compile(network().SerializeToString(), device="cuda")
    for feeds in ({"x": np.zeros((2, 9), np.float32)}, {"x": np.zeros((2, 8), np.int32)}, {"y": 1}, {}):
        with pytest.raises(InputError):
            model.run(feeds)


def test_devices_and_precisions_that_cannot_be():
    source = network().SerializeToString()
    for options in (
        {"device": "tpu"}, {"device": "cuda", "precision": "int3"}, {"device": "cuda", "threads": 2}, {"precision": "tf32"},
    ):  # fmt: skip
        with pytest.raises(UnsupportedError, match="device|precision|threads"):
            fi.compile(source, **options)


def test_many_callers_at_once():
    model = fi.compile(network().SerializeToString(), device="cuda")
    expected = {n: model.run(rows(n)) for n in (1, 2, 3)}
    wrong = []

    def call(n):
        for _ in range(5):
            try:
                close(model.run(rows(n)), expected[n], 0)
            except Exception as e:
                wrong.append(e)

    threads = [threading.Thread(target=call, args=(1 + i % 3,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_masks_are_written_with_stays_finite(dtype):
    given = np.array([np.finfo(np.float32).min, np.finfo(np.float32).max, -np.inf, np.inf, np.nan, 1.5], np.float32)
    made = tensor_of(given, dtype, torch.device("cpu")).float().numpy()
    most = torch.finfo(dtype).max
    np.testing.assert_array_equal(made, [-most, most, -np.inf, np.inf, np.nan, 1.5])


# ------------------------------------------------------------------------------------------------------------- buckets


def test_bucket_sizes():
    sizes = [buckets.bucket(n) for n in range(1, 2000)]
    assert all(n <= b <= max(n, 1.25 * n) for n, b in enumerate(sizes, 1)) and sizes[:8] == list(range(1, 9))
    assert all(buckets.bucket(b) == b for b in sizes) and len(set(sizes)) < 45


def test_sizes_in_one_bucket_share_a_plan():
    nodes = [h.make_node("MatMul", ["x", "w"], ["a"]), h.make_node("Relu", ["a"], ["y"])]
    w = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    source = model_of(nodes, [("x", T.FLOAT, ["n", 8])], [("y", T.FLOAT, ["n", 4])], [("w", w)]).SerializeToString()
    cpu, model = fi.compile(source), fi.compile(source, device="cuda")
    for n in (17, 20, 18, 19, 17):
        close(model.run(rows(n)), cpu.run(rows(n)))
        assert model.memory().plans == 1
    bad = rows(18)
    model.run({"x": np.full((20, 8), np.nan, np.float32)})
    close(model.run(bad), cpu.run(bad))  # what an earlier call left in the bucket's other rows is nobody's business


def test_reports_and_tuning_look_at_the_bucket_that_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTINFER_CACHE", str(tmp_path))
    nodes = [h.make_node("MatMul", ["x", "w"], ["a"]), h.make_node("Relu", ["a"], ["y"])]
    w = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    source = model_of(nodes, [("x", T.FLOAT, ["n", 8])], [("y", T.FLOAT, ["n", 4])], [("w", w)]).SerializeToString()
    model = fi.compile(source, device="cuda")
    want = model.run(rows(17))
    assert model.explain(rows(17)).steps[-1]["shape"] == [20, 4]
    assert sum(s["ns"] for s in model.profile(rows(18), runs=1).typical) > 0
    assert model.memory().plans == 1
    assert all('"m": 20' in key for key in model._executor.tune([rows(17)["x"]]))
    close(model.run(rows(17)), want)


def test_rows_that_see_each_other_have_no_bucket():
    nodes = [h.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=1), h.make_node("Sub", ["x", "m"], ["y"])]
    source = model_of(
        nodes, [("x", T.FLOAT, ["n", 8])], [("y", T.FLOAT, ["n", 8])], [("axes", np.array([0]))]
    ).SerializeToString()
    cpu, model = fi.compile(source), fi.compile(source, device="cuda")
    for n in (17, 18):
        close(model.run(rows(n)), cpu.run(rows(n)))
    assert model.memory().plans == 2


# -------------------------------------------------------------------------------------------------- memory, and its end


def test_out_of_memory_is_an_exception_after_the_caches_are_dropped(monkeypatch):
    model = fi.compile(network().SerializeToString(), device="cuda")
    model.run(rows(1))
    expected, original, failures = model.run(rows(2)), Replica.run_host, [1]

    def once(self, arrays, n=0):
        if failures:
            failures.pop()
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(self, arrays, n)

    monkeypatch.setattr(Replica, "run_host", once)
    close(model.run(rows(2)), expected, 0)
    assert model.memory().plans == 1  # the others were dropped for it
    failures[:] = [1, 1]
    with pytest.raises(FastinferError, match=r"not enough memory for inputs of float32\[2, 8\].*2.00 GiB"):
        model.run(rows(2))
    close(model.run(rows(2)), expected, 0)


def test_plans_are_bounded_and_trimmed():
    model = fi.compile(network().SerializeToString(), device="cuda")
    for n in range(1, 40):
        model.run(rows(n))
    assert model.memory().plans <= 32 and model.memory().arenas > 0
    model.trim()
    assert model.memory().plans == 0 and model.memory().arenas == 0


def test_saved_programs_keep_their_weights(tmp_path):
    source = network().SerializeToString()
    fi.compile(source, device="cuda").save(tmp_path / "m.safetensors")
    close(fi.load(tmp_path / "m.safetensors").run(rows(3)), fi.compile(source).run(rows(3)))


# -------------------------------------------------------------------------------------------------------------- tuning


@dataclass(frozen=True)
class Problem:
    n: int


@dataclass(frozen=True)
class Config:
    block: int


class Family:
    """The third candidate is refused by the device, the second is the fastest."""

    __name__ = "family"

    @staticmethod
    def configs(problem):
        return [Config(1), Config(2), Config(3)]

    @staticmethod
    def default(problem):
        return Config(1)


def run(tensor, problem, config):
    if config.block == 3:
        raise RuntimeError("out of resource: shared memory")


def test_a_race_is_won_kept_on_disk_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTINFER_CACHE", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, __name__, __import__("sys").modules[__name__])
    here = __import__("sys").modules[__name__]
    monkeypatch.setattr(here, "configs", Family.configs, raising=False)
    monkeypatch.setattr(here, "default", Family.default, raising=False)
    device = open_device("cuda")
    tuner, seconds = tuning.Tuner(device), {1: 3e-3, 2: 1e-3}
    launched = []
    monkeypatch.setattr(tuner, "_median", lambda launch: (launch(), seconds[launched[-1]])[1])

    def plan():
        from fastinfer.cuda.context import Step

        config = tuner.choose(here, Problem(7))
        step = Step(0, "k", lambda: None, (), {"problem": Problem(7), "config": config})
        step.run = run_of(launched)
        return Plan([step], [], [], 0)

    winners = tuner.tune(plan)
    assert list(winners.values()) == ['{"block": 2}'] and tuner.choose(here, Problem(7)) == Config(2)
    assert tuning.Tuner(device).choose(here, Problem(7)) == Config(2)  # another process would read the file
    assert tuning.Tuner(device).choose(here, Problem(8)) == Config(1)
    (file,) = tmp_path.glob("tuning-*.json")
    file.write_text("nonsense")
    with pytest.warns(RuntimeWarning, match="not a tuning file"):
        assert tuning.Tuner(device).choose(here, Problem(7)) == Config(1)


def run_of(launched):
    def launch(problem, config):
        launched.append(config.block)
        run(None, problem, config)

    launch.__module__ = __name__
    return launch
