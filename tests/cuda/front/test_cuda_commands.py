# SPDX-License-Identifier: Apache-2.0
"""`fastinfer COMMAND --device cuda`: the reports of the CPU, about the device."""

import json

import numpy as np
import pytest
from small_models import mlp, save

import fastinfer as fi
from fastinfer import peers

pytest.importorskip("typer")
pytest.importorskip("rich")
OURS = ["triton_gemm", "native_"]


@pytest.fixture
def cli(capsys, monkeypatch):
    from fastinfer.cli import output
    from fastinfer.cli.app import run

    for console in (output.console, output.errors):
        monkeypatch.setattr(console, "_width", 400)

    def call(*arguments, code=0):
        capsys.readouterr()
        assert run([str(a) for a in arguments]) == code
        shown = capsys.readouterr()
        return json.loads(shown.out) if "--json" in arguments else shown.out + shown.err

    return call


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return save(tmp_path_factory.mktemp("cuda") / "mlp.onnx", mlp(width=32))


@pytest.fixture(scope="module")
def gpu_name():
    from fastinfer.cuda.device import open_device

    return open_device("cuda").name


def test_run(cli, file, tmp_path):
    here, there = (tmp_path / f"{d}.npz" for d in ("cpu", "cuda"))
    for device, to in (("cpu", here), ("cuda", there)):
        shown = cli("run", file, "--shape", "x:3x32", "--device", device, "-o", to)
        assert "float32" in shown and "3x32" in shown
    np.testing.assert_allclose(np.load(there)["y"], np.load(here)["y"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["tf32", "f16", "bf16", "int8", "fp8"])
def test_precisions(cli, file, precision):
    shown = cli("run", file, "--device", "cuda", "--precision", precision, "--json")
    assert shown["outputs"][0]["dtype"] == "float32" and shown["outputs"][0]["not_finite"] == 0


def test_explain(cli, file, gpu_name):
    told = cli("explain", file, "--device", "cuda", "--precision", "bf16", "--json")
    assert told["device"] == "cuda:0" and told["isa"] == f"{gpu_name}, bf16" and "batch" in told["batches"]
    assert {"op", "kernel", "refusals", "shape", "dtype", "bytes", "flops", "depth"} <= set(told["steps"][0])
    assert f"steps on {gpu_name}, bf16, " in cli("explain", file, "--device", "cuda", "--precision", "bf16")


def test_profile(cli, file, tmp_path, gpu_name):
    page, trace = tmp_path / "p.html", tmp_path / "t.json"
    told = cli("profile", file, "--device", "cuda", "--runs", 2, "--html", page, "--trace", trace, "--json")
    assert told["device"] == "cuda:0" and told["place"] == f"{gpu_name}, fp32" and told["peak_gflops"] > 0
    assert sum(s["share"] for s in told["steps"]) == pytest.approx(1)
    assert gpu_name in page.read_text() and told["peak_by"] in page.read_text()
    assert json.loads(trace.read_text())["otherData"]["device"] == "cuda:0"
    assert f"per call on {gpu_name}, fp32, measured peak" in cli("profile", file, "--device", "cuda", "--runs", 1)


def test_bench_against_a_runtime_on_the_cpu(cli, file, gpu_name):
    pytest.importorskip("onnxruntime")
    told = cli("bench", file, "--device", "cuda", "--seconds", 0, "--json")
    ours, peer = told["runtimes"]
    assert ours["runtime"] == "fastinfer" and ours["max_error"] <= 1e-5 and peer["max_error"] == 0
    assert told["device"] == "cuda:0" and told["place"] == f"{gpu_name}, fp32" and told["tolerance"] == 1e-4
    shown = cli("bench", file, "--device", "cuda", "--precision", "bf16", "--seconds", 0)
    assert f"{gpu_name}, bf16; on the CPU" in shown and "agree with onnxruntime within 2e-01" in shown


def test_bench_shows_outputs_that_disagree(cli, file, monkeypatch):
    wrong = peers.Run(lambda: [np.zeros((1, 32), np.float32)], lambda: [np.zeros((1, 32), np.float32)])
    monkeypatch.setitem(peers.PEERS, "onnxruntime", lambda *_: wrong)
    shown = cli("bench", file, "--device", "cuda", "--precision", "int8", "--seconds", 0, code=6)
    assert "outputs differ from onnxruntime" in shown


def test_compile_writes_a_program_for_any_device(cli, file, tmp_path):
    out, x = tmp_path / "m.safetensors", np.random.default_rng(0).standard_normal((2, 32)).astype(np.float32)
    cli("compile", file, "--device", "cuda", "-o", out)
    want = fi.compile(file)(x)
    for device in ("cpu", "cuda"):
        np.testing.assert_allclose(fi.load(out, device=device)(x), want, rtol=1e-5, atol=1e-5)
    assert cli("run", out, "--device", "cuda", "--precision", "bf16", "--json")["outputs"][0]["shape"] == [1, 32]


def test_a_program_of_the_cpus_kernels_alone_is_refused(cli, file, tmp_path):
    out = tmp_path / "packed.safetensors"
    cli("compile", file, "-o", out)
    assert "packed weights only: compile the model" in cli("run", out, "--device", "cuda", code=4)


def test_doctor_tests_the_device(cli, gpu_name):
    from fastinfer.cli.doctor import gpu, gpu_text

    assert gpu()["name"] == gpu_name and gpu_text(gpu()).endswith("self test: ok")


@pytest.mark.parametrize("command", ["run", "compile", "explain", "profile", "bench"])
def test_without_a_gpu_the_error_says_what_is_missing(cli, file, no_gpu, command):
    assert no_gpu in cli(command, file, "--device", "cuda", code=4)
    told = cli(command, file, "--device", "cuda:1", "--json", code=4)
    assert told["exit_code"] == 4 and "device='cuda:1'" in told["error"]


def test_doctor_without_a_gpu_is_well(cli, no_gpu):
    assert no_gpu in cli("doctor")


def test_what_cannot_be(cli, file):
    assert "needed: 'cpu', 'cuda'" in cli("run", file, "--device", "tpu", code=4)
    assert "device 'cuda' computes in 'fp32', 'tf32'" in cli(
        "run", file, "--device", "cuda", "--precision", "i4", code=4
    )
    assert "threads=2 is for device='cpu'" in cli("run", file, "--device", "cuda", "--threads", 2, code=4)
