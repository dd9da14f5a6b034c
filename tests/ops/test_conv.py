# SPDX-License-Identifier: Apache-2.0
"""Conv in both layouts against a float64 oracle: every path (GEMM, Winograd, depthwise, indirect, merged stem)."""

import numpy as np
import pytest
from support import build, check_node, check_same_bits, node_model

import fastinfer as fi


def oracle(x, w, b=None, *, group=1, strides=None, pads=None, dilations=None):
    """Convolution of [N, C, spatial...] in float64, tap by tap."""
    n = w.ndim - 2
    s, d = strides or [1] * n, dilations or [1] * n
    p = pads or [0] * 2 * n
    x = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *zip(p[:n], p[n:], strict=True)])
    out = [(x.shape[2 + i] - (w.shape[2 + i] - 1) * d[i] - 1) // s[i] + 1 for i in range(n)]
    ci, co = w.shape[1], w.shape[0] // group
    y = np.zeros((x.shape[0], w.shape[0], *out))
    for tap in np.ndindex(*w.shape[2:]):
        part = tuple(slice(t * d[i], t * d[i] + (out[i] - 1) * s[i] + 1, s[i]) for i, t in enumerate(tap))
        window = x[(slice(None), slice(None), *part)]
        for g in range(group):
            wg = w[(slice(g * co, (g + 1) * co), slice(None), *tap)].astype(np.float64)
            y[:, g * co : (g + 1) * co] += np.einsum("nc...,oc->no...", window[:, g * ci : (g + 1) * ci], wg)
    return y if b is None else y + b.reshape(1, -1, *[1] * n)


def tensors(rng, n, c, size, o, k, group=1):
    x = rng.standard_normal((n, c, *size)).astype(np.float32)
    w = (rng.standard_normal((o, c // group, *k)) / np.sqrt(c // group * np.prod(k))).astype(np.float32)
    return x, w, rng.standard_normal(o).astype(np.float32)


CASES = {
    # name: (batch, channels, size, out channels, kernel, attributes)
    "pointwise": (2, 19, (5, 7), 70, (1, 1), {}),
    "pointwise_strided": (2, 32, (9, 9), 24, (1, 1), {"strides": [2, 2]}),
    "winograd": (2, 32, (13, 18), 40, (3, 3), {"pads": [1, 1, 1, 1]}),
    "winograd_uneven_pads": (1, 17, (14, 15), 66, (3, 3), {"pads": [0, 2, 1, 0]}),
    "winograd_6": (2, 32, (41, 46), 40, (3, 3), {"pads": [1, 1, 1, 1]}),
    "winograd_6_uneven_pads": (1, 17, (37, 55), 66, (3, 3), {"pads": [0, 2, 1, 0]}),
    "winograd_dilated": (2, 32, (20, 20), 40, (3, 3), {"pads": [6, 6, 6, 6], "dilations": [6, 6]}),
    "winograd_dilated_uneven": (1, 17, (27, 22), 66, (3, 3), {"pads": [0, 3, 2, 1], "dilations": [2, 2]}),
    "winograd_few_tiles_many_weights": (1, 130, (14, 13), 140, (3, 3), {"pads": [1, 1, 1, 1]}),
    "direct_small_map": (2, 40, (7, 7), 130, (3, 3), {"pads": [1, 1, 1, 1]}),
    "strided": (2, 24, (15, 14), 33, (3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "dilated": (1, 20, (17, 17), 20, (3, 3), {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
    "five_by_three": (1, 12, (11, 13), 9, (5, 3), {"pads": [2, 1, 2, 1]}),
    "stem": (2, 3, (23, 25), 17, (7, 7), {"pads": [3, 3, 3, 3], "strides": [2, 2]}),
    "stem_unpadded": (1, 3, (12, 12), 16, (3, 3), {"strides": [2, 2]}),
    "stem_four_channels": (2, 4, (17, 40), 33, (3, 5), {"pads": [1, 2, 0, 3], "strides": [1, 2]}),
    "stem_tall": (1, 3, (90, 300), 16, (3, 3), {"pads": [2, 1, 2, 1], "strides": [2, 2], "dilations": [2, 1]}),
    "stem_wider_than_image": (1, 2, (5, 2), 7, (5, 7), {"pads": [2, 5, 2, 5]}),
    "narrow": (2, 20, (19, 53), 33, (3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "narrow_dilated": (1, 18, (13, 47), 16, (3, 3), {"pads": [3, 0, 1, 5], "dilations": [2, 3]}),
    "narrow_wide_padding": (2, 17, (8, 9), 3, (3, 3), {"pads": [4, 20, 5, 21], "strides": [1, 1], "dilations": [1, 2]}),
    "grouped": (2, 24, (10, 9), 36, (3, 3), {"pads": [1, 1, 1, 1], "group": 3}),
    "depthwise": (2, 35, (14, 17), 35, (3, 3), {"pads": [1, 1, 1, 1], "group": 35}),
    "depthwise_strided": (2, 64, (14, 17), 64, (3, 3), {"pads": [0, 0, 1, 1], "group": 64, "strides": [2, 2]}),
    "depthwise_5": (1, 48, (9, 11), 48, (5, 5), {"pads": [2, 2, 2, 2], "group": 48}),
    "depthwise_5_strided": (1, 48, (19, 18), 48, (5, 5), {"pads": [1, 2, 2, 1], "group": 48, "strides": [2, 2]}),
    "depthwise_7": (1, 33, (12, 14), 33, (7, 7), {"pads": [3, 3, 3, 3], "group": 33}),
    "depthwise_dilated": (1, 16, (12, 12), 16, (3, 3), {"pads": [2, 2, 2, 2], "group": 16, "dilations": [2, 2]}),
    "depthwise_wider_than_image": (1, 16, (3, 2), 16, (5, 5), {"pads": [2, 2, 2, 2], "group": 16}),
    "multiplier": (1, 6, (8, 8), 18, (3, 3), {"pads": [1, 1, 1, 1], "group": 6}),
    "one_dimension": (2, 16, (50,), 20, (5,), {"pads": [2, 2], "strides": [2]}),
    "three_dimensions": (1, 5, (6, 7, 8), 9, (3, 2, 3), {"pads": [1, 0, 1, 1, 1, 1], "strides": [1, 2, 1]}),
    "one_channel": (2, 1, (9, 9), 1, (3, 3), {"pads": [1, 1, 1, 1]}),
    "deep": (1, 300, (4, 4), 70, (3, 3), {"pads": [1, 1, 1, 1]}),
    "deep_cut_panel": (1, 260, (12, 6), 20, (3, 3), {"pads": [1, 1, 1, 1], "strides": [1, 1], "dilations": [2, 2]}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("constant", [True, False], ids=["constant_weights", "weights_as_input"])
def test_against_float64(name, constant):
    """F(6x6) has four times the error of F(4x4): test_winograd_error_is_close_to_direct."""
    n, c, size, o, k, attrs = CASES[name]
    x, w, b = tensors(np.random.default_rng(1), n, c, size, o, k, attrs.get("group", 1))
    check_node("Conv", [x, w, b], expected=[oracle(x, w, b, **attrs).astype(np.float32)],
               atol=6e-5 if "winograd_6" in name else 2e-5, rtol=1e-4,
               constants=(1, 2) if constant else (), **attrs)  # fmt: skip


def last(x):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


ACTIVATIONS = {
    "relu": (lambda v: np.maximum(v, 0), {}),
    "clip": (lambda v: np.clip(v, -0.5, 1), {"activation_alpha": -0.5, "activation_beta": 1.0}),
    "silu": (lambda v: v / (1 + np.exp(-v)), {}),
    "hard_swish": (lambda v: v * np.clip(v / 6 + 0.5, 0, 1), {}),
    "leaky_relu": (lambda v: np.where(v < 0, 0.1 * v, v), {"activation_alpha": 0.1}),
    "": (lambda v: v, {}),
}


@pytest.mark.parametrize("after", [0, 1], ids=["residual_before", "residual_after"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    "name", ["pointwise", "winograd", "winograd_6", "strided", "depthwise", "stem", "narrow", "direct_small_map"]
)
def test_fused_channels_last(name, activation, after):
    n, c, size, o, k, attrs = CASES[name]
    rng = np.random.default_rng(2)
    x, w, b = tensors(rng, n, c, size, o, k, attrs.get("group", 1))
    act, params = ACTIVATIONS[activation]
    y = oracle(x, w, b, **attrs)
    r = rng.standard_normal(y.shape).astype(np.float32)
    want = act(y) + r if after else act(y + r)
    check_node("Conv", [last(x), w, b, last(r)], expected=[last(want).astype(np.float32)], domain="fastinfer",
               atol=6e-5 if name == "winograd_6" else 2e-5, rtol=1e-4, constants=(1, 2), channels_last=1,
               activation=activation, residual_after=after, **params, **attrs)  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "pointwise",
        "winograd",
        "winograd_6",
        "winograd_dilated",
        "winograd_dilated_uneven",
        "winograd_few_tiles_many_weights",
        "strided",
        "depthwise",
        "stem",
        "stem_tall",
        "narrow",
        "direct_small_map",
        "grouped",
    ],
)
def test_company_does_not_change_bits(name):
    _, c, size, o, k, attrs = CASES[name]
    x, w, b = tensors(np.random.default_rng(3), 7, c, size, o, k, attrs.get("group", 1))
    check_same_bits("Conv", [x, w, b], constants=(1, 2), **attrs)


@pytest.mark.parametrize("precision", ["", "bf16"])
@pytest.mark.parametrize("name", ["stem", "stem_tall", "stem_four_channels", "strided", "pointwise", "depthwise"])
def test_channels_first_in_channels_last_out(name, precision):
    n, c, size, o, k, attrs = CASES[name]
    x, w, b = tensors(np.random.default_rng(6), n, c, size, o, k, attrs.get("group", 1))
    r = np.random.default_rng(7).standard_normal(last(oracle(x, w, b, **attrs)).shape).astype(np.float32)
    want = np.maximum(last(oracle(x, w, b, **attrs)) + r, 0).astype(np.float32)
    error = 0.3 if precision else 2e-5
    check_node("Conv", [x, w, b, r], expected=[want], domain="fastinfer", atol=error, rtol=1e-4, constants=(1, 2),
               channels_last=1, x_channels_first=1, activation="relu", precision=precision, **attrs)  # fmt: skip


@pytest.mark.parametrize("channels, out", [(3, 20), (16, 48), (40, 80)])
def test_negative_pads_crop(channels, out):
    x, w, b = tensors(np.random.default_rng(5), 1, channels, (14, 40), out, (3, 3))
    want = oracle(x[:, :, :, 2:-3], w, b, pads=[1, 0, 1, 0], strides=[2, 1])
    check_node("Conv", [x, w, b], expected=[want.astype(np.float32)], constants=(1, 2), pads=[1, -2, 1, -3],
               strides=[2, 1], atol=2e-5, rtol=1e-4)  # fmt: skip


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_auto_pad(mode):
    x, w, b = tensors(np.random.default_rng(4), 1, 5, (8, 9), 6, (3, 4))
    check_node("Conv", [x, w, b], constants=(1,), auto_pad=mode, strides=[2, 2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "kernel", "rms", "most"), [(24, "4x4", 1.5e-6, 1e-5), (48, "6x6", 5e-6, 6e-5)])
def test_winograd_error_is_close_to_direct(size, kernel, rms, most):
    """σ-normalised error at 128 channels; with the usual points F(4x4) would have 2.1e-6 rms. A direct sum has 2e-7."""
    rng = np.random.default_rng(5)
    x = np.maximum(rng.standard_normal((1, 128, size, size)), 0).astype(np.float32)
    w = (rng.standard_normal((64, 128, 3, 3)) * np.sqrt(2 / (9 * 128))).astype(np.float32)
    want = oracle(x, w, pads=[1, 1, 1, 1])
    m = build(node_model("Conv", [x, w], constants=(1,), pads=[1, 1, 1, 1]), threads=1)
    assert any("winograd" in s["kernel"] and kernel in s["kernel"] for s in m.explain({"x0": x}).steps)
    error = (m(x) - want) / want.std()
    assert np.sqrt((error**2).mean()) < rms
    assert np.abs(error).max() < most


@pytest.mark.parametrize(("channels", "kernel"), [(256, "6x6"), (264, "4x4")])
def test_weights_beyond_16_mib_take_the_smaller_winograd_form(channels, kernel):
    """And the bits do not hang on how many tiles a group has: one part takes other groups than two."""
    rng = np.random.default_rng(8)
    x, w, b = tensors(rng, 2, channels, (37, 40), 256, (3, 3))
    node = node_model("Conv", [x, w, b], constants=(1, 2), pads=[1, 1, 1, 1])
    one, two = (build(node, threads=t) for t in (1, 2))
    assert any(kernel in s["kernel"] for s in one.explain({"x0": x}).steps)
    y = one(x)
    error = y[:1] - oracle(x[:1], w, b, pads=[1, 1, 1, 1])
    assert (
        np.sqrt((error**2).mean()) < 1e-5 and np.abs(error).max() < 1e-4
    )  # 380,000 values: the largest by F(6) is 7e-5
    assert np.array_equal(y, two(x)) and np.array_equal(y[1:], two(x[1:]))


def test_one_program_takes_both_winograd_forms():
    rng = np.random.default_rng(7)
    w = (rng.standard_normal((24, 20, 3, 3)) / np.sqrt(180)).astype(np.float32)
    m = build(
        node_model("Conv", [np.zeros((1, 20, 8, 8), np.float32), w], constants=(1,), pads=[1, 1, 1, 1]), threads=1
    )
    for size in (16, 48, 16):
        x = rng.standard_normal((1, 20, size, size)).astype(np.float32)
        np.testing.assert_allclose(m(x), oracle(x, w, pads=[1, 1, 1, 1]), atol=5e-5)


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (2, 3, 0, 8)])
def test_empty(shape):
    w = np.ones((4, 3, 3, 3), np.float32)
    m = build(node_model("Conv", [np.zeros(shape, np.float32), w], constants=(1,), pads=[1, 1, 1, 1]))
    assert m(np.zeros(shape, np.float32)).size == 0


def test_what_does_not_fit_is_said():
    x, w, b = tensors(np.random.default_rng(6), 1, 4, (8, 8), 6, (3, 3))
    m = build(node_model("Conv", [x, w, b], constants=(1, 2)))
    with pytest.raises(fi.InputError, match="under_test.*has 5 channels.*needs 4"):
        m(np.zeros((1, 5, 8, 8), np.float32))
    with pytest.raises(fi.InputError, match="window of 3 does not fit"):
        m(np.zeros((1, 4, 2, 8), np.float32))
    with pytest.raises(fi.ModelError, match="strides"):
        build(node_model("Conv", [x, w], constants=(1,), strides=[0, 1]))(x)
    with pytest.raises(fi.ModelError, match="groups"):
        build(node_model("Conv", [x, w], constants=(1,), group=4))(x)
