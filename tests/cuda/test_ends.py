# SPDX-License-Identifier: Apache-2.0
"""A model's ends in half precision: inputs come and outputs leave as float32 where a kernel converts as it loads or stores; else
one step does. Every buffer is poisoned first."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from cuda_nodes import POISON, Untuned
from onnx import TensorProto as T
from onnx import helper as h

import fastinfer as fi
from fastinfer import _core, passes
from fastinfer.cuda.context import Declined
from fastinfer.cuda.device import open_device
from fastinfer.cuda.node import Node
from fastinfer.cuda.plan import Planner
from fastinfer.cuda.precision import precision_of
from fastinfer.cuda.program import DeviceProgram
from fastinfer.lower import lower

MOST = {"bf16": torch.finfo(torch.bfloat16).max, "f16": 65504.0}
LOWEST = float(np.finfo(np.float32).min)
RNG = np.random.default_rng(0)


def model_of(nodes, inputs, outputs, constants=None):
    """inputs, outputs: name → shape; bools are inputs called "kept"."""
    value = lambda n, shape: h.make_tensor_value_info(n, T.BOOL if n == "kept" else T.FLOAT, shape)  # noqa: E731
    kinds = {np.dtype(np.float32): T.FLOAT, np.dtype(np.int64): T.INT64}
    tensors = [h.make_tensor(n, kinds[a.dtype], a.shape, a.ravel()) for n, a in (constants or {}).items()]
    graph = h.make_graph(nodes, "g", [value(*i) for i in inputs.items()], [value(*o) for o in outputs.items()], tensors)
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 21)], ir_version=10)


def planner(model, feeds, precision):
    device = open_device("cuda")
    program = DeviceProgram(lower(passes.run_pipeline(ir.from_proto(model))), device, precision_of(precision))
    return Planner(program, [(_core.dtype_code(a.dtype), a.shape) for a in feeds.values()], Untuned(device))


def run(model, feeds, precision):
    """(outputs by name, names of the steps)"""
    made = planner(model, feeds, precision)
    plan = made.plan()
    for kept in plan.kept[:1] + [t.view(-1).view(torch.uint8) for t in plan.outputs]:
        kept.fill_(POISON)
    for buffer, given in zip(plan.inputs, feeds.values(), strict=True):
        buffer.copy_(torch.from_numpy(given))
    plan.launch()
    names = [port["name"] for port in made.program.graph.outputs]
    return dict(zip(names, (t.cpu().numpy() for t in plan.outputs))), [s.kernel for s in plan.steps]


def check(model, feeds, precision, casts=0, exact=()):
    """Against the CPU in float32; how many steps do nothing but convert; outputs that no step rounds."""
    got, steps = run(model, feeds, precision)
    assert sum(s in ("cast_input", "copy_output") for s in steps) == casts, steps
    assert not any(s.startswith("torch") for s in steps), steps
    with np.errstate(over="ignore"):
        want = fi.compile(model.SerializeToString()).run(feeds)
    for name, y in want.items():
        assert got[name].dtype == y.dtype and got[name].shape == y.shape
        if name in exact:
            np.testing.assert_allclose(got[name], y, rtol=1e-6)
        else:
            tolerance = {"bf16": 3e-2, "f16": 4e-3}[precision]
            np.testing.assert_allclose(got[name], y, rtol=tolerance, atol=tolerance * np.abs(y).max())


def numbers(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


HALVES = pytest.mark.parametrize("precision", ["bf16", "f16"])


@HALVES
def test_pointwise_from_end_to_end_rounds_nothing(precision):
    nodes = [h.make_node("Mul", ["x", "x"], ["a"]), h.make_node("Add", ["a", "r"], ["y"])]
    model = model_of(nodes, {"x": [3, 5], "r": [5]}, {"y": [3, 5]})
    check(model, {"x": numbers(3, 5), "r": numbers(5)}, precision, exact={"y"})


@HALVES
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "LayerNormalization", "ReduceMean", "Transpose", "Slice"])
def test_what_converts_as_it_loads_and_stores(op, precision):
    x, constants, more, attrs = numbers(40, 30), {}, [], {}
    shape = [40, 30]
    if op == "LayerNormalization":
        constants, more = {"s": numbers(30), "b": numbers(30)}, ["s", "b"]
    if op == "ReduceMean":
        constants, more, shape, attrs = {"a": np.array([1])}, ["a"], [40], {"keepdims": 0}
    if op == "Slice":
        constants, more, shape = {"a": np.array([1]), "b": np.array([9]), "c": np.array([1])}, ["a", "b", "c"], [40, 8]
    shape = [30, 40] if op == "Transpose" else shape
    model = model_of([h.make_node(op, ["x", *more], ["y"], **attrs)], {"x": [40, 30]}, {"y": shape}, constants)
    got, steps = run(model, {"x": x}, precision)
    want = fi.compile(model.SerializeToString()).run({"x": x})["y"]
    assert len(steps) == 1 and steps[0].startswith("triton"), steps
    np.testing.assert_allclose(got["y"], want, rtol=2e-5, atol=2e-6)  # float32 in, float32 out, float32 between


@HALVES
def test_products_round_their_operands_in_a_step(precision):
    """One for all products that read the input; what stands beside them reads float32."""
    nodes = [
        h.make_node("MatMul", ["x", "w"], ["a"]), h.make_node("MatMul", ["x", "v"], ["b"]), h.make_node("Add", ["a", "x"], ["c"]),
        h.make_node("Mul", ["b", "c"], ["y"]),
    ]  # fmt: skip
    constants = {"w": numbers(8, 8), "v": numbers(8, 8)}
    check(model_of(nodes, {"x": [4, 8]}, {"y": [4, 8]}, constants), {"x": numbers(4, 8)}, precision, casts=1)


@HALVES
def test_a_stem_of_a_network(precision):
    nodes = [h.make_node("Conv", ["x", "w", "b"], ["a"], pads=[1] * 4), h.make_node("Relu", ["a"], ["y"])]
    model = model_of(nodes, {"x": [1, 3, 6, 5]}, {"y": [1, 4, 6, 5]}, {"w": numbers(4, 3, 3, 3), "b": numbers(4)})
    check(model, {"x": numbers(1, 3, 6, 5)}, precision)


@HALVES
def test_outputs_under_another_shape_and_read_again(precision):
    """y is only renamed, a is an output and read by a product: its stored form is a step."""
    nodes = [
        h.make_node("Sigmoid", ["x"], ["a"]), h.make_node("MatMul", ["a", "w"], ["b"]), h.make_node("Reshape", ["b", "s"], ["y"]),
    ]  # fmt: skip
    constants = {"w": numbers(8, 8), "s": np.array([2, 2, 8])}
    model = model_of(nodes, {"x": [4, 8]}, {"a": [4, 8], "y": [2, 2, 8]}, constants)
    check(model, {"x": numbers(4, 8)}, precision, casts=1, exact={"a"})


def test_an_output_is_exact_where_float32_sums_leave():
    """A product's sums are rounded where they are stored, and nowhere else."""
    x, w = np.ones((1, 64), np.float32), np.full((64, 1), 1 / 256, np.float32)
    w[0] = 1
    model = model_of([h.make_node("MatMul", ["x", "w"], ["y"])], {"x": [1, 64]}, {"y": [1, 1]}, {"w": w})
    got, _ = run(model, {"x": x}, "bf16")
    assert got["y"].item() == 1 + 63 / 256  # bfloat16 would have 1.25


def test_a_binder_that_declines_leaves_no_step():
    model = model_of([h.make_node("MatMul", ["x", "w"], ["y"])], {"x": [4, 8]}, {"y": [4, 8]}, {"w": numbers(8, 8)})
    made = planner(model, {"x": numbers(4, 8)}, "bf16")
    node = Node(made, 0)
    try:
        node.input(0)
        node.output(0, wide=True)
        assert [s.kernel for s in made.steps] == ["cast_input"]
        raise Declined("changed its mind")
    except Declined:
        node.undo()
    assert made.steps == [] and made.narrowed == [] and not made._live
    made.plan()


# ------------------------------------------------------------------------------------------------------------------ masks


@pytest.mark.parametrize("precision", ["fp32", "bf16", "f16"])
@pytest.mark.parametrize("form", ["additive", "where", "given"])
def test_masked_out_rows_are_uniform(form, precision):
    """(1 − m)·lowest + scores, Where(m, scores, lowest), and a mask that the caller makes: what is masked has no weight, a row
    that is masked out whole has equal ones, as on the CPU."""
    kept = RNG.random((2, 1, 1, 7)) < 0.5
    kept[0, ..., 0], kept[1] = True, False
    scores, floats = numbers(2, 3, 4, 7), kept.astype(np.float32)
    constants = {"low": np.array(LOWEST, np.float32), "one": np.array(1, np.float32)}
    inputs, feeds = {"x": [2, 3, 4, 7], "m": [2, 1, 1, 7]}, {"x": scores, "m": floats}
    softmax = h.make_node("Softmax", ["s"], ["y"], axis=-1)
    if form == "additive":
        nodes = [h.make_node("Sub", ["one", "m"], ["n"]), h.make_node("Mul", ["n", "low"], ["a"])]
        nodes += [h.make_node("Add", ["x", "a"], ["s"])]
    elif form == "where":
        nodes = [h.make_node("Where", ["kept", "x", "low"], ["s"])]
        inputs, feeds = {"x": inputs["x"], "kept": inputs["m"]}, {"x": scores, "kept": kept}
    else:
        nodes = [h.make_node("Add", ["x", "m"], ["s"])]
        feeds["m"] = np.where(kept, 0, LOWEST).astype(np.float32)
    model = model_of([*nodes, softmax], inputs, {"y": [2, 3, 4, 7]}, constants)
    got, steps = run(model, feeds, precision)
    want = fi.compile(model.SerializeToString()).run(feeds)["y"]
    assert not any(s.startswith("torch") for s in steps), steps
    np.testing.assert_allclose(want[1], 1 / 7, rtol=1e-5)
    tolerance = {"fp32": 1e-5, "bf16": 2e-2, "f16": 2e-3}[precision]
    np.testing.assert_allclose(got["y"], want, rtol=tolerance, atol=tolerance)


@HALVES
def test_masks_that_stay_in_memory(precision):
    """A mask that two readers share is stored as a half: at its largest number. Infinities stay, NaN too."""
    m = np.array([0, 1, 1, 0], np.float32)
    nodes = [
        h.make_node("Mul", ["m", "low"], ["a"]), h.make_node("MatMul", ["a", "w"], ["y"]), h.make_node("Neg", ["a"], ["z"]),
        h.make_node("Mul", ["m", "inf"], ["i"]), h.make_node("MatMul", ["i", "w"], ["n"]),
    ]  # fmt: skip
    constants = {
        "low": np.array(LOWEST, np.float32),
        "inf": np.array(-np.inf, np.float32),
        "w": np.ones((1, 1), np.float32),
    }
    outputs = dict.fromkeys(["y", "z", "n"], [4, 1])
    got, _ = run(model_of(nodes, {"m": [4, 1]}, outputs, constants), {"m": m[:, None]}, precision)
    np.testing.assert_array_equal(got["y"][:, 0], -MOST[precision] * m)
    np.testing.assert_array_equal(got["z"][:, 0], MOST[precision] * m)
    np.testing.assert_array_equal(np.isinf(got["n"][:, 0]), m == 1)
    assert np.isnan(got["n"][m == 0]).all()


@HALVES
def test_inputs_beyond_a_half(precision):
    """Where a step converts an input it saturates; infinities and NaN pass."""
    x = np.array([[LOWEST, -LOWEST, np.inf, -np.inf, np.nan, 1.5, 7e4, 0]], np.float32)
    model = model_of(
        [h.make_node("Transpose", ["x"], ["t"], perm=[1, 0]), h.make_node("MatMul", ["t", "w"], ["y"])],
        {"x": [1, 8]}, {"y": [8, 1]}, {"w": np.ones((1, 1), np.float32)},
    )  # fmt: skip
    got, _ = run(model, {"x": x}, precision)
    limits = np.clip(x, -MOST[precision], MOST[precision])
    want = np.where(np.isinf(x), x, limits)[0]
    np.testing.assert_allclose(got["y"][:, 0], want, rtol=4e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "f16"])
@pytest.mark.parametrize("given", [False, True], ids=["made", "given"])
def test_attention_to_nothing_is_a_mean(given, precision):
    """BERT's mask, (1 − m)·lowest made by the model or by the caller, in attention: one sequence has no key at all."""
    q, k, v = numbers(2, 3, 4, 8), numbers(2, 3, 8, 5), numbers(2, 3, 5, 8)
    m = np.array([[1, 1, 0, 1, 0], [0] * 5], np.float32)[:, None, None]
    constants = {"low": np.array(LOWEST, np.float32), "one": np.array(1, np.float32)}
    nodes = [h.make_node("Sub", ["one", "m"], ["n"]), h.make_node("Mul", ["n", "low"], ["a"])]
    if given:
        nodes, m, constants = [h.make_node("Identity", ["m"], ["a"])], np.where(m > 0, 0, LOWEST).astype(np.float32), {}
    nodes += [h.make_node("MatMul", ["q", "k"], ["s"]), h.make_node("Add", ["s", "a"], ["t"])]
    nodes += [h.make_node("Softmax", ["t"], ["p"], axis=-1), h.make_node("MatMul", ["p", "v"], ["y"])]
    shapes = {"q": [2, 3, 4, 8], "k": [2, 3, 8, 5], "v": [2, 3, 5, 8], "m": [2, 1, 1, 5]}
    model = model_of(nodes, shapes, {"y": [2, 3, 4, 8]}, constants)
    feeds = {"q": q, "k": k, "v": v, "m": m}
    got, steps = run(model, feeds, precision)
    want = fi.compile(model.SerializeToString()).run(feeds)["y"]
    assert any("attention" in s for s in steps) and not any(s.startswith("torch") for s in steps), steps
    np.testing.assert_allclose(want[1], np.broadcast_to(v[1].mean(1, keepdims=True), (3, 4, 8)), rtol=1e-4, atol=1e-5)
    tolerance = {"fp32": 1e-5, "bf16": 4e-2, "f16": 4e-3}[precision]
    np.testing.assert_allclose(got["y"], want, rtol=tolerance, atol=tolerance)
