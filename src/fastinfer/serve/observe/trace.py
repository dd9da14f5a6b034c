# SPDX-License-Identifier: Apache-2.0
"""Spans through opentelemetry-api, which does nothing unless the process has set up a tracer provider: then a request's
span continues the caller's trace (W3C traceparent)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

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


@contextmanager
def span(name: str, traceparent: str, attributes: dict[str, Any]) -> Iterator[Any]:
    """A server span around the body; exceptions are recorded on it. Yields the span, or None where nobody listens."""
    if not active():
        yield None
        return
    context = None
    if traceparent and (remote := parent(traceparent)) is not None:
        context = trace.set_span_in_context(NonRecordingSpan(remote))
    with trace.get_tracer("fastinfer.serve").start_as_current_span(
        name, context=context, kind=SpanKind.SERVER, attributes=attributes
    ) as current:
        yield current
