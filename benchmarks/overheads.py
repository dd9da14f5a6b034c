# SPDX-License-Identifier: Apache-2.0
"""What is not arithmetic: a small call, a new sequence length, loading, peak memory. `python benchmarks/overheads.py`."""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from suite import DYNAMIC, MODELS, Benchmark, ensure, feeds_of
from suite.export import cache, path_of

import fastinfer as fi
from fastinfer import _core, bench

LENGTHS = {"minilm_l6_dynamic": range(9, 65), "bert_base_dynamic": range(9, 65)}
UNSEEN = 20
STEADY = 5  # calls at a length once seen; their median is its steady time


def session(path: Path, threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def small_call(threads: int) -> dict[str, float]:
    """p50 of an MLP call in microseconds: ours by name and positional, ONNX Runtime's run(None, …)."""
    path, feeds = path_of(MODELS["mlp"]), feeds_of(MODELS["mlp"])
    model, peer = fi.compile(str(path), threads=threads), session(path, threads)
    x = feeds["x"]
    calls = {
        "fastinfer_run": lambda: model.run(feeds),
        "fastinfer_call": lambda: model(x),
        "onnxruntime": lambda: peer.run(None, feeds),
    }
    taken = bench.interleave(calls, seconds=1.5)
    return {name: statistics.median(t) * 1e6 for name, t in taken.items()}


def new_length(benchmark: Benchmark, threads: int) -> dict[str, dict[str, float]]:
    """Milliseconds that the first call at an unseen length takes beyond the steady time at that length."""
    path = path_of(benchmark)
    lengths = np.random.default_rng(1).permutation(LENGTHS[benchmark.name])[:UNSEEN]
    model, peer = fi.compile(str(path), threads=threads), session(path, threads)
    runs = {"fastinfer": model.run, "onnxruntime": lambda feeds: peer.run(None, feeds)}
    taken = {}
    for name, run in runs.items():
        run(feeds_of(benchmark))
        pairs = [_first_and_steady(run, feeds_of(benchmark), feeds_of(benchmark, int(n))) for n in lengths]
        extra = [first - steady for first, steady in pairs]
        steady = [steady for _, steady in pairs]
        taken[name] = {"extra_ms": 1e3 * statistics.median(extra), "steady_ms": 1e3 * statistics.median(steady)}
    return taken


def _first_and_steady(run: Callable[[dict], Any], warm: dict, feeds: dict) -> tuple[float, float]:
    def clocked(given: dict) -> float:
        start = time.perf_counter()
        run(given)
        return time.perf_counter() - start

    run(warm)  # threads awake and weights in cache, as after any other request
    first = clocked(feeds)
    return first, statistics.median(clocked(feeds) for _ in range(STEADY))


def step_cost(length: int = 400) -> float:
    """Nanoseconds per step of a chain of additions of one number, planned without passes: what a step costs at least."""
    import onnx_ir as ir
    from onnx import TensorProto, helper

    from fastinfer.lower import lower
    from fastinfer.model import Model

    def chain(steps: int) -> Callable[[], Any]:
        nodes = [helper.make_node("Add", [f"v{i}", "x"], [f"v{i + 1}"]) for i in range(steps)]
        ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("v0", "x", f"v{steps}")]
        proto = helper.make_model(helper.make_graph(nodes, "chain", ports[:2], ports[2:]))
        model = Model(lower(ir.from_proto(proto)), threads=1)
        feeds = {"v0": np.zeros(1, np.float32), "x": np.ones(1, np.float32)}
        return lambda: model.run(feeds)

    taken = bench.interleave({"long": chain(length), "short": chain(1)}, seconds=1.0)
    long, short = (statistics.median(taken[name]) for name in ("long", "short"))
    return (long - short) / (length - 1) * 1e9


def two_callers(name: str, seconds: float = 1.0) -> dict[str, float]:
    """Calls per second of a model with threads=1 from one and from two Python threads, best of three turns each."""
    benchmark = MODELS[name]
    model, feeds = fi.compile(str(path_of(benchmark)), threads=1), feeds_of(benchmark)

    def rate(callers: int) -> float:
        end = time.perf_counter() + seconds / 3

        def call() -> int:
            done = 0
            while time.perf_counter() < end:
                model.run(feeds)
                done += 1
            return done

        with concurrent.futures.ThreadPoolExecutor(callers) as pool:
            return sum(f.result() for f in [pool.submit(call) for _ in range(callers)]) / (seconds / 3)

    rate(2)
    turns = [(rate(1), rate(2)) for _ in range(3)]
    return {"one": max(t[0] for t in turns), "two": max(t[1] for t in turns)}


# A new process: nothing imported before counts. VmHWM and not getrusage: ru_maxrss outlives exec, so a child
# starts with its parent's peak.
LOADED = """
import sys, time, json
def status(key):
    return next(int(x.split()[1]) * 1024 for x in open("/proc/self/status") if x.startswith(key + ":"))
import numpy as np
t0 = time.perf_counter()
import fastinfer as fi
t1 = time.perf_counter()
before = status("VmHWM")
t2 = time.perf_counter()
model = fi.load(sys.argv[1], threads=int(sys.argv[2]))
t3 = time.perf_counter()
length = int(sys.argv[3])
feeds = {"input_ids": np.arange(3, 3 + length)[None], "attention_mask": np.ones((1, length), np.int64)}
first = time.perf_counter(); model.run(feeds); first = time.perf_counter() - first
for _ in range(3): model.run(feeds)
peak = status("VmHWM")
foreign = [m for m in ("torch", "onnx", "onnx_ir", "onnxscript") if m in sys.modules]
constants, arena = model.memory().constants, model.explain(feeds).arena_bytes
print(json.dumps({"import_ms": (t1 - t0) * 1e3, "load_ms": (t3 - t2) * 1e3, "first_call_ms": first * 1e3,
    "imported": foreign, "rss_before_load": before, "peak_rss": peak, "constants": constants, "arena": arena,
    "fallback": len(model.fallback_nodes)}))
"""


def loading(threads: int) -> dict[str, Any]:
    """Load and run a saved BERT-base in a new process, twice; the second has the file in the page cache."""
    benchmark = MODELS["bert_base_128"]
    saved = cache() / "bert_base_128.safetensors"
    source = fi.compile(str(path_of(benchmark)), threads=threads)
    source.save(saved)
    weights = saved.stat().st_size
    command = [sys.executable, "-c", LOADED, str(saved), str(threads), str(benchmark.shape[1])]
    for _ in range(2):
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    report = {**json.loads(out), "file": weights, "onnx_file": path_of(benchmark).stat().st_size}
    needed = report["constants"] + report["arena"]
    report["peak_over_needed"] = report["peak_rss"] / needed
    report["peak_less_interpreter_over_needed"] = (report["peak_rss"] - report["rss_before_load"]) / needed
    return report


def show(report: dict[str, Any]) -> None:
    call = report["small_call_us"]
    print(f"MLP call, us: {', '.join(f'{k} {v:.1f}' for k, v in call.items())}")
    print(f"  onnxruntime / ours: {call['onnxruntime'] / call['fastinfer_run']:.2f}")
    print(f"a step costs {report['step_ns']:.0f} ns at least")
    for name, rates in report["callers_per_second"].items():
        print(f"{name} threads=1: {rates['one']:.0f} calls/s from one caller, {rates['two']:.0f} from two: "
              f"{rates['two'] / rates['one']:.2f}x")  # fmt: skip
    for name, runtimes in report["new_length_ms"].items():
        for runtime, t in runtimes.items():
            print(f"{name} {runtime}: new length {t['extra_ms']:+.3f} ms beyond the run of {t['steady_ms']:.2f} ms")
    r = report["saved_bert_base"]
    print(f"fi.load of BERT-base: {r['load_ms']:.1f} ms, import fastinfer {r['import_ms']:.0f} ms, first call "
          f"{r['first_call_ms']:.0f} ms, of torch and onnx imported: {r['imported'] or 'none'}")  # fmt: skip
    sizes = {k: f"{r[k] / 1e6:.1f}" for k in ("peak_rss", "rss_before_load", "constants", "arena", "file", "onnx_file")}
    print(f"peak memory of a run, MB: {sizes}")
    print(f"  peak / (constants + arena) {r['peak_over_needed']:.3f}, less the interpreter's own "
          f"{r['peak_less_interpreter_over_needed']:.3f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=_core.usable_cores())
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    ensure([MODELS[n] for n in ("mlp", "bert_base_128", "minilm_l6_32", "resnet18")] + list(DYNAMIC.values()))
    report = {
        "small_call_us": small_call(options.threads),
        "step_ns": step_cost(),
        "callers_per_second": {name: two_callers(name) for name in ("mlp", "minilm_l6_32", "resnet18")},
        "new_length_ms": {name: new_length(b, options.threads) for name, b in DYNAMIC.items()},
        "saved_bert_base": loading(options.threads),
    }
    print(json.dumps(report, indent=1)) if options.json else show(report)


if __name__ == "__main__":
    main()
