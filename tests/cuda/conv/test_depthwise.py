# SPDX-License-Identifier: Apache-2.0
"""Depthwise convolution against torch in float64."""

import dataclasses

import numpy as np
import pytest
import torch
from conv_cases import ERRORS, drawn, error, finished
from cuda_nodes import on_device

from fastinfer.cuda.kernels import depthwise
from fastinfer.cuda.kernels.conv_epilogue import Epilogue
from fastinfer.cuda.kernels.conv_geometry import window_of

FULL = Epilogue(True, "before", "clip", 0.0, 6.0)


def made(
    size,
    kernel,
    stride=1,
    dilation=1,
    pads=None,
    channels=12,
    multiplier=1,
    batch=1,
    epilogue=FULL,
    dtype=torch.float32,
):
    rng = np.random.default_rng(0)
    pads = pads or [kernel // 2] * 4
    x = drawn(rng, dtype, batch, channels // multiplier, *size)
    w = drawn(rng, dtype, channels, 1, kernel, kernel, scale=1 / kernel)
    padded = torch.nn.functional.pad(x.double(), (pads[1], pads[3], pads[0], pads[2]))
    y = torch.nn.functional.conv2d(padded, w.double(), None, stride, 0, dilation, channels // multiplier).movedim(1, -1)
    window = window_of(size, y.shape[1:3], (kernel, kernel), (stride, stride), (dilation, dilation), pads)
    bias = drawn(rng, torch.float32, channels) if epilogue.bias else None
    residual = drawn(rng, dtype, *y.shape) if epilogue.residual else None
    problem = depthwise.Problem(dtype, batch, window, channels, multiplier, epilogue)
    return problem, (x.movedim(1, -1).contiguous(), w, bias, residual), finished(y, bias, residual, epilogue)


def computed(problem, config, x, w, bias, residual, shape):
    y = torch.full(shape, float("nan"), dtype=problem.dtype)
    laid = depthwise.lay_out_weights(w).contiguous()
    on_device(depthwise.run, x, laid, bias, residual, y, problem=problem, config=config)
    return y


def check(problem, tensors, reference, rows=2, block_w=4, block_c=8):
    y = computed(problem, depthwise.Config(rows, block_w, block_c, 4), *tensors, reference.shape)
    assert error(y, reference) < ERRORS[problem.dtype]


@pytest.mark.parametrize("dtype", ERRORS)
@pytest.mark.parametrize(("rows", "stride"), [(1, 1), (2, 2), (4, 1), (4, 2)])
def test_rows_and_strides(rows, stride, dtype):
    check(*made((5, 4), 3, stride, channels=8, dtype=dtype), rows=rows)


@pytest.mark.parametrize(("kernel", "stride", "rows"), [(5, 1, 2), (5, 2, 1), (7, 2, 1)])
def test_wide_kernels(kernel, stride, rows):
    check(*made((4, 3), kernel, stride, channels=8), rows=rows)


@pytest.mark.parametrize("options", [
    {"dilation": 2}, {"dilation": 2, "stride": 2}, {"dilation": 3, "stride": 2, "size": (7, 7)}, {"pads": [0, 1, 2, 0]}, {"pads": [0, -1, 0, 0]},
    {"channels": 12, "multiplier": 3}, {"batch": 2}, {"size": (1, 1)}, {"kernel": 1}, {"epilogue": Epilogue()},
    {"epilogue": Epilogue(True, "after", "silu")}, {"stride": 3, "channels": 1},
])  # fmt: skip
def test_geometries(options):
    check(*made(**{"size": (4, 5), "kernel": 3, **options}), rows=2)


def test_bits_do_not_depend_on_batch_or_configuration():
    problem, (x, w, bias, residual), reference = made((3, 4), 3, batch=2)
    together = computed(problem, depthwise.Config(2, 4, 16, 4), x, w, bias, residual, reference.shape)
    one = dataclasses.replace(problem, batch=1)
    alone = computed(one, depthwise.Config(4, 8, 16, 4), x[1:], w, bias, residual[1:], reference[1:].shape)
    assert torch.equal(alone[0], together[1])


@pytest.mark.parametrize(("size", "channels"), [(112, 32), (56, 144), (7, 960), (1, 8)])
def test_configurations(size, channels):
    problem = dataclasses.replace(made((size, size), 3, channels=1)[0], channels=channels, dtype=torch.bfloat16)
    found = depthwise.configs(problem)
    assert found[0] == depthwise.default(problem) and 1 <= len(found) <= 24
