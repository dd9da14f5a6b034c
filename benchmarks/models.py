# SPDX-License-Identifier: Apache-2.0
"""Speed of whole models against other runtimes: `python benchmarks/models.py --threads 2 --json`.

Runtimes take turns in one process (fastinfer.bench), all in float32, and a figure is only given where outputs agree.
With `--precision bf16` ours and OpenVINO compute in bfloat16; ONNX Runtime, which has none, gives the float32 reference.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib.metadata
import json
import math
import platform
import sys
from pathlib import Path
from typing import Any

from suite import MODELS, Benchmark, ensure, feeds_of
from suite.export import path_of

import fastinfer as fi
from fastinfer import _core, bench
from fastinfer.cli.doctor import cpu_name

RESULTS = Path(__file__).parent / "results"


def measure(benchmark: Benchmark, options: argparse.Namespace) -> dict[str, Any]:
    """The comparison as plain data, with `fallback` (nodes run by reference); or the error of compiling or running."""
    feeds = feeds_of(benchmark)
    try:
        model = fi.compile(str(path_of(benchmark)), threads=options.threads, precision=options.precision)
        against = options.against
        result = bench.compare(
            model, feeds, against=against, onnx=path_of(benchmark), seconds=options.seconds, min_rounds=options.rounds,
            precision=options.precision,
        )  # fmt: skip
    except Exception as error:  # one model that fails must not cost the table of the others
        return {"model": benchmark.name, "error": f"{type(error).__name__}: {error}"}
    steps = model.explain(feeds).steps
    row = {"model": benchmark.name, **result.as_dict(), "steps": len(steps)}
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
    path = RESULTS / f"models-{today}-{_core.active_isa()}-{options.threads}t{precision}.json"
    names = ("fastinfer", "numpy", "onnx", *options.against)
    report = {
        "date": today,
        "cpu": cpu_name(),
        "platform": platform.platform(),
        "isa": _core.active_isa(),
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
    parser.add_argument("--only", type=names, default=list(MODELS), help=", ".join(MODELS))
    parser.add_argument("--against", type=names, default=["onnxruntime", "openvino"])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--seconds", type=float, default=6.0, help="per model, all runtimes together")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each runtime gets at least")
    parser.add_argument("--profile", type=int, default=0, metavar="N", help="also the N slowest steps of each model")
    parser.add_argument(
        "--json", action="store_true", help=f"also write {RESULTS.name}/models-<date>-<isa>-<threads>t.json"
    )
    options = parser.parse_args(given)
    unknown = [n for n in options.only if n not in MODELS]
    if unknown:
        parser.error(f"no model is called {', '.join(unknown)}; known: {', '.join(MODELS)}")
    return options


def main(given: list[str]) -> int:
    options = arguments(given)
    chosen = [MODELS[n] for n in options.only]
    ensure(chosen)
    print(
        f"{cpu_name()}, {_core.active_isa()}, {options.threads} threads, {options.precision}, p50 of interleaved blocks"
    )
    print(header(options.against))
    rows = []
    for benchmark in chosen:
        rows.append(measure(benchmark, options))
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
