# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document of a whole server, operators' routes included: schemathesis makes requests of it, with a key, with a
lesser one and without."""

import json
import urllib.request

import pytest
import schemathesis
from doors import bearer, write_keys
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from small_models import put, scale
from whole import serving

PROBES = ("/v2/health/live", "/v2/health/ready")
CHECKS = [content_type_conformance, response_schema_conformance, status_code_conformance]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Its own: versions are removed, models unloaded."""
    folder = tmp_path_factory.mktemp("described")
    for version in (1, 2):
        put(folder / "models", "double", version, scale(version))
    keys = write_keys(folder / "keys.toml")
    with serving(folder / "models", "--keys", keys, "--shared-memory", "--allow-files") as running:
        yield running


@pytest.mark.filterwarnings("ignore")
def test_every_operation_of_a_locked_server(server):
    request = urllib.request.Request(f"http://{server.http}/openapi.json", headers=bearer("boss"))
    with urllib.request.urlopen(request, timeout=20) as answer:
        document = json.loads(answer.read())
    own = [p for p in document["paths"] if p.startswith("/fastinfer/v1/")]
    assert "/metrics" in document["paths"] and len(own) > 8
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        check(server, result.ok())


def check(server, operation):
    calls = iter(range(1 << 20))

    @settings(max_examples=4, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def one(case):
        if case.path_parameters and "model" in case.path_parameters and next(calls) % 2:
            case.path_parameters["model"] = "double"  # else nearly all are 404
        send = lambda **headers: case.call(base_url=f"http://{server.http}", headers=headers, timeout=20)  # noqa: E731
        probe = operation.path in PROBES
        for headers in ({}, {"x-api-key": "fi_wrong"}):
            assert send(**headers).status_code in ((200, 503) if probe else (400, 401, 413, 431)), operation.label
        if operation.path not in PROBES:
            allowed = operation.path == "/metrics"
            assert send(**bearer("watcher")).status_code in ((200,) if allowed else (400, 403)), operation.label
        response = send(**bearer("boss"))
        case.validate_response(response, checks=CHECKS)
        assert response.status_code != 500, (operation.label, response.text)

    one()
    assert server.process.poll() is None
    assert not [r for r in server.records if r.get("raw") or "unforeseen" in r["message"]], server.text()[-2000:]
