# SPDX-License-Identifier: Apache-2.0
"""The server: the Open Inference Protocol over HTTP and gRPC in front of compiled models.

Layers, imports one way: ``http``, ``grpc`` (the wire) → ``service`` → ``registry`` → ``endpoint`` (one loaded version) →
``fastinfer.Batcher``; ``messages``, ``datatypes`` and ``errors`` are what all of them speak.

For other servers' processes: ``Asgi``, with ``Gate`` and ``Limits``. `fastinfer serve` is cli/serve.py over main.py.
"""

from __future__ import annotations

import importlib
from typing import Any

# Imported when used: each needs the extra `serve`, and parts of it are of use without.
_PUBLIC = {"Asgi": "asgi", "Gate": "access", "Limits": "messages", "Registry": "registry", "ServeError": "errors"}
__all__ = ["Asgi", "Gate", "Limits", "Registry", "ServeError"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"fastinfer.serve.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'fastinfer.serve' has no attribute {name!r}")
