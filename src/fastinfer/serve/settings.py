# SPDX-License-Identifier: Apache-2.0
"""Settings of tracing and logging as Triton's extensions have them: one set of them, which both wires show and change."""

from __future__ import annotations

import logging
from typing import Any

from fastinfer.serve.errors import Kind, ServeError

# Triton writes numbers as strings here.
_TRACE = {
    "trace_file": "", "trace_level": ["OFF"], "trace_rate": "1000", "trace_count": "-1", "log_frequency": "0",
    "trace_mode": "triton",
}  # fmt: skip
_LEVELS = ("OFF", "TIMESTAMPS", "TENSORS")
_LOG: dict[str, Any] = {
    "log_file": "", "log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 0,
    "log_format": "default",
}  # fmt: skip
_FORMATS = ("default", "ISO8601")
MODELS = 1024  # that may have settings of their own


def refuse(text: str) -> ServeError:
    return ServeError(Kind.INVALID_ARGUMENT, text)


class TraceSettings:
    """Of the server, and of single models where they differ."""

    def __init__(self) -> None:
        self._server: dict[str, Any] = dict(_TRACE)
        self._models: dict[str, dict[str, Any]] = {}

    def get(self, model: str = "") -> dict[str, Any]:
        return {**self._server, **self._models.get(model, {})}

    def update(self, given: dict[str, Any], model: str = "") -> dict[str, Any]:
        """Sets what is given; null puts a setting back to what it was before anyone set it. Raises ServeError."""
        checked = {name: None if value is None else _trace_value(name, value) for name, value in given.items()}
        if model and model not in self._models and len(self._models) >= MODELS:
            raise refuse(f"{MODELS} models have trace settings of their own already")
        target = self._models.setdefault(model, {}) if model and given else self._server
        for name, value in checked.items():
            if value is not None:
                target[name] = value
            elif model:
                target.pop(name, None)
            else:
                target[name] = _TRACE[name]
        return self.get(model)


def _trace_value(name: str, value: Any) -> Any:
    if name not in _TRACE:
        raise refuse(f"no trace setting is called {name[:64]!r}; known: {', '.join(_TRACE)}")
    if name == "trace_file":
        raise refuse("where traces go is the operator's to say: trace_file cannot be set over the network")
    if name == "trace_level":
        levels = value if type(value) is list else [value]
        if not levels or any(level not in _LEVELS for level in levels):
            raise refuse(f"trace_level: needed: a list of {', '.join(_LEVELS)}")
        return ["OFF"] if "OFF" in levels else list(dict.fromkeys(levels))
    if name == "trace_mode":
        if value not in ("triton", "opentelemetry"):
            raise refuse("trace_mode: needed: triton or opentelemetry")
        return value
    text = value if type(value) is str else str(value) if type(value) is int else ""
    least = {"trace_rate": 1, "trace_count": -1, "log_frequency": 0}[name]
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10 and int(text) >= least):
        raise refuse(f"{name}: needed: an integer of at least {least}, as a string")
    return str(int(text))


class LogSettings:
    """What the logger ``fastinfer.serve`` says: errors, warnings, information, and more (log_verbose_level)."""

    def __init__(self) -> None:
        self._values = dict(_LOG)

    def get(self) -> dict[str, Any]:
        return dict(self._values)

    def update(self, given: dict[str, Any]) -> dict[str, Any]:
        """Raises ServeError, and then nothing is changed."""
        for name, value in given.items():
            if name not in _LOG:
                raise refuse(f"no log setting is called {name[:64]!r}; known: {', '.join(_LOG)}")
            if name == "log_file":
                raise refuse("where the log goes is the operator's to say: log_file cannot be set over the network")
            if name == "log_verbose_level":
                if type(value) is not int or not 0 <= value < 1 << 32:
                    raise refuse("log_verbose_level: needed: an integer from 0 to 2^32 - 1")
            elif name == "log_format":
                if value not in _FORMATS:
                    raise refuse(f"log_format: needed: {' or '.join(_FORMATS)}")
            elif type(value) is not bool:
                raise refuse(f"{name}: needed: true or false")
        self._values.update(given)
        if given:
            logging.getLogger("fastinfer.serve").setLevel(self._level())  # which observe/logs.py set up
        return self.get()

    def _level(self) -> int:
        """The lowest of the levels that are on."""
        if self._values["log_verbose_level"]:
            return logging.DEBUG
        for name in ("info", "warning", "error"):
            if self._values[f"log_{name}"]:
                return int(getattr(logging, name.upper()))
        return logging.CRITICAL


class Settings:
    """What a server's wires share."""

    def __init__(self) -> None:
        self.trace, self.log = TraceSettings(), LogSettings()
