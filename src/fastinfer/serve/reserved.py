# SPDX-License-Identifier: Apache-2.0
"""The parameters that the protocol reserves for itself, moved from a request's parameters into its fields."""

from __future__ import annotations

from typing import Any

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.messages import InferRequest

# Triton's priority 1 is the highest and 0 means "not said"; ours grow upwards. One that is not said counts as this level.
DEFAULT_PRIORITY = 4
MAX_SEQUENCE = 256
NAMES = ("timeout", "priority", "sequence_id", "sequence_start", "sequence_end")


def take_reserved(request: InferRequest) -> None:
    """timeout is in microseconds, 0 for none. What is left in request.parameters is the client's own. Raises ServeError."""
    given = {name: request.parameters.pop(name) for name in NAMES if name in request.parameters}
    if not given:
        return
    request.timeout = _integer(given, "timeout") / 1e6 or None
    level = _integer(given, "priority")
    request.priority = DEFAULT_PRIORITY - level if level else 0
    sequence = given.get("sequence_id", 0)
    if type(sequence) is str and len(sequence) > MAX_SEQUENCE:  # it is kept for as long as the sequence is
        raise ServeError(
            Kind.INVALID_ARGUMENT, f"sequence_id has {len(sequence)} characters; at most {MAX_SEQUENCE} are taken"
        )
    request.sequence = sequence if type(sequence) is str else _integer(given, "sequence_id")
    request.sequence_start = _flag(given, "sequence_start")
    request.sequence_end = _flag(given, "sequence_end")


def _integer(given: dict[str, Any], name: str) -> int:
    value = given.get(name, 0)
    if type(value) is not int or value < 0:
        raise ServeError(Kind.INVALID_ARGUMENT, f"parameter '{name}': needed is an integer of at least 0")
    return value


def _flag(given: dict[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if type(value) is not bool:
        raise ServeError(Kind.INVALID_ARGUMENT, f"parameter '{name}': needed is true or false")
    return value
