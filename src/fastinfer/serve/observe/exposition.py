# SPDX-License-Identifier: Apache-2.0
"""Snapshots and statistics as Prometheus text: ours as histograms (`fastinfer_*`), and Triton's names (`nv_inference_*`)
so that dashboards made for it work.

Written here line by line: a scrape is answered on the event loop, and prometheus_client takes ten times as long (4.4 ms
for eleven versions; this takes 0.35 ms)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import fastinfer
from fastinfer.serve.observe.metrics import HISTOGRAMS, Snapshot

_DOCUMENTS = {
    "request": ("fastinfer_request_duration_seconds", "From a request's arrival to its response, without the wire"),
    "queue": ("fastinfer_queue_duration_seconds", "Waiting for the model"),
    "compute": ("fastinfer_compute_duration_seconds", "In the model, with all that shared the call"),
    "rows": ("fastinfer_call_rows", "Rows of the call that a request was part of"),
}
_BOUNDS = {n: [f'le="{b}"' for b in (*map(float, bounds), "+Inf")] for n, bounds in HISTOGRAMS.items()}
# Triton's counters: (name, help, where it stands in a ModelStatistics, divisor). They lack the suffix `_total` that
# counters must have, so they are given without a type.
_TRITON = (
    ("nv_inference_request_success", "Number of successful inference requests", ("success", "count"), 1),
    ("nv_inference_request_duration_us", "Cumulative inference request duration in microseconds", ("success", "ns"), 1000),
    ("nv_inference_queue_duration_us", "Cumulative inference queuing duration in microseconds", ("queue", "ns"), 1000),
    ("nv_inference_compute_input_duration_us", "Cumulative compute input duration in microseconds",
     ("compute_input", "ns"), 1000),
    ("nv_inference_compute_infer_duration_us", "Cumulative compute inference duration in microseconds",
     ("compute_infer", "ns"), 1000),
    ("nv_inference_compute_output_duration_us", "Cumulative inference compute output duration in microseconds",
     ("compute_output", "ns"), 1000),
)  # fmt: skip
# There from the start, at 0: rate() does not see the first count of a series that begins with it.
_ALWAYS = dict.fromkeys(("ok", "invalid_argument", "unavailable", "deadline", "cancelled", "internal"), 0)
# Triton's reasons of failed requests. The rest is OTHER: what was asked for was wrong.
_REASONS = {
    "unavailable": "REJECTED",
    "deadline": "REJECTED",
    "rate": "REJECTED",
    "cancelled": "CANCELED",
    "internal": "BACKEND",
}

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Row = tuple[str, str, float]  # suffix of the metric's name, labels as text, value


def kind_of(accept: str) -> str:
    """The content type that a scraper gets: OpenMetrics if it names that."""
    return OPEN if "application/openmetrics-text" in accept else TEXT


def exposition(
    snapshot: Snapshot, statistics: list[dict[str, Any]], gauges: dict[str, float], accept: str = ""
) -> tuple[bytes, str]:
    """(body, content type). statistics: of all loaded versions (Service.statistics). gauges: {"queue": ...}, of the server."""
    kind = kind_of(accept)
    return b"".join(parts(snapshot, statistics, gauges, kind)), kind


def parts(snapshot: Snapshot, statistics: list[dict[str, Any]], gauges: dict[str, float], kind: str) -> Iterator[bytes]:
    """The body, metric by metric: with many models others get their turn in between."""
    for name, family, text, rows in _families(snapshot, statistics, gauges):
        yield _written(name, family, text, rows, kind == OPEN).encode()
    if kind == OPEN:
        yield b"# EOF\n"


def _written(name: str, family: str, text: str, rows: Iterable[Row], openmetrics: bool) -> str:
    titled = name
    if not openmetrics:
        titled = f"{name}_total" if family == "counter" else name
        family = "untyped" if family == "unknown" else family
    lines = [f"# HELP {titled} {text}\n# TYPE {titled} {family}\n"]
    lines += [
        f"{name}{suffix}{{{labels}}} {value}\n" if labels else f"{name}{suffix} {value}\n"
        for suffix, labels, value in rows
    ]
    return "".join(lines)


def _labels(**given: str) -> str:
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in given.items())


def _families(
    snapshot: Snapshot, statistics: list[dict[str, Any]], gauges: dict[str, float]
) -> Iterator[tuple[str, str, str, Iterable[Row]]]:
    """(name, type, help, rows)"""
    yield "fastinfer_build_info", "gauge", "Always 1", [("", _labels(release=fastinfer.__version__), 1)]
    seen = [(_labels(model=v["model"], version=v["version"]), v) for v in snapshot["versions"]]
    yield "fastinfer_requests", "counter", "Requests by what became of them", (
        ("_total", f'{labels},outcome="{outcome}"', count)
        for labels, v in seen for outcome, count in {**_ALWAYS, **v["outcomes"]}.items()
    )  # fmt: skip
    for wire, label in (("http", "status"), ("grpc", "code")):
        counts = sorted(snapshot["responses"][wire].items())
        responses = [("_total", f'{label}="{code}"', count) for code, count in counts]
        yield f"fastinfer_{wire}_responses", "counter", f"Responses over {wire} by {label}", responses
    for name, (metric, text) in _DOCUMENTS.items():
        yield metric, "histogram", text, _histograms(seen, name)
    yield from _triton(snapshot, seen, [(_labels(model=s["name"], version=s["version"]), s) for s in statistics])
    for name, value in gauges.items():
        yield f"fastinfer_{name}", "gauge", name.replace("_", " ").capitalize(), [("", "", value)]


def _histograms(seen: list[tuple[str, dict[str, Any]]], name: str) -> Iterator[Row]:
    for labels, v in seen:
        counts, amount = v["histograms"][name]
        total = 0
        for bound, count in zip(_BOUNDS[name], counts, strict=True):
            total += count
            yield "_bucket", f"{labels},{bound}", total
        yield "_count", labels, total
        yield "_sum", labels, amount


def _triton(
    snapshot: Snapshot, seen: list[tuple[str, dict[str, Any]]], loaded: list[tuple[str, dict[str, Any]]]
) -> Iterator[tuple[str, str, str, Iterable[Row]]]:
    for name, text, (part, field), divisor in _TRITON:
        yield name, "unknown", text, [("", labels, s["inference_stats"][part][field] / divisor) for labels, s in loaded]
    failures = [
        ("", f'{labels},reason="{reason}"', count) for labels, v in seen for reason, count in _failures(v).items()
    ]
    yield "nv_inference_request_failure", "unknown", "Number of failed inference requests", failures
    for name, text, field in (
        ("nv_inference_count", "Number of inferences performed (rows)", "inference_count"),
        ("nv_inference_exec_count", "Number of model executions performed", "execution_count"),
    ):
        yield name, "unknown", text, [("", labels, s[field]) for labels, s in loaded]
    waiting = [("", _labels(model=model, version=version), count) for model, version, count in snapshot["waiting"]]
    yield "nv_inference_pending_request_count", "gauge", "Requests that wait for the model", waiting
    memory = [("", labels, sum(m["byte_size"] for m in s["memory_usage"])) for labels, s in loaded]
    yield "fastinfer_model_memory_bytes", "gauge", "Bytes that a loaded version holds", memory


def _failures(version: dict[str, Any]) -> dict[str, int]:
    reasons = dict.fromkeys(("REJECTED", "CANCELED", "BACKEND", "OTHER"), 0)
    for outcome, count in version["outcomes"].items():
        if outcome != "ok":
            reasons[_REASONS.get(outcome, "OTHER")] += count
    return reasons
