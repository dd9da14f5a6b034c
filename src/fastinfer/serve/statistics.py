# SPDX-License-Identifier: Apache-2.0
"""Counts and durations of one loaded version, as the statistics extension has them."""

from __future__ import annotations

import threading
import time
from typing import Any

# More batch sizes than this are not listed singly: a client chooses them.
MAX_BATCH_SIZES = 512


class Counter:
    """How often, and nanoseconds in all."""

    __slots__ = ("count", "ns")

    def __init__(self) -> None:
        self.count = 0
        self.ns = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns

    def as_json(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


class Statistics:
    """What requests are counted on the event loop; calls of the model in whatever thread makes them."""

    def __init__(self) -> None:
        self.success, self.fail, self.queue = Counter(), Counter(), Counter()
        self.compute_input, self.compute_infer, self.compute_output = Counter(), Counter(), Counter()
        self.rejected = 0  # of the failed: found the queue full, or were late
        self.rows = 0
        self.calls = 0
        self.last = 0.0  # seconds since the epoch
        self._batches: dict[int, Counter] = {}
        self._guard = threading.Lock()

    def called(self, rows: int, ns: int) -> None:
        """A call of the model with so many rows took so long."""
        with self._guard:
            self.calls += 1
            if rows not in self._batches and len(self._batches) >= MAX_BATCH_SIZES:
                rows = 1 << rows.bit_length() - 1
            self._batches.setdefault(rows, Counter()).add(ns)

    def succeeded(self, rows: int, total: int, before: int, queued: int, inferred: int, after: int) -> None:
        """A request: ns in all, of checking its inputs, of waiting, in the model, and of making its outputs."""
        self.rows += rows
        self.last = time.time()
        self.success.add(total)
        self.compute_input.add(before)
        self.queue.add(queued)
        self.compute_infer.add(inferred)
        self.compute_output.add(after)

    def failed(self, ns: int, rejected: bool) -> None:
        self.fail.add(ns)
        self.rejected += rejected

    def as_json(self, model: str, version: str, memory: int, gpu: int | None = None) -> dict[str, Any]:
        """A ModelStatistics. memory: bytes that the version holds, on that GPU or else the host."""
        zero = {"count": 0, "ns": 0}
        with self._guard:
            batches = [
                {"batch_size": size, "compute_input": {"count": c.count, "ns": 0}, "compute_infer": c.as_json(),
                 "compute_output": {"count": c.count, "ns": 0}}
                for size, c in sorted(self._batches.items())
            ]  # fmt: skip
        return {
            "name": model,
            "version": version,
            "last_inference": int(self.last * 1000),
            "inference_count": self.rows,
            "execution_count": self.calls,
            "inference_stats": {
                "success": self.success.as_json(), "fail": self.fail.as_json(), "queue": self.queue.as_json(),
                "compute_input": self.compute_input.as_json(), "compute_infer": self.compute_infer.as_json(),
                "compute_output": self.compute_output.as_json(), "cache_hit": zero, "cache_miss": zero,
            },
            "batch_stats": batches,
            "response_stats": {},
            "memory_usage": [{"type": "CPU" if gpu is None else "GPU", "id": gpu or 0, "byte_size": memory}],
        }  # fmt: skip
