# SPDX-License-Identifier: Apache-2.0
"""What the pass tests share: models from text, and "same result before and after"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from fastinfer.passes import verify

HEADER = '<ir_version: 10, opset_import: ["" : 26, "com.microsoft" : 1]>\n'


def parse(text: str, **constants: np.ndarray) -> ir.Model:
    """A model from ONNX text; graph inputs named in `constants` become initializers."""
    model = ir.from_onnx_text(HEADER + text)
    for value in list(model.graph.inputs):
        if value.name in constants:
            model.graph.inputs.remove(value)
            value.const_value = ir.tensor(constants[value.name], name=value.name)
            model.graph.register_initializer(value)
    return model


def counts(model: ir.Model) -> Counter[str]:
    """How often each operator occurs; ours as `fastinfer.X`."""
    return Counter(f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in model.graph.all_nodes())


def check(
    model: ir.Model, step: Callable[[ir.Model], bool], inputs: Mapping[str, np.ndarray], tolerance: float = 1e-5
) -> Counter[str]:
    """Runs `step`, verifies structure and results; returns the operator counts afterwards."""
    before = verify.run_reference(model, inputs)
    names = [v.name for v in model.graph.outputs]
    step(model)
    verify.check_structure(model)
    assert [v.name for v in model.graph.outputs] == names
    verify.check_results(before, verify.run_reference(model, inputs), tolerance)
    return counts(model)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
