# SPDX-License-Identifier: Apache-2.0
"""What a load request may bring along: settings that replace those of the repository, and files instead of its own."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.repository.names import check_file, check_version, quoted
from fastinfer.serve.repository.settings import Settings, known, overlay, wrong


@dataclass(frozen=True)
class Overrides:
    """config: in the keys of model.toml. files: path → contents. force: load again what has not changed."""

    config: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    force: bool = False

    def __bool__(self) -> bool:
        return bool(self.config or self.files)

    def apply(self, settings: Settings) -> Settings:
        return overlay(settings, self.config, "config") if self.config else settings

    def write(self, root: Path, name: str) -> None:
        """Lays the files out as a repository of one model."""
        for path, data in self.files.items():
            target = root / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


def read(parameters: Mapping[str, Any], allow_files: bool) -> Overrides:
    """``config``: a JSON object, in Triton's keys or model.toml's; ``file:<version>/<path>``: base64, or bytes; ``force``.
    Raises ServeError."""
    config: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    for key, value in parameters.items():
        if key == "config":
            config = _config(value)
        elif key.startswith("file:"):
            if not allow_files:
                raise ServeError(Kind.FORBIDDEN, "models in load requests are not enabled on this server")
            files[_path(key[5:])] = _content(key, value)
        elif key != "force":
            raise ServeError(
                Kind.INVALID_ARGUMENT, f"no load parameter is called {quoted(key)}; known: config, file:<path>, force"
            )
    if files and "config" not in parameters:
        raise ServeError(
            Kind.INVALID_ARGUMENT, "files in a load request need a config parameter with them ('{}' will do)"
        )
    return Overrides(config, files, bool(parameters.get("force", False)))


def _path(path: str) -> str:
    version, _, rest = path.partition("/")
    check_version(version)
    check_file(rest)
    return path


def _content(key: str, value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise ServeError(Kind.INVALID_ARGUMENT, f"the parameter {quoted(key)} is no base64") from None


# ------------------------------------------------------------------------------------------------------------- config

# Keys of a ModelConfig that say what the model itself says: read, and not believed.
_DESCRIPTIVE = {
    "name", "platform", "backend", "runtime", "optimization", "model_warmup", "default_model_filename", "batch_input",
    "batch_output", "cc_model_filenames", "metric_tags", "model_operations", "model_transaction_policy",
}  # fmt: skip


def _config(value: Any) -> dict[str, Any]:
    try:
        given = json.loads(value)
    except (ValueError, TypeError, RecursionError):
        raise ServeError(Kind.INVALID_ARGUMENT, "the parameter 'config' is no JSON") from None
    if not isinstance(given, dict):
        raise wrong("config", given, "an object")
    made: dict[str, Any] = {}
    for key, entry in given.items():
        if key not in _DESCRIPTIVE:
            for section, content in _TRANSLATE.get(key, lambda e, k=key: {k: e})(entry).items():
                old = made.get(section)
                both = isinstance(old, dict) and isinstance(content, dict)
                made[section] = {**old, **content} if both else content  # type: ignore[dict-item]
    return made


def _object(entry: Any, where: str, keys: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise wrong(where, entry, "an object")
    for key in entry:
        known(key, dict.fromkeys(keys), where)
    return entry


def _seconds(value: Any, where: str) -> float:
    if (
        isinstance(value, str) and value.isascii() and value.isdigit()
    ):  # protobuf's JSON writes 64-bit integers as strings
        value = int(value[:19])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise wrong(where, value, "microseconds")
    return value / 1e6


def _policy(entry: Any) -> dict[str, Any]:
    given = _object(entry, "version_policy", ("latest", "all", "specific"))
    if len(given) != 1:
        raise wrong("version_policy", entry, "one of latest, all, specific")
    if "all" in given:
        return {"versions": "all"}
    if "latest" in given:
        return {"versions": {"latest": _object(given["latest"], "latest", ("num_versions",)).get("num_versions", 1)}}
    return {"versions": _object(given["specific"], "specific", ("versions",)).get("versions", [])}


def _max_batch(entry: Any) -> dict[str, Any]:
    return {} if entry == 0 else {"batching": {"max_batch": entry}}  # 0: the model's own batches are not for us to say


def _dynamic(entry: Any) -> dict[str, Any]:
    keys = (
        "preferred_batch_size", "max_queue_delay_microseconds", "default_queue_policy", "preserve_ordering",
        "priority_levels", "default_priority_level", "priority_queue_policy",
    )  # fmt: skip
    given = _object(entry, "dynamic_batching", keys)
    batching, limits = {}, {}
    if "max_queue_delay_microseconds" in given:
        batching["max_delay"] = _seconds(given["max_queue_delay_microseconds"], "max_queue_delay_microseconds")
    policy_keys = ("timeout_action", "default_timeout_microseconds", "allow_timeout_override", "max_queue_size")
    policy = _object(given.get("default_queue_policy", {}), "default_queue_policy", policy_keys)
    if policy.get("max_queue_size"):
        batching["max_queue"] = policy["max_queue_size"]
    if timeout := _seconds(policy.get("default_timeout_microseconds", 0), "default_timeout_microseconds"):
        limits["timeout"] = timeout
    return {**({"batching": batching} if batching else {}), **({"limits": limits} if limits else {})}


def _sequence(entry: Any) -> dict[str, Any]:
    keys = ("max_sequence_idle_microseconds", "control_input", "state", "direct", "oldest")
    given = _object(entry, "sequence_batching", keys)
    idle, states = given.get("max_sequence_idle_microseconds"), given.get("state", [])
    if not isinstance(states, list) or not all(isinstance(s, dict) for s in states):
        raise wrong("sequence_batching.state", states, "a list of objects")
    state = {str(s.get("input_name", "")): str(s.get("output_name", "")) for s in states}
    return {"sequence": {**({"idle": _seconds(idle, "idle")} if idle else {}), **({"state": state} if state else {})}}


def _instances(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, list) or not all(isinstance(e, dict) for e in entry):
        raise wrong("instance_group", entry, "a list of objects")
    counts = [e.get("count", 1) for e in entry]
    return {"batching": {"calls": sum(counts)}} if counts and all(type(c) is int for c in counts) else {}


def _ports(section: str) -> Any:
    def translate(entry: Any) -> dict[str, Any]:
        if not isinstance(entry, list) or not all(isinstance(e, dict) and "name" in e for e in entry):
            raise wrong(section, entry, "a list of objects with a name")
        # dims may leave out the batch, which only the model knows: they are not checked here.
        return {
            section: [{"name": e["name"], **({"datatype": e["data_type"]} if "data_type" in e else {})} for e in entry]
        }

    return translate


def _parameters(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise wrong("parameters", entry, "an object")
    texts = {str(k): str(v.get("string_value", "")) for k, v in entry.items() if isinstance(v, dict)}
    own = {k: texts[k] for k in ("device", "description", "owner", "precision") if texts.get(k)}
    labels = {k.removeprefix("label."): v for k, v in texts.items() if k.startswith("label.")}
    return {**own, **({"labels": labels} if labels else {})}


_TRANSLATE: dict[str, Any] = {
    "version_policy": _policy, "max_batch_size": _max_batch, "dynamic_batching": _dynamic, "sequence_batching": _sequence,
    "instance_group": _instances, "input": _ports("inputs"), "output": _ports("outputs"), "parameters": _parameters,
}  # fmt: skip
