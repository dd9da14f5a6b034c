# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI 3.1 document of what app.py serves. tests/serve/http/test_openapi.py holds the two together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fastinfer.serve.datatypes import BYTES, DTYPES
from fastinfer.serve.messages import Limits
from fastinfer.serve.service import NAME

Schema = dict[str, Any]


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Schema, required: list[str] | None = None) -> Schema:
    return {"type": "object", "properties": properties, "required": required or list(properties)}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_FLAG = {"type": "boolean"}
_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
_SPEC = _object({"name": _TEXT, "datatype": _ref("Datatype"), "shape": _list({"type": "integer", "minimum": -1})})


def _schemas(limits: Limits) -> Schema:
    name = {"type": "string", "minLength": 1, "maxLength": limits.name}
    shape = {"type": "array", "items": _COUNT, "maxItems": 64}
    tensor = {
        "name": name, "shape": shape, "datatype": _ref("Datatype"), "parameters": _PARAMETERS,
        "data": {"type": "array", "description": 'Flat or nested, row-major; NaN and infinities are "NaN", "Infinity", "-Infinity".'},
    }  # fmt: skip
    durations = _object({"count": _COUNT, "ns": _COUNT})
    request = {
        "id": {"type": "string", "maxLength": limits.name},
        "parameters": _ref("RequestParameters"),
        "inputs": {
            "type": "array",
            "items": _object(tensor, ["name", "shape", "datatype"]),
            "maxItems": limits.tensors,
        },
        "outputs": {
            "type": "array",
            "items": _object({"name": name, "parameters": _ref("OutputParameters")}, ["name"]),
            "maxItems": limits.tensors,
        },
    }
    return {
        "Error": _object({"error": _TEXT}),
        "Datatype": {"type": "string", "enum": [*DTYPES, BYTES]},
        "Parameters": _PARAMETERS,
        "RequestParameters": {
            **_PARAMETERS,
            "properties": {
                "binary_data_output": _FLAG,
                "timeout": {**_COUNT, "description": "Microseconds"},
                "priority": {**_COUNT, "description": "1 is the highest, 0 is not said"},
                "sequence_id": {"type": ["integer", "string"], "minimum": 0},
                "sequence_start": _FLAG,
                "sequence_end": _FLAG,
            },
        },
        "OutputParameters": {
            **_PARAMETERS,
            "properties": {"binary_data": _FLAG, "classification": {"type": "integer", "minimum": 1}},
        },
        "Server": _object({"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)}),
        "Model": _object(
            {"name": _TEXT, "versions": _list(_TEXT), "platform": _TEXT, "inputs": _list(_SPEC), "outputs": _list(_SPEC)},
            ["name", "platform", "inputs", "outputs"],
        ),
        "ModelConfig": {"type": "object", "properties": {"name": _TEXT}, "required": ["name"]},
        "InferRequest": _object(request, ["inputs"]),
        "InferResponse": _object(
            {
                "model_name": _TEXT, "model_version": _TEXT, "id": _TEXT, "parameters": _ref("Parameters"),
                "outputs": _list(_object(tensor, ["name", "shape", "datatype"])),
            },
            ["model_name", "outputs"],
        ),
        "Statistics": _object(
            {"model_stats": _list(_object({"name": _TEXT, "version": _TEXT, "inference_stats": _object({"success": durations})}))}
        ),
        "Index": _list(
            _object({"name": _TEXT, "version": _TEXT, "state": _TEXT, "reason": _TEXT}, ["name", "state", "reason"])
        ),
        "Region": _object({"name": _TEXT, "key": _TEXT, "offset": _COUNT, "byte_size": _COUNT}),
        "Settings": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "array"]}},
        "Empty": {"type": "object", "maxProperties": 0},
    }  # fmt: skip


def _operation(
    name: str, answers: Schema, summary: str, *, body: Schema | None = None, required: bool = False
) -> Schema:
    operation: Schema = {
        "operationId": name,
        "summary": summary,
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": answers}}},
            "4XX": {"$ref": "#/components/responses/Error"},
            "5XX": {"$ref": "#/components/responses/Error"},
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": required, "content": {"application/json": {"schema": body}}}
    return operation


def _infer(name: str) -> Schema:
    operation = _operation(name, _ref("InferResponse"), "Run the model", body=_ref("InferRequest"), required=True)
    binary = {"schema": {"type": "string", "contentEncoding": "binary"}}
    operation["responses"]["200"]["content"]["application/octet-stream"] = binary
    operation["responses"]["200"]["headers"] = {
        "Inference-Header-Content-Length": {
            "description": "Bytes of JSON in front of binary tensors",
            "schema": {"type": "integer"},
        }
    }
    operation["description"] = (
        "Tensors may follow the JSON as bytes (application/octet-stream, the header Inference-Header-Content-Length), as the "
        "binary tensor data extension has it."
    )
    return operation


def _of_model(end: str) -> Schema:
    return {
        "": {"get": _operation(f"metadata{end}", _ref("Model"), "Inputs and outputs of the model")},
        "/ready": {"get": _operation(f"ready{end}", _object({"name": _TEXT, "ready": _FLAG}), "Is the model loaded?")},
        "/config": {"get": _operation(f"config{end}", _ref("ModelConfig"), "Triton's ModelConfig")},
        "/stats": {"get": _operation(f"stats{end}", _ref("Statistics"), "What the model did so far")},
        "/infer": {"post": _infer(f"infer{end}")},
    }


def _regions(kind: str, register: Schema) -> Schema:
    empty = _ref("Empty")
    path = f"/v2/{kind}sharedmemory"
    done = {"get": _operation(f"{kind}_status", _list(_ref("Region")), "All registered regions")}
    one = {"get": _operation(f"{kind}_region_status", _list(_ref("Region")), "One registered region")}
    return {
        f"{path}/status": done,
        f"{path}/unregister": {"post": _operation(f"{kind}_unregister_all", empty, "Forget all regions", body=empty)},
        f"{path}/region/{{region}}/status": one,
        f"{path}/region/{{region}}/register": {
            "post": _operation(f"{kind}_register", empty, "Register a region", body=register, required=True)
        },
        f"{path}/region/{{region}}/unregister": {
            "post": _operation(f"{kind}_unregister", empty, "Forget a region", body=empty)
        },
    }


def _paths() -> Schema:
    health = "/v2/health"
    parameters = _object({"parameters": _ref("Parameters")}, [])
    settings = _ref("Settings")
    plain = {"type": ["object", "array"], "description": "Nested lists by input name, or bare lists for one input"}
    paths: Schema = {
        "/openapi.json": {"get": _operation("openapi", {"type": "object"}, "This document")},
        "/v2": {"get": _operation("server", _ref("Server"), "Name, version and extensions of the server")},
        f"{health}/live": {"get": _operation("live", _object({"live": _FLAG}), "Is the server alive?")},
        f"{health}/ready": {"get": _operation("ready", _object({"ready": _FLAG}), "Are its models loaded?")},
        "/v2/models/stats": {"get": _operation("stats_all", _ref("Statistics"), "What all models did so far")},
        "/v2/repository/index": {
            "post": _operation("index", _ref("Index"), "All models", body=_object({"ready": _FLAG}, []))
        },
        "/predict/{model}": {
            "post": _operation(
                "predict", {"type": "object"}, "Run the model: lists in, lists out", body=plain, required=True
            )
        },
    }
    for verb in ("load", "unload"):
        operation = _operation(verb, _ref("Empty"), f"{verb.capitalize()} a model", body=parameters)
        paths[f"/v2/repository/models/{{model}}/{verb}"] = {"post": operation}
    for path, end in (
        ("/v2/trace/setting", ""),
        ("/v2/models/{model}/trace/setting", "_model"),
        ("/v2/logging", "_log"),
    ):
        paths[path] = {
            "get": _operation(f"settings{end}", settings, "The settings"),
            "post": _operation(f"set_settings{end}", settings, "Change settings", body={"type": "object"}),
        }
    register = _object({"key": _TEXT, "offset": _COUNT, "byte_size": _COUNT}, ["key", "byte_size"])
    for prefix, end in (("/v2/models/{model}", "_latest"), ("/v2/models/{model}/versions/{version}", "_version")):
        paths.update({prefix + suffix: item for suffix, item in _of_model(end).items()})
    return {**paths, **_regions("system", register), **_regions("cuda", {"type": "object"})}


def _further(method: str, pattern: str, scope: str) -> Schema:
    """An operation that is beyond the protocol: fastinfer's own, for operators (docs/serving.md)."""
    return {
        "operationId": "_".join([method.lower(), *re.findall(r"\w+", pattern)]),
        "summary": f"For callers with the scope '{scope}'",
        "tags": ["operators"],
        "responses": {
            "2XX": {"description": "Done"},
            "4XX": {"$ref": "#/components/responses/Error"},
            "5XX": {"$ref": "#/components/responses/Error"},
        },
    }


def document(limits: Limits, more: Sequence[tuple[str, str, str, Any]] = ()) -> Schema:
    """more: routes beyond the protocol, as App takes them; the page's files are not among them."""
    paths = _paths()
    for method, pattern, scope, _ in more:
        if not pattern.startswith("/ui"):
            paths.setdefault(pattern, {})[method.lower()] = _further(method, pattern, scope)
    in_path = {
        "model": {"type": "string", "minLength": 1, "maxLength": limits.name, "pattern": r"^[^/\\\x00-\x1f]+$"},
        "region": {"type": "string", "minLength": 1, "maxLength": limits.name, "pattern": r"^[^/\\\x00-\x1f]+$"},
        "version": {"type": "string", "pattern": "^[1-9][0-9]{0,18}$"},
        "upload": {"type": "string", "minLength": 1, "maxLength": limits.name, "pattern": "^[0-9a-f]+$"},
    }
    for path, item in paths.items():
        names = [name for name in in_path if f"{{{name}}}" in path]
        if names:
            item["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in names]
    error = {"description": "Refused, and why", "content": {"application/json": {"schema": _ref("Error")}}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": NAME,
            "version": "2",
            "description": "The Open Inference Protocol, version 2, with Triton's extensions.",
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(limits),
            "responses": {"Error": error},
            "parameters": {
                name: {"name": name, "in": "path", "required": True, "schema": schema}
                for name, schema in in_path.items()
            },
        },
    }
