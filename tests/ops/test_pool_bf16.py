# SPDX-License-Identifier: Apache-2.0
"""Pooling, depthwise and transposed convolution of bfloat16 data, which only precision="bf16" brings about."""

import ml_dtypes
import numpy as np
import pytest
from oracle import conv, conv_transpose, to_last
from support import check_node, check_same_bits

BF16 = ml_dtypes.bfloat16


def bf16(x):
    return x.astype(BF16)


def wide(x):
    return bf16(x).astype(np.float64)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("channels", [1, 16, 19, 70, 128])
def test_pool(op, channels):
    x = np.random.default_rng(channels).standard_normal((2, channels, 9, 8)).astype(np.float32)
    taps = np.stack([wide(x)[:, :, i : i + 7 : 2, j : j + 6 : 2] for i in range(3) for j in range(3)])
    want = taps.max(0) if op == "MaxPool" else taps.mean(0)
    check_node(op, [bf16(to_last(x))], expected=[bf16(to_last(want))], domain="fastinfer", channels_last=1,
               kernel_shape=[3, 3], strides=[2, 2], rtol=8e-3, atol=1e-6)  # fmt: skip


@pytest.mark.parametrize("act, after", [("", 0), ("relu", 0), ("clip", 1), ("silu", 0), ("silu", 1)])
@pytest.mark.parametrize("c, size, k, strides, pads", [
    (35, (14, 17), 3, [1, 1], [1, 1, 1, 1]), (64, (14, 17), 3, [2, 2], [0, 0, 1, 1]), (48, (9, 11), 5, [1, 1], [2, 2, 2, 2]),
    (48, (19, 18), 5, [2, 2], [1, 2, 2, 1]), (33, (12, 14), 7, [1, 1], [3, 3, 3, 3]), (16, (3, 2), 5, [1, 1], [2, 2, 2, 2]),
    (20, (6, 6), 2, [1, 1], [0, 0, 0, 0]),
])  # fmt: skip
def test_depthwise(c, size, k, strides, pads, act, after):
    rng = np.random.default_rng(1)
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((2, c, *size), (c, 1, k, k), (c,)))
    y = conv(wide(x), w, b, strides=strides, pads=pads, group=c)
    r = rng.standard_normal(y.shape).astype(np.float32)
    f = {"": lambda v: v, "relu": lambda v: np.maximum(v, 0), "clip": lambda v: np.clip(v, -0.5, 1.5),
         "silu": lambda v: v / (1 + np.exp(-v))}[act]  # fmt: skip
    want = f(y) + wide(r) if after else f(y + wide(r))
    form = {"activation": act, "residual_after": after, "activation_alpha": -0.5, "activation_beta": 1.5, "group": c,
            "strides": strides, "pads": pads, "channels_last": 1, "precision": "bf16", "output_dtype": "bf16"}  # fmt: skip
    inputs = [bf16(to_last(x)), w, b, bf16(to_last(r))]
    check_node("Conv", inputs, expected=[bf16(to_last(want))], domain="fastinfer", constants=(1, 2), rtol=8e-3,
               atol=1e-4, **form)  # fmt: skip
    if act == "silu":
        check_same_bits("Conv", inputs, batch_inputs=(0, 3), domain="fastinfer", constants=(1, 2), **form)


@pytest.mark.parametrize("x16, y16", [(0, 0), (1, 1), (0, 1)])
@pytest.mark.parametrize("c, o, group, k, strides, pads", [
    (16, 24, 1, 2, [2, 2], None), (33, 70, 1, 3, [2, 2], [1, 1, 1, 1]), (8, 12, 2, 4, [2, 1], [0, 1, 1, 0]), (5, 3, 1, 1, None, None),
])  # fmt: skip
def test_transposed(c, o, group, k, strides, pads, x16, y16):
    rng = np.random.default_rng(2)
    x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((2, c, 7, 6), (c, o // group, k, k), (o,)))
    form = {n: v for n, v in (("strides", strides), ("pads", pads)) if v}
    want = to_last(conv_transpose(wide(x), wide(w), b, group=group, **form)).astype(np.float32)
    form |= {"group": group, "channels_last": 1, "precision": "bf16"} | ({"output_dtype": "bf16"} if y16 else {})
    check_node("ConvTranspose", [bf16(to_last(x)) if x16 else to_last(x), w, b], domain="fastinfer", constants=(1, 2),
               expected=[bf16(want) if y16 else want], rtol=8e-3 if y16 else 1e-4, atol=1e-4, **form)  # fmt: skip
