# SPDX-License-Identifier: Apache-2.0
"""The exit codes of docs/cli.md, and that an expected error is one line, or JSON under --json."""

import subprocess
import sys

import numpy as np
import pytest

import fastinfer as fi
from fastinfer.cli import app

USAGE, MODEL, UNSUPPORTED, INPUT, DIFFER, MISSING, INTERRUPTED = 2, 3, 4, 5, 6, 7, 130

WRONG = {
    "unknown command": (["optimize"], USAGE, "optimize"),
    "unknown option": (["run", "{net}", "--fast"], USAGE, "--fast"),
    "no model": (["run"], USAGE, "Missing argument"),
    "runs below one": (["profile", "{net}", "--runs", "0"], USAGE, "runs"),
    "unknown peer": (["bench", "{net}", "--against", "tensorrt"], USAGE, "tensorrt"),
    "over itself": (["compile", "{net}", "-o", "{net}"], USAGE, "the model itself"),
    "missing file": (["run", "{tmp}/none.onnx"], MODEL, "does not exist"),
    "garbage": (["run", "{tmp}/garbage.onnx"], MODEL, "garbage.onnx"),
    "garbage program": (["run", "{tmp}/garbage.safetensors"], MODEL, "garbage.safetensors"),
    "garbage export": (["run", "{tmp}/garbage.pt2"], MODEL, "garbage.pt2"),
    "strict": (["compile", "{words}", "--strict", "-o", "{tmp}/w.safetensors"], UNSUPPORTED, "words"),
    "unknown input": (["run", "{net}", "-s", "z:1x2"], INPUT, "'z'"),
    "unknown value": (["run", "{net}", "-i", "z=1"], INPUT, "'z'"),
    "bad shape": (["run", "{net}", "-s", "x:1xtwo"], INPUT, "x:1xtwo"),
    "wrong rank": (["run", "{net}", "-s", "x:1x16"], INPUT, "float32[1,16]"),
    "no equals": (["run", "{net}", "-i", "x"], INPUT, "NAME=VALUE"),
    "not a number": (["run", "{net}", "-i", "x=one"], INPUT, "one"),
    "no npy": (["run", "{net}", "-i", "x={tmp}/none.npy"], INPUT, "none.npy"),
    "bad npz": (["run", "{net}", "--inputs", "{tmp}/garbage.onnx"], INPUT, "garbage.onnx"),
    "huge": (["run", "{net}", "-s", "x:9999999x9999999x99x99"], INPUT, "random inputs"),
    "threads": (["run", "{net}", "--threads", "0"], INPUT, "threads=0"),
}


@pytest.fixture(scope="module")
def places(network, by_reference, tmp_path_factory):
    tmp = tmp_path_factory.mktemp("wrong")
    for suffix in ("onnx", "safetensors", "pt2"):
        (tmp / f"garbage.{suffix}").write_bytes(b"\x07garbage" * 9)
    return {"net": network, "words": by_reference, "tmp": tmp}


@pytest.mark.parametrize("name", WRONG)
def test_exit_code_and_message(cli, places, name):
    arguments, code, words = WRONG[name]
    arguments = [a.format(**places) for a in arguments]
    if "pt2" in name or "export" in name:
        pytest.importorskip("torch")
    done = cli(*arguments)
    assert done.code == code, done
    assert words in done.err and "Traceback" not in done.err and not done.out
    if code in (MODEL, UNSUPPORTED, INPUT):
        shown = cli(*arguments, "--json")
        assert shown.code == code and shown.json["exit_code"] == code and words in shown.json["error"]


def test_outputs_that_disagree(cli, network, monkeypatch):
    from fastinfer import peers

    wrong = [np.zeros((1, 16, 16, 16), np.float32), np.zeros((1, 16), np.float32)]
    run = peers.Run(lambda: wrong, lambda: wrong)
    monkeypatch.setitem(peers.PEERS, "onnxruntime", lambda *_: run)
    done = cli("bench", network, "--seconds", 0)
    assert done.code == DIFFER and "outputs differ from onnxruntime" in done.out
    assert cli("bench", network, "--seconds", 0, "--tolerance", "inf").code == 0


def test_a_peer_that_fails_is_a_row(cli, network, monkeypatch):
    from fastinfer import peers

    def fails(*_):
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(peers.PEERS, "onnxruntime", fails)
    done = cli("bench", network, "--seconds", 0)
    assert done.code == 0 and "RuntimeError: no such kernel" in done.out


def test_missing_package(cli, network, monkeypatch):
    def fails(*_, **__):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(fi, "compile", fails)
    done = cli("run", network)
    assert done.code == MISSING and "pip install torch" in done.err


def test_interrupted(cli, network, monkeypatch):
    def stops(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(fi, "compile", stops)
    assert cli("run", network).code == INTERRUPTED


def test_broken_installation(cli, monkeypatch):
    from fastinfer.cli import doctor

    monkeypatch.setattr(doctor, "self_test", lambda *_: "relu(x @ w) is wrong by 1")
    done = cli("doctor")
    assert done.code == app.BUG and "wrong by 1" in done.out


def test_as_a_process(network):
    command = [sys.executable, "-m", "fastinfer", "run", str(network), "--json", "-s", "x:1x2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == INPUT and '"exit_code": 5' in done.stdout
