# SPDX-License-Identifier: Apache-2.0
"""MatMul, Gemm and the fused MatMul through the plan: single nodes with all attributes, and small models after the passes."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from gemm_cases import ACTIVATIONS
from onnx import TensorProto, helper, numpy_helper

from fastinfer import _core, passes
from fastinfer.cuda.device import open_device
from fastinfer.cuda.kernels.gemm_epilogue import ACTIVATIONS as PARAMETERS
from fastinfer.cuda.plan import Plan, make_plan
from fastinfer.cuda.precision import precision_of
from fastinfer.cuda.program import DeviceProgram
from fastinfer.cuda.tuning import Tuner
from fastinfer.lower import lower
from kernels.case import node_model

RNG = np.random.default_rng(5)


def x(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def plan_of(model: ir.Model, feeds: list[np.ndarray], precision: str) -> tuple[Plan, list[str]]:
    device = open_device("cuda")
    program = DeviceProgram(lower(model), device, precision_of(precision))
    plan = make_plan(program, [(_core.dtype_code(a.dtype), a.shape) for a in feeds], Tuner(device))
    for kept in plan.kept:
        kept.fill_(0xFF)  # NaN in every float type
    for buffer, given in zip(plan.inputs, feeds, strict=True):
        buffer.copy_(torch.from_numpy(given))
    plan.launch()
    return plan, [s.kernel for s in plan.steps]


def node(op: str, inputs: list, constants: tuple[int, ...] = (), precision: str = "fp32", **given) -> np.ndarray:
    """The node's output, from a step of ours."""
    model = ir.from_proto(node_model(op, inputs, 1, constants=constants, **given))
    feeds = [a for i, a in enumerate(inputs) if a is not None and i not in constants]
    plan, steps = plan_of(model, feeds, precision)
    assert not any(s.startswith("torch") for s in steps), steps
    return plan.outputs[0].double().cpu().numpy()


def close(got: np.ndarray, expected: np.ndarray, tolerance: float = 2e-6) -> None:
    assert got.shape == expected.shape
    largest = np.abs(expected).max(initial=0) or 1.0
    assert np.abs(got - expected).max(initial=0) <= tolerance * largest


SHAPES = [
    ((3, 7), (7, 5)), ((2, 3, 7), (7, 5)), ((7,), (7, 5)), ((2, 3, 7), (7,)), ((7,), (7,)), ((1, 1), (1, 1)),
    ((2, 1, 3, 7), (2, 7, 5)), ((2, 2, 3, 7), (2, 2, 7, 5)), ((3, 2, 7), (3, 7, 1)), ((0, 7), (7, 5)), ((3, 0), (0, 5)),
    ((2, 0, 7), (7, 5)), ((1, 300), (300, 3)),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), SHAPES, ids=str)
def test_matmul(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    given = [x(*a), x(*b)]
    expected = given[0].astype(float) @ given[1].astype(float)
    for constants in ((), (1,)):
        close(node("MatMul", given, constants), expected)
    close(node("MatMul", given, (1,), "bf16"), expected, 2e-2)


def test_batch_axes_broadcast_in_turns() -> None:
    """Three axes that do not merge: the binder declines, torch has it."""
    given = [x(2, 1, 2, 1, 3, 4), x(1, 2, 1, 2, 4, 2)]
    model = ir.from_proto(node_model("MatMul", given, 1))
    plan, steps = plan_of(model, given, "fp32")
    assert not any(s.startswith("triton_gemm") for s in steps)
    close(plan.outputs[0].double().cpu().numpy(), given[0].astype(float) @ given[1])


@pytest.mark.parametrize("c", [None, (5,), (1, 5), (3, 1), (3, 5), (1,), ()], ids=str)
@pytest.mark.parametrize("trans", [(1, 0), (0, 1)])
def test_gemm(c: tuple[int, ...] | None, trans: tuple[int, int]) -> None:
    a, b = x(*((7, 3) if trans[0] else (3, 7))), x(*((5, 7) if trans[1] else (7, 5)))
    addend = None if c is None else x(*c)
    left, right = (m.T if t else m for m, t in zip((a, b), trans))
    for constants, beta in (((1,), 1.0), ((1, 2) if c is not None else (1,), -0.5), ((), 2.0)):
        expected = 0.75 * (left.astype(float) @ right) + (0 if addend is None else beta * addend.astype(float))
        inputs = [a, b] if addend is None else [a, b, addend]
        got = node("Gemm", inputs, constants, transA=trans[0], transB=trans[1], alpha=0.75, beta=beta)
        close(got, expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_fused_activations(activation: str) -> None:
    alpha, beta = PARAMETERS[activation]
    attrs = {"activation": activation} if activation else {}
    if activation == "clip":
        alpha, beta = -0.5, 1.0
        attrs |= {"activation_alpha": alpha, "activation_beta": beta}
    a, w, bias = x(2, 3, 7), x(7, 5), x(5)
    expected = ACTIVATIONS[activation](a.astype(float) @ w + bias, alpha, beta)
    close(node("MatMul", [a, w, bias], (1, 2), domain="fastinfer", **attrs), expected)


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("trans", [(0, 0), (1, 1)])
def test_fused_residual(after: int, trans: tuple[int, int]) -> None:
    a, w, r = x(*((2, 7, 3) if trans[0] else (2, 3, 7))), x(*((5, 7) if trans[1] else (7, 5))), x(2, 3, 5)
    y = 0.5 * ((a.transpose(0, 2, 1) if trans[0] else a).astype(float) @ (w.T if trans[1] else w))
    expected = np.maximum(y, 0) + r if after else np.maximum(y + r, 0)
    attrs = {"alpha": 0.5, "activation": "relu", "residual_after": after, "transA": trans[0], "transB": trans[1]}
    for constants in ((1,), ()):
        close(node("MatMul", [a, w, None, r], constants, domain="fastinfer", **attrs), expected)
        close(node("MatMul", [a, w, None, r], constants, "bf16", domain="fastinfer", **attrs), expected, 2e-2)


@pytest.mark.parametrize(("precision", "tolerance"), [("int8", 0.04), ("fp8", 0.2)])
def test_eight_bits(precision: str, tolerance: float) -> None:
    """fp8's tolerance is the interpreter's, which halves numbers that round up to a power of two (see test_quantize.py)."""
    a, w, bias = x(2, 3, 64), x(64, 9), x(9)
    inputs, expected = [a, w, bias], a.astype(float) @ w + bias
    for trans in (0, 1):
        model = node_model(
            "MatMul", [a, w.T.copy() if trans else w, bias], 1, domain="fastinfer", constants=(1, 2), transB=trans
        )
        plan, steps = plan_of(ir.from_proto(model), [a], precision)
        assert any(s.startswith(f"triton_gemm {precision}") for s in steps) and f"triton_quantize {precision}" in steps
        close(plan.outputs[0].double().cpu().numpy(), expected, tolerance)
    plan, steps = plan_of(ir.from_proto(node_model("MatMul", inputs[:2], 1)), inputs[:2], precision)
    assert any(s.startswith("triton_gemm half") for s in steps)
    reasons = [r for s in plan.steps for r in s.refusals]
    assert reasons == [f"{precision} product: B is not constant"]
    close(plan.outputs[0].double().cpu().numpy(), a.astype(float) @ w, 2e-2)


def test_other_types_are_declined() -> None:
    given = [np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2)]
    plan, steps = plan_of(ir.from_proto(node_model("MatMul", given, 1)), given, "fp32")
    assert steps == ["torch.MatMul"] and plan.steps[0].refusals == ["products of torch.int64 and torch.int64"]
    np.testing.assert_array_equal(plan.outputs[0].cpu().numpy(), given[0] @ given[1])


def _mlp(batch: int) -> onnx.ModelProto:
    """relu(x·W1ᵀ + b1)·W2 + x"""
    r = np.random.default_rng(3)
    weights = {
        "w1": r.standard_normal((1100, 24)) / 5,
        "b1": r.standard_normal(1100),
        "w2": r.standard_normal((1100, 24)) / 25,
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "w2"], ["y"]),
        helper.make_node("Add", ["y", "x"], ["out"]),
    ]
    tensors = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    ports = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 24])] for name in ("x", "out")]
    model = helper.make_model(
        helper.make_graph(nodes, "mlp", *ports, tensors), opset_imports=[helper.make_opsetid("", 21)]
    )
    return onnx.shape_inference.infer_shapes(model)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-6), ("bf16", 1e-2), ("int8", 3e-2)])
def test_a_model_after_the_passes(precision: str, tolerance: float) -> None:
    """Fused into two products, the second with k in segments; a row's bits are those it has alone."""
    model = passes.run_pipeline(ir.from_proto(_mlp(5)))
    rows = x(5, 24)
    plan, steps = plan_of(model, [rows], precision)
    assert sum(s.startswith("triton_gemm") for s in steps) == 2
    assert not any(s.startswith("torch") for s in steps)
    w = {t.name: numpy_helper.to_array(t).astype(float) for t in _mlp(5).graph.initializer}
    expected = np.maximum(rows @ w["w1"].T + w["b1"], 0) @ w["w2"] + rows
    close(plan.outputs[0].double().cpu().numpy(), expected, tolerance)
    if precision != "fp32":  # there the interpreter's numpy takes another order for another tile
        alone, _ = plan_of(model, [rows[2:3]], precision)
        assert torch.equal(alone.outputs[0][0], plan.outputs[0][2])
