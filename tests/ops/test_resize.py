# SPDX-License-Identifier: Apache-2.0
"""Resize against onnx.reference: every mode, coordinate transformation and rounding, both layouts."""

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from oracle import to_last
from support import build, check_node, check_same_bits, node_model

from fastinfer.errors import FastinferError

COORDINATES = [
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
]
NEAREST = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]


def f32(*v):
    return np.array(v, np.float32)


def check(x, *, roi=None, scales=None, sizes=None, last=True, **attrs):
    """Both layouts; x is [N, C, H, W]."""
    inputs = [x, roi, None if scales is None else f32(*scales), None if sizes is None else np.array(sizes, np.int64)]
    while inputs[-1] is None:
        inputs.pop()
    constants = tuple(range(1, len(inputs)))
    model = node_model("Resize", inputs, constants=tuple(i for i in constants if inputs[i] is not None), **attrs)
    want = ReferenceEvaluator(model).run(None, {"x0": x})[0]
    constants = tuple(i for i in constants if inputs[i] is not None)
    atol = 2e-5 * max(1.0, float(np.abs(x).max()))
    check_node("Resize", inputs, expected=[want], constants=constants, rtol=2e-5, atol=atol, **attrs)
    if last:
        check_node("Resize", [to_last(x), *inputs[1:]], expected=[to_last(want)], constants=constants, rtol=2e-5, atol=atol,
                   domain="fastinfer", channels_last=1, **attrs)  # fmt: skip


def image(*shape):
    return np.random.default_rng(0).standard_normal(shape, np.float32)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["linear", "cubic", *NEAREST])
def test_modes(mode, coordinates):
    x = image(2, 5, 6, 7)
    attrs = dict(coordinate_transformation_mode=coordinates, mode=mode)
    if mode in NEAREST:
        attrs.update(mode="nearest", nearest_mode=mode)
    if coordinates == "tf_crop_and_resize":
        attrs.update(extrapolation_value=7.5)
        roi = f32(0, 0, 0.25, -0.125, 1, 1, 0.75, 1.25)
    else:
        roi = None
    for scales in ([1, 1, 2, 2], [1, 1, 0.6, 0.79], [1, 1, 1.7, 0.4], [1, 1, 1, 3]):
        check(x, scales=scales, roi=roi, **attrs)
    for sizes in ([2, 5, 3, 14], [2, 5, 1, 1], [2, 5, 13, 5]):
        check(x, sizes=sizes, roi=roi, **attrs)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("exclude", [0, 1])
def test_antialias_and_exclude_outside(mode, exclude):
    x = image(1, 3, 12, 15)
    for antialias in (0, 1):
        for sizes in ([1, 3, 5, 6], [1, 3, 24, 4], [1, 3, 1, 15]):
            check(x, sizes=sizes, mode=mode, antialias=antialias, exclude_outside=exclude, cubic_coeff_a=-0.5)


def test_axes_policies_and_other_ranks():
    x = image(2, 5, 6, 7)
    doubled = np.repeat(np.repeat(x, 2, 2), 3, 3)
    check_node(
        "Resize", [x, None, f32(3, 2)], expected=[doubled], axes=[-1, -2]
    )  # onnx.reference knows no negative axes
    for axes in ([2, 3], [3, 2]):
        check(x, sizes=[9, 4], axes=axes, mode="linear")
        check(x, scales=[1.5, 2], axes=axes, mode="nearest")
    for policy in ("not_larger", "not_smaller"):
        check(x, sizes=[9, 8], axes=[2, 3], mode="linear", keep_aspect_ratio_policy=policy)
    check(x, scales=[1, 2, 1.5, 0.5], mode="linear")
    check(x, scales=[2, 1, 1, 3], mode="cubic")
    for shape, scales in [
        ((4, 3, 9), [1, 1, 2.5]),
        ((2, 3, 4, 5, 6), [1, 1, 2, 0.5, 1.5]),
        ((6, 7), [2, 0.5]),
        ((9,), [1.4]),
    ]:
        check(image(*shape), scales=scales, mode="linear", last=len(shape) > 2)
        check(image(*shape), scales=scales, mode="nearest", last=len(shape) > 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.float64, np.int32, np.float16])
def test_other_types(dtype):
    x = (image(1, 3, 6, 7) * 50).astype(dtype)
    check(x, scales=[1, 1, 2, 3], mode="nearest")
    if np.dtype(dtype).itemsize == 1:
        check(x, scales=[1, 1, 2, 2], mode="linear")  # weights of 1/4 and 3/4: exact in float32
        check(x, scales=[1, 1, 2, 2], mode="linear", coordinate_transformation_mode="asymmetric")


def test_no_change_is_no_copy_and_empty():
    x = image(1, 3, 4, 5)
    check_node("Resize", [x, None, f32(1, 1, 1, 1)], expected=[x], mode="linear")
    m = build(node_model("Resize", [x, None, f32(1, 1, 0.1, 1)], constants=(2,), mode="linear"))
    assert m(x).shape == (1, 3, 0, 5)


def test_sizes_at_run_time():
    x = image(1, 2, 4, 4)
    m = build(node_model("Resize", [x, None, None, np.array([1, 2, 8, 8])], mode="nearest"))
    for s in ([1, 2, 8, 8], [1, 2, 2, 6]):
        assert m.run({"x0": x, "x3": np.array(s)})["y0"].shape == tuple(s)


@pytest.mark.parametrize("mode", ["linear", "cubic", "nearest"])
def test_same_bits(mode):
    x = np.random.default_rng(1).standard_normal((7, 9, 10, 24), np.float32)
    check_same_bits(
        "Resize", [x, None, f32(1, 1, 2, 2)], constants=(2,), domain="fastinfer", channels_last=1, mode=mode
    )


@pytest.mark.parametrize("extra,attrs,word", [
    ([None, f32(1, 1, 2)], {}, "scales has 3"), ([None, f32(1, 1, -2, 1)], {}, "not positive"), ([None, f32(1, 1, np.nan, 1)], {}, "not positive"),
    ([None, None, np.array([1, 1, -2, 1])], {}, "out of range"), ([None, f32(1, 1, 1e30, 1)], {}, "too large"), ([], {}, "exactly one"),
    ([None, f32(1, 1, 2, 2)], dict(mode="magic"), "magic"), ([None, f32(2, 2)], dict(axes=[2, 2]), "twice"),
    ([None, f32(1, 1, 2, 2)], dict(coordinate_transformation_mode="tf_crop_and_resize"), "roi"),
])  # fmt: skip
def test_what_does_not_fit_is_said(extra, attrs, word):
    x = image(1, 2, 3, 4)
    inputs = [x, *extra]
    with pytest.raises(FastinferError, match=word):
        m = build(
            node_model(
                "Resize", inputs, constants=tuple(i for i in range(1, len(inputs)) if inputs[i] is not None), **attrs
            )
        )
        m(x)
