# SPDX-License-Identifier: Apache-2.0
"""What a GPU will run, on the pretended device: each row is a pytest session of its own, as FASTINFER_CUDA is read once."""

import os
import subprocess
import sys

import pytest

from pretend.small import ALONE, CUDA, ELSEWHERE, SMALL

DEVICE = ["pretend/test_pretended_device.py", "pretend/test_benchmarks.py", "test_device.py", "test_callers.py"]
on_the_host = pytest.mark.skipif(os.environ["FASTINFER_CUDA"] != "interpret", reason="runs the session that this is")


def session(selection: list[str], *options: str, seconds: int = 300) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "pretend.plugin", "-p", "no:cacheprovider", *options]
    path = os.pathsep.join([str(CUDA), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [*command, *(str(CUDA / s) for s in selection)], capture_output=True, text=True, timeout=seconds, env=env
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]


def test_every_family_has_a_small_test():
    """A test whose tensors lie on the host where a kernel runs on a device is noticed here, and not on a GPU."""
    families = {p.parent.name for p in CUDA.glob("*/test_*.py")} - ELSEWHERE
    assert families == {name.split("/")[0] for name in SMALL if "/" in name}
    files = {p.name for p in CUDA.glob("test_*.py")} - ALONE
    assert files == {name.split("::")[0] for name in [*SMALL, *DEVICE] if "/" not in name}


@on_the_host
def test_streams_graphs_and_memory():
    session(DEVICE)


@on_the_host
def test_families():
    session(SMALL)


@pytest.mark.slow
@on_the_host
@pytest.mark.parametrize("order", range(3))
def test_everything(order):
    session([""], "--order", str(order), "-k", "not sm90", seconds=3000)
