# SPDX-License-Identifier: Apache-2.0
"""QuantizeLinear and DequantizeLinear with one scale: the reference's bits, ties, saturation and NaN with them."""

import numpy as np
import pytest
from cuda_nodes import check_node, run_node

F, SCALE = np.float32, np.float32(0.037)
ENDS = {np.uint8: 131, np.int8: -5, np.int16: 300}


def values(shape=(3, 5, 7), spread=4.0):
    x = np.random.default_rng(3).normal(0, spread, shape).astype(F)
    x.reshape(-1)[:5] = 0, 1e4, -1e4, 2.5 * SCALE, -3.5 * SCALE
    return x


@pytest.mark.parametrize("dtype", ENDS)
def test_quantize(dtype):
    check_node("QuantizeLinear", [values(), SCALE, dtype(ENDS[dtype])], constants=(1, 2), kernel="triton_pointwise")


def test_without_a_zero_point_it_is_uint8():
    check_node("QuantizeLinear", [values(), SCALE], constants=(1,), kernel="triton_pointwise")


def test_what_the_reference_leaves_open():
    """As on the CPU: infinities and numbers beyond an int32 saturate, NaN is 0."""
    x = np.array([np.nan, 1.0, np.inf, -np.inf, 1e30], F)
    (y,), _ = run_node("QuantizeLinear", [x, SCALE, np.uint8(7)], constants=(1, 2))
    assert y.tolist() == [0, 34, 255, 0, 255]


@pytest.mark.parametrize("dtype", [*ENDS, np.int32])
def test_dequantize(dtype):
    info = np.iinfo(dtype)
    x = np.random.default_rng(4).integers(info.min, info.max, (4, 33), dtype)
    zero = dtype(ENDS.get(dtype, 0))
    check_node("DequantizeLinear", [x, SCALE, zero], constants=(1, 2), kernel="triton_pointwise", rtol=1e-7)


def test_scales_keep_their_bits_where_values_are_halves():
    """0.037 as a bfloat16 would be 0.0369873, and 200 steps of it another float16."""
    x = np.arange(256, dtype=np.uint8)
    outputs, _ = run_node("DequantizeLinear", [x, SCALE, np.uint8(0)], constants=(1, 2), precision="f16")
    np.testing.assert_array_equal(outputs[0].astype(F), (x * SCALE).astype(np.float16).astype(F))


@pytest.mark.parametrize("axis", [0, 1])
def test_scales_along_an_axis_are_torchs(axis):
    x = values((4, 6))
    scales = np.linspace(0.01, 0.2, x.shape[axis]).astype(F)
    _, steps = run_node("QuantizeLinear", [x, scales, np.zeros_like(scales, np.int8)], constants=(1, 2), axis=axis)
    assert steps == ["torch.QuantizeLinear"]
