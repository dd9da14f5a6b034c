# SPDX-License-Identifier: Apache-2.0
"""The benchmark suite: well-known architectures with random weights, exported to ONNX once."""

from suite.export import ensure, export, feeds_of
from suite.models import DYNAMIC, MODELS, QUANTIZED, Benchmark

__all__ = ["DYNAMIC", "MODELS", "QUANTIZED", "Benchmark", "ensure", "export", "feeds_of"]
