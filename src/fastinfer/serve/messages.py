# SPDX-License-Identifier: Apache-2.0
"""An inference request and its response as every wire hands them to the service."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Parameters = dict[str, Any]  # bool, int, float or str


@dataclass(slots=True)
class Tensor:
    """An array under a name. datatype: the protocol's (datatypes.py); BYTES are object arrays of ``bytes``."""

    name: str
    datatype: str
    array: np.ndarray
    parameters: Parameters = field(default_factory=dict)


@dataclass(slots=True)
class RequestedOutput:
    """An output that the client asked for. parameters may hold ``classification``: k, or a shared memory region, which
    the wire looks at; ``binary_data`` is the HTTP wire's own."""

    name: str
    parameters: Parameters = field(default_factory=dict)


@dataclass(slots=True)
class InferRequest:
    """model may be a name or an alias; version is empty for the one that the policy chooses. outputs: None for all.

    priority: higher is sooner. timeout: seconds from when the request came, None for the model's own limit. sequence:
    of a stateful model, 0 or "" for none.
    """

    model: str
    inputs: list[Tensor]
    version: str = ""
    id: str = ""
    parameters: Parameters = field(default_factory=dict)
    outputs: list[RequestedOutput] | None = None
    priority: int = 0
    timeout: float | None = None
    sequence: int | str = 0
    sequence_start: bool = False
    sequence_end: bool = False
    caller: str = ""  # who asks, for limits and logs; never a secret
    trace: str = ""  # W3C traceparent


@dataclass(slots=True)
class InferResponse:
    model: str
    version: str
    outputs: list[Tensor]
    id: str = ""
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may bring. Sizes in bytes."""

    body: int = 128 << 20  # as it comes, and again once decompressed
    json: int = 32 << 20  # the JSON part
    json_depth: int = 32
    tensors: int = 1024  # inputs, and requested outputs
    header: int = 64 << 10  # all HTTP headers of a request
    url: int = 8 << 10
    name: int = 256  # characters of a model name, version or id
