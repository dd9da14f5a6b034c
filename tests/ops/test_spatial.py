# SPDX-License-Identifier: Apache-2.0
"""GridSample, AffineGrid, RoiAlign, MaxRoiPool, MaxUnpool, Col2Im, DeformConv, LRN, DepthToSpace, SpaceToDepth."""

import itertools

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from oracle import conv, conv_transpose, to_last
from support import build, check_node, check_same_bits, node_model

from fastinfer.errors import FastinferError


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize("shape,out", [((2, 3, 5, 6), (4, 7)), ((1, 2, 3, 4, 5), (2, 3, 4))])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("corners", [0, 1])
def test_grid_sample(shape, out, mode, padding, corners):
    x = normal(*shape)
    grid = np.random.default_rng(1).uniform(-1.6, 1.6, (shape[0], *out, len(out))).astype(np.float32)
    check_node("GridSample", [x, grid], rtol=1e-4, atol=2e-4, mode=mode, padding_mode=padding, align_corners=corners)


def test_grid_sample_of_absurd_coordinates():
    x = normal(1, 2, 4, 5)
    grid = np.array([[[[np.nan, np.inf], [-np.inf, 1e30], [1e9, -1e9]]]], np.float32)
    for mode, padding, corners in itertools.product(
        ["nearest", "linear", "cubic"], ["zeros", "border", "reflection"], [0, 1]
    ):
        m = build(node_model("GridSample", [x, grid], mode=mode, padding_mode=padding, align_corners=corners))
        y = m(x, grid)
        assert y.shape == (1, 2, 1, 3)
        assert padding != "zeros" or (y == 0).all()


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 3, 3, 4, 5)])
def test_affine_grid(size, corners):
    n = len(size) - 2
    theta = normal(2, n, n + 1)
    axes = [np.linspace(-1, 1, s) if corners else (2 * np.arange(s) + 1) / s - 1 for s in size[2:]]
    mesh = np.stack([*np.meshgrid(*axes, indexing="ij")][::-1] + [np.ones(size[2:])], -1)
    want = np.einsum("nij,...j->n...i", theta.astype(np.float64), mesh).astype(np.float32)
    check_node("AffineGrid", [theta, np.array(size)], expected=[want], align_corners=corners)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("sampling", [0, 2])
def test_roi_align(mode, coordinates, sampling):
    x = normal(2, 3, 9, 11)
    rois = np.array([[0, 0, 8, 8], [2.5, 1, 19, 17], [-3, -2, 3, 30], [4, 4, 4, 4]], np.float32)
    check_node("RoiAlign", [x, rois, np.array([0, 1, 1, 0])], rtol=1e-4, atol=1e-5, mode=mode, sampling_ratio=sampling,
               coordinate_transformation_mode=coordinates, output_height=3, output_width=4, spatial_scale=0.5)  # fmt: skip


def test_max_roi_pool():
    x = normal(2, 3, 8, 9)
    rois = np.array([[0, 0, 0, 7, 6], [1, 2, 3, 5, 6], [1, 7, 6, 20, 20], [0, 30, 30, 40, 40]], np.float32)
    want = np.zeros((4, 3, 2, 3), np.float32)
    for r, (n, *box) in enumerate(rois):
        x1, y1, x2, y2 = (int(np.floor(v * 0.9 + 0.5)) for v in box)
        bh, bw = max(y2 - y1 + 1, 1) / 2, max(x2 - x1 + 1, 1) / 3
        for i, j in itertools.product(range(2), range(3)):
            h = slice(min(max(int(np.floor(i * bh)) + y1, 0), 8), min(max(int(np.ceil((i + 1) * bh)) + y1, 0), 8))
            w = slice(min(max(int(np.floor(j * bw)) + x1, 0), 9), min(max(int(np.ceil((j + 1) * bw)) + x1, 0), 9))
            part = x[int(n), :, h, w]
            want[r, :, i, j] = part.max((1, 2)) if part.size else 0
    check_node("MaxRoiPool", [x, rois], expected=[want], pooled_shape=[2, 3], spatial_scale=0.9)


def test_max_unpool():
    x = normal(2, 3, 4, 5)
    pool = node_model("MaxPool", [x], 2, kernel_shape=[2, 2], strides=[2, 2])
    y, index = ReferenceEvaluator(pool).run(None, {"x0": x[:, :, :, :4].copy()})
    check_node("MaxUnpool", [y, index], kernel_shape=[2, 2], strides=[2, 2])
    check_node("MaxUnpool", [y, index, np.array([2, 3, 6, 7])], kernel_shape=[2, 2], strides=[2, 2])
    m = build(node_model("MaxUnpool", [y, index], kernel_shape=[2, 2], strides=[2, 2]))
    with pytest.raises(FastinferError, match="index"):
        m(y, index + 100)


def test_col2im():
    rng = np.random.default_rng(2)
    for kernel, image, attrs in [((2, 3), (6, 7), dict(strides=[2, 1], pads=[0, 1, 0, 1])), ((3,), (11,), dict(dilations=[2])),
                                 ((2, 2, 2), (3, 4, 5), dict(pads=[1] * 6))]:  # fmt: skip
        n = len(kernel)
        s, d, p = attrs.get("strides", [1] * n), attrs.get("dilations", [1] * n), attrs.get("pads", [0] * 2 * n)
        blocks = [(image[i] + p[i] + p[i + n] - (kernel[i] - 1) * d[i] - 1) // s[i] + 1 for i in range(n)]
        taps = int(np.prod(kernel))
        x = rng.standard_normal((2, 3 * taps, int(np.prod(blocks))), np.float32)
        # A transposed convolution whose weights pick one tap per input channel.
        w = np.einsum("cd,tu->ctdu", np.eye(3), np.eye(taps)).reshape(3 * taps, 3, *kernel)
        full = [(blocks[i] - 1) * s[i] + (kernel[i] - 1) * d[i] + 1 for i in range(n)]
        extra = [image[i] + p[i] + p[i + n] - full[i] for i in range(n)]
        want = conv_transpose(x.reshape(2, -1, *blocks), w, strides=s, dilations=d, pads=p, output_padding=extra)
        check_node("Col2Im", [x, np.array(image), np.array(kernel)], expected=[want.astype(np.float32)], **attrs)


def test_deform_conv():
    x, w, b = normal(2, 4, 6, 7), normal(6, 2, 3, 2, seed=1), normal(6, seed=2)
    attrs = dict(strides=[1, 2], pads=[1, 0, 1, 1], group=2)
    want = conv(x, w, b, **attrs).astype(np.float32)
    out = want.shape[2:]
    zero = np.zeros((2, 2 * 12, *out), np.float32)
    check_node("DeformConv", [x, w, zero, b], expected=[want], rtol=1e-4, atol=1e-4, offset_group=2, **attrs)
    half = np.full((2, 12, *out), 0.5, np.float32)
    check_node("DeformConv", [x, w, zero, b, half], expected=[(conv(x, w, **attrs) / 2 + b.reshape(1, -1, 1, 1)).astype(np.float32)],
               rtol=1e-4, atol=1e-4, offset_group=2, **attrs)  # fmt: skip
    offset, mask = normal(2, 2 * 12, *out, seed=3), normal(2, 12, *out, seed=4)
    check_node("DeformConv", [x, w, offset, b, mask], rtol=1e-4, atol=1e-4, offset_group=2, **attrs)


@pytest.mark.parametrize("beta", [0.75, 0.6])
@pytest.mark.parametrize("size", [1, 4, 5, 31])
def test_lrn(size, beta):
    x = normal(2, 9, 5, 60)
    low, high = (size - 1) // 2, size - 1 - (size - 1) // 2
    squares = np.pad(x.astype(np.float64) ** 2, [(0, 0), (low, high), (0, 0), (0, 0)])
    total = sum(squares[:, i : i + 9] for i in range(size))
    want = (x / (1.5 + 0.1 / size * total) ** beta).astype(np.float32)
    check_node("LRN", [x], expected=[want], size=size, alpha=0.1, beta=beta, bias=1.5)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int64])
def test_depth_and_space(dtype):
    x = np.arange(2 * 12 * 4 * 6).reshape(2, 12, 4, 6).astype(dtype)
    for mode in ("DCR", "CRD"):
        want = ReferenceEvaluator(node_model("DepthToSpace", [x], blocksize=2, mode=mode)).run(None, {"x0": x})[0]
        check_node("DepthToSpace", [x], expected=[want], blocksize=2, mode=mode)
        check_node(
            "DepthToSpace",
            [to_last(x)],
            expected=[to_last(want)],
            blocksize=2,
            mode=mode,
            domain="fastinfer",
            channels_last=1,
        )
    want = ReferenceEvaluator(node_model("SpaceToDepth", [x], blocksize=2)).run(None, {"x0": x})[0]
    check_node("SpaceToDepth", [x], expected=[want], blocksize=2)
    check_node("SpaceToDepth", [to_last(x)], expected=[to_last(want)], blocksize=2, domain="fastinfer", channels_last=1)


def test_same_bits():
    check_same_bits("LRN", [normal(7, 9, 5, 6)], size=3)
    check_same_bits("GridSample", [normal(7, 3, 5, 6), normal(7, 4, 4, 2)], batch_inputs=(0, 1))


BOX = np.array([[0, 0, 3, 3]], np.float32)


@pytest.mark.parametrize("op,inputs,attrs,word", [
    ("GridSample", [normal(1, 2, 3, 3), normal(1, 2, 2, 3)], {}, "grid"),
    ("RoiAlign", [normal(1, 2, 3, 3), BOX, np.array([5])], {}, "index"),
    ("RoiAlign", [normal(1, 2, 3, 3), np.full((1, 4), np.inf, np.float32), np.array([0])], {}, "value"),
    ("RoiAlign", [normal(1, 2, 3, 3), BOX * np.float32(1e20), np.array([0])], {}, "value"),
    ("MaxRoiPool", [normal(1, 2, 3, 3), np.array([[3, 0, 0, 1, 1]], np.float32)], dict(pooled_shape=[1, 1]), "index"),
    ("MaxRoiPool", [normal(1, 2, 3, 3), np.full((1, 5), np.nan, np.float32)], dict(pooled_shape=[1, 1]), "index"),
    ("Col2Im", [normal(1, 7, 4), np.array([3, 3]), np.array([2, 2])], {}, "multiple"),
    ("DeformConv", [normal(1, 2, 3, 3), normal(1, 2, 2, 2), normal(1, 3, 2, 2)], {}, "offset"),
    ("LRN", [normal(1, 2, 3, 3)], dict(size=0), "size"),
    ("DepthToSpace", [normal(1, 6, 3, 3)], dict(blocksize=2), "multiple"),
    ("SpaceToDepth", [normal(1, 6, 3, 3)], dict(blocksize=2), "blocks"),
    ("SpaceToDepth", [normal(1, 6, 3, 3)], dict(blocksize=0), "blocksize"),
])  # fmt: skip
def test_what_does_not_fit_is_said(op, inputs, attrs, word):
    with pytest.raises(FastinferError, match=word):
        build(node_model(op, inputs, **attrs)).run({f"x{i}": a for i, a in enumerate(inputs)})
