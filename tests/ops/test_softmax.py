# SPDX-License-Identifier: Apache-2.0
"""Softmax, LogSoftmax and Hardmax over every axis, against float64."""

import numpy as np
import pytest
from support import check_node, check_same_bits

RNG = np.random.default_rng(3)
SHAPES = [(4, 33), (2, 3, 5, 40), (5,), (1, 1), (3, 1000), (2, 70, 3), (0, 4), (3, 0), (2, 6, 130)]


def softmax(x, axis):
    with np.errstate(all="ignore"):
        e = np.exp(x - np.max(x, axis=axis, keepdims=True, initial=-np.inf))
        return e / e.sum(axis=axis, keepdims=True)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_softmax(shape, dtype):
    x = (RNG.normal(size=shape) * 5).astype(dtype)
    tight = {np.float32: 2e-6, np.float64: 1e-13, np.float16: 2e-3}[dtype]
    for axis in range(-1, len(shape) - 1):
        y = softmax(x.astype(np.float64), axis)
        check_node("Softmax", [x], expected=[y.astype(dtype)], axis=axis, rtol=tight, atol=tight * 1e-2)
        with np.errstate(divide="ignore"):
            log = np.log(y)
        check_node("LogSoftmax", [x], expected=[log.astype(dtype)], axis=axis, rtol=tight, atol=tight)


def test_masked_and_large_logits():
    x = RNG.normal(size=(6, 50)).astype(np.float32) * 1e4
    x[:, 30:] = -np.inf
    x[5] = -np.inf  # nothing is left: NaN, as numpy says
    check_node("Softmax", [x], expected=[softmax(x.astype(np.float64), -1).astype(np.float32)], rtol=1e-5)
    x[0, 3] = np.nan
    y = softmax(x.astype(np.float64), -1)
    check_node("Softmax", [x], expected=[y.astype(np.float32)], rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_hardmax(dtype):
    x = RNG.integers(0, 5, size=(3, 7, 4)).astype(dtype)
    for axis in range(3):
        y = np.zeros_like(x)
        np.put_along_axis(y, np.argmax(x, axis=axis, keepdims=True), 1, axis)
        check_node("Hardmax", [x], expected=[y], axis=axis)


@pytest.mark.parametrize("axis", [-1, 1])
def test_same_bits_alone_and_in_a_batch(axis):
    check_same_bits("Softmax", [RNG.normal(size=(7, 19, 37)).astype(np.float32)], axis=axis)
    check_same_bits("LogSoftmax", [RNG.normal(size=(7, 19, 37)).astype(np.float32)], axis=axis)


def test_bad_axis_is_refused():
    with pytest.raises(Exception, match="axis 5"):
        check_node("Softmax", [np.zeros((2, 3), np.float32)], expected=[np.zeros((2, 3), np.float32)], axis=5)
