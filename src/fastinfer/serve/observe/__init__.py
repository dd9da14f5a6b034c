# SPDX-License-Identifier: Apache-2.0
"""What operators see: metrics, structured logs, traces."""

from fastinfer.serve.observe.metrics import Metrics, Observation

__all__ = ["Metrics", "Observation"]
