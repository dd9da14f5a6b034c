# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from fastinfer.passes.channels_last import channels_last
from fastinfer.passes.fuse_conv import fuse_conv
from fastinfer.passes.merge_movements import merge_movements

from .graphs import check, parse, random

X = random(2, 4, 8, 6)


def _step(model) -> bool:
    fuse_conv(model)
    channels_last(model)
    return merge_movements(model)


def _model(text: str, x: str = "N,4,8,6", out: str = "O1,O2,O3,O4"):
    constants = {
        "w": random(4, 4, 3, 3), "v": random(4, 4, 1, 1, seed=1), "t": random(4, 4, 2, 2), "k": random(4, 1, 1, seed=2),
        "axes": np.array([2, 3]), "zero": np.array([0]), "one": np.array([1]), "three": np.array([3]),
        "pads": np.array([0, 0, 1, 2, 0, 0, 1, 0]), "scales": np.array([1, 1, 2, 2], np.float32), "flat": np.array([0, -1]),
        "tokens": np.array([0, 4, -1]), "g5": np.array([0, 2, 2, 8, 6]), "g4": np.array([0, 4, 8, 6]), "gamma": random(4),
        "beta": random(4, seed=3),
    }  # fmt: skip
    kinds = {"f": "float", "i": "int64"}
    used = {k: v for k, v in constants.items() if k in text}
    declared = "".join(f", {kinds[v.dtype.kind]}[{','.join(map(str, v.shape))}] {k}" for k, v in used.items())
    return parse(f"g (float[{x}] x{declared}) => (float[{out}] y) {{ {text} }}", **used)


C1, C2 = "a = Conv<pads=[1,1,1,1]>(x, w)", "y = Conv<pads=[1,1,1,1]>(b, w)"
BETWEEN = {
    "nothing": "b = Identity(a)",
    "unary": "b = Erf(a)",
    "constant per channel": "b = Mul(a, k)",
    "two branches": "p = Erf(a) q = Exp(a) b = Sub(p, q)",
    "squeeze and excite": "p = GlobalAveragePool(a) q = Conv(p, v) r = Sigmoid(q) b = Mul(a, r)",
    "mean over pixels": "p = ReduceMean(a, axes) b = Sub(a, p)",
    "concat, split": "p = Concat<axis=1>(a, a) q, b = Split<axis=1, num_outputs=2>(p)",
    "pad": "b = Pad(a, pads)",
    "max pool": "b = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)",
    "average pool": "b = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(a)",
    "resize": 'b = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(a, , scales)',
    "softmax over channels": "b = Softmax<axis=1>(a)",
    "instance norm": "b = InstanceNormalization(a, gamma, beta)",
    "group norm": "b = GroupNormalization<num_groups=2>(a, gamma, beta)",
    "transposed convolution": "b = ConvTranspose<strides=[2,2]>(a, t)",
    "layer norm behind transposes": """p = Transpose<perm=[0,2,3,1]>(a) q = LayerNormalization(p, gamma, beta)
        b = Transpose<perm=[0,3,1,2]>(q)""",
    "depth to space and back": "p = DepthToSpace<blocksize=2>(a) b = SpaceToDepth<blocksize=2>(p)",
}


@pytest.mark.parametrize("name", BETWEEN)
def test_only_the_borders_are_transposed(name: str) -> None:
    text = f"{C1} {BETWEEN[name]} {C2}"
    model = _model(text)
    after = check(model, _step, {"x": X})
    assert after["Transpose"] == 2 and after["fastinfer.Conv"] >= 2


def test_slices_of_channels() -> None:
    model = parse(
        f"""g (float[N,4,8,6] x, float[4,4,3,3] w, int64[1] zero, int64[1] one, int64[1] three, int64[1] four) => (float[A,B,C,D] y) {{
        {C1} p = Slice(a, zero, three, one) q = Slice(a, three, four, one) b = Concat<axis=1>(q, p) {C2} }}""",
        w=random(4, 4, 3, 3), zero=np.array([0]), one=np.array([1]), three=np.array([3]), four=np.array([4]),
    )  # fmt: skip
    after = check(model, _step, {"x": X})
    assert after["Transpose"] == 2 and after["Slice"] == 2


def test_a_channel_shuffle_keeps_one_transpose() -> None:
    model = _model(f"{C1} p = Reshape(a, g5) q = Transpose<perm=[0,2,1,3,4]>(p) b = Reshape(q, g4) {C2}")
    assert check(model, _step, {"x": X})["Transpose"] == 3


@pytest.mark.parametrize(
    "tail",
    [
        "y = ReduceMean<keepdims=0>(a, axes)",
        "p = ReduceMean(a, axes) y = Reshape(p, flat)",
        "p = GlobalAveragePool(a) y = Flatten(p)",
        "p = GlobalMaxPool(a) y = Squeeze(p, axes)",
    ],
)
def test_pooled_classifiers_end_without_a_transpose(tail: str) -> None:
    model = _model(f"{C1} {tail}", out="O1,O2")
    assert check(model, _step, {"x": X})["Transpose"] == 1


def test_tokens_of_a_patch_embedding() -> None:
    model = _model(f"{C1} p = Reshape(a, tokens) y = Transpose<perm=[0,2,1]>(p)", out="O1,O2,O3")
    assert check(model, _step, {"x": X}) == {"Transpose": 1, "fastinfer.Conv": 1, "Reshape": 1}


def test_one_channel_is_reshaped_not_transposed() -> None:
    model = parse(
        "g (float[N,1,8,6] x, float[5,1,3,3] w, int64[2] axes) => (float[A,B] y) { a = Conv(x, w) y = ReduceMean<keepdims=0>(a, axes) }",
        w=random(5, 1, 3, 3), axes=np.array([2, 3]),
    )  # fmt: skip
    assert check(model, _step, {"x": random(2, 1, 8, 6)}) == {"Reshape": 1, "fastinfer.Conv": 1, "ReduceMean": 1}


def test_one_and_three_axes() -> None:
    for extents, kernel in (((9,), (3,)), ((5, 4, 6), (2, 2, 3))):
        letters = ",".join("ABCDE"[: len(extents) + 2])
        model = parse(
            f"""g (float[N,4,{",".join(map(str, extents))}] x, float[4,4,{",".join(map(str, kernel))}] w) => (float[{letters}] y) {{
            a = Conv(x, w) b = Tanh(a) c = Erf(b) y = MaxPool<kernel_shape=[{",".join("2" for _ in extents)}]>(c) }}""",
            w=random(4, 4, *kernel),
        )
        assert check(model, _step, {"x": random(2, 4, *extents)})["Transpose"] == 2


def test_graphs_without_convolutions_are_left_alone() -> None:
    model = _model("p = Transpose<perm=[0,2,3,1]>(x) q = Exp(p) y = Transpose<perm=[0,3,1,2]>(q)")
    assert not channels_last(model)


def test_residuals_and_several_readers() -> None:
    model = _model(
        f"{C1} r = Relu(a) b = Conv<pads=[1,1,1,1]>(r, w) s = Add(b, a) u = Relu(s) y = Concat<axis=1>(u, x)"
    )
    after = check(model, _step, {"x": X})
    assert after["Transpose"] <= 2
