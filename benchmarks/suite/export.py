# SPDX-License-Identifier: Apache-2.0
"""Module → ONNX file in the cache, by torch's own exporter; and the arrays to call it with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from suite.models import MODELS, Benchmark
from suite.quantized import write_quantized

ROOT = Path(__file__).parents[2]
SEED = 7


def cache() -> Path:
    return Path(os.environ.get("FASTINFER_CACHE", ROOT / ".cache")) / "bench"


def feeds_of(benchmark: Benchmark, length: int | None = None) -> dict[str, np.ndarray]:
    """Inputs by name; `length` replaces the number of tokens."""
    rng = np.random.default_rng(SEED)
    shape = (benchmark.shape[0], length) if length else benchmark.shape
    if not benchmark.tokens:
        return {name: rng.standard_normal(shape, dtype=np.float32) for name in benchmark.inputs}
    make = {"attention_mask": lambda: np.ones(shape, np.int64)}
    return {name: make.get(name, lambda: rng.integers(3, 9999, shape))() for name in benchmark.inputs}


def path_of(benchmark: Benchmark) -> Path:
    return cache() / f"{benchmark.name}.onnx"


def ensure(benchmarks: Sequence[Benchmark]) -> None:
    """Export what is missing, in another process. Raises CalledProcessError."""
    missing = [b.name for b in benchmarks if not path_of(b).exists()]
    if missing:
        print(f"exporting {', '.join(missing)}", file=sys.stderr)
        subprocess.run([sys.executable, "-W", "ignore", "-m", "suite", *missing], cwd=ROOT / "benchmarks", check=True)


def export(benchmark: Benchmark) -> Path:
    """Path of the model; it is built and exported on the first call."""
    path = path_of(benchmark)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        if benchmark.quantized:
            source = export(MODELS[benchmark.of])
            write_quantized(source, feeds_of(benchmark), path, benchmark.quantized)
        else:
            _write(benchmark, path)
    return path


def built(benchmark: Benchmark) -> tuple[Any, tuple]:
    """The torch module, in eval mode and the same on every call, and its arguments."""
    import torch

    from suite.blocks import settle

    torch.manual_seed(SEED)
    module = benchmark.build()
    arguments = tuple(torch.from_numpy(a) for a in feeds_of(benchmark).values())
    has_norm = any(isinstance(m, torch.nn.BatchNorm2d) for m in module.modules())
    return settle(module, torch.randn(2, *benchmark.shape[1:])) if has_norm else module.eval(), arguments


def _write(benchmark: Benchmark, path: Path) -> None:
    import torch

    module, arguments = built(benchmark)
    free = ({0: "batch", 1: "length"} if benchmark.tokens else {0: "batch"}) if benchmark.dynamic else None
    shapes = tuple(free for _ in arguments) if free else None
    with torch.no_grad():
        program = torch.onnx.export(
            module, arguments, dynamo=True, verbose=False, input_names=list(benchmark.inputs), dynamic_shapes=shapes
        )
    part = path.with_suffix(".part")
    program.save(part)  # weights of at most 500 MB: one file
    os.replace(part, path)  # an interrupted export leaves no file that looks whole
