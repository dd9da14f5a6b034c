# SPDX-License-Identifier: Apache-2.0
"""Front doors: everything that becomes an onnx_ir.Model of opset 26."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastinfer.frontend.onnx_loader import DEFAULTS, OVERRIDABLE, load

if TYPE_CHECKING:
    from fastinfer.frontend.torch_frontend import TorchImport

__all__ = ["DEFAULTS", "OVERRIDABLE", "from_torch", "load"]


def from_torch(source: Any, example_inputs: Any = None, dynamic_shapes: Any = None) -> TorchImport:
    """See fastinfer.frontend.torch_frontend, which needs torch and is imported when first used."""
    from fastinfer.frontend import torch_frontend

    return torch_frontend.from_torch(source, example_inputs, dynamic_shapes)
