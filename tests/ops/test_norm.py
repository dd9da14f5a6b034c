# SPDX-License-Identifier: Apache-2.0
"""Norms against float64, with large means, all optional outputs, both layouts."""

import numpy as np
import pytest
from support import check_node, check_same_bits

RNG = np.random.default_rng(11)


def f32(a):
    return np.asarray(a, np.float32)


def normal(*shape, mean=0.0):
    return f32(RNG.normal(size=shape) + mean)


def layer_norm(x, axis, scale=1.0, bias=0.0, epsilon=1e-5):
    x = x.astype(np.float64)
    axes = tuple(range(axis % x.ndim, x.ndim))
    mean = x.mean(axis=axes, keepdims=True)
    rstd = 1 / np.sqrt(((x - mean) ** 2).mean(axis=axes, keepdims=True) + epsilon)
    return (x - mean) * rstd * scale + bias, mean, rstd


def rms_norm(x, axis, scale=1.0, epsilon=1e-5):
    x = x.astype(np.float64)
    axes = tuple(range(axis % x.ndim, x.ndim))
    return x / np.sqrt((x * x).mean(axis=axes, keepdims=True) + epsilon) * scale


@pytest.mark.parametrize("shape", [(3, 33), (2, 5, 768), (4, 1), (1, 5000), (0, 8), (2, 3, 4, 5)], ids=str)
def test_layer_norm(shape):
    x = normal(*shape)
    for axis in range(-len(shape), 0):
        scale, bias = normal(*shape[axis:]), normal(*shape[axis:])
        y, mean, rstd = layer_norm(x, axis, scale, bias)
        want = [f32(y), f32(mean), f32(rstd)]
        check_node("LayerNormalization", [x, scale, bias], 3, expected=want, axis=axis, rtol=1e-5, atol=1e-5)
        y = layer_norm(x, axis, scale, 0, 1e-2)[0]
        check_node("LayerNormalization", [x, scale], expected=[f32(y)], axis=axis, epsilon=1e-2, atol=1e-5)


def test_layer_norm_parameters_may_broadcast():
    x = normal(2, 3, 4, 20)
    for s in [(1,), (20,), (4, 1), (3, 1, 1), (2, 1, 1, 20)]:
        scale, bias = normal(*s), normal(20)
        y = layer_norm(x, 2, scale, bias)[0]
        check_node("LayerNormalization", [x, scale, bias], expected=[f32(y)], axis=2, atol=1e-5)
    with pytest.raises(Exception, match="broadcast"):
        check_node("LayerNormalization", [x, normal(21)], expected=[x], axis=2)


@pytest.mark.parametrize("mean", [1e2, 1e4, 1e6])
def test_a_large_mean_costs_no_accuracy(mean):
    x = normal(4, 768, mean=mean)
    y, _, rstd = layer_norm(x, -1)
    ones, zeros = np.ones(768, np.float32), np.zeros(768, np.float32)
    want = [f32(y), f32(layer_norm(x, -1)[1]), f32(rstd)]
    check_node("LayerNormalization", [x, ones, zeros], 3, expected=want, rtol=2e-6, atol=2e-6)
    x = normal(2, 6, 9, 9, mean=mean)
    axes = (2, 3)
    d = x.astype(np.float64) - x.astype(np.float64).mean(axis=axes, keepdims=True)
    y = d / np.sqrt((d * d).mean(axis=axes, keepdims=True) + 1e-5)
    for channels_last in (0, 1):
        xi, yi = (np.moveaxis(a, 1, -1).copy() if channels_last else a for a in (x, f32(y)))
        check_node("InstanceNormalization", [xi, ones[:6], zeros[:6]], expected=[yi], atol=2e-6, rtol=2e-6,
                   domain="fastinfer", channels_last=channels_last)  # fmt: skip


def test_16_bit_layer_norm():
    x = RNG.normal(size=(3, 40)).astype(np.float16)
    scale = RNG.normal(size=40).astype(np.float16)
    y = layer_norm(x, -1, scale.astype(np.float64))[0].astype(np.float16)
    check_node("LayerNormalization", [x, scale], expected=[y], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("shape", [(3, 33), (2, 5, 768), (2, 3, 4, 5)], ids=str)
def test_rms_norm(shape):
    x = normal(*shape)
    for axis in range(-len(shape), 0):
        scale = normal(*shape[axis:])
        check_node("RMSNormalization", [x, scale], expected=[f32(rms_norm(x, axis, scale))], axis=axis, atol=1e-5)
    scale = normal(shape[-1])
    y = f32(rms_norm(x, -1, scale))
    check_node("SimplifiedLayerNormalization", [x, scale], expected=[y], domain="com.microsoft", atol=1e-5)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_xbias", [False, True])
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_skip_norms(with_bias, with_xbias, n_outputs):
    x, r, scale, bias, xbias = normal(2, 7, 50), normal(2, 7, 50), normal(50), normal(50), normal(50)
    s = x.astype(np.float64) + r + (xbias if with_xbias else 0)
    b, xb = bias if with_bias else None, xbias if with_xbias else None
    y = layer_norm(s, -1, scale, bias if with_bias else 0)[0]
    inputs = [x, r, scale, b, xb]
    while inputs[-1] is None:
        inputs.pop()
    want = [f32(y), f32(s)][:n_outputs]
    check_node("SkipLayerNorm", inputs, n_outputs, expected=want, domain="fastinfer", epsilon=1e-5, atol=1e-5)
    y = rms_norm(s, -1, scale)
    want = [f32(y), f32(s)][:n_outputs]
    inputs = [x, r, scale, xb] if with_xbias else [x, r, scale]
    check_node("SkipRMSNorm", inputs, n_outputs, expected=want, domain="fastinfer", epsilon=1e-5, atol=1e-5)


def test_com_microsoft_skip_norms():
    x, r, scale, bias, xbias = normal(2, 7, 50), normal(7, 50), normal(50), normal(50), normal(50)
    s = x.astype(np.float64) + r + xbias
    y, mean, rstd = layer_norm(s, -1, scale, bias)
    check_node("SkipLayerNormalization", [x, r, scale, bias, xbias], 4, expected=[f32(v) for v in (y, mean, rstd, s)],
               domain="com.microsoft", epsilon=1e-5, atol=1e-5)  # fmt: skip
    y = rms_norm(s, -1, scale)
    check_node("SkipSimplifiedLayerNormalization", [x, r, scale, xbias], expected=[f32(y)], domain="com.microsoft",
               epsilon=1e-5, atol=1e-5)  # fmt: skip
    with pytest.raises(Exception, match="residual"):
        check_node("SkipLayerNormalization", [x, normal(3, 50), scale], expected=[x], domain="com.microsoft")


def group_norm(x, groups, scale, bias, epsilon=1e-5):
    n, c = x.shape[:2]
    g = x.astype(np.float64).reshape(n, groups, -1)
    d = g - g.mean(axis=2, keepdims=True)
    y = (d / np.sqrt((d * d).mean(axis=2, keepdims=True) + epsilon)).reshape(x.shape)
    along = (1, c) + (1,) * (x.ndim - 2)
    return y * scale.reshape(along) + bias.reshape(along)


@pytest.mark.parametrize(
    "shape", [(2, 6, 5, 7), (1, 32, 9), (3, 48, 4, 4), (2, 64, 1, 1), (2, 12, 3, 2, 2), (2, 0, 3)], ids=str
)
def test_group_and_instance_norm(shape):
    x, c = normal(*shape), shape[1]
    scale, bias = normal(c), normal(c)
    last = np.moveaxis(x, 1, -1).copy()
    for groups in [g for g in (1, 2, 3, c) if c and c % g == 0]:
        y = f32(group_norm(x, groups, scale, bias))
        check_node("GroupNormalization", [x, scale, bias], expected=[y], num_groups=groups, atol=2e-5)
        check_node("GroupNormalization", [last, scale, bias], expected=[np.moveaxis(y, 1, -1)], num_groups=groups,
                   domain="fastinfer", channels_last=1, atol=2e-5)  # fmt: skip
    if c:
        y = f32(group_norm(x, c, scale, bias))
        check_node("InstanceNormalization", [x, scale, bias], expected=[y], atol=2e-5)
        check_node("InstanceNormalization", [last, scale, bias], expected=[np.moveaxis(y, 1, -1)], domain="fastinfer",
                   channels_last=1, atol=2e-5)  # fmt: skip
    else:
        check_node("InstanceNormalization", [x, scale, bias], expected=[x])


@pytest.mark.parametrize("shape", [(2, 6, 5, 7), (3, 4), (2, 5, 2000)], ids=str)
def test_batch_norm(shape):
    x, c = normal(*shape, mean=3.0), shape[1]
    scale, bias, mean, var = normal(c), normal(c), normal(c, mean=3.0), f32(RNG.random(c) + 0.1)
    s, b, m, v = (a.astype(np.float64).reshape((1, c) + (1,) * (len(shape) - 2)) for a in (scale, bias, mean, var))
    y = (x - m) / np.sqrt(v + 1e-3) * s + b
    check_node("BatchNormalization", [x, scale, bias, mean, var], expected=[f32(y)], epsilon=1e-3, atol=1e-5)


def test_mean_variance_norm():
    x = normal(3, 4, 5, 6, mean=2.0)
    for axes in [(0, 2, 3), (1,), (2, 3)]:
        d = x.astype(np.float64) - x.astype(np.float64).mean(axis=axes, keepdims=True)
        y = d / (np.sqrt((d * d).mean(axis=axes, keepdims=True)) + 1e-9)
        check_node("MeanVarianceNormalization", [x], expected=[f32(y)], axes=list(axes), atol=1e-5)


@pytest.mark.parametrize("p", [1, 2])
def test_lp_norm(p):
    x = normal(3, 4, 50)
    x[1, 2] = 0
    x[:, :, 7] = 0
    for axis in (0, 1, 2):
        norm = (np.abs(x.astype(np.float64)) ** p).sum(axis=axis, keepdims=True) ** (1 / p)
        y = np.where(norm == 0, 0, x / np.where(norm == 0, 1, norm))
        check_node("LpNormalization", [x], expected=[f32(y)], axis=axis, p=p)


def test_same_bits_alone_and_in_a_batch():
    scale, bias = normal(37), normal(37)
    check_same_bits("LayerNormalization", [normal(7, 3, 37), scale, bias])
    check_same_bits("RMSNormalization", [normal(7, 3, 37), scale])
    check_same_bits("GroupNormalization", [normal(5, 6, 37), normal(6), normal(6)], num_groups=3)
    check_same_bits("InstanceNormalization", [normal(5, 50, 37), scale, bias], domain="fastinfer", channels_last=1)
