# SPDX-License-Identifier: Apache-2.0
"""What a GPU will run, on the pretended device: each row is a pytest session of its own, as FASTINFER_CUDA is read once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CUDA = Path(__file__).parents[1]
# At least one small test of every family, so that a test whose tensors lie on the host is noticed here and not on a GPU.
SESSIONS = {
    "device": ["pretend/test_pretended_device.py", "test_device.py", "test_runtime.py"],
}  # fmt: skip


def session(selection: list[str], *options: str, seconds: int = 300) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pretend.plugin", "-p", "no:cacheprovider", *options]
    path = os.pathsep.join([str(CUDA), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [*command, *(str(CUDA / s) for s in selection)], capture_output=True, text=True, timeout=seconds, env=env
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]


@pytest.mark.skipif(os.environ["FASTINFER_CUDA"] != "interpret", reason="runs the session that this is")
@pytest.mark.parametrize("name", SESSIONS)
def test_small(name):
    session(SESSIONS[name])


@pytest.mark.slow
@pytest.mark.skipif(os.environ["FASTINFER_CUDA"] != "interpret", reason="runs the session that this is")
@pytest.mark.parametrize("order", range(3))
def test_everything(order):
    session([""], "--order", str(order), "-k", "not sm90", seconds=1800)
