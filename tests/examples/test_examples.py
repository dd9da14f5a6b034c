# SPDX-License-Identifier: Apache-2.0
"""The examples, run as a newcomer runs them: the commands of run.sh in an empty directory."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def environment(tmp_path):
    """With `fastinfer` on the path, as of this checkout, and a port that was free just now."""
    for package in ("torch", "onnxscript", "PIL", "uvicorn", "orjson", "grpc"):
        pytest.importorskip(package)
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    command = tmp_path / "bin" / "fastinfer"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m fastinfer "$@"\n')
    command.chmod(0o755)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    own = {"PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src"), "PYTHON": sys.executable}
    return {**os.environ, **own, "PORT": str(port)}


@pytest.mark.parametrize(
    "example, model, least",
    [("text_classifier", "text", (0.5, 0.8)), ("cifar_alexnet", "shapes", (0.25, 0.6))],  # chance: 0.33, 0.1
)
def test_example(example, model, least, tmp_path, environment):
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        ["bash", ROOT / "examples" / example / "run.sh"], cwd=work, env=environment, timeout=400,
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr

    # Accuracy on what the networks have not seen, as torch measured it, and as the served versions reach it.
    trained = [float(p) / 100 for p in re.findall(r"^version \d: ([\d.]+)% of", done.stdout, re.M)]
    assert all(accuracy > bound for accuracy, bound in zip(trained, least, strict=True))
    asked = re.findall(
        r"^(\d+) \w+, ([\d.]+)% right, by (.*); greatest difference from torch (\S+)$", done.stdout, re.M
    )
    total = int(asked[0][0])
    served = [float(a[1]) / 100 for a in asked]
    assert served[0] == served[3] == trained[0] and served[2] == trained[1]
    assert all(float(a[3]) < 1e-3 for a in asked)

    # Which version answered, stage by stage: the first, a fifth by the canary, the second, and the first again.
    assert [a[2] for a in asked] == [
        f"version 1: {total}", f"version 1: {total * 4 // 5}, version 2: {total // 5}", f"version 2: {total}", f"version 1: {total}",
    ]  # fmt: skip

    listed = subprocess.run(
        ["fastinfer", "models", "log", "repository", model, "--check", "--json"], cwd=work, env=environment,
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    log = json.loads(listed.stdout)
    assert [e["action"] for e in log] == ["push", "promote", "push", "canary", "promote", "rollback"]
    assert [e["live"]["aliases"] for e in log if e["live"]] == [
        {"stable": "1"}, {"stable": "1", "canary": "2"}, {"stable": "2"}, {"stable": "1"},
    ]  # fmt: skip
    assert "ended" in done.stderr
