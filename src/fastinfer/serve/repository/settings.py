# SPDX-License-Identifier: Apache-2.0
"""``model.toml``: what it may say, checked. Unknown keys are errors, with the nearest known one named."""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from fastinfer.serve.datatypes import BYTES, DTYPES
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.repository.names import check_file, is_version, quoted

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Policy:
    """Which versions are loaded: the `latest` highest, `all`, or those in `specific`."""

    latest: int = 1
    all: bool = False
    specific: tuple[str, ...] = ()

    def choose(self, versions: list[str]) -> list[str]:
        """Those of `versions` that shall be loaded, lowest first; of `specific` also those that do not exist."""
        if self.specific:
            return sorted(self.specific, key=int)
        ordered = sorted(versions, key=int)
        return ordered if self.all else ordered[-self.latest :]


@dataclass(frozen=True)
class Batching:
    """See fastinfer.Batcher."""

    max_batch: int = 32
    max_delay: float = 0.0
    max_queue: int = 1024
    max_wait: float | Literal["auto"] | None = "auto"
    calls: int = 1


@dataclass(frozen=True)
class RequestLimits:
    """timeout: seconds that a request may take (None: any; a client may ask for less, never for more). rows: that a
    request may have. priority: the greatest that a client may ask for. drain: seconds that sequences of a version that is
    being unloaded may still go on."""

    timeout: float | None = None
    rows: int | None = None
    priority: int = 10
    drain: float = 30.0


@dataclass(frozen=True)
class SequenceSettings:
    """Of stateful models. state: input → the output that it continues from (zeros at first); idle: seconds until a
    sequence without requests is forgotten; max: sequences at a time."""

    idle: float = 60.0
    max: int = 1024
    state: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CanarySettings:
    """When a canary is rolled back: its share of failed requests is more than `error_rate` above the stable version's, or
    its p95 latency more than `latency` times the stable one's (and 2 ms above it), over its last requests, once there are `requests`."""

    error_rate: float = 0.05
    latency: float = 3.0
    requests: int = 50


@dataclass(frozen=True)
class WarmUp:
    """samples: a .npz in the version's folder, an array per input; without it zeros. rows: batch sizes to run."""

    samples: str = "samples.npz"
    rows: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class PortSettings:
    """What an input or output shall be; -1 for a free extent."""

    name: str
    datatype: str = ""
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Settings:
    description: str = ""
    owner: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    precision: str = "fp32"
    threads: int | None = None
    strict: bool = False
    file: str = ""
    versions: Policy = Policy()
    batching: Batching = Batching()
    limits: RequestLimits = RequestLimits()
    sequence: SequenceSettings = SequenceSettings()
    canary: CanarySettings = CanarySettings()
    warmup: WarmUp = WarmUp()
    inputs: tuple[PortSettings, ...] = ()
    outputs: tuple[PortSettings, ...] = ()


def wrong(where: str, given: object, needed: str) -> ServeError:
    return ServeError(Kind.INVALID_ARGUMENT, f"{where}: given {quoted(given)}, needed: {needed}")


def _whole(least: int, most: int) -> Callable[[Any, str], int]:
    def check(value: Any, where: str) -> int:
        if type(value) is not int or not least <= value <= most:
            raise wrong(where, value, f"a whole number from {least} to {most}")
        return value

    return check


def _number(least: float, most: float) -> Callable[[Any, str], float]:
    def check(value: Any, where: str) -> float:
        if type(value) not in (int, float) or not math.isfinite(value) or not least <= value <= most:
            raise wrong(where, value, f"a number from {least:g} to {most:g}")
        return float(value)

    return check


def _wait(value: Any, where: str) -> float | Literal["auto"] | None:
    if isinstance(value, str):
        if value not in ("auto", "any"):
            raise wrong(where, value, 'a number of seconds, "auto", or "any" for no limit')
        return "auto" if value == "auto" else None
    return _number(0, 3600)(value, where)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > 4096:
        raise wrong(where, value, "a text of at most 4096 characters")
    return value


def _device(value: Any, where: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", value):
        raise wrong(where, value, '"cpu", "cuda" or "cuda:<number>"')
    return value


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise wrong(where, value, "true or false")
    return value


def _texts(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise wrong(where, value, "a table of texts")
    return {str(k): _text(v, f"{where}.{k}") for k, v in value.items()}


def _file(value: Any, where: str) -> str:
    return check_file(value)


def _rows(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > 16:
        raise wrong(where, value, "at most 16 batch sizes")
    return tuple(_whole(1, 65536)(v, where) for v in value)


def _policy(value: Any, where: str) -> Policy:
    if value in ("all", "latest"):
        return Policy(all=value == "all")
    if isinstance(value, Mapping) and set(value) == {"latest"}:
        return Policy(latest=_whole(1, 1 << 30)(value["latest"], f"{where}.latest"))
    if isinstance(value, list) and value and all(is_version(str(v)) and not isinstance(v, bool) for v in value):
        return Policy(specific=tuple(dict.fromkeys(str(v) for v in value)))
    raise wrong(where, value, '"latest", "all", {latest = 2} or a list of versions')


def _datatype(value: Any, where: str) -> str:
    name = str(value).removeprefix("TYPE_")
    name = BYTES if name == "STRING" else name
    if name not in DTYPES and name != BYTES:
        raise wrong(where, value, f"one of {', '.join([*DTYPES, BYTES])}")
    return name


def _shape(value: Any, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > 64:
        raise wrong(where, value, "a list of extents, -1 for free ones")
    return tuple(_whole(-1, 1 << 40)(v, where) for v in value)


def _table(cls: type, checks: Mapping[str, Callable[[Any, str], Any]]) -> Callable[[Any, str], Any]:
    def check(value: Any, where: str) -> Any:
        if not isinstance(value, Mapping):
            raise wrong(where, value, "a table")
        return cls(**{k: checks[known(k, checks, where)](v, f"{where}.{k}".lstrip(".")) for k, v in value.items()})

    return check


def known(key: Any, keys: Mapping[str, Any], where: str) -> str:
    """Raises ServeError for a key that is not in `keys`, naming the nearest one."""
    if key in keys:
        return key
    near = difflib.get_close_matches(str(key), keys, 1, 0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(keys)}"
    raise ServeError(Kind.INVALID_ARGUMENT, f"{where or 'model.toml'}: no key is called {quoted(key)}; {hint}")


def _ports(value: Any, where: str) -> tuple[PortSettings, ...]:
    if not isinstance(value, list) or not all(isinstance(v, Mapping) and "name" in v for v in value):
        raise wrong(where, value, "tables with a name")
    return tuple(_PORT(v, where) for v in value)


_PORT = _table(PortSettings, {"name": _text, "datatype": _datatype, "shape": _shape})
_DAY = 86400.0
_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "description": _text, "owner": _text, "labels": _texts, "device": _device, "precision": _text, "threads": _whole(1, 64),
    "strict": _flag, "file": _file, "versions": _policy,
    "batching": _table(Batching, {
        "max_batch": _whole(1, 65536), "max_delay": _number(0, 60), "max_queue": _whole(1, 1 << 20),
        "max_wait": _wait, "calls": _whole(1, 64),
    }),
    "limits": _table(RequestLimits, {
        "timeout": _number(1e-3, _DAY), "rows": _whole(1, 1 << 30), "priority": _whole(0, 1000), "drain": _number(0, _DAY),
    }),
    "sequence": _table(SequenceSettings, {"idle": _number(1e-3, _DAY), "max": _whole(1, 1 << 20), "state": _texts}),
    "canary": _table(CanarySettings, {
        "error_rate": _number(0, 1), "latency": _number(1, 1000), "requests": _whole(1, 10000),
    }),
    "warmup": _table(WarmUp, {"samples": _file, "rows": _rows}),
    "inputs": _ports, "outputs": _ports,
}  # fmt: skip
assert set(_CHECKS) == {f.name for f in fields(Settings)}
_read = _table(Settings, _CHECKS)


def parse(text: bytes) -> Settings:
    """The contents of a model.toml. Raises ServeError."""
    if len(text) > MAX_BYTES:
        raise ServeError(Kind.INVALID_ARGUMENT, f"model.toml has {len(text)} bytes, at most {MAX_BYTES} are read")
    try:
        return _read(tomllib.loads(text.decode()), "")
    except (ValueError, RecursionError) as e:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ServeError(Kind.INVALID_ARGUMENT, f"model.toml: {str(e)[:200]}") from e


def overlay(settings: Settings, table: Mapping[str, Any], where: str) -> Settings:
    """`settings` with the keys that `table` gives; a table inside replaces only the keys that it names."""
    changes: dict[str, Any] = {}
    for key, value in table.items():
        checked = _CHECKS[known(key, _CHECKS, where)](value, f"{where}.{key}")
        old = getattr(settings, key)
        if isinstance(value, Mapping) and key not in ("labels", "versions"):
            checked = replace(old, **{k: getattr(checked, k) for k in value})
        changes[key] = checked
    return replace(settings, **changes)
