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

from fastinfer.serve.observe import Metrics, Observation, Requests, logs, trace
from fastinfer.serve.observe.exposition import exposition
from fastinfer.serve.observe.metrics import Histogram, merge

STATISTICS = [{
    "name": "m", "version": "1", "inference_count": 7, "execution_count": 3,
    "inference_stats": {p: {"count": i, "ns": i * 10_000} for i, p in enumerate(
        ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"), 1)},
    "memory_usage": [{"type": "CPU", "id": 0, "byte_size": 4096}],
}]  # fmt: skip


def seen(*requests, **options):
    metrics = Metrics(**options)
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
        Observation("m", "1", "internal", 0.1),
        Observation("m", "1", "invalid_argument", 0.1),
        waiting=lambda: {("m", "1"): 6},
    )
    for status in ("200", "200", "429"):
        metrics.responded("http", status)
    metrics.responded("grpc", "NOT_FOUND")
    body, kind = exposition(metrics.snapshot(), STATISTICS, {"queue_length": 5})
    assert kind.startswith("text/plain")
    got = samples(body)
    m = (("model", "m"), ("version", "1"))
    assert got["fastinfer_requests_total", (("model", "m"), ("outcome", "ok"), ("version", "1"))] == 2
    assert got["fastinfer_request_duration_seconds_count", m] == 4
    assert got["fastinfer_request_duration_seconds_sum", m] == pytest.approx(20.202)
    bucket = lambda le: got["fastinfer_request_duration_seconds_bucket", (("le", le), *m)]  # noqa: E731
    assert (bucket("0.001"), bucket("0.0025"), bucket("10.0"), bucket("+Inf")) == (0, 1, 3, 4)
    assert got["fastinfer_call_rows_sum", m] == 5
    odd = (("model", 'odd"\n\\name'), ("outcome", "deadline"), ("version", "2"))
    assert got["fastinfer_requests_total", odd] == 1
    assert got["nv_inference_request_success", m] == 1 and got["nv_inference_queue_duration_us", m] == 30
    reasons = lambda name, v: [got["nv_inference_request_failure", (("model", name), ("reason", r), ("version", v))]  # noqa: E731
                               for r in ("REJECTED", "CANCELED", "BACKEND", "OTHER")]  # fmt: skip
    assert reasons("m", "1") == [0, 0, 1, 1] and reasons('odd"\n\\name', "2") == [1, 0, 0, 0]
    assert got["fastinfer_http_responses_total", (("status", "200"),)] == 2
    assert got["fastinfer_http_responses_total", (("status", "429"),)] == 1
    assert got["fastinfer_grpc_responses_total", (("code", "NOT_FOUND"),)] == 1
    assert b"# TYPE nv_inference_count untyped" in body
    assert got["nv_inference_pending_request_count", m] == 6
    assert got["nv_inference_count", m] == 7 and got["nv_inference_exec_count", m] == 3
    assert got["fastinfer_model_memory_bytes", m] == 4096 and got["fastinfer_queue_length", ()] == 5


@pytest.mark.parametrize("accept", ["", "text/plain", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"])
@pytest.mark.parametrize("name", ["m", 'odd"\n\\name', "ü{}=,"])
def test_both_formats_say_the_same_to_the_reference_parsers(accept, name):
    metrics = seen(Observation(name, "1", "ok", 1e-3, 1e-4, 5e-4, 3), Observation(name, "1", "rate", 99.0))
    metrics.responded("http", "200")
    body, kind = exposition(metrics.snapshot(), STATISTICS, {"queue_length": 5}, accept)
    openmetrics = "openmetrics" in accept
    assert ("openmetrics" in kind) == openmetrics == body.endswith(b"# EOF\n")
    got = samples(body, parse_openmetrics if openmetrics else parse_text)
    labels = ("model", name), ("version", "1")
    assert got["fastinfer_requests_total", (labels[0], ("outcome", "ok"), labels[1])] == 1
    assert got["fastinfer_requests_total", (labels[0], ("outcome", "internal"), labels[1])] == 0
    assert got["fastinfer_request_duration_seconds_count", labels] == 2
    assert got["fastinfer_request_duration_seconds_bucket", (("le", "+Inf"), *labels)] == 2
    assert (
        got["fastinfer_call_rows_sum", labels] == 3 and got["fastinfer_http_responses_total", (("status", "200"),)] == 1
    )
    assert got["nv_inference_count", (("model", "m"), ("version", "1"))] == 7 and got["fastinfer_queue_length", ()] == 5


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


def test_queues_and_responses_of_workers_add_up():
    workers = [Metrics(lambda n=n: {("m", "1"): n, ("m", str(n)): 1}) for n in (2, 3)]
    for worker in workers:
        worker.responded("http", "200")
    workers[0].responded("grpc", "OK")
    merged = merge(json.loads(json.dumps([w.snapshot() for w in workers])))
    assert sorted(merged["waiting"]) == [["m", "1", 5], ["m", "2", 1], ["m", "3", 1]]
    assert merged["responses"] == {"http": {"200": 2}, "grpc": {"OK": 1}}


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


@pytest.fixture
def spans(monkeypatch):
    """What is exported."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace.trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace.trace, "get_tracer", provider.get_tracer)
    return exporter.get_finished_spans


def test_a_request_is_a_span_of_its_callers_trace(spans):
    requests = Requests(metrics := Metrics())
    requests(Observation("m", "2", "ok", 0.5, 0.3, 0.1, 4, id="r1", caller="phone", trace=GOOD))
    queue, compute, request = spans()
    assert [s.name for s in (queue, compute, request)] == ["queue", "compute", "infer"]
    assert (
        request.context.trace_id == 0x4BF92F3577B34DA6A3CE929D0E0E4736 and request.parent.span_id == 0x00F067AA0BA902B7
    )
    assert queue.parent.span_id == compute.parent.span_id == request.context.span_id and request.kind.name == "SERVER"
    seconds = lambda s: (s.end_time - s.start_time) * 1e-9  # noqa: E731
    assert [seconds(s) for s in (request, queue, compute)] == pytest.approx([0.5, 0.3, 0.1], abs=1e-6)
    assert queue.end_time == compute.start_time and compute.end_time == request.end_time
    assert dict(request.attributes) == {
        "fastinfer.model": "m", "fastinfer.version": "2", "fastinfer.outcome": "ok", "fastinfer.request_id": "r1",
        "fastinfer.caller": "phone", "fastinfer.call_rows": 4,
    }  # fmt: skip
    assert metrics.snapshot()["versions"][0]["outcomes"] == {"ok": 1}


def test_failed_requests_and_those_without_a_trace_are_spans_too(spans):
    Requests(Metrics())(Observation("m", "1", "deadline", 0.1, trace="nonsense"))
    (request,) = spans()
    assert (
        request.parent is None
        and request.status.status_code.name == "ERROR"
        and request.status.description == "deadline"
    )


def test_nobody_listens_to_spans():
    assert not trace.active()


def test_failed_requests_are_logged_and_an_overload_is_not(caplog):
    now = 0.0
    requests = Requests(Metrics(), clock=lambda: now)
    with caplog.at_level(logging.INFO, "fastinfer.serve.requests"):
        requests(Observation("m", "1", "ok", 0.1))
        for i in range(50):
            requests(Observation("m", "1", "unavailable", 0.001, id=f"r{i}", caller="phone", trace=GOOD))
        now = 1.0
        requests(Observation("m", "1", "internal", 0.25, 0.125, 0.0625, 3))
    rows = [vars(r) for r in caplog.records]
    assert len(rows) == 11 and {r["message"] for r in rows} == {"request failed"}
    first, last = rows[0], rows[-1]
    assert (first["id"], first["caller"], first["outcome"], first["ms"]) == ("r0", "phone", "unavailable", 1.0)
    assert first["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736" and "left_out" not in first
    assert (last["left_out"], last["queue_ms"], last["compute_ms"], last["call_rows"]) == (40, 125, 62.5, 3)


def test_other_requests_are_logged_for_debugging(caplog):
    with caplog.at_level(logging.DEBUG, "fastinfer.serve.requests"):
        Requests(Metrics())(Observation("m", "1", "ok", 0.1, 0.01, 0.02, 1, id="r"))
    assert [(r.levelname, r.getMessage(), vars(r)["id"]) for r in caplog.records] == [("DEBUG", "request", "r")]
