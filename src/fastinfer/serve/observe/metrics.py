# SPDX-License-Identifier: Apache-2.0
"""Counts and histograms of requests: cheap to add to (about 2 µs a request), plain data to send between workers."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Seconds: 2.5 per decade from 50 µs to 10 s.
SECONDS = (
    5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0
)  # fmt: skip
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
HISTOGRAMS = {"request": SECONDS, "queue": SECONDS, "compute": SECONDS, "rows": ROWS}
# Models that come and go leave their figures for so many versions.
MOST = 4096

Snapshot = dict[str, Any]


@dataclass(slots=True)
class Observation:
    """A request that ended. outcome: "ok", or the Kind of its error in lower case. Seconds; those of a request that
    never ran are None. rows: of its whole call. id, caller, trace (a W3C traceparent): as the request had them."""

    model: str
    version: str
    outcome: str
    request: float
    queue: float | None = None
    compute: float | None = None
    rows: int | None = None
    id: str = ""
    caller: str = ""
    trace: str = ""


class Histogram:
    """Counts per bucket (the last one: beyond all bounds) and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def quantile(self, q: float) -> float:
        """Linear within its bucket, as Prometheus' histogram_quantile; 0 where nothing was counted."""
        rank = q * sum(self.counts)
        below = 0.0
        for i, count in enumerate(self.counts):
            if count and below + count >= rank:
                if i == len(self.bounds):
                    return float(self.bounds[-1])
                low = self.bounds[i - 1] if i else 0.0
                return low + (self.bounds[i] - low) * (rank - below) / count
            below += count
        return 0.0


class _Version:
    __slots__ = ("histograms", "outcomes")

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.histograms = {name: Histogram(bounds) for name, bounds in HISTOGRAMS.items()}


class Metrics:
    """What one process has seen. waiting: requests in the queue of each loaded version, by (model, version)."""

    def __init__(self, waiting: Callable[[], Mapping[tuple[str, str], int]] = dict) -> None:
        self._waiting = waiting
        self._versions: dict[tuple[str, str], _Version] = {}
        self._responses: dict[str, dict[str, int]] = {"http": {}, "grpc": {}}

    def responded(self, wire: str, code: str) -> None:
        """A response went out, whatever to. wire: http or grpc; code: HTTP's status, or the name of gRPC's."""
        counts = self._responses[wire]
        counts[code] = counts.get(code, 0) + 1

    def observe(self, o: Observation) -> None:
        key = o.model, o.version
        version = self._versions.get(key)
        if version is None:
            if len(self._versions) >= MOST:
                self._versions.pop(next(iter(self._versions)))
            version = self._versions[key] = _Version()
        version.outcomes[o.outcome] = version.outcomes.get(o.outcome, 0) + 1
        histograms = version.histograms
        histograms["request"].add(o.request)
        if o.queue is not None:
            histograms["queue"].add(o.queue)
        if o.compute is not None:
            histograms["compute"].add(o.compute)
        if o.rows is not None:
            histograms["rows"].add(o.rows)

    def quantile(self, model: str, version: str, q: float, name: str = "request") -> float:
        """Of one histogram, in seconds (rows: in rows); 0 for a version without requests."""
        found = self._versions.get((model, version))
        return found.histograms[name].quantile(q) if found else 0.0

    def snapshot(self) -> Snapshot:
        """All of it as JSON: {"responses": {wire: {code: count}}, "waiting": [[model, version, count]],
        "versions": [{"model", "version", "outcomes": {...}, "histograms": {name: [counts, sum]}}]}"""
        return {
            "responses": {wire: dict(counts) for wire, counts in self._responses.items()},
            "waiting": [[model, version, count] for (model, version), count in self._waiting().items()],
            "versions": [
                {"model": model, "version": version, "outcomes": dict(v.outcomes),
                 "histograms": {n: [list(h.counts), h.sum] for n, h in v.histograms.items()}}
                for (model, version), v in self._versions.items()
            ]
        }  # fmt: skip


def quantiles(request: list[Any], which: Iterable[float]) -> dict[str, float]:
    """{"p50": seconds, ...} of a snapshot's histogram of requests."""
    histogram = Histogram(SECONDS)
    histogram.counts = request[0]
    return {f"p{q * 100:g}": histogram.quantile(q) for q in which}


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """The sum of what several workers have seen."""
    waiting: Counter[tuple[str, str]] = Counter()
    total = Metrics(lambda: waiting)
    for snapshot in snapshots:
        for model, version, count in snapshot["waiting"]:
            waiting[model, version] += count
        for wire, counts in snapshot["responses"].items():
            for code, count in counts.items():
                total._responses[wire][code] = total._responses[wire].get(code, 0) + count
        for row in snapshot["versions"]:
            seen = total._versions.setdefault((row["model"], row["version"]), _Version())
            for outcome, count in row["outcomes"].items():
                seen.outcomes[outcome] = seen.outcomes.get(outcome, 0) + count
            for name, (counts, amount) in row["histograms"].items():
                histogram = seen.histograms[name]
                histogram.counts = [a + b for a, b in zip(histogram.counts, counts, strict=True)]
                histogram.sum += amount
    return total.snapshot()
