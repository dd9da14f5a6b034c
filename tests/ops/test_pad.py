# SPDX-License-Identifier: Apache-2.0
"""Pad in all modes against numpy."""

import numpy as np
import pytest
from support import build, check_node, node_model

from fastinfer.errors import FastinferError


def crop_and_pad(x, begin, end, mode, value=0):
    """Negative pads crop first."""
    inner = x[tuple(slice(max(-b, 0), x.shape[k] + min(e, 0)) for k, (b, e) in enumerate(zip(begin, end, strict=True)))]
    width = [(max(b, 0), max(e, 0)) for b, e in zip(begin, end, strict=True)]
    return np.pad(inner, width, mode, **({"constant_values": value} if mode == "constant" else {}))


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
@pytest.mark.parametrize("seed", range(25))
def test_pad_random(seed, mode):
    rng = np.random.default_rng(seed)
    shape = tuple(int(d) for d in rng.integers(2, 8, rng.integers(1, 5)))
    dtype = [np.float32, np.int8, np.float64, np.float16, np.int64][seed % 5]
    x = rng.integers(-50, 50, shape).astype(dtype)
    pads = np.zeros((2, len(shape)), np.int64)
    for k in rng.permutation(len(shape))[: rng.integers(1, len(shape) + 1)]:
        pads[:, k] = rng.integers(-1 if rng.random() < 0.3 else 0, 12 if rng.random() < 0.2 else 3, 2)
    value = np.array(7, dtype) if seed % 2 and mode == "constant" else None
    expected = crop_and_pad(x, *pads, mode, 0 if value is None else value)
    check_node("Pad", [x, pads.reshape(-1), value], expected=[expected], mode=mode)


def test_pad_axes():
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    value, pads, axes = np.float32(-1), np.array([1, 2, 0, 1]), np.array([2, -3])
    want = np.pad(x, [(2, 1), (0, 0), (1, 0)], constant_values=-1)
    check_node("Pad", [x, pads, value, axes], expected=[want])
    check_node(
        "Pad",
        [x, pads, None, axes.astype(np.int32)],
        expected=[np.pad(x, [(2, 1), (0, 0), (1, 0)], "edge")],
        mode="edge",
    )


def test_pad_convolution_sized():
    x = np.random.default_rng(0).standard_normal((2, 9, 56, 56), np.float32)
    for mode in ["constant", "reflect"]:
        pads = np.array([0, 0, 1, 3, 0, 0, 2, 1])
        check_node("Pad", [x, pads], expected=[np.pad(x, [(0, 0), (0, 0), (1, 2), (3, 1)], mode)], mode=mode)


def test_pad_empty_and_more_than_everything():
    check_node("Pad", [np.zeros((0, 3), np.float32), np.array([2, 0, 0, 1])], expected=[np.zeros((2, 4), np.float32)])
    x = np.arange(3, dtype=np.float32)
    check_node("Pad", [x, np.array([-2, -1])], expected=[x[:0]])
    check_node("Pad", [x, np.array([5, -7])], expected=[np.zeros(1, np.float32)])
    check_node("Pad", [x, np.array([-1, 1])], expected=[np.array([1, 2, 2], np.float32)], mode="edge")
    check_node("Pad", [x[:1], np.array([2, 3])], expected=[np.zeros(6, np.float32)], mode="reflect")


@pytest.mark.parametrize("shape,pads,mode,word", [
    ((3,), [1], "constant", "pads"), ((3,), [-2, -2], "constant", "nothing"), ((3,), [1, 1], "mirror", "mirror"),
    ((0,), [1, 1], "edge", "nothing"), ((3,), [2**62, 2**62], "constant", "pads"), ((3, 3), [2**40, 2**40, 0, 0], "edge", "elements"),
])  # fmt: skip
def test_pad_bad(shape, pads, mode, word):
    feeds = {"x0": np.zeros(shape, np.float32), "x1": np.array(pads, np.int64)}
    with pytest.raises(FastinferError, match=word):
        build(node_model("Pad", list(feeds.values()), mode=mode)).run(feeds)
