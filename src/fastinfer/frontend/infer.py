# SPDX-License-Identifier: Apache-2.0
"""Types and shapes by ONNX's own inference, without sending the weights through it."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass


def infer_shapes(model: ir.Model) -> None:
    """Fills in what ONNX's inference finds. Never fails: what it cannot tell stays unknown."""
    try:
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    except (onnx.shape_inference.InferenceError, ir.passes.PassError, ValueError, RuntimeError):
        pass
