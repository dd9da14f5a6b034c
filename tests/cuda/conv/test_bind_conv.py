# SPDX-License-Identifier: Apache-2.0
"""Convolutions of ONNX graphs, bound by cuda.plan, against onnx.reference."""

import pytest
from nets_on_cuda import Net, error, kernels, planned


def stem_and_block():
    n = Net(2, 3, 12, 12)
    y = n.conv("x", 3, 16, 7, 2)
    z = n.conv(y, 16, 16, 3, act=None)
    y = n("Relu", n("Add", z, y))
    return n.model(n.conv(y, 16, 24, 1, 2))


def inverted():
    n = Net(1, 3, 9, 9)
    y = n.conv("x", 3, 8, 3, 2, act="HardSwish")
    h = n.conv(n.conv(y, 8, 24, 1), 24, 24, 3, group=24)
    h = n.conv(h, 24, 24, 5, 2, group=24, act="Sigmoid")
    return n.model(n.conv(h, 24, 8, 1, act=None))


def unet_step():
    n = Net(1, 3, 6, 8)
    y = n.conv("x", 3, 16, 3)
    y = n("ConvTranspose", y, n.weight(16, 8, 2, 2, fan=16), n.weight(8), strides=[2, 2])
    return n.model(n.conv(n("Relu", y), 8, 4, 1, act=None))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "f16", "tf32", "int8"])
def test_stem_and_residual_block(precision):
    plan, y, reference = planned(stem_and_block(), precision)
    assert error(y, reference) < (1e-5 if precision in ("fp32", "tf32") else 2e-2)
    assert kernels(plan).count("triton_conv") == 3


@pytest.mark.parametrize("net", [inverted, unet_step])
def test_other_kernels(net):
    plan, y, reference = planned(net())
    assert error(y, reference) < 1e-5
    used = kernels(plan)
    assert used.count("triton_depthwise") == (2 if net is inverted else 0)
    assert not [k for k in used if k.startswith("torch.Conv")]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "tf32"])
def test_1x1_is_a_matrix_product(precision):
    n = Net(2, 3, 5, 4)
    y = n.conv("x", 3, 24, 3)
    z = n.conv(y, 24, 24, 1, act="HardSwish")
    y = n("Relu", n("Add", n.conv(z, 24, 24, 1, act=None), y))
    plan, y, reference = planned(n.model(n.conv(y, 24, 7, 1, act=None)), precision)
    assert error(y, reference) < (1e-5 if precision != "bf16" else 2e-2)
    assert kernels(plan).count("triton_gemm") == 3


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_auto_pad(auto_pad):
    n = Net(1, 3, 8, 7)
    y = n.conv("x", 3, 8, 1)
    y = n("Conv", y, n.weight(8, 8, 3, 2, fan=48), auto_pad=auto_pad, strides=[2, 2])
    _, y, reference = planned(n.model(n.conv(y, 8, 4, 1)))
    assert error(y, reference) < 1e-5
