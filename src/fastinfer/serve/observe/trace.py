# SPDX-License-Identifier: Apache-2.0
"""Spans through opentelemetry-api, which does nothing unless the process has set up a tracer provider: then a request's
span continues the caller's trace (W3C traceparent)."""

from __future__ import annotations

import re
import time

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from fastinfer.serve.observe.metrics import Observation

# Version 00 of the recommendation; later versions may have more at their end.
_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?\Z")


def parent(traceparent: str) -> SpanContext | None:
    """What a traceparent header says; None when it is none, as the recommendation asks to begin anew then."""
    if len(traceparent) > 512 or not (found := _PARENT.match(traceparent)):
        return None
    if traceparent.startswith("00") and len(traceparent) != 55:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags & 1))


def active() -> bool:
    """Whether spans go anywhere: the default provider makes none."""
    return not isinstance(trace.get_tracer_provider(), (trace.ProxyTracerProvider, trace.NoOpTracerProvider))


def record(o: Observation) -> None:
    """The spans of a request that has just ended: one of the server, and in it the wait and the model's call, which end
    with it (but for what making the outputs took)."""
    ended = time.time_ns()
    remote = parent(o.trace) if o.trace else None
    context = None if remote is None else trace.set_span_in_context(NonRecordingSpan(remote))
    tracer = trace.get_tracer("fastinfer.serve")
    request = tracer.start_span(
        "infer", context, SpanKind.SERVER, _attributes(o), start_time=ended - int(o.request * 1e9)
    )
    if o.outcome != "ok":
        request.set_status(StatusCode.ERROR, o.outcome)
    if request.is_recording() and o.queue is not None and o.compute is not None:
        within = trace.set_span_in_context(request)
        began = ended - int(o.compute * 1e9)
        tracer.start_span("queue", within, start_time=began - int(o.queue * 1e9)).end(began)
        tracer.start_span("compute", within, start_time=began).end(ended)
    request.end(ended)


def _attributes(o: Observation) -> dict[str, str | int]:
    given = {"model": o.model, "version": o.version, "outcome": o.outcome, "request_id": o.id, "caller": o.caller,
             "call_rows": o.rows}  # fmt: skip
    return {f"fastinfer.{name}": value for name, value in given.items() if value}
