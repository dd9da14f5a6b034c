# SPDX-License-Identifier: Apache-2.0
"""Quantised nodes on the device beside the CPU engine and beside int64 sums in numpy."""

import numpy as np
from cuda_nodes import run_node
from support import build

from kernels.case import node_model

F = np.float32


def bits(rng, dtype, *shape):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


def around(v, lo, hi):
    """In float32: clamped, to nearest even."""
    return np.rint(np.clip(v.astype(F), F(lo), F(hi)))


def quantized(sums, scale, zero, low, high, residual=None, inner=None):
    """The contract of requantize.py, each step rounded to float32. residual: (values, factor, zero); inner: (factor, zero, low,
    high)."""
    v = sums.astype(np.int32).astype(F) * scale.astype(F)
    if residual is not None:
        r, factor, r_zero = residual
        if inner is not None:
            v = around(v, inner[2] - int(inner[1]), inner[3] - int(inner[1])) * F(inner[0])
        v = v + (r.astype(F) - F(r_zero)) * F(factor)
    return (around(v, low - int(zero), high - int(zero)) + F(zero)).astype(np.asarray(zero).dtype)


def on_both(op, inputs, constants, *, kernel="triton_", want=None, n_outputs=1, **given):
    """The device's outputs are the CPU's, bit for bit, from steps of ours, and `want` where that is given."""
    got, steps = run_node(op, inputs, constants=constants, n_outputs=n_outputs, **given)
    assert any(s.startswith(kernel) for s in steps), steps
    assert not any(s.startswith("torch.") for s in steps), steps
    model = node_model(op, inputs, n_outputs, constants=constants, domain=given.pop("domain", ""), **given)
    feeds = {f"x{i}": np.asarray(a) for i, a in enumerate(inputs) if a is not None and i not in constants}
    cpu = list(build(model).run(feeds).values())
    for mine, theirs in zip(got, cpu, strict=True):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
        np.testing.assert_array_equal(mine, theirs)
    if want is not None:
        np.testing.assert_array_equal(got[0], want)
    return steps
