# SPDX-License-Identifier: Apache-2.0
"""Cast and CastLike between all pairs of number types, against numpy and ml_dtypes."""

import ml_dtypes
import numpy as np
import pytest
from onnx import helper
from support import check_node

RNG = np.random.default_rng(13)
FLOATS = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
WHOLE = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, np.bool_]
TYPES = FLOATS + WHOLE


def name(t):
    return np.dtype(t).name


def check(x, to, expected, **attrs):
    check_node(
        "Cast", [x], expected=[expected], to=helper.np_dtype_to_tensor_dtype(np.dtype(to)), rtol=0, atol=0, **attrs
    )


def values(source, target, n):
    """Numbers that both types hold (after truncation): elsewhere ONNX leaves the result open."""
    low, high = -100, 100
    for t in (source, target):
        if np.dtype(t).kind in "ub":
            low = 0
    x = RNG.uniform(low, high, size=n)
    return x.astype(source) if np.dtype(source).kind != "b" else x > 30


@pytest.mark.parametrize("source", TYPES, ids=name)
@pytest.mark.parametrize("target", TYPES, ids=name)
def test_pairs(source, target):
    for n in (1, 0, 1111):
        x = values(source, target, n)
        check(x, target, x.astype(target))


@pytest.mark.parametrize("source", [np.float32, np.float64], ids=name)
@pytest.mark.parametrize("target", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16], ids=name)
def test_rounding_and_special_values(source, target):
    x = np.concatenate([RNG.normal(size=2000) * 10.0 ** RNG.uniform(-9, 6, size=2000), 2.0 ** np.arange(-30.0, 20),
                        1 + np.arange(64) / 2**13, 65504 + np.arange(40.0), [0, -0.0, np.inf, -np.inf, np.nan]])  # fmt: skip
    x = x.astype(source)
    if target == ml_dtypes.bfloat16:
        x = x[:-1]  # the harness cannot compare its NaN
    with np.errstate(over="ignore"):
        if source == np.float64 and target == ml_dtypes.bfloat16:
            x = x.astype(np.float32).astype(np.float64)  # ml_dtypes rounds twice
        check(x, target, x.astype(target))


def test_every_16_bit_float():
    bits = np.arange(65536, dtype=np.uint16)
    for t in (np.float16, ml_dtypes.bfloat16):
        x = bits.view(t)
        check(x, np.float32, x.astype(np.float32))
        check(x, np.float64, x.astype(np.float64))


def test_integers_wrap_and_floats_truncate():
    x = np.array([0, 1, -1, 127, 128, 255, 256, -129, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63)], np.int64)
    for t in WHOLE:
        check(x, t, x.astype(t))
    check(np.array([1.9, -1.9, 2.5, -0.4, 0.0, -0.0], np.float32), np.int32, np.array([1, -1, 2, 0, 0, 0], np.int32))
    check(np.array([0.3, -0.0, np.nan, np.inf], np.float32), np.bool_, np.array([True, False, True, True]))
    big = np.array([2**64 - 1, 2**63, 2**53 + 1], np.uint64)
    check(big, np.float64, big.astype(np.float64))
    check(big[1:].astype(np.float64), np.uint64, big[1:].astype(np.float64).astype(np.uint64))


@pytest.mark.parametrize("small", [ml_dtypes.int4, ml_dtypes.uint4], ids=name)
def test_four_bits(small):
    x = RNG.integers(0, 8, size=50)
    for t in (np.float32, np.int8, np.int32, np.float16):
        check(x.astype(t), small, x.astype(small))
        check(x.astype(small), t, x.astype(t))


def test_cast_like():
    x = RNG.normal(size=(3, 7)).astype(np.float32) * 9
    for t in (np.float64, np.int32, np.float16):
        check_node("CastLike", [x, np.zeros(2, t)], expected=[x.astype(t)], rtol=0, atol=0)
