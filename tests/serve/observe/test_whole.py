# SPDX-License-Identifier: Apache-2.0
"""A real server's metrics against the dashboard, the alerts and the documentation that name them; its spans and lines."""

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as over_grpc
import yaml
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families
from small_models import pick, put, scale
from small_server import Running
from tritonclient.utils import InferenceServerException

from fastinfer.serve.config import Config
from fastinfer.serve.observe import logs, trace

ROOT = Path(__file__).parents[3]
DASHBOARD = json.loads((ROOT / "deploy/grafana/fastinfer.json").read_text())
RULES = yaml.safe_load((ROOT / "deploy/prometheus/fastinfer.rules.yml").read_text())["groups"][0]["rules"]
QUERIES = [t["expr"] for p in DASHBOARD["panels"] for t in p.get("targets", [])]
VARIABLES = [v["definition"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"]
NOTES = [a["expr"] for a in DASHBOARD["annotations"]["list"]]
SCRAPED = {"job", "instance"}  # labels that Prometheus adds
NAME = re.compile(r"\b(?:fastinfer|nv_inference)_\w+\b")
GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    put(root, "double", 1, scale(2), 'versions = "all"\n')
    put(root, "double", 2, scale(3))
    put(root, "pick", 1, pick())
    running = Running(Config(root, http_port=0, grpc_port=0, grace=2))
    yield running
    running.close()


@pytest.fixture(scope="module")
def exported(server):
    """Metric → (type, samples of it) after 7 requests that went well, 1 that did not, and 1 to no model."""
    for rows in (1, 1, 1, 1, 1, 5, 9):
        server.infer("double", [1, 2, 3, 4], rows=rows)
    wrong = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
    assert server.ask("POST", "/v2/models/double/infer", {"inputs": [wrong]})[0] == 400
    assert server.ask("POST", "/v2/models/nobody/infer", {"inputs": [wrong]})[0] == 404
    with over_grpc.InferenceServerClient(f"127.0.0.1:{server.server.grpc_port}") as client:
        assert client.is_model_ready("double")
        given = over_grpc.InferInput("x", [1, 4], "FP32")
        given.set_data_from_numpy(np.ones((1, 4), np.float32))
        for name in ("pick", "nobody", "nobody"):
            with pytest.raises(InferenceServerException):
                client.infer(name, [given])
    status, headers, body = server.ask("GET", "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain")
    return {family.name: family for family in text_string_to_metric_families(body.decode())}


@pytest.fixture(scope="module")
def labels(exported):
    """Sample name → its labels."""
    found: dict[str, set[str]] = {}
    for family in exported.values():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def value(exported, family, name, **wanted):
    return sum(s.value for s in exported[family].samples if s.name == name and wanted.items() <= s.labels.items())


def test_the_figures_are_those_of_the_requests(exported):
    version = {"model": "double", "version": "2"}
    requests = lambda **o: value(exported, "fastinfer_requests", "fastinfer_requests_total", **version, **o)  # noqa: E731
    assert requests(outcome="ok") == 7 and requests(outcome="invalid_argument") == 1 and requests() == 8
    assert value(exported, "fastinfer_requests", "fastinfer_requests_total", model="double", version="1") == 0
    duration = "fastinfer_request_duration_seconds"
    assert value(exported, duration, f"{duration}_count", **version) == 8
    rows = "fastinfer_call_rows"
    assert value(exported, rows, f"{rows}_sum", **version) == 19
    assert value(exported, rows, f"{rows}_bucket", **version, le="1.0") == 5
    assert value(exported, "nv_inference_request_success", "nv_inference_request_success", **version) == 7
    failure = "nv_inference_request_failure"
    assert (
        value(exported, failure, failure, **version)
        == value(exported, failure, failure, **version, reason="OTHER")
        == 1
    )
    assert value(exported, "nv_inference_count", "nv_inference_count", **version) == 19
    assert value(exported, "nv_inference_exec_count", "nv_inference_exec_count", **version) == 7
    http = "fastinfer_http_responses"
    assert [value(exported, http, f"{http}_total", status=s) for s in ("200", "400", "404")] == [7, 1, 1]
    grpc = "fastinfer_grpc_responses"
    codes = [value(exported, grpc, f"{grpc}_total", code=c) for c in ("OK", "INVALID_ARGUMENT", "NOT_FOUND")]
    assert codes == [1, 1, 2]
    assert value(exported, "fastinfer_ready", "fastinfer_ready") == 1


def asked(query):
    """(metric, labels that its selector and the grouping before it name) of a PromQL query."""
    for metric in NAME.finditer(query):
        selector = re.match(r"\{([^}]*)\}", query[metric.end() :])
        chosen = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector[1]) if selector else []
        grouping = re.findall(r"by \(([^)]*)\)", query[: metric.start()])
        yield metric[0], {*chosen, *(grouping[-1].replace(" ", "").split(",") if grouping else [])}


@pytest.mark.parametrize("query", [*QUERIES, *VARIABLES, *NOTES, *(r["expr"] for r in RULES)])
def test_every_query_names_what_there_is(labels, query):
    named = list(asked(query))
    assert named and query.count("(") == query.count(")") and query.count("{") == query.count("}")
    for metric, wanted in named:
        assert metric in labels, metric
        assert wanted <= labels[metric] | SCRAPED, (metric, wanted - labels[metric])


def test_variables_and_legends_name_labels_that_are_left():
    for variable in VARIABLES:
        label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable)[2]
        assert label in {"job", "model", "version"}
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            groupings = [set(g.replace(" ", "").split(",")) for g in re.findall(r"by \(([^)]*)\)", target["expr"])]
            used = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert all(used <= g for g in groupings) and (groupings or not used), target
    for rule in RULES:
        used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        groupings = re.findall(r"by \(([^)]*)\)", rule["expr"])
        assert all(used <= set(g.replace(" ", "").split(",")) for g in groupings) and used <= SCRAPED | {
            "model",
            "version",
        }


def test_the_panels_do_not_overlap():
    assert len({p["id"] for p in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    cells = [(x, y) for p in DASHBOARD["panels"] for g in [p["gridPos"]]
             for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])]  # fmt: skip
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) == 23


def test_the_documentation_has_every_metric_with_its_type_and_labels(exported, labels):
    text = (ROOT / "docs/observability.md").read_text()
    rows = re.findall(r"^\| `((?:fastinfer|nv_inference)_\w+)` \| (\w+) \|([^|]*)\|", text, re.MULTILINE)
    documented = {name: (kind, {x.strip() for x in given.split(",") if x.strip()}) for name, kind, given in rows}
    real = {}
    for family in exported.values():
        name = family.name + ("_total" if family.type == "counter" else "")
        sample = name + ("_count" if family.type == "histogram" else "")
        real[name] = family.type, labels[sample]
    assert documented == real
    named = {n for n in NAME.findall(text) if not n.endswith("_")}
    assert named <= set(real)


def test_a_callers_trace_goes_on_in_the_server(server, monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace.trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace.trace, "get_tracer", provider.get_tracer)
    row = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    status, _, _ = server.ask(
        "POST", "/v2/models/double/infer", {"id": "r-1", "inputs": [row]}, headers={"traceparent": GOOD}
    )
    assert status == 200
    spans = {s.name: s for s in exporter.get_finished_spans()}
    assert set(spans) == {"infer", "queue", "compute"}
    assert f"{spans['infer'].context.trace_id:032x}" == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (
        spans["infer"].attributes["fastinfer.request_id"] == "r-1"
        and spans["infer"].attributes["fastinfer.version"] == "2"
    )


def test_a_failed_request_is_one_line_with_its_id(server, caplog):
    row = {"name": "index", "datatype": "INT64", "shape": [1], "data": [99]}
    with caplog.at_level(logging.INFO, "fastinfer.serve.requests"):
        status, _, _ = server.ask(
            "POST", "/v2/models/pick/infer", {"id": "r-2", "inputs": [row]}, headers={"traceparent": GOOD}
        )
    assert status == 400
    (record,) = [r for r in caplog.records if r.name == "fastinfer.serve.requests"]
    line = logs.JsonFormatter().format(record)
    assert len(line.splitlines()) == 1
    told = json.loads(line)
    assert told["id"] == "r-2" and told["model"] == "pick" and told["message"] == "request failed"
    assert told["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736" and told["outcome"] != "ok"
