# SPDX-License-Identifier: Apache-2.0
"""Float64 MatMul, Gemm and Conv: native, exact to float64, on every instruction set."""

import numpy as np
import pytest
from oracle import conv
from support import check_node, check_same_bits

RNG = np.random.default_rng(64)
TIGHT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.mark.parametrize("a,b", [
    ((3, 5), (5, 7)), ((1, 300), (300, 33)), ((17, 513), (513, 16)), ((5,), (5, 4)), ((4, 5), (5,)), ((6,), (6,)),
    ((2, 3, 4, 8), (2, 1, 8, 19)), ((3, 4, 8), (8, 9)), ((4, 0), (0, 5)), ((0, 4), (4, 5)), ((2, 4), (4, 0)), ((1, 1), (1, 1)),
])  # fmt: skip
def test_matmul(a, b):
    x, w = RNG.standard_normal(a), RNG.standard_normal(b)
    for constants in ((), (1,)):
        check_node("MatMul", [x, w], expected=[np.matmul(x, w)], constants=constants, **TIGHT)


@pytest.mark.parametrize("trans", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("c", [None, (), (1,), (21,), (9, 1), (1, 21), (9, 21)])
def test_gemm(trans, c):
    a, b = RNG.standard_normal((9, 270)), RNG.standard_normal((270, 21))
    add = None if c is None else RNG.standard_normal(c)
    inputs = [a.T.copy() if trans[0] else a, b.T.copy() if trans[1] else b, add]
    want = 0.5 * (a @ b) + (0 if add is None else 3 * add)
    check_node("Gemm", inputs, expected=[want], transA=trans[0], transB=trans[1], alpha=0.5, beta=3.0, **TIGHT)


CONVS = {
    "plain": (2, 3, (9, 8), 5, (3, 3), {"pads": [1, 1, 1, 1]}),
    "strided_dilated": (1, 4, (17, 15), 6, (3, 2), {"strides": [2, 3], "dilations": [2, 1], "pads": [0, 2, 1, 0]}),
    "grouped": (2, 6, (7, 7), 9, (3, 3), {"group": 3}),
    "depthwise": (1, 8, (6, 5), 8, (3, 3), {"group": 8, "pads": [1, 1, 1, 1]}),
    "pointwise": (3, 70, (4, 5), 33, (1, 1), {}),
    "deep": (1, 40, (5, 5), 6, (3, 3), {}),
    "line": (2, 5, (40,), 4, (5,), {"pads": [2, 2]}),
    "volume": (1, 2, (5, 6, 4), 3, (2, 3, 2), {"pads": [1, 0, 1, 0, 1, 0]}),
    "empty_batch": (0, 3, (5, 5), 4, (3, 3), {}),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", CONVS)
def test_conv(name, bias):
    n, c, size, o, kernel, attrs = CONVS[name]
    x, w = RNG.standard_normal((n, c, *size)), RNG.standard_normal((o, c // attrs.get("group", 1), *kernel))
    inputs = [x, w, RNG.standard_normal(o)] if bias else [x, w]
    check_node("Conv", inputs, expected=[conv(*inputs, **attrs)], constants=(1,), **attrs, **TIGHT)


def test_auto_pad_and_same_bits():
    x, w = RNG.standard_normal((4, 3, 9, 9)), RNG.standard_normal((5, 3, 3, 3))
    check_node("Conv", [x, w], expected=[conv(x, w, pads=[1, 1, 1, 1])], auto_pad="SAME_UPPER", **TIGHT)
    check_same_bits("Conv", [x, w])
    check_same_bits("MatMul", [RNG.standard_normal((5, 300)), RNG.standard_normal((300, 40))])
