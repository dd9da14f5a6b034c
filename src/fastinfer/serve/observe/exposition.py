# SPDX-License-Identifier: Apache-2.0
"""Snapshots and statistics as Prometheus text: ours as histograms (`fastinfer_*`), and Triton's names (`nv_inference_*`)
so that dashboards made for it work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    UntypedMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

import fastinfer
from fastinfer.serve.observe.metrics import HISTOGRAMS, Snapshot

_LABELS = ("model", "version")
_DOCUMENTS = {
    "request": ("fastinfer_request_duration_seconds", "From a request's arrival to its response, without the wire"),
    "queue": ("fastinfer_queue_duration_seconds", "Waiting for the model"),
    "compute": ("fastinfer_compute_duration_seconds", "In the model, with all that shared the call"),
    "rows": ("fastinfer_call_rows", "Rows of the call that a request was part of"),
}
# Triton's counters: (name, help, where it stands in a ModelStatistics, divisor).
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


def exposition(
    snapshot: Snapshot, statistics: list[dict[str, Any]], gauges: dict[str, float], accept: str = ""
) -> tuple[bytes, str]:
    """(body, content type). statistics: of all loaded versions (Service.statistics). gauges: {"queue": ...}, of the server."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(snapshot, statistics, gauges))
    encode, kind = choose_encoder(accept)
    return encode(registry), kind


class _Collector(Collector):
    def __init__(self, snapshot: Snapshot, statistics: list[dict[str, Any]], gauges: dict[str, float]) -> None:
        self._snapshot, self._statistics, self._gauges = snapshot, statistics, gauges

    def collect(self) -> Iterable[Metric]:
        build = GaugeMetricFamily("fastinfer_build_info", "Always 1", labels=("release",))
        build.add_metric((fastinfer.__version__,), 1)
        yield build
        yield from self._requests()
        yield from self._triton()
        for name, value in self._gauges.items():
            yield GaugeMetricFamily(f"fastinfer_{name}", name.replace("_", " ").capitalize(), value)

    def _requests(self) -> Iterator[Metric]:
        versions = self._snapshot["versions"]
        outcomes = CounterMetricFamily(
            "fastinfer_requests", "Requests by what became of them", labels=(*_LABELS, "outcome")
        )
        for v in versions:
            for outcome, count in {**_ALWAYS, **v["outcomes"]}.items():
                outcomes.add_metric((v["model"], v["version"], outcome), count)
        yield outcomes
        responses = CounterMetricFamily("fastinfer_http_responses", "HTTP responses by status", labels=("status",))
        for status, count in sorted(self._snapshot["responses"].items()):
            responses.add_metric((status,), count)
        yield responses
        for name, (metric, text) in _DOCUMENTS.items():
            family = HistogramMetricFamily(metric, text, labels=_LABELS)
            for v in versions:
                counts, amount = v["histograms"][name]
                family.add_metric((v["model"], v["version"]), _buckets(HISTOGRAMS[name], counts), amount)
            yield family

    def _triton(self) -> Iterator[Metric]:
        rows = self._statistics
        for name, text, (part, field), divisor in _TRITON:
            family = _named(name, text, _LABELS)
            for s in rows:
                family.add_metric((s["name"], s["version"]), s["inference_stats"][part][field] / divisor)
            yield family
        counts = _named("nv_inference_count", "Number of inferences performed (rows)", _LABELS)
        calls = _named("nv_inference_exec_count", "Number of model executions performed", _LABELS)
        memory = GaugeMetricFamily("fastinfer_model_memory_bytes", "Bytes that a loaded version holds", labels=_LABELS)
        for s in rows:
            labels = s["name"], s["version"]
            counts.add_metric(labels, s["inference_count"])
            calls.add_metric(labels, s["execution_count"])
            memory.add_metric(labels, sum(m["byte_size"] for m in s["memory_usage"]))
        yield from (self._failures(), counts, calls, memory)

    def _failures(self) -> Metric:
        family = _named("nv_inference_request_failure", "Number of failed inference requests", (*_LABELS, "reason"))
        for v in self._snapshot["versions"]:
            reasons = dict.fromkeys(("REJECTED", "CANCELED", "BACKEND", "OTHER"), 0)
            for outcome, count in v["outcomes"].items():
                if outcome != "ok":
                    reasons[_REASONS.get(outcome, "OTHER")] += count
            for reason, count in reasons.items():
                family.add_metric((v["model"], v["version"], reason), count)
        return family


def _named(name: str, text: str, labels: tuple[str, ...]) -> UntypedMetricFamily:
    """Triton's counters lack the suffix `_total` that counters must have: they are given without a type."""
    return UntypedMetricFamily(name, text, labels=labels)


def _buckets(bounds: tuple[float, ...], counts: list[int]) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound, count in zip([*map(float, bounds), float("inf")], counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == float("inf") else str(bound), float(total)))
    return buckets
