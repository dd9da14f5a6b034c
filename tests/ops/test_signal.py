# SPDX-License-Identifier: Apache-2.0
"""Windows, mel filter bank, determinants."""

import numpy as np
import pytest
from onnx import TensorProto
from support import build, check_node, node_model

from fastinfer.errors import FastinferError

COEFFICIENTS = {
    "HannWindow": (0.5, 0.5, 0),
    "HammingWindow": (25 / 46, 21 / 46, 0),
    "BlackmanWindow": (0.42, 0.5, 0.08),
}


@pytest.mark.parametrize("op", list(COEFFICIENTS))
@pytest.mark.parametrize("periodic", [0, 1])
@pytest.mark.parametrize("size", [0, 2, 5, 400])
def test_window(op, periodic, size):
    c0, c1, c2 = COEFFICIENTS[op]
    x = 2 * np.pi * np.arange(size) / (size if periodic else size - 1)
    want = c0 - c1 * np.cos(x) + c2 * np.cos(2 * x)
    check_node(op, [np.array(size)], expected=[want.astype(np.float32)], periodic=periodic)
    check_node(op, [np.array(size, np.int32)], expected=[want], periodic=periodic, output_datatype=TensorProto.DOUBLE)


def test_window_bad_size():
    with pytest.raises(FastinferError, match="window size is -1"):
        build(node_model("HannWindow", [np.array(-1)])).run({"x0": np.array(-1)})


@pytest.mark.parametrize(
    "bins,length,rate,low,high", [(8, 16, 8192, 0, 4096), (40, 400, 16000, 20, 8000), (80, 512, 16000, 0, 8000)]
)
def test_mel_weight_matrix(bins, length, rate, low, high):
    inputs = [np.array(bins), np.array(length), np.array(rate), np.float32(low), np.float32(high)]
    check_node("MelWeightMatrix", inputs)


@pytest.mark.parametrize("bins,length,rate,low,high", [(8, 16, 0, 0, 4096), (-1, 16, 8192, 0, 4096), (8, 2**40, 8192, 0, 4096),
                                                       (8, 16, 8192, 4096, 0), (8, 16, 8192, 0, np.nan), (8, 16, 8192, 0, 8192)])  # fmt: skip
def test_mel_weight_matrix_bad(bins, length, rate, low, high):
    feeds = {
        "x0": np.array(bins),
        "x1": np.array(length),
        "x2": np.array(rate),
        "x3": np.float32(low),
        "x4": np.float32(high),
    }
    with pytest.raises(FastinferError, match="under_test"):
        build(node_model("MelWeightMatrix", list(feeds.values()))).run(feeds)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (5, 5), (3, 4, 4), (2, 0, 3, 3), (2, 3, 30, 30), (4, 0, 0)])
def test_det(shape, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    want = np.linalg.det(x.astype(np.float64)).astype(dtype)
    check_node("Det", [x], expected=[want], rtol=1e-5 if dtype == np.float32 else 1e-10)


def test_det_singular_and_not_square():
    check_node("Det", [np.float32([[1, 2], [2, 4]])], expected=[np.float32(0)])
    with pytest.raises(FastinferError, match="square"):
        build(node_model("Det", [np.zeros((2, 3), np.float32)])).run({"x0": np.zeros((2, 3), np.float32)})
