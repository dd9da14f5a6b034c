# SPDX-License-Identifier: Apache-2.0
"""Metrics against prometheus_client's own parser, log lines against hostile text, spans against the SDK."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from fastinfer.serve.observe import Metrics, Observation, logs, trace
from fastinfer.serve.observe.exposition import exposition
from fastinfer.serve.observe.metrics import Histogram, merge

STATISTICS = [{
    "name": "m", "version": "1", "inference_count": 7, "execution_count": 3,
    "inference_stats": {p: {"count": i, "ns": i * 10_000} for i, p in enumerate(
        ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"), 1)},
    "memory_usage": [{"type": "CPU", "id": 0, "byte_size": 4096}],
}]  # fmt: skip


def seen(*requests):
    metrics = Metrics()
    for r in requests:
        metrics.observe(r)
    return metrics


def samples(body, parse=parse_text):
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value for family in parse(body.decode()) for s in family.samples
    }


def test_exposition():
    metrics = seen(
        Observation("m", "1", "ok", 2e-3, 1e-3, 5e-4, 4),
        Observation("m", "1", "ok", 20.0, 0.0, 5e-4, 1),
        Observation('odd"\n\\name', "2", "deadline", 0.3),
    )
    body, kind = exposition(metrics.snapshot(), STATISTICS, {"queue_length": 5})
    assert kind.startswith("text/plain")
    got = samples(body)
    m = (("model", "m"), ("version", "1"))
    assert got["fastinfer_requests_total", (("model", "m"), ("outcome", "ok"), ("version", "1"))] == 2
    assert got["fastinfer_request_duration_seconds_count", m] == 2
    assert got["fastinfer_request_duration_seconds_sum", m] == pytest.approx(20.002)
    bucket = lambda le: got["fastinfer_request_duration_seconds_bucket", (("le", le), *m)]  # noqa: E731
    assert (bucket("0.001"), bucket("0.0025"), bucket("10.0"), bucket("+Inf")) == (0, 1, 1, 2)
    assert got["fastinfer_call_rows_sum", m] == 5
    odd = (("model", 'odd"\n\\name'), ("outcome", "deadline"), ("version", "2"))
    assert got["fastinfer_requests_total", odd] == 1
    assert got["nv_inference_request_success", m] == 1 and got["nv_inference_queue_duration_us", m] == 30
    assert got["nv_inference_request_failure", (m[0], ("reason", "OTHER"), m[1])] == 2
    assert got["nv_inference_count", m] == 7 and got["nv_inference_exec_count", m] == 3
    assert got["fastinfer_model_memory_bytes", m] == 4096 and got["fastinfer_queue_length", ()] == 5


def test_openmetrics_is_given_to_those_who_ask():
    body, kind = exposition(
        seen(Observation("m", "1", "ok", 1e-3)).snapshot(), [], {}, "application/openmetrics-text;version=1.0.0"
    )
    assert "openmetrics" in kind
    assert (
        samples(body, parse_openmetrics)[
            "fastinfer_requests_total", (("model", "m"), ("outcome", "ok"), ("version", "1"))
        ]
        == 1
    )


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 20), st.integers(1, 300)), max_size=50), st.integers(1, 4)
)
def test_workers_add_up(requests, workers):
    all_seen = [Observation(m, "1", "ok", s, s / 2, s / 2, r) for m, s, r in requests]
    parts = [seen(*all_seen[i::workers]).snapshot() for i in range(workers)]
    merged = merge(json.loads(json.dumps(parts)))
    by_model = lambda s: {v["model"]: v for v in s["versions"]}  # noqa: E731
    whole = by_model(seen(*all_seen).snapshot())
    for model, v in by_model(merged).items():
        assert v["outcomes"] == whole[model]["outcomes"]
        for name, (counts, amount) in v["histograms"].items():
            assert counts == whole[model]["histograms"][name][0]
            assert amount == pytest.approx(whole[model]["histograms"][name][1])


def test_quantiles():
    h = Histogram((1.0, 2.0, 4.0))
    assert h.quantile(0.5) == 0
    for v in (0.5, 1.5, 1.5, 3.0):
        h.add(v)
    assert h.quantile(0.5) == pytest.approx(1.5) and h.quantile(1.0) == 4.0 and 0 < h.quantile(0.1) < 1
    h.add(100)
    assert h.quantile(1.0) == 4.0  # no more is known than that it is beyond
    assert Metrics().quantile("none", "1", 0.5) == 0


def test_versions_that_come_and_go_are_bounded():
    metrics = seen(*(Observation("m", str(i), "ok", 0.1) for i in range(5000)))
    assert len(metrics.snapshot()["versions"]) == 4096


def record(message, **extra):
    r = logging.LogRecord("fastinfer.serve", logging.INFO, "f", 1, message, (), None)
    vars(r).update(extra)
    return r


@given(st.text(max_size=200))
def test_one_record_is_one_line(text):
    line = logs.JsonFormatter().format(record("refused", model=text))
    assert "\n" not in line and "\x1b" not in line and json.loads(line)["model"] == text
    line = logs.TextFormatter().format(record(text.replace("%", ""), id=text))
    assert len(line.splitlines()) <= 1 and line.isprintable()


def test_long_fields_are_cut_and_exceptions_are_whole():
    assert len(json.loads(logs.JsonFormatter().format(record("x", id="a" * 10_000)))["id"]) == 1024
    try:
        raise ValueError("deep")
    except ValueError as e:
        r = record("failed")
        r.exc_info = (ValueError, e, e.__traceback__)
    assert "ValueError: deep" in json.loads(logs.JsonFormatter().format(r))["exception"]
    assert "ValueError: deep" in logs.TextFormatter().format(r)


GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("header", [
    "", "00", GOOD.upper(), "ff" + GOOD[2:], GOOD + "-00", GOOD[:-1], GOOD + "\n", "00-" + "0" * 32 + GOOD[35:],
    GOOD[:36] + "0" * 16 + GOOD[52:], "x" * 10_000,
])  # fmt: skip
def test_broken_traceparents_are_none(header):
    assert trace.parent(header) is None


def test_traceparents():
    assert trace.parent(GOOD).trace_id == 0x4BF92F3577B34DA6A3CE929D0E0E4736 and trace.parent(GOOD).trace_flags == 1
    assert trace.parent("01" + GOOD[2:] + "-more").span_id == 0x00F067AA0BA902B7


def test_a_span_continues_the_callers_trace(monkeypatch):
    with trace.span("infer", GOOD, {}) as none:
        assert none is None  # nobody listens
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace.trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace.trace, "get_tracer", provider.get_tracer)
    with pytest.raises(ValueError), trace.span("infer", GOOD, {"model": "m"}):
        raise ValueError("told")
    with trace.span("alone", "nonsense", {}):
        pass
    child, alone = exporter.get_finished_spans()
    assert child.context.trace_id == 0x4BF92F3577B34DA6A3CE929D0E0E4736 and child.parent.span_id == 0x00F067AA0BA902B7
    assert child.attributes["model"] == "m" and not child.status.is_ok and alone.parent is None
