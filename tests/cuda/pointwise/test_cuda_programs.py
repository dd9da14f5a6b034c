# SPDX-License-Identifier: Apache-2.0
"""fastinfer.Pointwise on the device: every operation, random programs, every kind of broadcast, types, edges."""

import numpy as np
import pytest
import torch
from cuda_nodes import check_node, on_device, run_node
from programs_oracle import ALL, FLOAT, evaluate

from fastinfer.cuda.kernels import pointwise
from fastinfer.cuda.kernels.pointwise_math import OPS
from fastinfer.cuda.kernels.pointwise_source import Program
from fastinfer.cuda.kernels.pointwise_walk import walk_broadcast
from fastinfer.passes.pointwise_ops import BOOLEAN
from fastinfer.passes.pointwise_ops import OPS as DOCUMENTED

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of infinities and NaNs in the interpreter
INF, NAN = float("inf"), float("nan")
EDGES = np.array(
    [0, -0.0, 1, -1, 0.5, 1.5, -2.5, 1e-6, -1e-6, 0.3, 3.7, -9.5, 20, -20, 88, -88, INF, -INF, NAN], np.float32
)
# At these, bodies of standard operators give NaN where a function's limit would be another: 0 * inf.
FINITE = EDGES[np.isfinite(EDGES)]


def rows(ops):
    """args of a program whose op i reads (i, then further inputs)."""
    return [k for row in ops for k in [*row, -1, -1, -1][:3]]


def program(ops, args, outputs, inputs, precision="fp32", **more):
    return run_node(
        "Pointwise", inputs, n_outputs=len(outputs), domain="fastinfer", precision=precision,
        ops=list(ops), args=list(args), outputs=list(outputs), **more,
    )  # fmt: skip


def close(got, want, rtol=1e-5, atol=1e-6):
    assert got.shape == want.shape
    if got.dtype == bool:
        np.testing.assert_array_equal(got, want)
    else:
        np.testing.assert_allclose(got, want.astype(np.float64), rtol=rtol, atol=atol, equal_nan=True)


def test_every_documented_operation_is_there():
    assert set(DOCUMENTED) <= set(OPS) and set(DOCUMENTED) == set(ALL)
    for name, (arity, _) in DOCUMENTED.items():
        assert len(OPS[name][0]) == arity
        assert (OPS[name][1] == "b") == (name in BOOLEAN)


@pytest.mark.parametrize("name", sorted(FLOAT))
def test_operation(name):
    arity = len(OPS[name][0])
    x = (
        FINITE
        if name in ("silu", "gelu", "gelu_tanh", "quick_gelu", "hard_swish", "mish", "softsign", "sin", "cos")
        else EDGES
    )
    ranges = [x, np.array([[2.0], [0.5], [-3.0]], np.float32), np.array([[[3.0]], [[-1.5]]], np.float32)][:arity]
    if name in ("add", "sub", "mul", "div", "min", "max", "pow"):
        ranges[1] = EDGES[:, None]
    args = [*range(arity), -1, -1][:3]
    got, steps = program([name], args, [0], ranges)
    assert steps[0].startswith("triton_pointwise[1]")
    want = evaluate([name], args, [0], ranges)[0]
    with np.errstate(over="ignore"):
        close(got[0], want.astype(np.float32), rtol=2e-5)


@pytest.mark.parametrize("name", ["less", "less_equal", "greater", "greater_equal", "equal"])
def test_comparison(name):
    inputs = [EDGES, EDGES[:, None]]
    got, _ = program([name], [0, 1, -1], [0], inputs)
    close(got[0], evaluate([name], [0, 1, -1], [0], inputs)[0])


def test_logic_of_stored_conditions_and_several_outputs():
    rng = np.random.default_rng(0)
    c, d = rng.random((3, 1, 5)) < 0.5, rng.random((4, 5)) < 0.5
    x, y = rng.standard_normal((4, 1)).astype(np.float32), np.array(2.5, np.float32)
    ops = ["and", "not", "where", "greater", "or", "mul"]
    args = rows([(0, 1), (4,), (5, 2, 3), (6, 2), (7, 4), (6, 3)])
    got, steps = program(ops, args, [2, 4, 5, 1], [c, d, x, y], constants=(3,))
    assert len(steps) == 1
    for a, b in zip(got, evaluate(ops, args, [2, 4, 5, 1], [c, d, x, y]), strict=True):
        close(a, b)


SHAPES = [
    [()],
    [(1,), ()],
    [(0,), (1,)],
    [(3, 0, 2), (2,)],
    [(17,), (17,)],
    [(4, 6), (6,)],
    [(4, 6), (4, 1)],
    [(5, 1), (1, 7)],
    [(2, 3, 4, 5), (3, 1, 5), (2, 1, 1, 1)],
    [(2, 1, 3, 1, 2, 1, 2, 1), (1, 2, 1, 3, 1, 2, 1, 2)],
    [(1, 49, 48), (49, 1), (1, 1, 48)],
    [(3, 300), (300,)],
    [(70, 3), (70, 3), (1, 3)],
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "f16"])
def test_broadcast(shapes, precision):
    rng = np.random.default_rng(len(str(shapes)))
    inputs = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    n = len(inputs)
    ops = ["tanh", *["fma"] * (n - 1), "square"]
    args = rows([(0,), *[(n + i - 1, i, i) for i in range(1, n)], (2 * n - 1,)])
    got, steps = program(ops, args, [n], inputs, precision)
    want = evaluate(ops, args, [n], inputs)[0]
    # The interpreter cuts float32 to bfloat16 where a GPU rounds: one unit of 2^-8 per input and one for the output.
    tolerance = {"fp32": 1e-5, "f16": 6e-3, "bf16": 6e-2}[precision]
    close(got[0], want, tolerance, tolerance)


@pytest.mark.parametrize("seed", range(20))
def test_random_program(seed):
    """Up to 12 operations over up to 4 inputs; several results leave."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 5, rng.integers(0, 5)))
    inputs = []
    for _ in range(rng.integers(1, 5)):
        own = tuple(int(e) if rng.random() < 0.7 else 1 for e in shape[rng.integers(0, len(shape) + 1) :])
        inputs.append(rng.uniform(0.5, 2, own).astype(np.float32))
    names = [
        "add",
        "mul",
        "sub",
        "tanh",
        "sigmoid",
        "relu",
        "max",
        "min",
        "gelu",
        "exp",
        "abs",
        "silu",
        "div",
        "sqrt",
        "fma",
    ]
    ops, args = [], []
    for i in range(rng.integers(1, 13)):
        name = names[rng.integers(len(names))]
        name = "tanh" if i % 3 == 2 else name  # keeps numbers small
        name = {"sqrt": "abs", "div": "sub", "exp": "sigmoid"}.get(name, name) if i > 2 else name
        known = len(inputs) + i
        ops.append(name)
        args += [*(int(k) for k in rng.integers(0, known, len(OPS[name][0]))), -1, -1][:3]
    outputs = sorted({len(ops) - 1, int(rng.integers(len(ops)))})
    with np.errstate(all="ignore"):
        want = evaluate(ops, args, outputs, inputs)
    got, steps = program(ops, args, outputs, inputs)
    assert len(steps) == 1
    for a, b in zip(got, want, strict=True):
        close(a, b, 1e-3, 1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_bytes_in_and_out(dtype):
    """(x - zero) * scale, then to bytes again: saturated, ties to even."""
    x = np.arange(256).astype(dtype).reshape(16, 16)
    numbers = [np.array(v, np.float32) for v in (3.0, 0.5, 0.25, 7.0)]
    ops, args = ["sub", "mul", "quantize"], rows([(0, 1), (5, 2), (6, 3, 4)])
    code = {np.uint8: 2, np.int8: 3}[dtype]
    got, _ = program(ops, args, [2], [x, *numbers], constants=(1, 2, 3, 4), output_type=code)
    want = np.clip(evaluate(ops, args, [2], [x, *numbers])[0], np.iinfo(dtype).min, np.iinfo(dtype).max)
    assert got[0].dtype == dtype
    np.testing.assert_array_equal(got[0], want.astype(dtype))


def test_half_typed_graph():
    x = np.linspace(-3, 3, 33).astype(np.float16)
    check_node("Tanh", [x], rtol=1e-3, atol=1e-3, expected=[np.tanh(x.astype(np.float64)).astype(np.float16)])


@pytest.mark.parametrize("length", [1, 63, 64, 255, 256, 257, 1000])
@pytest.mark.parametrize("block,warps", [(256, 4), (512, 8)])
def test_every_element_is_written_once_and_none_beyond(device, length, block, warps):
    p = Program(("f", "f"), ("add",), (0, 1, -1), (0,), frozenset({1}))
    problem = pointwise.Problem(p, walk_broadcast((length,), [(length,)], 1), (torch.float32,) * 2)
    x, room = torch.randn(length), torch.full((length + 64,), NAN)
    room = room.to(device)
    pointwise.run(x.to(device), room[32:-32], problem=problem, config=pointwise.Config(block, warps), scalars=(1.0,))
    room = room.cpu()
    torch.testing.assert_close(room[32:-32], x + 1)
    assert room[:32].isnan().all() and room[-32:].isnan().all()


def test_configurations_agree_bit_by_bit():
    p = Program(("f", "f"), ("mul", "gelu"), (0, 1, -1, 2, -1, -1), (1,))
    x, y = torch.randn(5, 96), torch.randn(96)
    problem = pointwise.Problem(p, walk_broadcast((5, 96), [(5, 96), (96,)], 1), (torch.float32,) * 3)
    results = []
    for config in pointwise.configs(problem):
        out = torch.full((5, 96), NAN)
        on_device(pointwise.run, x, y, out, problem=problem, config=config)
        results.append(out)
    assert 1 < len(results) <= 24 and all(torch.equal(r, results[0]) for r in results)
