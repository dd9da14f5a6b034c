# SPDX-License-Identifier: Apache-2.0
"""fastinfer.MatMul with precision="bf16" against float64 on rounded operands, on every instruction set and 1 and 2 threads."""

import ml_dtypes
import numpy as np
import pytest
from support import check_node, check_same_bits, node_model, run_everywhere
from test_matmul import ACTIVATIONS, floats, fused, swap

from kernels.gemm.samples import EDGES, MODELS


def bf16(x):
    return x.astype(ml_dtypes.bfloat16)


def rounded(x):
    return bf16(x).astype(np.float32)


def check(a, b, bias=None, r=None, *, y_bf16=False, atol=None, constants=(1,), **form):
    """The sums are float32: k roundings of 6e-8 each, on products of normal numbers."""
    want = fused(rounded(a), rounded(b), bias, None if r is None else r.astype(np.float32), **form)
    names = {"act": "activation", "scale": "alpha", "alpha": "activation_alpha", "beta": "activation_beta",
             "trans_b": "transB", "after": "residual_after"}  # fmt: skip
    attrs = {names[k]: v for k, v in form.items()}
    if y_bf16:
        attrs["output_dtype"] = "bf16"
        want = bf16(want)
    k = b.shape[1 if form.get("trans_b") else 0]
    check_node("MatMul", [a, b, bias, r], expected=[want], domain="fastinfer", constants=constants, precision="bf16",
               rtol=8e-3 if y_bf16 else 1e-5, atol=atol or 3e-6 * max(k, 8), **attrs)  # fmt: skip


@pytest.mark.parametrize("shape", EDGES, ids=str)
def test_edges(shape):
    m, k, n = shape
    rng = np.random.default_rng(m * 1000 + n)
    a, b = floats(rng, m, k), floats(rng, k, n)
    check(a, b)
    check(bf16(a), b)  # rows are read in place: an odd k must not read the next row
    check(a, b, y_bf16=True)


@pytest.mark.parametrize("shape", [s for s in MODELS.values() if s[0] * s[1] * s[2] < 2e8], ids=str)
def test_model_shapes(shape):
    m, k, n = shape
    rng = np.random.default_rng(0)
    check(floats(rng, m, k), floats(rng, k, n))


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_epilogue(act):
    rng = np.random.default_rng(2)
    for m, n, x_bf16, r_bf16, y_bf16, after in [(7, 70, 0, 0, 0, 0), (1, 33, 1, 1, 1, 0), (13, 16, 1, 0, 1, 1), (2, 130, 0, 1, 0, 1)]:  # fmt: skip
        a, b, bias, r = floats(rng, m, 19), floats(rng, 19, n), floats(rng, n), floats(rng, m, n)
        alpha, beta = (-0.5, 0.75) if act == "clip" else (0.3, 0.6)
        check(bf16(a) if x_bf16 else a, b, bias, bf16(r) if r_bf16 else r, y_bf16=bool(y_bf16), scale=0.5, act=act,
              alpha=alpha, beta=beta, after=after, atol=1e-4)  # fmt: skip


@pytest.mark.parametrize("a_shape", [(5,), (3, 5), (2, 3, 5), (2, 1, 0, 5), (4, 2, 3, 5)])
def test_leading_axes(a_shape):
    rng = np.random.default_rng(3)
    a, b = floats(rng, *a_shape), floats(rng, 5, 33)
    check(a, b)
    check(a, np.ascontiguousarray(b.T), trans_b=1)


def test_it_is_a_permission():
    """What has no bfloat16 form is float32, exactly as without the attribute."""
    rng = np.random.default_rng(4)
    for a, b, trans_a, constants in [
        (floats(rng, 6, 5), floats(rng, 5, 7), 0, ()),
        (floats(rng, 5, 6), floats(rng, 5, 7), 1, (1,)),
        (floats(rng, 2, 6, 5), floats(rng, 2, 5, 7), 0, (1,)),
    ]:
        want = np.matmul(swap(a, trans_a).astype(np.float64), b.astype(np.float64)).astype(np.float32)
        check_node("MatMul", [a, b], expected=[want], domain="fastinfer", constants=constants, precision="bf16",
                   transA=trans_a, atol=1e-5)  # fmt: skip


def test_special_values():
    """NaN and infinity of A stay; what rounds beyond the largest bfloat16 becomes infinite."""
    a = np.array([[np.nan, 1, 2], [np.inf, 1, 2], [3.4e38, 0, 0], [1, 2, 3]], np.float32)
    check_node("MatMul", [a, np.eye(3, dtype=np.float32)[:, :1]], domain="fastinfer", constants=[1], precision="bf16",
               expected=[np.array([[np.nan], [np.inf], [np.inf], [1]], np.float32)])  # fmt: skip


@pytest.mark.parametrize("k, n", [(19, 70), (64, 200), (33, 16)])
def test_same_bits(k, n):
    rng = np.random.default_rng(5)
    for rows in (1, 7, 50):
        a, b = floats(rng, 9, rows, k), floats(rng, k, n)
        check_same_bits("MatMul", [a, b, floats(rng, n)], domain="fastinfer", constants=[1, 2], precision="bf16",
                        activation="gelu")  # fmt: skip


def test_rounding_on_the_way_and_before_are_the_same():
    rng = np.random.default_rng(6)
    a, b = floats(rng, 37, 45), floats(rng, 45, 77)
    runs = []
    for x in (a, bf16(a)):
        model = node_model("MatMul", [x, b], domain="fastinfer", constants=[1], precision="bf16")
        runs.append([y for _, (y,) in run_everywhere(model, {"x0": x})])
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, other)
