# SPDX-License-Identifier: Apache-2.0
"""Small ONNX nets through cuda.plan, and what onnx.reference says of them."""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fastinfer import _core, frontend, passes
from fastinfer.cuda.device import open_device
from fastinfer.cuda.plan import make_plan
from fastinfer.cuda.precision import precision_of
from fastinfer.cuda.program import DeviceProgram
from fastinfer.cuda.tuning import Tuner
from fastinfer.lower import lower

F = TensorProto.FLOAT


class Net:
    """Collects nodes and weights; every call adds a node and returns its output's name."""

    def __init__(self, *shape):
        self.rng, self.nodes, self.weights, self.shape = np.random.default_rng(0), [], [], shape

    def weight(self, *shape, fan=None, value=None):
        name = f"w{len(self.weights)}"
        drawn = self.rng.standard_normal(shape) / np.sqrt(fan or 1)
        self.weights.append(numpy_helper.from_array(np.asarray(drawn if value is None else value, np.float32), name))
        return name

    def __call__(self, op, *inputs, **attrs):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"{op.lower()}{len(self.nodes)}", **attrs))
        return name

    def conv(self, x, cin, cout, k, stride=1, group=1, act="Relu"):
        w = self.weight(cout, cin // group, k, k, fan=cin // group * k * k)
        y = self("Conv", x, w, self.weight(cout), pads=[k // 2] * 4, strides=[stride] * 2, group=group)
        return self(act, y) if act else y

    def model(self, output):
        x, y = helper.make_tensor_value_info("x", F, self.shape), helper.make_tensor_value_info(output, F, None)
        graph = helper.make_graph(self.nodes, "net", [x], [y], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def planned(model, precision="fp32"):
    """The plan and, launched on fresh inputs over a poisoned arena, its output and the reference's."""
    program = lower(passes.run_pipeline(frontend.load(model)))
    given = DeviceProgram(program, open_device("cuda"), precision_of(precision))
    shape = tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)
    plan = make_plan(given, [(_core.dtype_code(np.dtype(np.float32)), shape)], Tuner(open_device("cuda")))
    for block in (*plan.kept, *plan.outputs):
        block.view(-1).view(torch.uint8).fill_(255)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    plan.inputs[0].copy_(torch.from_numpy(x))
    plan.launch()
    reference = ReferenceEvaluator(onnx.version_converter.convert_version(model, 21)).run(None, {"x": x})[0]
    return plan, plan.outputs[0].cpu().float().numpy(), reference


def error(y, reference):
    return np.linalg.norm(y - reference) / np.linalg.norm(reference)


def kernels(plan):
    return [step.kernel.split()[0] for step in plan.steps if step.node >= 0]
