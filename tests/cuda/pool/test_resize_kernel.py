# SPDX-License-Identifier: Apache-2.0
"""Resizing against onnx.reference in float64."""

import numpy as np
import pytest
import torch
from cuda_nodes import on_device
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from fastinfer.cuda.kernels import resize

COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
ROUNDINGS = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")


def reference(x, sizes, **attributes):
    """x: [N, H, W, C]"""
    value = helper.make_tensor_value_info
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], **attributes)
    graph = helper.make_graph([node], "g", [value("x", TensorProto.DOUBLE, None), value("sizes", TensorProto.INT64, None)], [value("y", TensorProto.DOUBLE, None)])  # fmt: skip
    planes = np.moveaxis(x, -1, 1)
    feeds = {"x": planes, "sizes": np.array([*planes.shape[:2], *sizes], np.int64)}
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    return np.moveaxis(ReferenceEvaluator(model).run(None, feeds)[0], 1, -1)


def computed(x, sizes, mode, coordinates, rounding, config):
    axes = [resize.axis_of(x.shape[1 + i], sizes[i], coordinates, rounding) for i in range(2)]
    problem = resize.Problem(mode, x.dtype, x.shape[0], x.shape[3], *axes)
    y = torch.full((x.shape[0], *sizes, x.shape[3]), float("nan"), dtype=x.dtype)
    on_device(resize.run, x, y, problem=problem, config=config)
    return y


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("sizes", [(6, 10), (2, 7), (1, 1)])
def test_linear(coordinates, sizes):
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 5, 12)))
    expected = reference(x.numpy(), sizes, mode="linear", coordinate_transformation_mode=coordinates)
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        y = computed(x.to(dtype), sizes, "linear", coordinates, "", resize.Config(16, 16, 4))
        assert np.linalg.norm(y.double().numpy() - expected) / np.linalg.norm(expected) < bound


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_nearest_indices(coordinates, rounding):
    """The fractions of integers against the definition in exact arithmetic; scales of 2, 3 and others, up and down."""
    from fractions import Fraction as Q

    half = Q(1, 2)
    for size, out in ((4, 8), (5, 15), (6, 3), (7, 5), (5, 7), (9, 3), (3, 1)):
        axis = resize.axis_of(size, out, coordinates, rounding)
        for o in range(out):
            scale = Q(out, size)
            at = {
                "half_pixel": (o + half) / scale - half, "asymmetric": o / scale,
                "align_corners": Q(o * (size - 1), max(out - 1, 1)), "pytorch_half_pixel": (o + half) / scale - half if out > 1 else Q(0),
            }[coordinates]  # fmt: skip
            floor, ceil = at.__floor__(), at.__ceil__()
            nearest = {"floor": floor, "ceil": ceil, "round_prefer_floor": (at - half).__ceil__(), "round_prefer_ceil": (at + half).__floor__()}[rounding]  # fmt: skip
            got = min(max(o * axis.a + axis.b, 0), (size - 1) * axis.c) // axis.c
            assert got == min(max(nearest, 0), size - 1), (size, out, o)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("sizes", "coordinates", "rounding"),
    [((6, 10), "asymmetric", "floor"), ((7, 3), "half_pixel", "round_prefer_floor")],
)
def test_nearest(sizes, coordinates, rounding, dtype):
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 5, 12))).to(dtype)
    y = computed(x, sizes, "nearest", coordinates, rounding, resize.Config(16, 8, 4))
    expected = reference(
        x.double().numpy(), sizes, mode="nearest", coordinate_transformation_mode=coordinates, nearest_mode=rounding
    )
    assert np.array_equal(y.double().numpy(), expected)


def test_what_is_declined():
    assert resize.axis_of(4, 8, "tf_crop_and_resize", "floor") is None
    assert resize.axis_of(1 << 15, 1 << 15, "asymmetric", "floor") is None
