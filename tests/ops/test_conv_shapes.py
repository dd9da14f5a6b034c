# SPDX-License-Identifier: Apache-2.0
"""Conv over many window shapes in both layouts; FusedConv; saving; refusals. See also test_conv.py."""

import numpy as np
import pytest
from oracle import conv, to_last
from support import build, check_node, check_same_bits, node_model

from fastinfer.errors import FastinferError


def normal(rng, *shape):
    return rng.standard_normal(shape, np.float32)


def check(
    x, w, b=None, residual=None, *, last=False, constants=(1,), act=None, attrs=None, conv_args=None, after=0, rtol=2e-5
):
    """Conv on NCHW arrays, in the standard form or as fastinfer::Conv channels last."""
    want = conv(x, w, b, **(conv_args or {}))
    f = act or (lambda v: v)
    if residual is not None:
        want = f(want) + residual if after else f(want + residual)
    else:
        want = f(want)
    want = want.astype(np.float32)
    attrs = {**(conv_args or {}), **(attrs or {})}
    if not last and residual is None and act is None:
        inputs, domain = [x, w] + ([b] if b is not None else []), ""
    else:
        inputs, domain = [x, w, b, residual], "fastinfer"
        while inputs[-1] is None:
            inputs.pop()
        if last:
            inputs[0], want, attrs["channels_last"] = to_last(x), to_last(want), 1
            if residual is not None:
                inputs[3] = to_last(residual)
        if residual is not None:
            attrs["residual_after"] = after
    scale = float(np.abs(want).max()) if want.size else 1.0
    check_node(
        "Conv",
        inputs,
        expected=[want],
        domain=domain,
        constants=constants,
        rtol=rtol,
        atol=rtol * max(scale, 1),
        **attrs,
    )


SHAPES = [
    # n, c, spatial, o, kernel, strides, pads, dilations, group
    (1, 8, (7, 7), 8, (1, 1), None, None, None, 1),
    (3, 40, (9, 5), 70, (1, 1), [2, 2], None, None, 1),
    (2, 3, (17, 19), 20, (7, 7), [2, 2], [3, 3, 3, 3], None, 1),
    (1, 1, (12, 33), 5, (3, 3), None, [1, 1, 1, 1], None, 1),
    (2, 4, (11, 13), 33, (3, 5), [2, 1], [0, 2, 1, 3], [1, 1], 1),
    (1, 65, (10, 11), 130, (3, 3), None, [1, 1, 1, 1], None, 1),
    (2, 17, (13, 12), 19, (3, 3), [2, 3], [2, 0, 1, 2], [2, 3], 1),
    (1, 300, (7, 7), 96, (3, 3), None, [1, 1, 1, 1], None, 1),
    (1, 2000, (3, 4), 24, (1, 2), None, None, None, 1),
    (2, 24, (8, 8), 36, (3, 3), None, [1, 1, 1, 1], None, 3),
    (1, 32, (6, 7), 64, (3, 3), [2, 2], [1, 1, 1, 1], None, 8),
    (2, 6, (5, 5), 6, (3, 3), None, [1, 1, 1, 1], None, 6),
    (1, 96, (15, 16), 96, (3, 3), [2, 2], [1, 1, 1, 1], None, 96),
    (1, 35, (14, 20), 35, (5, 5), None, [2, 2, 2, 2], None, 35),
    (2, 20, (9, 30), 20, (5, 5), [2, 2], [2, 1, 2, 3], None, 20),
    (1, 48, (9, 9), 48, (7, 7), None, [3, 3, 3, 3], None, 48),
    (1, 90, (9, 11), 90, (3, 3), None, [2, 2, 2, 2], [2, 2], 90),
    (1, 10, (9, 11), 30, (3, 3), None, [1, 1, 1, 1], None, 10),
    (1, 12, (6, 6), 12, (9, 2), [1, 2], [4, 0, 4, 1], None, 12),
    (2, 5, (23,), 7, (3,), [2], [1, 2], None, 1),
    (1, 80, (50,), 48, (3,), None, [1, 1], None, 1),
    (1, 9, (50,), 9, (4,), None, [3, 0], [2], 9),
    (2, 3, (5, 6, 7), 10, (3, 2, 3), [1, 2, 1], [1, 0, 1, 1, 0, 1], None, 1),
    (1, 32, (4, 5, 6), 32, (3, 3, 3), None, [1] * 6, None, 32),
    (1, 18, (4, 5, 6), 6, (2, 3, 3), [2, 1, 2], [1] * 6, [1, 2, 1], 3),
    (1, 4, (3, 3), 4, (3, 3), None, [3, 3, 3, 3], None, 1),
]  # fmt: skip


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_conv_shapes(case, last):
    n, c, spatial, o, kernel, strides, pads, dilations, group = case
    rng = np.random.default_rng(1)
    args = {
        k: v for k, v in dict(strides=strides, pads=pads, dilations=dilations, group=group).items() if v is not None
    }
    x, w, b = normal(rng, n, c, *spatial), normal(rng, o, c // group, *kernel), normal(rng, o)
    check(x, w, b, last=last, conv_args=args)


@pytest.mark.parametrize("seed", range(12))
def test_conv_random(seed):
    rng = np.random.default_rng(seed)
    dims = int(rng.integers(1, 4))
    group = int(rng.choice([1, 1, 2, 5]))
    kernel = [int(k) for k in rng.integers(1, 5, dims)]
    args = dict(strides=[int(v) for v in rng.integers(1, 4, dims)], dilations=[int(v) for v in rng.integers(1, 3, dims)],
                pads=[int(v) for v in rng.integers(0, 3, 2 * dims)], group=group)  # fmt: skip
    spatial = [int(v) for v in rng.integers(9, 15, dims)]
    c, o = group * int(rng.integers(1, 40)), group * int(rng.integers(1, 40))
    x, w = normal(rng, int(rng.integers(1, 4)), c, *spatial), normal(rng, o, c // group, *kernel)
    check(x, w, None, last=bool(seed % 2), conv_args=args, constants=(1,) if seed % 3 else ())


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


ACTIVATIONS = [
    ("relu", {}, lambda v: np.maximum(v, 0)),
    ("clip", dict(activation_alpha=0.0, activation_beta=6.0), lambda v: np.clip(v, 0, 6)),
    ("silu", {}, lambda v: v * sigmoid(v)),
    ("leaky_relu", dict(activation_alpha=0.1), lambda v: np.where(v < 0, 0.1 * v, v)),
    ("hard_swish", {}, lambda v: v * np.clip(v / 6 + 0.5, 0, 1)),
]


@pytest.mark.parametrize("group", [1, 40], ids=["full", "depthwise"])
@pytest.mark.parametrize("kernel", [1, 3, 4])
@pytest.mark.parametrize("name,params,f", ACTIVATIONS, ids=[a[0] for a in ACTIVATIONS])
def test_fused(name, params, f, kernel, group):
    rng = np.random.default_rng(2)
    x, w, b = normal(rng, 2, 40, 9, 10), normal(rng, 40, 40 // group, kernel, kernel), normal(rng, 40)
    pads = [kernel // 2, kernel // 2, (kernel - 1) // 2, (kernel - 1) // 2]
    r = normal(rng, 2, 40, 9, 10)
    common = dict(act=f, attrs=dict(activation=name, **params), conv_args=dict(pads=pads, group=group))
    for last in (False, True):
        check(x, w, b, last=last, **common)
        for after in (0, 1):
            check(x, w, b, r, last=last, after=after, **common)


def test_auto_pad_and_empty():
    rng = np.random.default_rng(3)
    x, w = normal(rng, 1, 3, 8, 9), normal(rng, 4, 3, 3, 2)
    for mode, pads in [("SAME_UPPER", [0, 0, 1, 1]), ("SAME_LOWER", [1, 1, 0, 0])]:
        want = conv(x, w, pads=pads, strides=[2, 2] if mode == "SAME_UPPER" else [2, 2])
        want = want[:, :, :4, :5]
        check_node(
            "Conv", [x, w], expected=[want.astype(np.float32)], rtol=1e-4, atol=1e-4, auto_pad=mode, strides=[2, 2]
        )
    check_node("Conv", [x, w], expected=[conv(x, w).astype(np.float32)], rtol=1e-4, atol=1e-4, auto_pad="VALID")
    check_node("Conv", [x[:0], w], expected=[np.zeros((0, 4, 6, 8), np.float32)])
    check_node("Conv", [x, w[:0]], expected=[np.zeros((1, 0, 6, 8), np.float32)])


def test_fused_conv_of_com_microsoft():
    rng = np.random.default_rng(4)
    x, w, b, z = normal(rng, 1, 8, 6, 6), normal(rng, 5, 8, 3, 3), normal(rng, 5), normal(rng, 1, 5, 4, 4)
    y = conv(x, w, b)
    for name, params, f in [("Relu", [], lambda v: np.maximum(v, 0)), ("LeakyRelu", [0.2], lambda v: np.where(v < 0, 0.2 * v, v)),
                            ("Clip", [-1.0, 2.0], lambda v: np.clip(v, -1, 2)), ("Tanh", [], np.tanh)]:  # fmt: skip
        attrs = dict(activation=name, **({"activation_params": params} if params else {}))
        check_node(
            "FusedConv",
            [x, w, b],
            expected=[f(y).astype(np.float32)],
            domain="com.microsoft",
            rtol=1e-4,
            atol=1e-4,
            **attrs,
        )
        check_node("FusedConv", [x, w, b, z], expected=[f(y + z).astype(np.float32)], domain="com.microsoft", rtol=1e-4,
                   atol=1e-4, **attrs)  # fmt: skip


@pytest.mark.parametrize("case", [(3, 24, 7, 1, (12, 12)), (32, 70, 3, 1, (7, 7)), (64, 64, 3, 1, (17, 9)), (96, 96, 3, 96, (14, 14)),
                                  (48, 48, 3, 6, (9, 9)), (100, 40, 1, 1, (5, 5)), (600, 64, 3, 1, (6, 6))])  # fmt: skip
def test_same_bits(case):
    c, o, k, group, spatial = case
    rng = np.random.default_rng(5)
    x, w, b = normal(rng, 7, *spatial, c), normal(rng, o, c // group, k, k), normal(rng, o)
    check_same_bits("Conv", [x, w, b], domain="fastinfer", constants=(1, 2), channels_last=1, pads=[k // 2] * 4, group=group,
                    activation="silu")  # fmt: skip


def test_weights_survive_saving_for_another_instruction_set(tmp_path):
    import fastinfer as fi
    from fastinfer import _core

    rng = np.random.default_rng(6)
    for group, o in [(1, 20), (2, 20), (8, 8)]:
        x, w = normal(rng, 1, 8, 6, 6), normal(rng, o, 8 // group, 3, 3)
        m = build(node_model("Conv", [x, w], constants=(1,), group=group))
        m.save(tmp_path / "m.safetensors")
        try:
            for isa in ("baseline", "avx2"):
                if isa == "avx2" and _core.detected_isa() == "baseline":
                    continue
                _core.force_isa(isa)
                y = fi.load(tmp_path / "m.safetensors")(x)
                np.testing.assert_allclose(y, conv(x, w, group=group), rtol=1e-4, atol=1e-4)
        finally:
            _core.force_isa(_core.detected_isa())


@pytest.mark.parametrize("shapes,attrs,word", [
    ([(1, 4, 5, 5), (2, 3, 3, 3)], {}, "channels"), ([(1, 4, 5, 5), (2, 4, 7, 3)], {}, "does not fit"),
    ([(1, 4, 5, 5), (2, 4, 3)], {}, "does not fit"), ([(1, 4, 5, 5), (3, 2, 3, 3)], dict(group=2), "groups"),
    ([(1, 4, 5, 5), (2, 4, 3, 3)], dict(strides=[0, 1]), "strides|positive"), ([(1, 4, 5, 5), (2, 4, 3, 3)], dict(pads=[1, 1]), "pads"),
    ([(1, 4, 5, 5), (2, 4, 3, 3), (3,)], {}, "bias"), ([(1, 4, 5, 5), (2, 4, 3, 3)], dict(auto_pad="MAYBE"), "MAYBE"),
    ([(1, 4, 5, 5), (2, 4, 3, 3)], dict(group=0), "group"), ([(1, 4, 5, 5), (2, 4, 3, 3)], dict(kernel_shape=[2, 2]), "kernel_shape"),
    ([(1, 4, 5, 5), (2, 4, 3, 3)], dict(pads=[2**40] * 4), "pads"),
])  # fmt: skip
def test_bad_conv_is_refused(shapes, attrs, word):
    arrays = [np.zeros(s, np.float32) for s in shapes]
    with pytest.raises(FastinferError, match=word):
        build(node_model("Conv", arrays, **attrs)).run({f"x{i}": a for i, a in enumerate(arrays)})
