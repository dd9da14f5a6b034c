# SPDX-License-Identifier: Apache-2.0
"""The kernels' own source on host threads (emulated/device.h), under the address sanitizer: shared memory's layout, the
pipeline's waits, barriers, what ranks of a cluster exchange. What remains for a device: the memory model, and speed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).parent / "emulated"
CUDA = [
    p for p in (Path("/usr/local/cuda/include"), Path("/usr/local/cuda/targets/x86_64-linux/include")) if p.exists()
]
pytestmark = pytest.mark.skipif(
    not CUDA or not shutil.which("g++") or not (ROOT / "kernels" / "nbits").exists(),
    reason="needs the sources, g++ and CUDA's headers",
)


def replaced(source, pattern, by):
    text, count = re.subn(pattern, by, source, flags=re.S)
    assert count == 1, pattern
    return text


def emulated(source):
    """Kernel source that device.h can run."""
    text = re.sub(r"#include <cooperative_groups.h>", "", source.read_text())
    text = replaced(text, r'#include "csrc/base/launch.h"', '#include "device.h"')
    if "extern __shared__" not in text:
        return text
    shared = r"\1* shared = reinterpret_cast<\1*>(block_->shared.data());"
    return replaced(text, r"extern __shared__ __align__\(\d+\) (\w+) shared\[\];", shared).replace(
        "asm volatile(", "EMULATED_ASM("
    )


def run(folder, main):
    flags = ["-std=c++20", "-O1", "-fsanitize=address", "-w", "-pthread", f"-I{folder}", f"-I{HERE}", f"-I{ROOT}"]
    program = folder / "program"
    subprocess.run(
        ["g++", *flags, *(f"-isystem{p}" for p in CUDA), HERE / main, "-o", program],
        check=True,
        capture_output=True,
        text=True,
    )
    done = subprocess.run([program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]


def test_wna16(tmp_path):
    text = emulated(ROOT / "kernels" / "nbits" / "wna16.cu")
    text = replaced(text, r'#include "kernels/nbits/wna16_ops.cuh"', "")  # device.h has its own
    (tmp_path / "kernel.inc").write_text(text)
    (tmp_path / "wna16_host.inc").write_text((ROOT / "kernels" / "nbits" / "wna16_host.cu").read_text())
    run(tmp_path, "wna16.cc")


def test_mlp(tmp_path):
    (tmp_path / "kernel.inc").write_text(emulated(ROOT / "kernels" / "tiny" / "mlp.cu"))
    run(tmp_path, "mlp.cc")


def test_ragged(tmp_path):
    (tmp_path / "kernel.inc").write_text(emulated(ROOT / "kernels" / "batching" / "ragged.cu"))
    run(tmp_path, "ragged.cc")
