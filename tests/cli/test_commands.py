# SPDX-License-Identifier: Apache-2.0
"""Every subcommand: its table, its JSON, the files it writes."""

import json

import numpy as np
import pytest

import fastinfer as fi


def test_compile_writes_a_program_that_loads(cli, network, tmp_path):
    out = tmp_path / "net.safetensors"
    done = cli("compile", network, "-o", out)
    assert done.code == 0 and "net.safetensors" in done.out and "x: float32[n,16,16,16]" in done.out
    x = np.ones((2, 16, 16, 16), np.float32)
    np.testing.assert_array_equal(fi.load(out).run({"x": x})["m"], fi.compile(network).run({"x": x})["m"])


def test_compile_json(cli, network, tmp_path):
    out = tmp_path / "other.safetensors"
    done = cli("compile", network, "--output", out, "--json")
    assert done.code == 0
    assert done.json["output"] == str(out) and done.json["bytes"] == out.stat().st_size
    assert done.json["fallback"] == {} and done.json["seconds"] > 0


def test_compile_lists_nodes_without_native_form(cli, by_reference, tmp_path):
    done = cli("compile", by_reference, "-o", tmp_path / "w.safetensors")
    assert done.code == 0 and "by reference:" in done.out and "words" in done.out


def test_run(cli, network, tmp_path):
    x = np.random.default_rng(1).standard_normal((3, 16, 16, 16)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    done = cli("run", network, "-i", f"x={tmp_path / 'x.npy'}", "-o", tmp_path / "out.npz", "--threads", 1)
    assert done.code == 0 and "x:3x16x16x16" in done.out and "3x16x16x16" in done.out
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["m"], fi.compile(network).run({"x": x})["m"])


def test_run_json_describes_outputs(cli, network):
    done = cli("run", network, "--shape", "x:2x16x16x16", "--json")
    y, m = done.json["outputs"]
    assert (y["name"], y["dtype"], y["shape"], y["not_finite"]) == ("y", "float32", [2, 16, 16, 16], 0)
    assert m["shape"] == [2, 16] and 0 <= m["min"] <= m["mean"] <= m["max"]


def test_run_takes_npz_and_a_saved_program(cli, network, tmp_path):
    np.savez(tmp_path / "in.npz", x=np.zeros((1, 16, 16, 16), np.float32), unused=np.ones(3))
    cli("compile", network, "-o", tmp_path / "p.safetensors")
    done = cli("run", tmp_path / "p.safetensors", "--inputs", tmp_path / "in.npz", "--json")
    assert done.code == 0 and done.json["outputs"][1]["max"] == 0.0


def test_run_seed_decides_random_inputs(cli, network):
    means = [cli("run", network, "--json", "--seed", seed).json["outputs"][1]["mean"] for seed in (0, 0, 1)]
    assert means[0] == means[1] != means[2]


def test_explain(cli, network):
    done = cli("explain", network, "-s", "x:1x16x16x16")
    assert done.code == 0
    row = next(line for line in done.out.splitlines() if "winograd" in line)
    assert "stage/conv" in row and "Conv" in row and "16x16x16" in row and "float32" in row
    assert "of intermediates" in done.out


def test_explain_says_why_not_faster(cli, network):
    done = cli("explain", network, "-s", "x:1x16x16x16", "--json")
    assert done.code == 0
    for step in done.json["steps"]:
        assert {"op", "kernel", "refusals", "shape", "dtype", "bytes", "flops", "parts", "label"} <= step.keys()
    conv = next(s for s in done.json["steps"] if s["flops"])
    assert conv["flops"] == 2 * 16 * 16 * 16 * 16 * 9
    assert conv["bytes"] == 4 * (2 * 16**3 + 16 * 16 * 9) and conv["dtype"] == "float32"


def test_explain_names_the_reference_fallback(cli, by_reference):
    (step,) = cli("explain", by_reference, "--json").json["steps"]
    assert step["kernel"] == "reference" and step["refusals"] == ["reference fallback: no native operator"]
    assert step["shape"] is None and step["bytes"] == 0  # strings have no size
    assert "by reference: node 'words'" in cli("explain", by_reference).out


def test_profile_writes_page_and_trace(cli, network, tmp_path):
    page, trace = tmp_path / "p.html", tmp_path / "t.json"
    done = cli("profile", network, "--html", page, "--trace", trace, "--runs", 3, "--top", 1)
    assert done.code == 0 and "per call" in done.out and "the 1 slowest are shown" in done.out
    events = [e for e in json.loads(trace.read_text())["traceEvents"] if e["ph"] == "X"]
    ends = [e["ts"] + e["dur"] for e in events]
    assert all(e["ts"] >= end - 1e-3 for e, end in zip(events[1:], ends)), "steps of one call follow each other"
    text = page.read_text()
    assert "/*DATA*/" not in text and "http" not in text.replace("http-equiv", "")
    data = json.loads(text.split("const {about, steps} = ", 1)[1].split(";\n", 1)[0])
    assert sum(s["ns"] for s in data["steps"]) == pytest.approx(data["about"]["total_ns"])
    conv = next(s for s in data["steps"] if "winograd" in s["kernel"])
    assert conv["node"].startswith("stage/") and conv["op"] == "fastinfer.Conv" and conv["flops_done"] < conv["flops"]


def test_profile_json(cli, network):
    done = cli("profile", network, "--runs", 1, "--json")
    assert done.code == 0 and done.json["runs"] == 1
    assert sum(s["share"] for s in done.json["steps"]) == pytest.approx(1)


def test_page_is_safe_against_names(tmp_path):
    from fastinfer.cli import page

    step = {"label": "node '</script><b>' (Relu)", "kernel": "k", "start_ns": 0, "ns": 1, "depth": 0, "flops": 0.0}
    about = {"model": "</script>", "inputs": "", "total_ns": 1, "peak_gflops": 1.0, "peak_read_gbs": 1.0, "runs": 1}
    text = page.render(about, [step])
    assert text.count("</script>") == 1


def test_bench(cli, network):
    pytest.importorskip("onnxruntime")
    done = cli("bench", network, "--against", "onnxruntime", "--seconds", 0, "--json", "--threads", 1)
    assert done.code == 0
    ours, peer = done.json["runtimes"]
    assert ours["runtime"] == "fastinfer" and ours["max_error"] <= 1e-4 and peer["max_error"] == 0
    assert (
        done.json["ratio"] == pytest.approx(peer["p50_ms"] / ours["p50_ms"]) and done.json["reference"] == "onnxruntime"
    )


def test_bench_without_peer(cli, network):
    done = cli("bench", network, "--against", "", "--seconds", 0)
    assert done.code == 0 and "fastinfer" in done.out and "outputs not checked: no peer ran" in done.out


def test_doctor(cli):
    done = cli("doctor", "--json")
    assert done.code == 0 and done.json["self_test"] == "ok"
    assert done.json["cores"]["usable"] >= 1 and all(p["gflops"] > 0 for p in done.json["peak"])
    shown = cli("doctor")
    assert shown.code == 0 and "self test" in shown.out and "native operators" in shown.out


@pytest.mark.parametrize("command", ["compile", "run", "bench", "explain", "profile", "doctor"])
def test_help(cli, command):
    done = cli(command, "--help")
    assert done.code == 0 and "--json" in done.out


def test_precision(cli, network, tmp_path):
    out = tmp_path / "half.safetensors"
    assert cli("compile", network, "-o", out, "--precision", "bf16").code == 0
    x = np.random.default_rng(1).standard_normal((2, 16, 16, 16)).astype(np.float32)
    np.testing.assert_array_equal(
        fi.load(out).run({"x": x})["m"], fi.compile(network, precision="bf16").run({"x": x})["m"]
    )
    assert "bf16" in cli("explain", network, "--precision", "bf16").out
    assert cli("run", out, "--precision", "bf16").code == 2
    done = cli("run", network, "--precision", "fp8")
    assert done.code == 4 and "fp8" in done.err
