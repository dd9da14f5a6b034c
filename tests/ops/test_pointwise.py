# SPDX-License-Identifier: Apache-2.0
"""Pointwise programs: random programs over random broadcasts against numpy, limits, in-place outputs, same bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from support import node_model, run_everywhere

RNG = np.random.default_rng(23)
UNARY = {
    "neg": np.negative,
    "abs": np.abs,
    "square": np.square,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "softsign": lambda x: x / (1 + np.abs(x)),
}
BINARY = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


def program_model(inputs, ops, args, outputs):
    """outputs: value numbers, as in args; the attribute counts results only."""
    outputs = [o - len(inputs) for o in outputs]
    model = node_model("Pointwise", inputs, len(outputs), domain="fastinfer", ops=ops, args=args)
    model.graph.node[0].attribute.append(helper.make_attribute("outputs", outputs))  # make_node takes the name itself
    return model


def check(inputs, ops, args, outputs, expected, rtol=1e-5, atol=1e-5):
    feeds = {f"x{i}": np.asarray(x) for i, x in enumerate(inputs)}
    for label, got in run_everywhere(program_model(inputs, ops, args, outputs), feeds):
        for y, want in zip(got, expected, strict=True):
            assert y.dtype == want.dtype and y.shape == want.shape, label
            np.testing.assert_allclose(y, want, rtol=rtol, atol=atol, err_msg=label)


@st.composite
def programs(draw):
    rank = draw(st.integers(0, 4))
    shape = [draw(st.sampled_from([1, 2, 3, 5, 17, 64, 130])) for _ in range(rank)]
    if rank and draw(st.booleans()):
        shape[-1] = draw(st.sampled_from([1, 600, 1025]))
    while np.prod(shape) > 40000:
        shape[int(np.argmax(shape))] //= 2
    inputs = []
    for _ in range(draw(st.integers(1, 5))):
        skip = draw(st.integers(0, rank))
        inputs.append([1 if draw(st.integers(0, 3)) == 0 else d for d in shape[skip:]])
    ops, args, n = [], [], len(inputs)
    for i in range(draw(st.integers(1, 12))):
        name = draw(st.sampled_from([*UNARY, *BINARY]))
        operands = [draw(st.integers(0, n + i - 1)) for _ in range(1 if name in UNARY else 2)]
        ops.append(name)
        args += operands + [-1] * (3 - len(operands))
    outputs = sorted({draw(st.integers(n, n + len(ops) - 1)) for _ in range(draw(st.integers(1, 3)))})
    return inputs, ops, args, outputs


@settings(max_examples=120, deadline=None)
@given(programs())
def test_random_programs(program):
    shapes, ops, args, outputs = program
    inputs = [RNG.uniform(-1.5, 1.5, size=s).astype(np.float32) for s in shapes]
    values = list(inputs)
    for i, name in enumerate(ops):
        a, b, _ = args[3 * i : 3 * i + 3]
        value = UNARY[name](values[a]) if name in UNARY else BINARY[name](values[a], values[b])
        values.append(np.asarray(value, np.float32))
    if any(np.abs(v).max(initial=0) > 1e3 for v in values):
        return  # would only test rounding
    shape = np.broadcast_shapes(*(x.shape for x in inputs))
    check(inputs, ops, args, outputs, [np.broadcast_to(values[o], shape) for o in outputs], rtol=1e-4, atol=1e-4)


def test_every_operation():
    x, y = RNG.normal(size=(5, 37)).astype(np.float32), (RNG.random((5, 37)) + 0.5).astype(np.float32)
    z = RNG.normal(size=(5, 37)).astype(np.float32)
    a, b, c = (v.astype(np.float64) for v in (x, y, z))
    import math

    erf = np.vectorize(math.erf)
    sigmoid, softplus = 1 / (1 + np.exp(-a)), np.log1p(np.exp(a))
    gelu_tanh = 0.5 * a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))
    table = {
        "add": a + b, "sub": a - b, "mul": a * b, "div": a / b, "min": np.minimum(a, b), "max": np.maximum(a, b),
        "quick_gelu": a / (1 + np.exp(-b * a)), "leaky_relu": np.where(a < 0, a * b, a), "elu": np.where(a < 0, b * np.expm1(a), a),
        "fma": a * b + c, "hard_sigmoid": np.clip(a * b + c, 0, 1), "clip": np.minimum(c + 2, np.maximum(a, b)),
        "neg": -a, "abs": np.abs(a), "exp": np.exp(a), "erf": erf(a), "tanh": np.tanh(a), "sigmoid": sigmoid,
        "relu": np.maximum(a, 0), "softplus": softplus, "silu": a * sigmoid, "gelu": a / 2 * (1 + erf(a / np.sqrt(2))),
        "gelu_tanh": gelu_tanh, "hard_swish": a * np.clip(a / 6 + 0.5, 0, 1), "floor": np.floor(a), "ceil": np.ceil(a),
        "round": np.rint(a), "sign": np.sign(a), "sin": np.sin(a), "cos": np.cos(a), "mish": a * np.tanh(softplus),
        "softsign": a / (1 + np.abs(a)), "square": a * a,
    }  # fmt: skip
    ternary = {"fma", "hard_sigmoid", "clip"}
    binary = {"add", "sub", "mul", "div", "min", "max", "quick_gelu", "leaky_relu", "elu"}
    for name, want in table.items():
        operands = [x, y, (z + 2).astype(np.float32) if name == "clip" else z]
        n = 3 if name in ternary else 2 if name in binary else 1
        if name == "clip":
            want = np.minimum(operands[2], np.maximum(x, y))
        check(operands[:n], [name], [*range(n), *[-1] * (3 - n)], [n], [np.asarray(want, np.float32)])
    positive = {"sqrt": np.sqrt(b), "rsqrt": 1 / np.sqrt(b), "reciprocal": 1 / b, "log": np.log(b)}
    for name, want in positive.items():
        check([y], [name], [0, -1, -1], [1], [want.astype(np.float32)])
    check([y, x], ["pow"], [0, 1, -1], [2], [np.power(b, a).astype(np.float32)])


def test_conditions():
    x, y = RNG.integers(0, 3, size=(4, 50)).astype(np.float32), RNG.integers(0, 3, size=(50,)).astype(np.float32)
    c = RNG.random((4, 1)) < 0.5
    ops = ["less", "greater_equal", "equal", "and", "or", "not", "where"]
    args = [0, 1, -1, 0, 1, -1, 0, 1, -1, 3, 2, -1, 6, 5, -1, 7, -1, -1, 8, 0, 1]
    less, _, equal = x < y, x >= y, x == y
    either = ~((less & c) | equal)
    check([x, y, c], ops, args, [9, 3, 5, 8], [np.where(either, x, y), less, equal, either], rtol=0, atol=0)


def test_a_slot_of_bools_is_not_overwritten_by_floats():
    x = RNG.normal(size=(3, 700)).astype(np.float32)
    ops, args = ["less", "where", "neg"], [0, 1, -1, 2, 0, 1, 3, -1, -1]
    check([x, np.float32(0.2)], ops, args, [4], [-np.where(x < np.float32(0.2), x, np.float32(0.2))], rtol=0, atol=0)


def test_many_inputs_and_outputs():
    xs = [RNG.normal(size=(7, 1 if k % 2 else 90)).astype(np.float32) for k in range(16)]
    ops, args = ["add"], [0, 1, -1]
    for k in range(2, 16):
        ops.append("add")
        args += [16 + len(ops) - 2, k, -1]
    sums = np.cumsum(np.broadcast_arrays(*xs), axis=0, dtype=np.float32)
    check(xs, ops, args, [16, 20, 30, 30], [sums[1], sums[5], sums[15], sums[15]])


@pytest.mark.parametrize(
    ("ops", "args", "outputs", "message"),
    [
        (["nope"], [0, -1, -1], [1], "nope"),
        (["_tan"], [0, -1, -1], [1], "_tan"),
        (["add"], [0, 1, -1], [1], "value"),
        (["add"], [0, 0], [1], "three per op"),
        (["add"], [0, -1, -1], [1], "takes 2"),
        (["neg"], [0, -1, -1], [5], "output 4"),
        (["not"], [0, -1, -1], [1], "bool|type"),
        (["neg"] * 65, [v for i in range(65) for v in (i, -1, -1)], [65], "64"),
    ],
)
def test_wrong_programs_are_refused(ops, args, outputs, message):
    x = np.zeros(3, np.float32)
    with pytest.raises(Exception, match=message):
        check([x], ops, args, outputs, [x])


def test_same_bits_alone_and_in_a_batch():
    x, b = RNG.normal(size=(7, 5, 37)).astype(np.float32), RNG.normal(size=(37,)).astype(np.float32)
    model = program_model([x, b], ["add", "gelu"], [0, 1, -1, 2, -1, -1], [3])
    together = dict(run_everywhere(model, {"x0": x, "x1": b}))
    for r in range(len(x)):
        for label, (y,) in run_everywhere(model, {"x0": x[r : r + 1], "x1": b}):
            np.testing.assert_array_equal(y, together[label][0][r : r + 1], err_msg=label)
