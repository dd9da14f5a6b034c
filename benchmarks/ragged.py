# SPDX-License-Identifier: Apache-2.0
"""Batches of sentences of different lengths: `model.run_many` without padding against padded batches in other runtimes.

`python benchmarks/ragged.py --threads 2`. Lengths are those of sentences in the docstrings of Python's own library, 16
drawn at a time so that mean/max lies between 0.37 and 0.43. Runtimes take turns, one call each, in one process; outputs
are compared token by token in the same run. OpenVINO is compiled for each batch's padded shape, its fast path; `unseen`
drops our plans before each call, as if no such batch had come before.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from suite import DYNAMIC, ensure
from suite.export import path_of

import fastinfer as fi
from fastinfer import _core, peers
from fastinfer.cli.doctor import cpu_name

TOLERANCE = 1e-3  # of the largest output
VOCABULARY = 30000


def corpus() -> list[int]:
    """Tokens per sentence: words and marks of the docstrings, and the two that a tokenizer adds."""
    lengths = []
    for path in sorted(Path(ast.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) or not (
                text := ast.get_docstring(node)
            ):
                continue
            for sentence in re.split(r"(?<=[.!?])\s+|\n\s*\n", text):
                if re.fullmatch(r"[A-Z][^>|=_{}\[\]]*[.!?]", sentence):
                    lengths.append(len(re.findall(r"\w+|[^\w\s]", sentence)) + 2)
    return lengths


def draw(lengths: list[int], count: int, generator: random.Random) -> list[int]:
    while True:
        chosen = generator.sample(lengths, count)
        if 0.37 <= statistics.mean(chosen) / max(chosen) <= 0.43:
            return chosen


def padded(model: fi.Model, lengths: list[int], generator: np.random.Generator) -> dict[str, np.ndarray]:
    shape = len(lengths), max(lengths)
    mask = (np.arange(shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
    ids = generator.integers(1, VOCABULARY, shape) * mask
    return {
        s.name: mask if "mask" in s.name else ids if "ids" in s.name else np.zeros(shape, np.int64)
        for s in model.inputs
    }


def feeds_of(batch: dict[str, np.ndarray], lengths: list[int]) -> list[dict[str, np.ndarray]]:
    return [{k: np.ascontiguousarray(v[i : i + 1, :n]) for k, v in batch.items()} for i, n in enumerate(lengths)]


def error(ours: list[dict[str, np.ndarray]], reference: list[np.ndarray], lengths: list[int]) -> float:
    """The largest difference at a real token, relative to the largest output."""
    (name,) = ours[0]
    largest = max(float(np.abs(y[name]).max()) for y in ours)
    return (
        max(float(np.abs(y[name][0] - reference[0][i, :n]).max()) for i, (y, n) in enumerate(zip(ours, lengths)))
        / largest
    )


def take_turns(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Median seconds per call."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, times.values())) < 3:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()}


def measure(name: str, model: fi.Model, lengths: list[int], options: argparse.Namespace) -> dict[str, Any]:
    batch = padded(model, lengths, np.random.default_rng(len(lengths)))
    feeds = feeds_of(batch, lengths)
    path = path_of(DYNAMIC[name])
    others = {p: peers.starter(p, batch, options.threads, onnx=path, module=None)() for p in options.against}
    ours = model.run_many(feeds)
    errors = {p: error(ours, run.call_for_outputs(), lengths) for p, run in others.items()}
    if max(errors.values(), default=0.0) > TOLERANCE:
        raise SystemExit(f"{name}: outputs differ by {errors}")

    def unseen():
        model.trim()
        model.run_many(feeds)

    calls: dict[str, Callable[[], Any]] = {"packed": lambda: model.run_many(feeds), "unseen": unseen}
    calls["own padded"] = lambda: model.run(batch)
    calls |= {p: run.call for p, run in others.items()}
    times = take_turns(calls, options.seconds)
    best = min((times[p] for p in others), default=float("nan"))
    return {"model": name, "mean": statistics.mean(lengths), "max": max(lengths), "ms": {k: 1e3 * v for k, v in times.items()},
            "ratio": best / times["packed"], "ratio_unseen": best / times["unseen"], "error": max(errors.values(), default=0.0)}  # fmt: skip


def line(row: dict[str, Any]) -> str:
    times = "".join(f"{t:12.2f}" for t in row["ms"].values())
    lengths = f"{row['mean']:6.1f}/{row['max']:<4}"
    return f"{row['model']:<20}{lengths}{times}{row['ratio']:10.2f}{row['ratio_unseen']:9.2f}{row['error']:10.1e}"


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=_core.usable_cores())
    parser.add_argument("--only", default=",".join(DYNAMIC))
    parser.add_argument("--against", type=lambda s: s.split(","), default=["onnxruntime", "openvino"])
    parser.add_argument("--sentences", type=int, default=16)
    parser.add_argument("--draws", type=int, default=3, help="batches, each with other lengths")
    parser.add_argument("--seconds", type=float, default=3.0, help="per batch, all runtimes together")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(given)
    names = options.only.split(",")
    ensure([DYNAMIC[n] for n in names])
    lengths, rows = corpus(), []
    print(f"{cpu_name()}, {_core.active_isa()}, {options.threads} threads, median ms of calls in turn")
    print(f"{'model':<20}{'mean/max':>10} {''.join(f'{c:>12}' for c in ('packed', 'unseen', 'own padded', *options.against))}"
          f"{'best/ours':>10}{'unseen':>9}{'error':>10}")  # fmt: skip
    for name in names:
        model = fi.compile(str(path_of(DYNAMIC[name])), threads=options.threads)
        if model.packing:
            raise SystemExit(f"{name} does not pack: {model.packing}")
        generator = random.Random(1)
        for _ in range(options.draws):
            rows.append(measure(name, model, draw(lengths, options.sentences, generator), options))
            print(line(rows[-1]), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
