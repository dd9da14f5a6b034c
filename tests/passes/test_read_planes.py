# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from fastinfer.passes.channels_last import channels_last
from fastinfer.passes.fuse_conv import fuse_conv
from fastinfer.passes.read_planes import read_planes

from .graphs import check, parse, random


def _step(model) -> bool:
    fuse_conv(model)
    channels_last(model)
    return read_planes(model)


def _model(channels: int, kernel: int, text: str):
    w = random(6, channels, kernel, kernel)
    kinds = f"float[N,{channels},9,8] x, float[6,{channels},{kernel},{kernel}] w"
    return parse(f"g ({kinds}) => (float[A,B,C,D] y) {{ {text} }}", w=w)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_the_transpose_of_an_image_goes(channels):
    model = _model(channels, 3, "c = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w) y = Relu(c)")
    left = check(model, _step, {"x": random(2, channels, 9, 8)})
    assert left["Transpose"] == 1 and left["fastinfer.Conv"] == 1  # of the result


@pytest.mark.parametrize(
    ("channels", "kernel", "text"),
    [
        (5, 3, "y = Conv(x, w)"),
        (3, 1, "y = Conv(x, w)"),
        (3, 3, "y = Conv<dilations=[2,2]>(x, w)"),
        (3, 3, "a = Conv(x, w) b = Conv<strides=[1,1], pads=[0,0,0,0]>(x, w) y = Add(a, b)"),
    ],
    ids=["many channels", "pointwise", "dilated", "two readers"],
)
def test_what_keeps_its_transpose(channels, kernel, text):
    model = _model(channels, kernel, text)
    fuse_conv(model)
    channels_last(model)
    assert not read_planes(model)
