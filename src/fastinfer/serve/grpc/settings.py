# SPDX-License-Identifier: Apache-2.0
"""TraceSetting and LogSettings: what is set is set for both wires."""

from __future__ import annotations

from typing import Any

from fastinfer.serve.settings import LogSettings, TraceSettings


def trace(request: Any, settings: TraceSettings) -> dict[str, Any]:
    """The fields of a TraceSettingResponse. A setting without a value goes back to what it was. Raises ServeError."""
    given = {}
    for name, setting in request.settings.items():
        values = list(setting.value)
        given[name] = None if not values else values if name == "trace_level" or len(values) > 1 else values[0]
    made = settings.update(given, request.model_name)
    return {"settings": {k: {"value": v if isinstance(v, list) else [v]} for k, v in made.items()}}


def log(request: Any, settings: LogSettings) -> dict[str, Any]:
    """The fields of a LogSettingsResponse; a setting without a value is left as it is. Raises ServeError."""
    given = {}
    for name, setting in request.settings.items():
        choice = setting.WhichOneof("parameter_choice")
        if choice is not None:
            given[name] = getattr(setting, choice)
    return {"settings": {name: {_FORM[type(v)]: v} for name, v in settings.update(given).items()}}


_FORM = {bool: "bool_param", int: "uint32_param", str: "string_param"}
