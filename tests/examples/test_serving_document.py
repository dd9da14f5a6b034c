# SPDX-License-Identifier: Apache-2.0
"""docs/serving.md does what it says: its shell blocks, in order, in an empty directory; only the ports are others."""

from __future__ import annotations

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
def ports():
    """Two that were free just now."""
    with socket.socket() as a, socket.socket() as b:
        for s in (a, b):
            s.bind(("127.0.0.1", 0))
        return a.getsockname()[1], b.getsockname()[1]


@pytest.fixture
def environment(tmp_path, ports):
    """`python3` and `fastinfer` of this checkout; a server's default ports are those above."""
    for package in ("uvicorn", "orjson", "grpc", "cryptography", "tritonclient.http", "tritonclient.grpc"):
        pytest.importorskip(package)
    for program in ("curl", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    folder, python = tmp_path / "bin", shlex.quote(sys.executable)
    folder.mkdir()
    options = f"--http-port {ports[0]} --grpc-port {ports[1]}"
    (folder / "python3").write_text(f'#!/bin/sh\nexec {python} "$@"\n')
    (folder / "fastinfer").write_text(
        f'#!/bin/sh\nif [ "$1" = serve ]; then exec {python} -m fastinfer "$@" {options}; fi\nexec {python} -m fastinfer "$@"\n'
    )
    for command in folder.iterdir():
        command.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "160"}


def test_every_shell_block_in_order(tmp_path, ports, environment):
    text = (ROOT / "docs" / "serving.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)
    script = "".join(f"printf '\\n== {n}\\n'\n{block}" for n, block in enumerate(blocks))
    script = script.replace("127.0.0.1:8000", f"127.0.0.1:{ports[0]}").replace(
        "127.0.0.1:8001", f"127.0.0.1:{ports[1]}"
    )
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "all.sh").write_text(f"set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}")
    done = subprocess.run(
        ["bash", tmp_path / "all.sh"], cwd=work, env=environment, timeout=300, stdin=subprocess.DEVNULL,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)  # for who wants to see it
    parts = re.split(r"^\n?== \d+\n", done.stdout, flags=re.M)[1:]
    assert len(parts) == len(blocks)
    out = lambda what: next(p for p, b in zip(parts, blocks) if what in b)  # noqa: E731

    asked = out("/predict/classifier")
    assert asked.startswith('{"p":[[') and '"id":"42"' in asked and '"model_version":"1"' in asked
    assert out("cat > ask.py").startswith("1 (0.")
    assert out("cat > clients.py").count("tritonclient.") == 2
    changed = out("/canary")
    assert [line.split() for line in changed.splitlines() if line.strip() in ("8 1", "2 2")] == [["8", "1"], ["2", "2"]]
    assert "classifier: 2: stable\n" in changed and "classifier: 1: stable\n" in changed
    guarded = out("Bearer $(cat app.key)")
    assert guarded.startswith('{"error":"credentials are needed') and '{"p":[[' in guarded
    assert re.search(r"classifier +4 +canary, 10 % .* yes", guarded) and "manifest.sig" in guarded
    measured = out("/metrics")
    assert re.search(r'^fastinfer_requests_total\{(?=.*version="3")(?=.*outcome="ok").*\} 1(\.0)?$', measured, re.M)
    assert '"message": "ended"' in (work / "server.log").read_text()
