# SPDX-License-Identifier: Apache-2.0
"""Single operators as models: made with onnx, compiled for the device, their step timed against torch's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper

import fastinfer as fi
from fastinfer.cuda.plan import Plan
from gpu.timing import DEVICE

F = TensorProto.FLOAT


def model_of(nodes: list, x: tuple[int, ...], constants: dict[str, np.ndarray], precision: str, tune: bool) -> fi.Model:
    """x → y, compiled for the device."""
    graph = helper.make_graph(
        nodes, "layer", [helper.make_tensor_value_info("x", F, x)], [helper.make_tensor_value_info("y", F, None)],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    compiled = fi.compile(model, device="cuda", precision=precision)
    if tune:
        compiled.tune(np.random.default_rng(0).standard_normal(x, np.float32))
    return compiled


def step_of(model: fi.Model, x: np.ndarray, op: str) -> tuple[Callable[[], None], str, torch.Tensor]:
    """(the launch of the model's one step of this operator, its kernel, the output after a run)."""
    output = torch.from_numpy(model.run({"x": x})["y"])
    plan: Plan = model._executor.plan_of(x)
    nodes = model._program.graph.nodes
    own = [i for i, s in enumerate(plan.steps) if s.node >= 0 and nodes[s.node]["op"] == op]
    first, last = own[0], own[-1] + 1
    kernels = " + ".join(plan.steps[i].kernel for i in own)
    return (lambda: plan.launch(slice(first, last))), kernels, output.to(DEVICE)
