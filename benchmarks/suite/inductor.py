# SPDX-License-Identifier: Apache-2.0
"""Module → package of torch's Inductor, weights frozen, compiled ahead of time: `python -m suite.inductor NAME…`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from suite.export import ROOT, built, cache
from suite.models import MODELS, Benchmark


def package_of(benchmark: Benchmark) -> Path:
    """Named after the CPU's widest vectors: the package holds machine code for them."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    width = "avx512" if "avx512f" in flags else "avx2" if "avx2" in flags else "any"
    return cache() / f"{benchmark.name}-inductor-{width}.pt2"


def ensure_packages(benchmarks: Sequence[Benchmark]) -> None:
    """Compile what is missing, about a minute each, one process each: what fails leaves no package."""
    for benchmark in benchmarks:
        if not package_of(benchmark).exists():
            print(f"compiling {benchmark.name} with Inductor", file=sys.stderr)
            command = [sys.executable, "-W", "ignore", "-m", "suite.inductor", benchmark.name]
            subprocess.run(command, cwd=ROOT / "benchmarks", check=False)


def _write(benchmark: Benchmark) -> None:
    import torch

    module, arguments = built(benchmark)
    path = package_of(benchmark)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.pt2")
    with torch.no_grad():
        program = torch.export.export(module, arguments, strict=False)
        options = {"freezing": True}
        torch._inductor.aoti_compile_and_package(program, package_path=str(part), inductor_configs=options)
    os.replace(part, path)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        _write(MODELS[name])
