# SPDX-License-Identifier: Apache-2.0
"""QConv, QLinearConv and ConvInteger: the CPU's bits, and those of int64 sums."""

import sys
from pathlib import Path

import numpy as np
import pytest
from quantized_cases import F, bits, on_both, quantized

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "ops"))
from oracle import conv, to_last

# shape of x, output channels, kernel, attributes
GEOMETRIES = {
    "taps": ((2, 4, 5, 40), 20, (3, 3), dict(pads=[1, 1, 1, 1])),
    "blocks": ((1, 4, 3, 64), 33, (2, 3), dict(pads=[0, 2, 1, 1], strides=[2, 1])),
    "stem": ((2, 9, 8, 3), 16, (7, 7), dict(pads=[3, 3, 3, 3], strides=[2, 2])),
    "sixteen": ((1, 4, 5, 16), 24, (3, 3), dict(pads=[1, 1, 1, 1])),
    "dilated": ((1, 7, 7, 32), 8, (3, 3), dict(pads=[2, 3, 2, 3], dilations=[2, 3])),
    "dense": ((2, 3, 4, 48), 40, (1, 1), {}),
    "dense_tail": ((1, 5, 3, 7), 70, (1, 1), {}),
    "strided_1x1": ((2, 5, 5, 33), 9, (1, 1), dict(strides=[2, 2])),
    "grouped": ((1, 4, 4, 12), 6, (3, 3), dict(pads=[1, 1, 1, 1], group=3)),
    "one_axis": ((2, 9, 32), 8, (3,), dict(pads=[1, 1])),
    "three_axes": ((1, 3, 3, 4, 4), 8, (2, 3, 2), dict(pads=[1, 1, 0, 0, 1, 1])),
    "depthwise": ((2, 5, 6, 20), 20, (3, 3), dict(pads=[1, 1, 1, 1], group=20)),
    "depthwise_5x5": ((1, 7, 9, 17), 17, (5, 5), dict(pads=[2, 2, 1, 3], strides=[2, 2], group=17)),
    "depthwise_twice": ((1, 4, 5, 6), 12, (3, 3), dict(pads=[1, 1, 1, 1], group=6)),
    "cropped": ((1, 6, 7, 40), 8, (3, 3), dict(pads=[0, -1, 0, -2])),
}  # fmt: skip


def kernel_of(geometry):
    return "triton_depthwise8" if geometry in ("depthwise", "depthwise_5x5") else "triton_conv8"


def node(rng, geometry, x_type, y_type, form, w_type=np.int8, w_zero=0):
    """inputs, attributes, what y must be."""
    shape, o, kernel, attrs = GEOMETRIES[geometry]
    x = bits(rng, x_type, *shape)
    xz = np.array(rng.choice([np.iinfo(x_type).min, np.iinfo(x_type).max, 3]), x_type)
    w = bits(rng, w_type, o, shape[-1] // attrs.get("group", 1), *kernel)
    wz = np.full(o, w_zero, w_type) if w_type == np.int8 else np.array(w_zero, w_type)
    b = rng.integers(-5000, 5000, o).astype(np.int32)
    pads = attrs.get("pads", [0] * (2 * len(kernel)))
    crop = tuple(
        slice(max(0, -p), n - max(0, -q)) for p, q, n in zip(pads, pads[len(kernel) :], shape[1:-1], strict=False)
    )
    given = np.moveaxis(x[(slice(None), *crop)], -1, 1).astype(np.float64) - float(xz)
    left = given, w.astype(np.float64) - float(w_zero)
    sums = to_last(conv(*left, b=b, **{**attrs, "pads": [max(0, p) for p in pads]}))
    xs, ws = F(0.02), rng.uniform(0.005, 0.02, o).astype(F)
    ys = F(np.abs(sums * xs * ws).max(initial=1) / 150)
    yz = np.array(np.iinfo(y_type).min + (5 if form == "plain" else 100), y_type)
    inputs, extra = [x, xs, xz, w, ws, wz, ys, yz, b], {}
    low, high = np.iinfo(y_type).min, np.iinfo(y_type).max
    residual = inner = None
    if form == "range":
        low, high = int(yz), int(yz) + 20
        extra = dict(low=low, high=high)
    if form in ("residual", "inner"):
        r, rs, rz = bits(rng, x_type, *sums.shape), F(ys * F(0.7)), np.array(np.iinfo(x_type).max, x_type)
        inputs += [r, rs, rz]
        residual = r, rs / ys, rz
    scale = xs * ws / ys
    if form == "inner":
        cs, cz = F(ys * F(0.9)), np.array(60, y_type)
        inputs += [cs, cz]
        scale, extra = xs * ws / cs, dict(c_low=60)
        inner = cs / ys, cz, 60, high
    if form == "float":
        inputs[6] = inputs[7] = None
        want = sums.astype(np.int32).astype(F) * (xs * ws)
    else:
        want = quantized(sums, scale, yz, low, high, residual, inner)
    return inputs, dict(channels_last=1, kernel_shape=list(kernel), **attrs, **extra), want


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("types", [(np.uint8, np.uint8), (np.int8, np.int8)], ids=["u8", "s8"])
def test_geometries(geometry, types):
    rng = np.random.default_rng(len(geometry))
    form = ["plain", "inner", "range"][len(geometry) % 3]
    inputs, attrs, want = node(rng, geometry, *types, form)
    constants = [i for i, v in enumerate(inputs) if i not in (0, 9) and v is not None]
    on_both("QConv", inputs, constants, kernel=kernel_of(geometry), want=want, domain="fastinfer", **attrs)


@pytest.mark.parametrize("geometry", ["taps", "depthwise"])
@pytest.mark.parametrize("form", ["plain", "range", "residual", "inner", "float"])
@pytest.mark.parametrize("types", [(np.uint8, np.int8), (np.int8, np.uint8)], ids=["u8", "s8"])
def test_ends(geometry, form, types):
    rng = np.random.default_rng(len(form))
    inputs, attrs, want = node(rng, geometry, *types, form)
    constants = [i for i, v in enumerate(inputs) if i not in (0, 9) and v is not None]
    on_both("QConv", inputs, constants, kernel=kernel_of(geometry), want=want, domain="fastinfer", **attrs)


@pytest.mark.parametrize("geometry", ["taps", "stem", "dense_tail", "depthwise"])
@pytest.mark.parametrize("w_zero", [128, 7])
def test_unsigned_weights(geometry, w_zero):
    """128 is s8's 0; others need sums of x under each window."""
    rng = np.random.default_rng(w_zero)
    inputs, attrs, want = node(rng, geometry, np.uint8, np.uint8, "plain", np.uint8, w_zero)
    on_both("QConv", inputs, range(1, 9), kernel=kernel_of(geometry), want=want, domain="fastinfer", **attrs)


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
def test_qlinear_conv(domain):
    rng = np.random.default_rng(3)
    inputs, attrs, want = node(rng, "taps", np.uint8, np.uint8, "plain")
    last = attrs.pop("channels_last") if not domain else 1
    if not domain:
        inputs[0], want = np.ascontiguousarray(np.moveaxis(inputs[0], -1, 1)), np.moveaxis(want, -1, 1)
    assert last
    on_both("QLinearConv", inputs, range(1, 9), kernel="triton_conv8", want=want, domain=domain, **attrs)


def test_conv_integer():
    rng = np.random.default_rng(4)
    x, w = bits(rng, np.uint8, 2, 5, 6, 7), bits(rng, np.uint8, 9, 5, 3, 3)
    want = conv(x.astype(np.float64) - 17, w.astype(np.float64) - 99, pads=[1, 0, 1, 2]).astype(np.int32)
    on_both(
        "ConvInteger",
        [x, w, np.uint8(17), np.uint8(99)],
        (1, 2, 3),
        kernel="triton_conv8",
        want=want,
        pads=[1, 0, 1, 2],
    )
