# SPDX-License-Identifier: Apache-2.0
"""Pooling and resizing between convolutions of ONNX graphs, and a whole small ResNet, bound by cuda.plan."""

import sys
from pathlib import Path

import numpy as np
import pytest

import fastinfer as fi

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conv"))
from nets_on_cuda import Net, error, kernels, planned


def between(op, *inputs, size=(7, 6), **attributes):
    """1x1 convolutions around the operator keep it channels last."""
    n = Net(1, 3, *size)
    extra = [i if isinstance(i, str) else n.weight(value=i) for i in inputs]
    y = n(op, n.conv("x", 3, 8, 1), *extra, **attributes)
    return n.model(n.conv(y, 8, 4, 1, act=None))


POOLS = {
    "max": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "max_ceil": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "max_dilated": ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 3]}),
    "average": ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "average_pads": ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 0, 1, 2], "count_include_pad": 1}),
    "average_valid": ("AveragePool", {"kernel_shape": [2, 3], "auto_pad": "VALID"}),
    "global": ("GlobalAveragePool", {}),
    "global_max": ("GlobalMaxPool", {}),
}


@pytest.mark.parametrize("name", POOLS)
def test_pools(name):
    op, attributes = POOLS[name]
    plan, y, reference = planned(between(op, **attributes))
    assert error(y, reference) < 1e-5
    assert [k for k in kernels(plan) if k in ("triton_max_pool", "triton_average_pool")]


RESIZES = {
    "nearest_twice": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    "nearest": {},
    "linear": {"mode": "linear"},
    "linear_corners": {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
}


@pytest.mark.parametrize("name", RESIZES)
def test_resizes(name):
    model = between("Resize", "", np.array([1, 1, 2, 2], np.float32), size=(3, 4), **RESIZES[name])
    plan, y, reference = planned(model)
    assert error(y, reference) < 1e-5 and "triton_resize" in kernels(plan)


def test_same_lower():
    """The odd row of padding lies before the image (onnx.reference gives another extent: the pads are written out for it)."""
    window = {"kernel_shape": [3, 3], "strides": [2, 2]}
    for op in ("MaxPool", "AveragePool"):
        _, y, _ = planned(between(op, auto_pad="SAME_LOWER", **window))
        _, _, reference = planned(between(op, pads=[1, 1, 1, 0], **window))
        assert error(y, reference) < 1e-5


def resnet():
    n = Net(2, 3, 18, 18)
    y = n.conv("x", 3, 16, 7, 2)
    y = n("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for cin, cout, stride in ((16, 16, 1), (16, 32, 2)):
        r = n.conv(n.conv(y, cin, cout, 3, stride), cout, cout, 3, act=None)
        y = n("Relu", n("Add", r, y if cin == cout else n.conv(y, cin, cout, 1, stride, act=None)))
    y = n("Flatten", n("GlobalAveragePool", y))
    return n.model(n("Gemm", y, n.weight(10, 32, fan=32), n.weight(10), transB=1))


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("bf16", 2e-2)])
def test_a_resnet_whole(precision, bound):
    plan, y, reference = planned(resnet(), precision)
    assert error(y, reference) < bound
    x = np.random.default_rng(1).standard_normal((2, 3, 18, 18)).astype(np.float32)
    on_cpu = fi.compile(resnet(), device="cpu")(x)
    assert error(y, np.asarray(on_cpu)) < bound
    assert kernels(plan).count("triton_conv") == 6
