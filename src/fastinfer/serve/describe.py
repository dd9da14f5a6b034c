# SPDX-License-Identifier: Apache-2.0
"""A version in the protocol's words: its metadata, and Triton's ModelConfig, which perf_analyzer and other clients read."""

from __future__ import annotations

from typing import Any

from fastinfer.serve.datatypes import BYTES
from fastinfer.serve.endpoint import Endpoint, gpu_of
from fastinfer.serve.ports import Port
from fastinfer.serve.repository.settings import Policy, Settings

PLATFORM = "fastinfer"


def metadata(endpoint: Endpoint, versions: list[str]) -> dict[str, Any]:
    return {
        "name": endpoint.name,
        "versions": versions,
        "platform": PLATFORM,
        "inputs": [p.as_json() for p in endpoint.ports.inputs],
        "outputs": [p.as_json() for p in endpoint.ports.outputs],
    }


def config(endpoint: Endpoint) -> dict[str, Any]:
    settings, batched, gpu = endpoint.settings, endpoint.max_batch > 0, gpu_of(endpoint.device)
    made: dict[str, Any] = {
        "name": endpoint.name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "version_policy": _policy(settings.versions),
        "max_batch_size": endpoint.max_batch,
        "input": [{**_port(p, batched), "format": "FORMAT_NONE", "optional": False} for p in endpoint.ports.inputs],
        "output": [_port(p, batched) for p in endpoint.ports.outputs],
        "instance_group": [
            {
                "name": f"{endpoint.name}_0",
                "kind": "KIND_CPU" if gpu is None else "KIND_GPU",
                "count": settings.batching.calls,
                "gpus": [] if gpu is None else [gpu],
            }
        ],  # fmt: skip
        "default_model_filename": "",
        "parameters": {k: {"string_value": v} for k, v in _parameters(settings, endpoint.device).items()},
        "model_warmup": [],
    }
    if settings.sequence.state:
        made["sequence_batching"] = _sequences(settings)
    else:
        made["dynamic_batching"] = _batching(settings)
    return made


def _port(port: Port, batched: bool) -> dict[str, Any]:
    dims = list(port.shape if port.shape is not None else (-1,))
    data_type = "TYPE_STRING" if port.datatype == BYTES else f"TYPE_{port.datatype}"
    return {"name": port.name, "data_type": data_type, "dims": dims[1:] if batched else dims}


def _policy(policy: Policy) -> dict[str, Any]:
    if policy.specific:
        return {"specific": {"versions": [int(v) for v in policy.specific]}}
    return {"all": {}} if policy.all else {"latest": {"num_versions": policy.latest}}


def _batching(settings: Settings) -> dict[str, Any]:
    batching, timeout = settings.batching, settings.limits.timeout
    return {
        "max_queue_delay_microseconds": round(batching.max_delay * 1e6),
        "default_queue_policy": {
            "timeout_action": "REJECT",
            "default_timeout_microseconds": 0 if timeout is None else round(timeout * 1e6),
            "allow_timeout_override": True,
            "max_queue_size": batching.max_queue,
        },
    }


def _sequences(settings: Settings) -> dict[str, Any]:
    return {
        "max_sequence_idle_microseconds": round(settings.sequence.idle * 1e6),
        "state": [{"input_name": i, "output_name": o} for i, o in settings.sequence.state.items()],
    }


def _parameters(settings: Settings, device: str) -> dict[str, str]:
    """What Triton's form has no field for."""
    own = {
        "device": device,
        "description": settings.description,
        "owner": settings.owner,
        "precision": settings.precision,
    }
    return {**{k: v for k, v in own.items() if v}, **{f"label.{k}": v for k, v in settings.labels.items()}}
