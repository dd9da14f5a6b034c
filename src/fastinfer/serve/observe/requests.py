# SPDX-License-Identifier: Apache-2.0
"""What is told of every request that ended: figures, a span where somebody listens, a line of the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from fastinfer.serve.observe import trace
from fastinfer.serve.observe.metrics import Metrics, Observation

log = logging.getLogger("fastinfer.serve.requests")
# Lines a second of failed requests: an overload is no reason to write as fast as requests come.
MOST = 10


class Requests:
    """Called with each Observation. Failed requests are logged as INFO, others as DEBUG."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics, self._clock = metrics, clock
        self._second, self._lines, self._left_out = 0, 0, 0

    def __call__(self, o: Observation) -> None:
        self._metrics.observe(o)
        if trace.active():
            trace.record(o)
        if o.outcome != "ok":
            self._failed(o)
        elif log.isEnabledFor(logging.DEBUG):
            log.debug("request", extra=_fields(o))

    def _failed(self, o: Observation) -> None:
        if not log.isEnabledFor(logging.INFO):
            return
        second = int(self._clock())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > MOST:
            self._left_out += 1
            return
        more = {"left_out": self._left_out} if self._left_out else {}
        self._left_out = 0
        log.info("request failed", extra={**_fields(o), **more})


def _fields(o: Observation) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "model": o.model,
        "version": o.version,
        "outcome": o.outcome,
        "ms": round(o.request * 1e3, 3),
    }
    if o.queue is not None and o.compute is not None:
        fields |= {"queue_ms": round(o.queue * 1e3, 3), "compute_ms": round(o.compute * 1e3, 3), "call_rows": o.rows}
    context = trace.parent(o.trace) if o.trace else None
    named = {"id": o.id, "caller": o.caller, "trace_id": f"{context.trace_id:032x}" if context else ""}
    return {**fields, **{name: value for name, value in named.items() if value}}
