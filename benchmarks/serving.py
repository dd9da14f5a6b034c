# SPDX-License-Identifier: Apache-2.0
"""The server against MLServer and LitServe with the same model in ONNX Runtime behind them, and over gRPC against a handler
that does nothing and one, written by hand, that runs the model and no more:
`MLSERVER=venv LITSERVE=venv python benchmarks/serving.py`.

Every server runs in processes of its own and takes its turn, round after round; the others are stopped meanwhile. The load
generator is one more process on the same machine: it takes what it costs (13 µs a request of one core) from every server
alike. A model has one thread less than there are cores: with all of them every server, ours too, was slower on two. Peers are
tried with and without their batching, and the better one counts. In each turn the last answer to each request is compared
with ONNX Runtime's. In process: `model.run` of the same feed, between the turns.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import datetime
import functools
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from loadtest import client, requests, servers
from ragged import corpus
from suite import DYNAMIC, ensure
from suite.export import path_of

import fastinfer as fi
from fastinfer.cli.doctor import cpu_name

RESULTS = Path(__file__).parent / "results"
OURS, JSON, PEERS = "fastinfer", "fastinfer, JSON", ("MLServer", "LitServe")
BARE, PLAIN = "bare handler", "handler by hand"  # the second one runs the model
TOLERANCE = 1e-3  # of the largest output
LONGEST = 128  # tokens; longer sentences are cut, as models of this kind do


@dataclass(frozen=True)
class Case:
    """lengths: of the texts; none for a model that takes no text. grpc: over gRPC, against a handler that does nothing."""

    name: str
    model: str
    connections: int
    threads: int
    lengths: tuple[int, ...] = ()
    requests: int = 64
    grpc: bool = False

    def feeds(self) -> list[dict[str, np.ndarray]]:
        rng = np.random.default_rng(5)
        if not self.lengths:
            return [{"x": rng.standard_normal((1, 784), np.float32)} for _ in range(self.requests)]
        return [
            {"input_ids": rng.integers(3, 9999, (1, n)), "attention_mask": np.ones((1, n), np.int64)}
            for n in self.lengths
        ]


def cases(threads: int) -> list[Case]:
    drawn = random.Random(1).sample(corpus(), 256)
    ragged = tuple(min(n, LONGEST) for n in drawn)
    return [
        Case("mlp, 1 client", "mlp_dynamic", 1, 1),
        Case("mlp, 32 clients", "mlp_dynamic", 32, 1),
        Case("grpc, mlp, 1 client", "mlp_dynamic", 1, 1, grpc=True),
        Case("grpc, mlp, 32 clients", "mlp_dynamic", 32, 1, grpc=True),
        Case("minilm, texts of 32 tokens", "minilm_l6_embedding", 32, threads, (32,) * 64),
        Case(f"minilm, ragged texts, {statistics.mean(ragged):.0f} of {max(ragged)} tokens", "minilm_l6_embedding", 32, threads, ragged),
    ]  # fmt: skip


@dataclass
class Entry:
    """A server as one column: how it is started, how it is asked. batch: rows per call."""

    name: str
    start: Callable[..., Any]
    encode: Callable[[str, requests.Feed], bytes]
    batch: int = 1
    checked: bool = True
    padded: bool = False  # the client pads to the longest text there is, so that texts can share a batch
    runs: list[dict] = field(default_factory=list)
    error: float = 0.0
    refused: str = ""


def entries(case: Case, reference: np.ndarray, output: str) -> list[Entry]:
    """reference: of the case's first feed, the output of this name."""
    if case.grpc:
        bare = functools.partial(servers.bare_grpc, answer=requests.grpc_answer(case.model, output, reference))
        plain = Entry(PLAIN, servers.plain_grpc, requests.grpc)
        return [
            Entry(OURS, servers.fastinfer, requests.grpc, 32),
            Entry(BARE, bare, requests.grpc, checked=False),
            plain,
        ]
    several = case.connections > 1
    made = [Entry(OURS, servers.fastinfer, requests.binary, 32), Entry(JSON, servers.fastinfer, requests.protocol, 32)]
    made += [
        Entry("MLServer", servers.mlserver, requests.protocol),
        Entry("LitServe", servers.litserve, requests.plain),
    ]
    if several:
        ragged = len(set(case.lengths)) > 1
        made += [Entry("MLServer, batching", servers.mlserver, requests.protocol, 32, padded=ragged)]
        made += [Entry("LitServe, batching", servers.litserve, requests.plain, 32)]
    return made


def padded(feed: requests.Feed) -> dict[str, np.ndarray]:
    return {n: np.pad(a, ((0, 0), (0, LONGEST - a.shape[1]))) for n, a in feed.items()}


def one_turn(port: int, wanted: list[bytes], case: Case, seconds: float) -> dict:
    plan = client.Plan(port, wanted, case.connections, seconds=seconds)
    program = [sys.executable, str(Path(client.__file__).with_name("grpc_client.py" if case.grpc else "client.py"))]
    done = subprocess.run(program, input=plan.as_json(), capture_output=True, text=True, timeout=seconds + 120)
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def check(row: dict, reference: list[np.ndarray], read: Callable[[bytes], np.ndarray]) -> float:
    """The largest difference of the answers of one turn from ONNX Runtime's, relative to its largest output."""
    worst = 0.0
    for index, text in row.pop("answers").items():
        expected = reference[int(index)]
        given = read(base64.b64decode(text))
        if given.shape != expected.shape:
            return float("inf")
        worst = max(worst, float(np.abs(given - expected).max() / np.abs(expected).max()))
    return worst


def in_process(model: fi.Model, feeds: list[dict[str, np.ndarray]], seconds: float) -> list[float]:
    times, end, i = [], time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        start = time.perf_counter()
        model.run(feeds[i % len(feeds)])
        times.append(time.perf_counter() - start)
        i += 1
    return times


def measure(case: Case, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    import onnxruntime

    path = path_of(DYNAMIC[case.model])
    session, feeds = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]), case.feeds()
    reference, name = [session.run(None, feed)[0] for feed in feeds], session.get_outputs()[0].name
    del session
    model = fi.compile(str(path), threads=case.threads)
    in_process(model, feeds, 0.2)
    alone: list[float] = []
    columns = [
        e for e in entries(case, reference[0], name) if not options.servers or any(s in e.name for s in options.servers)
    ]
    with contextlib.ExitStack() as stack:
        running: dict[tuple, servers.Running] = {}
        asked = {}
        for e in columns:
            key = e.start, e.batch
            if key not in running:
                place = folder / case.name.replace(" ", "-") / f"{e.name}-{e.batch}"
                running[key] = stack.enter_context(e.start(path, case.model, place, case.threads, e.batch))
                running[key].pause()
            asked[e.name] = [e.encode(case.model, padded(f) if e.padded else f) for f in feeds]
        for turn in range(options.rounds):
            for e in columns if turn % 2 == 0 else columns[::-1]:
                server = running[e.start, e.batch]
                server.resume()
                row = one_turn(server.grpc_port if case.grpc else server.port, asked[e.name], case, options.seconds)
                server.pause()
                if e.checked:
                    e.error = max(
                        e.error, check(row, reference, requests.grpc_output if case.grpc else requests.output)
                    )
                row.pop("answers", None)
                e.runs.append(row)
            alone += in_process(model, feeds, 0.3)
    return {"case": case.name, "connections": case.connections, "threads": case.threads,
            "in_process_p50": statistics.median(alone), "servers": [summary(e) for e in columns]}  # fmt: skip


def summary(e: Entry) -> dict[str, Any]:
    """Medians over the turns; `spread`: lowest and highest rate."""
    latency = {q: statistics.median(r["latency"][q] for r in e.runs if "latency" in r) if e.runs[0]["ok"] else float("nan")
               for q in ("p50", "p90", "p99")}  # fmt: skip
    rates = [r["rate"] for r in e.runs]
    return {"name": e.name, "rate": statistics.median(rates), "spread": [min(rates), max(rates)], **latency, "error": e.error,
            "failed": sum(r["failed"] + r["refused"] for r in e.runs), "fault": next((r["error"] for r in e.runs if r["error"]), ""),
            "batch": e.batch}  # fmt: skip


def sound(row: dict[str, Any]) -> bool:
    return not row["failed"] and row["error"] <= TOLERANCE


def table(result: dict[str, Any]) -> str:
    ours = next((s for s in result["servers"] if s["name"] == OURS), None)
    alone = result["in_process_p50"]
    lines = [f"{result['case']} ({result['connections']} connections, {result['threads']} threads): in process {1e6 * alone:.1f} µs",
             f"  {'':<20}{'req/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'ours/it':>9}{'error':>9}"]  # fmt: skip
    for s in result["servers"]:
        ratio = ours["rate"] / s["rate"] if ours and s["rate"] else float("nan")
        text = (
            f"  {s['name']:<20}{s['rate']:9.0f}{1e3 * s['p50']:9.3f}{1e3 * s['p99']:9.3f}{ratio:9.2f}{s['error']:9.1e}"
        )
        lines.append(text + ("" if sound(s) else f"  {s['failed']} failed: {s['fault'][:300]!r}"))
    return "\n".join(lines)


def verdicts(result: dict[str, Any]) -> dict[str, float]:
    """What the issue asks of a case, as figures."""
    by_name = {s["name"]: s for s in result["servers"]}
    peers = [s for n, s in by_name.items() if n.startswith(PEERS) and sound(s)]
    if OURS in by_name and (handlers := [h for h in (BARE, PLAIN) if h in by_name]):
        ours = by_name[OURS]
        return {f"{q} / {h}": ours[q] / by_name[h][q] for h in handlers for q in ("rate", "p50")}
    if OURS not in by_name or not peers:
        return {}
    ours = by_name[OURS]
    found = {
        "rate / better peer": ours["rate"] / max(s["rate"] for s in peers),
        "p99 / lower peer": ours["p99"] / min(s["p99"] for s in peers),
    }
    if result["connections"] == 1:
        found["p50 above in process, µs"] = 1e6 * (ours["p50"] - result["in_process_p50"])
    return found


def versions() -> dict[str, str]:
    found = {"fastinfer": fi.__version__, "python": platform.python_version(), "numpy": np.__version__}
    for variable, package in (("MLSERVER", "mlserver"), ("LITSERVE", "litserve")):
        for name in (package, "onnxruntime"):
            code = f"import importlib.metadata as m; print(m.version('{name}'))"
            program = Path(os.environ[variable]) / "bin" / "python"
            found[f"{package}'s {name}" if name != package else name] = subprocess.check_output(
                [program, "-c", code], text=True
            ).strip()
    return found


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", type=lambda s: s.split(";"), default=[], help="parts of the names of cases, with ; between"
    )
    parser.add_argument("--servers", type=lambda s: s.split(","), default=[], help="parts of the names of servers")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each server")
    parser.add_argument("--seconds", type=float, default=1.5, help="of a turn, after half a second that does not count")
    parser.add_argument(
        "--threads", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="of MiniLM, in every server"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help=f"also write {RESULTS.name}/serving-<date>.json, beside the day's other cases",
    )
    options = parser.parse_args(given)
    if missing := [v for v in ("MLSERVER", "LITSERVE") if v not in os.environ]:
        parser.error(
            f"{' and '.join(missing)}: needed: the folder of a virtual environment with the peer and onnxruntime"
        )
    chosen = [c for c in cases(options.threads) if not options.only or any(o in c.name for o in options.only)]
    ensure([DYNAMIC[c.model] for c in chosen])
    rows = []
    print(f"{cpu_name()}, {os.cpu_count()} cores, medians of {options.rounds} turns of {options.seconds:g} s")
    with tempfile.TemporaryDirectory() as folder:
        for case in chosen:
            rows.append(measure(case, options, Path(folder)))
            rows[-1]["verdicts"] = verdicts(rows[-1])
            print(table(rows[-1]), flush=True)
            print("".join(f"  {name}: {value:.3g}\n" for name, value in rows[-1]["verdicts"].items()), flush=True)
    if options.json:
        today = datetime.date.today().isoformat()
        how = {"rounds": options.rounds, "seconds": options.seconds, "load_average": os.getloadavg()[0]}
        rows = [{**r, **how} for r in rows]
        report = {"date": today, "cpu": cpu_name(), "cores": os.cpu_count(), "platform": platform.platform(),
                  "versions": versions(), "cases": rows}  # fmt: skip
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"serving-{today}.json"
        if path.exists():  # of other cases, measured the same day
            fresh = {r["case"] for r in rows}
            report["cases"] = [r for r in json.loads(path.read_text())["cases"] if r["case"] not in fresh] + rows
        path.write_text(json.dumps(report, indent=1) + "\n")
        print(path)
    return 0 if all(sound(s) for r in rows for s in r["servers"] if s["name"] in (OURS, JSON)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
