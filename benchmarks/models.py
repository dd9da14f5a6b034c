# SPDX-License-Identifier: Apache-2.0
"""Speed of whole models against other runtimes: `python benchmarks/models.py --threads 2 --json`.

Runtimes take turns in one process (fastinfer.bench), all in float32, and a figure is only given where outputs agree.
With `--precision bf16` ours and OpenVINO compute in bfloat16; ONNX Runtime, which has none, gives the float32 reference.
With `--precision int8` all run the suite's quantized files.
`FASTINFER_ISA=avx2` limits ours; `--peer-isa avx2` limits what of the peers can be limited (PEER_ISAS).
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib.metadata
import json
import math
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from suite import MODELS, QUANTIZED, ensure, feeds_of
from suite.export import ROOT, path_of
from suite.inductor import ensure_packages, package_of

import fastinfer as fi
from fastinfer import _core, bench
from fastinfer.cli.doctor import cpu_name

RESULTS = Path(__file__).parent / "results"
# A rounding that falls the other way shifts an output by steps: OpenVINO is 0.15 sigma (rms) from ONNX Runtime on MobileNetV2.
INT8_TOLERANCE = 0.5
# oneDNN reads this variable when it is loaded: OpenVINO's convolutions and its own code. What is no part of it looks at
# the CPU itself: 236 GFLOP/s of OpenVINO's fully connected layers on one core whose AVX2 peak is 128 (Zen 5).
PEER_ISAS = {"sse41": "SSE41", "avx2": "AVX2", "avx512": "AVX512_CORE"}
PEER_ISA_VARIABLE = "ONEDNN_MAX_CPU_ISA"
NOT_LIMITED = "ONNX Runtime, and OpenVINO's fully connected layers (MLAS), cannot be limited"


@dataclass(frozen=True)
class Subject:
    """package: what Inductor made of the same network, where there is one. tolerance: None for bench.compare's own."""

    name: str
    path: Callable[[], Path]
    feeds: Callable[[], dict[str, np.ndarray]]
    package: Path | None = None
    tolerance: float | None = None


def of_suite(names: list[str], inductor: bool) -> list[Subject]:
    chosen = [{**MODELS, **QUANTIZED}[n] for n in names]
    ensure(chosen)
    if inductor:
        ensure_packages(chosen)
    packages = {b.name: p for b in chosen if inductor and (p := package_of(b)).exists()}
    return [
        Subject(
            b.name, lambda b=b: path_of(b), lambda b=b: feeds_of(b), packages.get(b.name),
            INT8_TOLERANCE if b.quantized else None,
        )
        for b in chosen
    ]  # fmt: skip


def real_models(names: list[str]) -> list[Subject]:
    """Those of models/cases.py (all, if no names are given), which are fetched (500 MB) on the first use."""
    sys.path.insert(0, str(ROOT))
    from models.cases import CASES

    unknown = set(names) - {c.name for c in CASES}
    if unknown:
        raise SystemExit(
            f"no real model is called {', '.join(sorted(unknown))}; known: {', '.join(c.name for c in CASES)}"
        )
    chosen = [c for c in CASES if not names or c.name in names]
    return [Subject(c.name, c.path, lambda c=c: c.inputs()[0], tolerance=c.tolerance) for c in chosen]


def measure(subject: Subject, options: argparse.Namespace) -> dict[str, Any]:
    """The comparison as plain data, with `fallback` (nodes run by reference); or the error of compiling or running."""
    precision = "fp32" if options.precision == "int8" else options.precision  # the file says what is int8
    try:
        path, feeds = subject.path(), subject.feeds()
        model = fi.compile(str(path), threads=options.threads, precision=precision)
        result = bench.compare(
            model, feeds, against=options.against, onnx=path, module=subject.package, seconds=options.seconds,
            min_rounds=options.rounds, precision=precision, tolerance=subject.tolerance,
        )  # fmt: skip
    except Exception as error:  # one model that fails must not cost the table of the others
        return {"model": subject.name, "error": f"{type(error).__name__}: {error}"}
    steps = model.explain(feeds).steps
    row = {"model": subject.name, **result.as_dict(), "steps": len(steps)}
    row["fallback"] = {s["label"]: "; ".join(s["refusals"]) for s in steps if "reference" in s["kernel"]}
    if options.profile:
        row["profile"] = str(model.profile(feeds, runs=5)).splitlines()[: 1 + options.profile]
    return row


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def header(peers: list[str]) -> str:
    return f"{'model':<20}{'ours ms':>9}" + "".join(f"{p[:11]:>13}" for p in peers) + f"{'peer/ours':>11}{'error':>9}"


def line(row: dict[str, Any], peers: list[str]) -> str:
    if "error" in row:
        return f"{row['model']:<20}  {row['error']}"
    by_name = {r["runtime"]: r for r in row["runtimes"]}
    ours = by_name[bench.OURS]
    shown = f"{row['model']:<20}" + (f"{ours['p50_ms']:9.3f}" if "p50_ms" in ours else f"{'-':>9}")
    for peer in peers:
        shown += f"{by_name[peer]['p50_ms']:13.3f}" if "p50_ms" in by_name[peer] else f"{'-':>13}"
    shown += f"{row['ratio']:11.2f}" if row["ratio"] else f"{'-':>11}"
    # Ours first: a peer's own error against the reference is in the JSON.
    shown += f"{ours['max_error']:9.1e}" if ours["max_error"] is not None else f"{'-':>9}"
    notes = [f"{r['runtime']}: {r['refused']}" for r in row["runtimes"] if r.get("refused")]
    notes += [f"{len(row['fallback'])} steps by reference"] if row["fallback"] else []
    return shown + ("  " + "; ".join(notes) if notes else "")


def write(rows: list[dict[str, Any]], options: argparse.Namespace, mean: float) -> Path:
    today = datetime.date.today().isoformat()
    precision = "" if options.precision == "fp32" else f"-{options.precision}"
    kind = "real" if options.real else "models"
    limited = f"-peers-{options.peer_isa}" if options.peer_isa else ""
    path = RESULTS / f"{kind}-{today}-{_core.active_isa()}-{options.threads}t{precision}{limited}.json"
    names = ("fastinfer", "numpy", "onnx", *("torch" if n == "inductor" else n for n in options.against))
    report = {
        "date": today,
        "cpu": cpu_name(),
        "platform": platform.platform(),
        "isa": _core.active_isa(),
        **({"peer_isa": options.peer_isa, "peer_isa_note": NOT_LIMITED} if options.peer_isa else {}),
        "threads": options.threads,
        "precision": options.precision,
        "seconds_per_model": options.seconds,
        "versions": {n: fi.__version__ if n == "fastinfer" else importlib.metadata.version(n) for n in names},
        "geometric_mean": None if math.isnan(mean) else mean,
        "models": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=1, default=float) + "\n")
    return path


def arguments(given: list[str]) -> argparse.Namespace:
    def names(text):
        return [n for n in text.split(",") if n]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=_core.usable_cores())
    parser.add_argument("--only", type=names, default=[], help=f"default: all of {', '.join(MODELS)}")
    parser.add_argument(
        "--real", action="store_true", help="the trained models of models/cases.py instead of the suite"
    )
    parser.add_argument(
        "--against",
        type=names,
        default=["onnxruntime", "openvino"],
        help="also inductor, for which the suite's models are compiled once (about a minute each)",
    )
    parser.add_argument("--peer-isa", choices=list(PEER_ISAS), help=f"limit the peers: {NOT_LIMITED}")
    parser.add_argument("--precision", choices=["fp32", "bf16", "int8"], default="fp32")
    parser.add_argument("--seconds", type=float, default=6.0, help="per model, all runtimes together")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each runtime gets at least")
    parser.add_argument("--profile", type=int, default=0, metavar="N", help="also the N slowest steps of each model")
    parser.add_argument(
        "--json", action="store_true", help=f"also write {RESULTS.name}/models-<date>-<isa>-<threads>t….json"
    )
    options = parser.parse_args(given)
    known = QUANTIZED if options.precision == "int8" else MODELS
    unknown = [n for n in options.only if n not in known]
    if unknown and not options.real:
        parser.error(f"no model is called {', '.join(unknown)}; known: {', '.join(known)}")
    options.only = options.only or ([] if options.real else list(known))
    return options


def main(given: list[str]) -> int:
    options = arguments(given)
    if options.peer_isa:
        os.environ[PEER_ISA_VARIABLE] = PEER_ISAS[options.peer_isa]  # before a peer is imported
    chosen = real_models(options.only) if options.real else of_suite(options.only, "inductor" in options.against)
    print(
        f"{cpu_name()}, {_core.active_isa()}, {options.threads} threads, {options.precision}, p50 of interleaved blocks"
    )
    if options.peer_isa:
        print(f"peers limited to {options.peer_isa} by {PEER_ISA_VARIABLE}; {NOT_LIMITED}")
    print(header(options.against))
    rows = []
    for subject in chosen:
        rows.append(measure(subject, options))
        print(line(rows[-1], options.against), flush=True)
        print("".join(f"    {text}\n" for text in rows[-1].get("profile", [])), end="")
        gc.collect()  # sessions of the peers, with their threads, live in closures until here
    ratios = [r["ratio"] for r in rows if r.get("ratio")]
    mean = geometric_mean(ratios)
    if ratios:
        print(
            f"geometric mean of (fastest peer / ours) over {len(ratios)} models: {mean:.3f}, lowest {min(ratios):.2f}"
        )
    if options.json:
        print(write(rows, options, mean))
    return 0 if len(ratios) == len(rows) or not options.against else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
