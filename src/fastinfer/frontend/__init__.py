# SPDX-License-Identifier: Apache-2.0
"""Front doors: everything that becomes an onnx_ir.Model of opset 26."""

from __future__ import annotations

from fastinfer.frontend.onnx_loader import load

__all__ = ["load"]
