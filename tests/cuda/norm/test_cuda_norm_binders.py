# SPDX-License-Identifier: Apache-2.0
"""Norms and softmax as nodes through cuda.plan, against onnx.reference; what is declined runs all the same."""

import numpy as np
import pytest
from cuda_nodes import check_node, run_node

RNG = np.random.default_rng(6)


def randn(*shape):
    return RNG.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("axis", [-1, 1, 0])
def test_layer_norm(axis):
    x = randn(3, 4, 5)
    row = x.shape[axis:]
    check_node("LayerNormalization", [x, randn(*row), randn(*row)], constants=(1, 2), axis=axis, epsilon=1e-3)
    check_node("LayerNormalization", [x, randn(*row)], axis=axis)


def test_rms_norm():
    x, scale = randn(3, 20), randn(20)
    want = x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-5) * scale
    check_node("RMSNormalization", [x, scale], expected=[want.astype(np.float32)])


def test_scalar_scale():
    check_node("LayerNormalization", [randn(3, 20), randn(1), randn(1)])


def normed(x, rms):
    away = x if rms else x - x.mean(-1, keepdims=True)
    return away / np.sqrt((away**2).mean(-1, keepdims=True) + 1e-5)


@pytest.mark.parametrize("residual", [(2, 3, 20), (1, 3, 20), (3, 20), (20,)], ids=str)
@pytest.mark.parametrize("outputs", [1, 2])
def test_skip_layer_norm(outputs, residual):
    x, r, scale, bias, xbias = randn(2, 3, 20), randn(*residual), randn(20), randn(20), randn(20)
    total = x.astype(np.float64) + r + xbias
    want = [(normed(total, False) * scale + bias).astype(np.float32), total.astype(np.float32)]
    given = dict(n_outputs=outputs, domain="fastinfer", constants=(2, 3, 4))
    check_node("SkipLayerNorm", [x, r, scale, bias, xbias], expected=want[:outputs], **given)
    want = [normed(total, True) * scale, total]
    given = dict(n_outputs=outputs, domain="fastinfer", constants=(2, 3), atol=1e-5)
    check_node("SkipRMSNorm", [x, r, scale, xbias], expected=[w.astype(np.float32) for w in want[:outputs]], **given)


def test_half_precision():
    x, r, scale = randn(4, 33), randn(4, 33), randn(33)
    for precision in ("bf16", "f16"):
        (got,), steps = run_node("SkipRMSNorm", [x, r, scale], domain="fastinfer", precision=precision)
        assert any(s.startswith("triton_rms_norm") for s in steps)
        np.testing.assert_allclose(got, normed(x + r, True) * scale, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_group_norm(groups):
    x, scale, bias = randn(2, 5, 3, 8) + 3, randn(8), randn(8)
    flat = x.astype(np.float64).reshape(2, 15, groups, -1)
    away = flat - flat.mean((1, 3), keepdims=True)
    want = (away / np.sqrt((away**2).mean((1, 3), keepdims=True) + 1e-5)).reshape(x.shape) * scale + bias
    given = dict(domain="fastinfer", channels_last=1, expected=[want.astype(np.float32)], constants=(1, 2), atol=1e-5)
    check_node("GroupNormalization", [x, scale, bias], num_groups=groups, **given)
    if groups == 8:
        check_node("InstanceNormalization", [x, scale, bias], **given)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax(op):
    x = randn(2, 5, 7)
    for axis in (-1, 1, 0):
        check_node(op, [x], axis=axis, atol=1e-5)


def test_declined_runs_through_torch():
    x = randn(2, 3, 8)
    for op, inputs, attrs in [
        ("LayerNormalization", [x, randn(3, 1)], {"axis": 1}),
        ("Softmax", [x.astype(np.float64)], {}),
        ("LayerNormalization", [x[:, :, :0], randn(0)], {}),
    ]:
        _, steps = run_node(op, inputs, **attrs)
        assert not any(s.startswith("triton") for s in steps)
