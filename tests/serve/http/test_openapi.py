# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document against what is served: schemathesis makes requests of it, and every answer is as it says."""

import pytest
import schemathesis
from http_server import Running
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from wire import ask, request

from fastinfer.serve.http import openapi
from fastinfer.serve.messages import Limits


@pytest.fixture(scope="module")
def server():
    """Its own: models are unloaded, settings changed."""
    with Running() as running:
        yield running


schema = schemathesis.openapi.from_dict(openapi.document(Limits()))


def test_it_names_every_route(server):
    """Both ways: each path is served with the methods that it lists, and no route is left out."""
    document = ask(server, request("/openapi.json", method="GET")).json
    assert document["openapi"] == "3.1.0"
    described = {(m.upper(), path) for path, item in document["paths"].items() for m in item if m != "parameters"}
    router = server.app._router

    def walk(node, path):
        for method in node.methods or {}:
            yield method, path
        for segment, child in node.children.items():
            yield from walk(child, f"{path}/{segment}")
        if node.other is not None:
            yield from walk(node.other, f"{path}/{{{node.other.parameter}}}")

    assert described == set(walk(router._root, ""))


@pytest.mark.filterwarnings("ignore")
@schema.parametrize()
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_answers_are_as_described(case, server):
    if case.path_parameters and "model" in case.path_parameters and hash(case.path_parameters["model"]) % 2:
        case.path_parameters["model"] = "mlp"  # else nearly all are 404
    response = case.call(base_url=f"http://{server.address}", timeout=10)
    case.validate_response(
        response, checks=[content_type_conformance, response_schema_conformance, status_code_conformance]
    )
    assert response.status_code < 500 or response.status_code in (501, 503)
