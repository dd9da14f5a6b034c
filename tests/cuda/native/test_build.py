# SPDX-License-Identifier: Apache-2.0
"""FASTINFER_CUDA=AUTO|ON|OFF: a machine whose nvcc does not work builds everything else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
pytest.importorskip("pybind11")
pytestmark = pytest.mark.skipif(
    not (ROOT / "CMakeLists.txt").exists() or not shutil.which("cmake") or not shutil.which("ninja"),
    reason="needs the sources, cmake and ninja",
)


def configure(folder, *options):
    broken = folder / "bin" / "nvcc"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    import pybind11

    environment = {**os.environ, "PATH": f"{broken.parent}:{os.environ['PATH']}"}
    environment.pop("CUDACXX", None)
    return subprocess.run(
        ["cmake", "-S", ROOT, "-B", folder / "build", "-G", "Ninja", f"-DPython_EXECUTABLE={sys.executable}",
         f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", *options],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip


def test_auto_does_without(tmp_path):
    done = configure(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fastinfer._cuda is not built" in done.stdout
    targets = (tmp_path / "build" / "build.ninja").read_text()
    assert "_core" in targets and "_cuda." not in targets


def test_on_says_what_is_missing(tmp_path):
    done = configure(tmp_path, "-DFASTINFER_CUDA=ON")
    assert done.returncode != 0 and "no nvcc that works was found" in done.stderr
