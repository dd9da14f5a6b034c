# SPDX-License-Identifier: Apache-2.0
"""Pooling of windows and whole images against torch in float64, over poisoned outputs."""

import dataclasses

import numpy as np
import pytest
import torch
from cuda_nodes import on_device

from fastinfer.cuda.kernels import pool
from fastinfer.cuda.kernels.conv_geometry import triple, window_of

ERRORS = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
SMALL = pool.Config(4, 8, 4)


def reference(x, kernel, stride, dilation, pads, kind, count_pads):
    """x: float64 [N, C, spatial...]; by views of all taps."""
    n, lowest = len(kernel), -float("inf")
    around = [p for a in reversed(range(n)) for p in (pads[a], pads[a + n])]
    full = torch.nn.functional.pad(x, around, value=lowest if kind == "max" else 0.0)
    ones = torch.nn.functional.pad(torch.ones_like(x), around, value=float(count_pads))
    for a in range(n):
        span = (kernel[a] - 1) * dilation[a] + 1
        full = full.unfold(2 + a, span, stride[a])[..., :: dilation[a]]
        ones = ones.unfold(2 + a, span, stride[a])[..., :: dilation[a]]
    axes = tuple(range(-n, 0))
    y = full.amax(axes) if kind == "max" else full.sum(axes) / ones.sum(axes)
    return y.movedim(1, -1)


def computed(problem, config, x, shape):
    y = torch.full(shape, float("nan"), dtype=problem.dtype)
    size = pool.workspace(problem, config)
    work = torch.full((size,), 255, dtype=torch.uint8) if size else None
    on_device(pool.run, x, work, y, problem=problem, config=config)
    return y


def error(y, reference):
    return float((y.double() - reference).norm() / reference.norm())


@pytest.mark.parametrize("kind", ["max", "average", "average with pads"])
@pytest.mark.parametrize(("size", "kernel", "stride", "dilation", "pads", "dtype"), [
    ((5, 6), (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), torch.float32),
    ((5, 6), (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), torch.bfloat16),
    ((5, 6), (2, 3), (1, 2), (2, 1), (0, 1, 1, 0), torch.float16),
    ((6, 6), (6, 5), (1, 1), (1, 1), (2, 0, 0, 2), torch.float32),
    ((7,), (3,), (2,), (1,), (1, 0), torch.float32),
    ((3, 4, 3), (2, 2, 3), (1, 2, 1), (1, 1, 1), (0, 0, 1, 1, 0, 0), torch.float32),
])  # fmt: skip
def test_windows(size, kernel, stride, dilation, pads, dtype, kind):
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 12, *size))).to(dtype)
    counts, n = kind == "average with pads", len(size)
    expected = reference(x.double(), kernel, stride, dilation, pads, kind[:7].strip(), counts)
    window = window_of(size, expected.shape[1:-1], kernel, stride, dilation, pads)
    problem = pool.Problem(kind[:7].strip(), dtype, 2, 12, window, False, triple(pads[n:], 0), counts)
    y = computed(problem, SMALL, x.movedim(1, -1).contiguous(), expected.shape)
    assert error(y, expected) < ERRORS[dtype]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_bytes(dtype):
    """Padding is less than every byte; exact."""
    info = torch.iinfo(dtype)
    x = torch.from_numpy(np.random.default_rng(1).integers(info.min, info.min + 90, (2, 5, 5, 6))).to(dtype)
    expected = reference(x.double(), (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), "max", False)
    window = window_of((5, 6), expected.shape[1:-1], (3, 3), (2, 2), (1, 1), (1, 1, 1, 1))
    problem = pool.Problem("max", dtype, 2, 5, window, False, (1, 1, 1), False)
    y = torch.full(expected.shape, 99, dtype=dtype)
    on_device(pool.run, x.movedim(1, -1).contiguous(), None, y, problem=problem, config=pool.default(problem))
    assert torch.equal(y.double(), expected)


@pytest.mark.parametrize("dtype", ERRORS)
@pytest.mark.parametrize(
    ("kind", "size"), [("average", (5, 7)), ("max", (5, 7)), ("average", (23, 23)), ("max", (32, 17))]
)
def test_whole_images(kind, size, dtype):
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, *size, 12)) + 0.5).to(dtype)
    expected = (x.double().amax((1, 2)) if kind == "max" else x.double().mean((1, 2)))[:, None, None]
    problem = pool.Problem(kind, dtype, 2, 12, window_of(size, (1, 1), size), whole=True)
    config = pool.Config(64, 8, 4)
    y = computed(problem, config, x, expected.shape)
    assert error(y, expected) < ERRORS[dtype]
    assert (pool.runs(problem) > 1) == (size[0] > 20)
    one = dataclasses.replace(problem, batch=1)
    assert torch.equal(computed(one, config, x[1:].contiguous(), (1, 1, 1, 12)), y[1:])


def test_nan_stays():
    x = torch.zeros(1, 3, 3, 8)
    x[0, 1, 1, 2] = float("nan")
    problem = pool.Problem("max", torch.float32, 1, 8, window_of((3, 3), (2, 2), (2, 2)))
    assert computed(problem, SMALL, x, (1, 2, 2, 8))[0, 0, 0].isnan().tolist() == [c == 2 for c in range(8)]


def test_candidates():
    problem = pool.Problem(
        "max", torch.bfloat16, 8, 64, window_of((112, 112), (56, 56), (3, 3), (2, 2), None, (1, 1, 1, 1))
    )
    found = pool.configs(problem)
    assert found[0] == pool.default(problem) and len(found) <= 24
    assert all(c.block_p * c.block_c == 8 * 32 * c.warps for c in found)  # 16 bytes of a thread
