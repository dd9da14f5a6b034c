# SPDX-License-Identifier: Apache-2.0
"""The HTTP wire: an ASGI application over a Service, and the server that runs it.

body, jsontext, compression: bytes within limits → decode → Service → encode. protocol, serve: uvicorn, hardened.
"""

from fastinfer.serve.http.app import App
from fastinfer.serve.regions import Regions

__all__ = ["App", "Regions"]
