# SPDX-License-Identifier: Apache-2.0
"""fastinfer.Conv with precision="bf16" against float64 on rounded operands: every path, layout and mixture of types."""

import ml_dtypes
import numpy as np
import pytest
from oracle import conv, to_last
from support import build, check_node, check_same_bits, node_model, run_everywhere
from test_conv import CASES, oracle, tensors

from fastinfer.errors import InputError


def bf16(x):
    return x.astype(ml_dtypes.bfloat16)


def rounded(x):
    return bf16(x).astype(np.float32)


# These stay in float32; Winograd rounds after its transforms instead of before.
FLOAT32 = [n for n in CASES if n.startswith(("depthwise", "multiplier"))]
WINOGRAD = [n for n, (_, c, _, o, k, a) in CASES.items()
            if k == (3, 3) and c >= 24 and o >= 24 and not {"strides", "dilations", "group"} & set(a)]  # fmt: skip


@pytest.mark.parametrize("last", [0, 1], ids=["channels_first", "channels_last"])
@pytest.mark.parametrize("name", [n for n in CASES if n not in WINOGRAD])
def test_against_float64(name, last):
    n, c, size, o, k, attrs = CASES[name]
    x, w, b = tensors(np.random.default_rng(1), n, c, size, o, k, attrs.get("group", 1))
    exact = conv(x, w, b, **attrs) if name in FLOAT32 else conv(rounded(x), rounded(w), b, **attrs)
    want = exact.astype(np.float32)
    if last:
        x, want = to_last(x), to_last(want)
    check_node("Conv", [x, w, b], expected=[want], atol=2e-5, rtol=1e-4, constants=(1, 2), domain="fastinfer",
               channels_last=last, precision="bf16", **attrs)  # fmt: skip


@pytest.mark.parametrize("name", [n for n in CASES if n not in FLOAT32 + WINOGRAD])
@pytest.mark.parametrize("x16, r16, y16", [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_types(name, x16, r16, y16):
    n, c, size, o, k, attrs = CASES[name]
    rng = np.random.default_rng(2)
    x, w, b = tensors(rng, n, c, size, o, k, attrs.get("group", 1))
    y = conv(rounded(x), rounded(w), b, **attrs)
    r = rng.standard_normal(y.shape).astype(np.float32)
    want = to_last(np.maximum(y + (rounded(r) if r16 else r), 0)).astype(np.float32)
    if y16:
        attrs = {**attrs, "output_dtype": "bf16"}
        want = bf16(want)
    x, r = to_last(x), to_last(r)
    check_node("Conv", [bf16(x) if x16 else x, w, b, bf16(r) if r16 else r], expected=[want], constants=(1, 2),
               rtol=8e-3 if y16 else 1e-4, atol=1e-4, domain="fastinfer", channels_last=1, precision="bf16",
               activation="relu", **attrs)  # fmt: skip


@pytest.mark.parametrize("x16, r16, y16", [(0, None, 0), (1, 1, 1), (1, 0, 0), (0, 1, 1)])
@pytest.mark.parametrize("name", WINOGRAD)
def test_winograd_error(name, x16, r16, y16):
    """rms 4e-3 of the standard deviation (float64 model of the rounding: 4.0e-3 to 4.3e-3), on every instruction set."""
    n, c, size, o, k, attrs = CASES[name]
    rng = np.random.default_rng(6)
    x, w, b = tensors(rng, n, c, size, o, k)
    y = conv(x, w, b, **attrs)
    r = None if r16 is None else rng.standard_normal(y.shape).astype(np.float32)
    want = to_last(y + (0 if r is None else rounded(r) if r16 else r))
    inputs = [to_last(v) for v in ((x,) if r is None else (x, r))]
    inputs = [bf16(v) if cut else v for v, cut in zip(inputs, (x16, r16))]
    model = node_model("Conv", [inputs[0], w, b, *inputs[1:]], domain="fastinfer", constants=[1, 2], channels_last=1,
                       precision="bf16", activation="leaky_relu", activation_alpha=1.0,
                       **({"output_dtype": "bf16"} if y16 else {}), **attrs)  # fmt: skip
    for label, (got,) in run_everywhere(model, {"x0": inputs[0]} if r is None else {"x0": inputs[0], "x3": inputs[1]}):
        error = got.astype(np.float64) - want
        assert error.std() < 6e-3 * y.std() and np.abs(error).max() < 4e-2 * y.std(), label


@pytest.mark.parametrize("name", ["pointwise", "direct_small_map", "strided", "stem", "grouped", "winograd"])
def test_same_bits(name):
    _, c, size, o, k, attrs = CASES[name]
    x, w, b = tensors(np.random.default_rng(3), 5, c, size, o, k, attrs.get("group", 1))
    check_same_bits("Conv", [to_last(x), w, b], domain="fastinfer", constants=(1, 2), channels_last=1,
                    precision="bf16", activation="silu", **attrs)  # fmt: skip


def test_empty():
    rng = np.random.default_rng(4)
    for x, w in [((0, 4, 5, 5), (3, 4, 3, 3)), ((1, 0, 5, 5), (3, 0, 3, 3)), ((1, 4, 5, 5), (0, 4, 3, 3))]:
        x, w = rng.standard_normal(x).astype(np.float32), rng.standard_normal(w).astype(np.float32)
        check_node("Conv", [x, w], expected=[oracle(x, w).astype(np.float32)], domain="fastinfer", constants=(1,),
                   precision="bf16")  # fmt: skip


def test_refusals():
    x, w = np.zeros((1, 3, 8, 8), np.float32), np.zeros((4, 3, 3, 3), np.float32)
    model = build(node_model("Conv", [x, w], domain="fastinfer", constants=[1], precision="bf16"))
    with pytest.raises(InputError, match="2 channels"):
        model.run({"x0": x[:, :2]})
    with pytest.raises(InputError, match="float32 or bfloat16"):
        build(node_model("Conv", [x.astype(np.float64), w], domain="fastinfer", constants=[1], precision="bf16")).run(
            {"x0": x.astype(np.float64)}
        )
