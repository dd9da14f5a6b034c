# SPDX-License-Identifier: Apache-2.0
"""tune=True: what is chosen is used, shown, saved, kept in a file; bits stay a sample's own."""

import json
import multiprocessing
import os
import warnings

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import fastinfer as fi
from fastinfer import _core, tuning
from fastinfer.tuning_cache import ENTRIES, FILES, TuningCache


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTINFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tuning, "_quiet", lambda threads: True)  # tests share the machine
    return tmp_path / "cache"


def network(size=14, channels=32):
    """Two 3x3 convolutions and a product. The first extent is free."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w"], ["c"], name="second", pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"], name="product"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, size, size])
    outs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "yc"]
    weights = {"w": (channels, channels, 3, 3), "v": (channels, 40)}
    constants = [
        numpy_helper.from_array((rng.standard_normal(s) / 12).astype(np.float32), n) for n, s in weights.items()
    ]
    graph = helper.make_graph(nodes, "g", [x], outs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def sample(n=1, size=14, channels=32):
    return np.random.default_rng(1).standard_normal((n, channels, size, size)).astype(np.float32)


def prefer(monkeypatch, *labels):
    """Races that these candidates win wherever they are one."""
    monkeypatch.setattr(
        tuning, "_race",
        lambda *args: {p: next((x for x in labels if x in c.labels), tuning.DEFAULT) for p, c in args[-1].items()},
    )  # fmt: skip
    monkeypatch.setattr(tuning, "_confirmed", lambda *_: True)


def kernels(model, x):
    return [s["kernel"] for s in model.explain({"x": x}).steps]


def test_a_real_race(folder):
    x = sample()
    plain, tuned = fi.compile(network(), threads=2), fi.compile(network(), threads=2, tune=True)
    for a, b in zip(plain(x), tuned(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    (file,) = folder.glob("tuning-*.json")
    entries = json.loads(file.read_text())["entries"]
    kinds = {p.split(" ")[0] for p in entries}
    assert kinds == {"convolution", "parts"}  # one sample's product is a row: nothing to split
    assert sum(p.startswith("convolution") for p in entries) == 1  # both layers have one problem


def test_choices_are_used_and_shown(monkeypatch):
    x = sample()
    assert any("winograd" in k for k in kernels(fi.compile(network()), x))
    prefer(monkeypatch, "direct", "one part")
    tuned = fi.compile(network(), tune=True, threads=2)
    steps = tuned.explain({"x": x}).steps
    assert not any("winograd" in s["kernel"] for s in steps) and all(s["parts"] == 1 for s in steps)
    conv = next(s for s in steps if "conv" in s["kernel"] and s["flops"])
    assert "convolution: direct" in conv["tuned"]
    assert "       tuned: " in str(tuned.explain({"x": x}))


def test_winograd_where_the_rule_says_no(monkeypatch):
    x = sample(size=7)
    assert not any("winograd" in k for k in kernels(fi.compile(network(7)), x))
    prefer(monkeypatch, "winograd 4x4")
    tuned = fi.compile(network(7), tune=True)
    assert any("winograd" in k for k in kernels(tuned, x))
    np.testing.assert_allclose(tuned(x)[1], fi.compile(network(7))(x)[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("labels", [("direct", "one part"), ("winograd 4x4", "all threads", "rows"), ("columns",)])
@pytest.mark.parametrize("isa", sorted({"avx2", _core.detected_isa()}))
def test_same_bits_in_any_company(monkeypatch, labels, isa):
    if "avx2" not in isa and not isa.startswith("avx512"):
        pytest.skip(f"{isa} has no variants")
    prefer(monkeypatch, *labels)
    x = sample(7)
    _core.force_isa(isa)
    try:
        one, two = (fi.compile(network(), {"x": x[:3]}, tune=True, threads=t) for t in (1, 2))
        for model in (one, two):
            together = model(x)
            for i in range(7):
                for a, b in zip(model(x[i : i + 1]), together, strict=True):
                    np.testing.assert_array_equal(a, b[i : i + 1])
        for a, b in zip(one(x), two(x), strict=True):
            np.testing.assert_array_equal(a, b)
    finally:
        _core.force_isa(_core.detected_isa())


def test_saved_programs_keep_their_choices(monkeypatch, tmp_path):
    prefer(monkeypatch, "direct")
    tuned = fi.compile(network(), tune=True)
    tuned.save(tmp_path / "m.safetensors")
    loaded = fi.load(tmp_path / "m.safetensors")
    x = sample(2)
    assert not any("winograd" in k for k in kernels(loaded, x))
    np.testing.assert_array_equal(loaded(x)[1], tuned(x)[1])


def test_second_time_is_not_raced(monkeypatch):
    prefer(monkeypatch, "direct")
    fi.compile(network(), tune=True)

    def fails(*_):
        raise AssertionError("raced again")

    monkeypatch.setattr(tuning, "_race", fails)
    assert not any("winograd" in k for k in kernels(fi.compile(network(), tune=True), sample()))


def test_winners_that_lose_as_a_whole_are_dropped(monkeypatch, folder):
    prefer(monkeypatch, "direct")
    monkeypatch.setattr(tuning, "_confirmed", lambda *_: False)
    assert any("winograd" in k for k in kernels(fi.compile(network(), tune=True), sample()))
    entries = json.loads(next(folder.glob("*.json")).read_text())["entries"]
    assert {label for label, _ in entries.values()} == {"default"}


def test_a_busy_machine_is_not_tuned_on(monkeypatch, folder):
    monkeypatch.setattr(tuning, "_quiet", lambda threads: False)
    with pytest.warns(RuntimeWarning, match="other programs use the cores"):
        tuned = fi.compile(network(), tune=True, threads=2)
    assert not list(folder.glob("*.json")) and not any("tuned" in s for s in tuned.explain({"x": sample()}).steps)


def test_a_slow_candidate_never_wins():
    quick, slow = [100e3, 101e3, 99e3, 100e3, 130e3], [160e3, 150e3, 155e3, 158e3, 90e3]
    assert tuning._winner({"default": quick, "other": slow}, 1) == "default"
    assert tuning._winner({"default": slow, "other": quick}, 1) == "other"
    assert tuning._winner({"default": [100, 100, 100], "other": [50, 50, 50]}, 1) == "default"  # 50 ns is noise
    assert tuning._winner({"default": [100e3] * 3, "other": [98e3] * 3}, 1) == "default"


def test_further_shapes(monkeypatch):
    prefer(monkeypatch, "one part")
    model = fi.compile(network(), tune=True, threads=2)
    x = sample(5)
    model.tune(x=x)
    assert all("parts: one part" in s.get("tuned", "parts: one part") for s in model.explain({"x": x}).steps)
    assert model(x)[0].shape == (5, 40)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b'{"entries": 3}', b"\xff\xfe", b'{"format": 1, "entries": {"p": ["x"]}}']
)
def test_damaged_files_are_ignored(monkeypatch, folder, damage):
    prefer(monkeypatch, "direct")
    fi.compile(network(), tune=True)
    (file,) = folder.glob("*.json")
    file.write_bytes(damage)
    with pytest.warns(RuntimeWarning, match="is not a tuning file"):
        fi.compile(network(), tune=True)
    assert json.loads(file.read_text())["entries"], "written anew"


def test_damaged_entries_are_ignored(folder):
    cache = TuningCache("avx2")
    cache.put({"p": "direct"})
    data = json.loads(cache.path.read_text())
    for wrong in ({"p": [3, 1]}, {"p": ["x", "now"]}, {"p": "direct"}, []):
        cache.path.write_text(json.dumps({**data, "entries": wrong}))
        with pytest.warns(RuntimeWarning):
            assert cache.get(["p"]) == {}
    cache.path.write_text(json.dumps({**data, "build": "other"}))
    with pytest.warns(RuntimeWarning, match="another machine or build"):
        assert cache.get(["p"]) == {}


def test_a_label_that_is_no_candidate_is_ignored(folder):
    x = sample()
    model = fi.compile(network())
    problems = _core_problems(model, x)
    TuningCache(_core.active_isa()).put(dict.fromkeys(problems, "magic"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tuned = fi.compile(network(), tune=True)
    assert tuned(x)[0].shape == (1, 40)


def _core_problems(model, x):
    model._native.set_tuning({})
    model._executor.forget_plans()
    return [c["problem"] for c in model._executor.explain([x], True)["choices"]]


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTINFER_CACHE", str(tmp_path / "file" / "below"))
    prefer(monkeypatch, "direct")
    with pytest.warns(RuntimeWarning, match="tuning is not kept|not a tuning file"):
        tuned = fi.compile(network(), tune=True)
    assert not any("winograd" in k for k in kernels(tuned, sample()))


def test_size_is_bounded(folder):
    cache = TuningCache("avx2")
    cache.put({f"old {i}": "direct" for i in range(ENTRIES)})
    data = json.loads(cache.path.read_text())
    data["entries"] = {p: [label, 1] for p, (label, _) in data["entries"].items()}
    cache.path.write_text(json.dumps(data))
    cache.put({"new": "direct"})
    entries = json.loads(cache.path.read_text())["entries"]
    assert len(entries) == ENTRIES and "new" in entries
    for i in range(FILES + 3):
        (folder / f"tuning-{i}.json").write_text("{}")
    cache.put({"newer": "direct"})
    left = list(folder.glob("tuning-*.json"))
    assert len(left) <= FILES + 1 and cache.path in left and not list(folder.glob("*.tmp"))


def _put(path, first):
    os.environ["FASTINFER_CACHE"] = path
    for i in range(20):
        TuningCache("avx2").put({f"p{first + i}": "direct"})


def test_several_processes(folder):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_put, args=(str(folder), 100 * i)) for i in range(3)]
    for p in processes:
        p.start()
    for p in processes:
        p.join()
        assert p.exitcode == 0
    found = TuningCache("avx2").get([f"p{100 * i + k}" for i in range(3) for k in range(20)])
    assert len(found) == 60


def test_what_it_needs():
    free = network()
    free.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "h"
    with pytest.raises(fi.ModelError, match="needs example_inputs.*float32\\[n,32,h,14\\]"):
        fi.compile(free, tune=True)
    assert fi.compile(free, (sample(),), tune=True)(sample())[0].shape == (1, 40)
    with pytest.raises(fi.ModelError, match="without tune"):
        fi.compile(free, (sample(),))
    with pytest.raises(fi.InputError, match="missing input"):
        fi.compile(network()).tune()


def test_tampered_table(tmp_path):
    model = fi.compile(network())
    model._program.notes["tuning"] = {"parts": 3}
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(fi.ModelError, match="tuning"):
        fi.load(tmp_path / "m.safetensors")
