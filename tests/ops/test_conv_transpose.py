# SPDX-License-Identifier: Apache-2.0
"""ConvTranspose in both layouts against float64 and onnx.reference."""

import numpy as np
import pytest
from oracle import conv_transpose, to_last
from support import build, check_node, check_same_bits, node_model

from fastinfer.errors import FastinferError

CASES = [
    # n, c, spatial, out channels per group, kernel, attributes
    (1, 8, (5, 6), 12, (2, 2), dict(strides=[2, 2])),
    (2, 33, (7, 4), 70, (2, 2), dict(strides=[2, 2])),
    (2, 20, (9, 27), 33, (2, 2), dict(strides=[2, 2])),
    (1, 17, (10, 31), 70, (3, 1), dict(strides=[3, 1])),
    (1, 18, (8, 25), 16, (2, 2), dict(strides=[2, 2], output_padding=[1, 0])),
    (1, 64, (9, 9), 17, (4, 4), dict(strides=[2, 2], pads=[1, 1, 1, 1])),
    (2, 5, (4, 5), 6, (3, 3), dict()),
    (1, 6, (4, 5), 7, (3, 3), dict(strides=[3, 2], output_padding=[1, 1])),
    (1, 6, (4, 5), 7, (3, 3), dict(strides=[1, 2], dilations=[2, 3], pads=[1, 0, 2, 1])),
    (1, 4, (4, 5), 3, (2, 2), dict(strides=[4, 3])),
    (2, 12, (6, 5), 5, (3, 2), dict(strides=[2, 2], group=3, pads=[1, 0, 0, 1])),
    (1, 6, (5, 5), 1, (4, 4), dict(strides=[2, 2], group=6, pads=[1, 1, 1, 1])),
    (2, 16, (20,), 24, (8,), dict(strides=[4], pads=[2, 2])),
    (1, 16, (20,), 24, (3,), dict(dilations=[2])),
    (1, 5, (3, 4, 5), 6, (2, 3, 2), dict(strides=[2, 1, 2], output_padding=[1, 0, 1], pads=[0, 1, 0, 0, 0, 1])),
    (1, 300, (4, 4), 20, (3, 3), dict(strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])),
]


@pytest.mark.parametrize("constant", [True, False], ids=["constant_weights", "weights_as_input"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_shapes(case, constant):
    n, c, spatial, o, kernel, attrs = case
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, c, *spatial), np.float32)
    w, b = rng.standard_normal((c, o, *kernel), np.float32), rng.standard_normal(o * attrs.get("group", 1), np.float32)
    want = conv_transpose(x, w, b, **attrs).astype(np.float32)
    tolerance = dict(rtol=2e-5, atol=2e-5 * float(np.abs(want).max()))
    constants = (1,) if constant else ()
    check_node("ConvTranspose", [x, w, b], expected=[want], constants=constants, **tolerance, **attrs)
    check_node("ConvTranspose", [to_last(x), w, b], expected=[np.maximum(to_last(want), 0)], domain="fastinfer",
               constants=constants, channels_last=1, activation="relu", **tolerance, **attrs)  # fmt: skip


@pytest.mark.parametrize("seed", range(10))
def test_random(seed):
    rng = np.random.default_rng(seed)
    dims = int(rng.integers(1, 4))
    attrs = dict(
        strides=[int(v) for v in rng.integers(1, 4, dims)], dilations=[int(v) for v in rng.integers(1, 3, dims)]
    )
    kernel = [int(v) for v in rng.integers(1, 5, dims)]
    full = [(k - 1) * d for k, d in zip(kernel, attrs["dilations"], strict=True)]
    attrs["pads"] = [int(rng.integers(0, f + 1)) for f in full + full]
    x = rng.standard_normal((2, int(rng.integers(1, 20)), *rng.integers(3, 7, dims)), np.float32)
    w = rng.standard_normal((x.shape[1], int(rng.integers(1, 30)), *kernel), np.float32)
    attrs["pads"] = [min(p, 2) for p in attrs["pads"]]
    want = conv_transpose(x, w, **attrs).astype(np.float32)
    check_node("ConvTranspose", [x, w], expected=[want], rtol=3e-5, atol=3e-4, constants=(1,), **attrs)


def test_output_shape_and_auto_pad():
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((1, 3, 4, 5), np.float32), rng.standard_normal((3, 4, 3, 3), np.float32)
    for mode in ("SAME_UPPER", "SAME_LOWER"):
        check_node("ConvTranspose", [x, w], rtol=1e-4, atol=1e-4, auto_pad=mode, strides=[2, 2])
        check_node("ConvTranspose", [x, w], rtol=1e-4, atol=1e-4, auto_pad=mode, strides=[2, 3])
    check_node("ConvTranspose", [x, w], rtol=1e-4, atol=1e-4, auto_pad="VALID", strides=[2, 2])
    check_node(
        "ConvTranspose", [x, w], rtol=1e-4, atol=1e-4, strides=[2, 2], output_shape=[10, 12], output_padding=[1, 1]
    )
    # total padding 1: all of it at the start
    want = conv_transpose(x, w, strides=[2, 2], pads=[1, 1, 0, 0]).astype(np.float32)
    check_node("ConvTranspose", [x, w], expected=[want], rtol=1e-4, atol=1e-4, strides=[2, 2], output_shape=[8, 10])


def test_same_bits():
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((7, 9, 10, 24), np.float32), rng.standard_normal((24, 40, 3, 3), np.float32)
    check_same_bits(
        "ConvTranspose", [x, w], domain="fastinfer", constants=(1,), channels_last=1, strides=[2, 2], pads=[1, 1, 1, 1]
    )


def test_empty():
    w = np.ones((3, 4, 2, 2), np.float32)
    for shape, out in [((0, 3, 4, 4), (0, 4, 8, 8)), ((1, 3, 0, 4), (1, 4, 0, 8))]:
        m = build(node_model("ConvTranspose", [np.zeros(shape, np.float32), w], constants=(1,), strides=[2, 2]))
        assert m(np.zeros(shape, np.float32)).shape == out


@pytest.mark.parametrize("shapes,attrs,word", [
    ([(1, 4, 5, 5), (3, 2, 3, 3)], {}, "channels"), ([(1, 4, 5, 5), (4, 2, 3, 3)], dict(pads=[9, 9, 9, 9]), "output extent"),
    ([(1, 4, 5, 5), (4, 2, 3, 3)], dict(output_padding=[1]), "output_padding"), ([(1, 4, 5, 5), (4, 2, 3, 3)], dict(output_shape=[1]), "output_shape"),
    ([(1, 4, 5, 5), (4, 2, 3, 3)], dict(strides=[10**6, 10**6]), "strides"), ([(1, 4, 5, 5), (4, 2, 3, 3), (1,)], {}, "bias"),
    ([(1, 4, 5, 5), (4, 2, 3, 3)], dict(output_padding=[-1, 0]), "output_padding"),
])  # fmt: skip
def test_what_does_not_fit_is_said(shapes, attrs, word):
    arrays = [np.zeros(s, np.float32) for s in shapes]
    with pytest.raises(FastinferError, match=word):
        build(node_model("ConvTranspose", arrays, **attrs)).run({f"x{i}": a for i, a in enumerate(arrays)})
