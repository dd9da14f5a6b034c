# SPDX-License-Identifier: Apache-2.0
"""What the pass tests share: models from text, and "same result before and after"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from fastinfer.passes import fused, verify
from fastinfer.passes.shapes import Shapes

HEADER = '<ir_version: 10, opset_import: ["" : 26, "com.microsoft" : 1]>\n'


def parse(text: str, **constants: np.ndarray) -> ir.Model:
    """A model from ONNX text; graph inputs named in `constants` become initializers."""
    model = ir.from_onnx_text(HEADER + text)
    for value in list(model.graph.inputs):
        if value.name in constants:
            model.graph.inputs.remove(value)
            value.const_value = ir.tensor(constants[value.name], name=value.name)
            model.graph.register_initializer(value)
    Shapes(model)  # element types of intermediate values, as the front end and the first passes leave them
    return model


def counts(model: ir.Model) -> Counter[str]:
    """How often each operator occurs; ours as `fastinfer.X`."""
    return Counter(f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in model.graph.all_nodes())


def run_onnxruntime(model: ir.Model, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """For what onnx.reference computes wrongly (grouped ConvTranspose) or too slowly."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    proto = ir.to_proto(fused.to_standard(model))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: inputs[i.name] for i in session.get_inputs()})


def run_where_known(model: ir.Model, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """com.microsoft by ONNX Runtime, all else by onnx.reference (ONNX Runtime lacks Swish)."""
    contrib = any(n.domain == "com.microsoft" for n in model.graph.all_nodes())
    return (run_onnxruntime if contrib else verify.run_reference)(model, inputs)


def check(
    model: ir.Model,
    step: Callable[[ir.Model], bool],
    inputs: Mapping[str, np.ndarray],
    tolerance: float = 1e-5,
    run: Callable[[ir.Model, Mapping[str, np.ndarray]], list[np.ndarray]] = verify.run_reference,
) -> Counter[str]:
    """Runs `step`, verifies structure and results; returns the operator counts afterwards."""
    before = run(model, inputs)
    names = [v.name for v in model.graph.outputs]
    step(model)
    verify.check_structure(model)
    assert [v.name for v in model.graph.outputs] == names
    verify.check_results(before, run(model, inputs), tolerance)
    return counts(model)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
