# SPDX-License-Identifier: Apache-2.0
"""What operators see: metrics, structured logs, traces."""

from fastinfer.serve.observe.metrics import Metrics, Observation
from fastinfer.serve.observe.requests import Requests

__all__ = ["Metrics", "Observation", "Requests"]
