# SPDX-License-Identifier: Apache-2.0
"""fastinfer::QConv and QMatMul against exact sums: residuals, ranges, float outputs; equal bits on every instruction set."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from oracle import conv, to_last
from support import build, check_node, check_same_bits, node_model, run_everywhere

from fastinfer.errors import FastinferError

F = np.float32


def bits(rng, dtype, *shape):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


def quantized(v, zero, low, high):
    return np.clip(np.rint(v) + F(zero), low, high)


def expected(sums, scale, ys, yz, r=None, c=None, low=None, high=None, c_low=None, c_high=None):
    """The contract of Requantize in float32 steps."""
    info = np.iinfo(yz.dtype)
    low, high = info.min if low is None else low, info.max if high is None else high
    if r is not None:
        values, rs, rz = r
        part = (values.astype(F) - F(rz)) * F(rs / ys)
        if c is not None:
            cs, cz = c
            ci = np.iinfo(cz.dtype)
            inner = quantized(sums.astype(F) * (scale / cs).astype(F), cz, ci.min if c_low is None else c_low,
                              ci.max if c_high is None else c_high)  # fmt: skip
            v = (inner - F(cz)) * F(cs / ys) + part
        else:
            v = sums.astype(F) * (scale / ys).astype(F) + part
    else:
        v = sums.astype(F) * (scale / ys).astype(F)
    return quantized(v, yz, low, high).astype(yz.dtype)


CASES = [
    ((2, 7, 9, 70), 67, (3, 3), dict(pads=[1, 1, 1, 1])),
    ((1, 6, 5, 3), 130, (7, 7), dict(pads=[3, 3, 3, 3], strides=[2, 2])),
    ((3, 13, 11, 3), 16, (3, 3), dict(pads=[0, 2, 1, 1], strides=[2, 1])),
    ((1, 9, 8, 5), 8, (3, 5), dict(pads=[1, 1, 1, 1], dilations=[2, 1])),
    ((2, 8, 9, 48), 48, (3, 3), dict(pads=[1, 1, 1, 1], group=48)),
    ((1, 15, 7, 70), 70, (5, 5), dict(pads=[2, 2, 2, 2], strides=[2, 2], group=70)),
    ((2, 7, 9, 96), 96, (3, 3), dict(pads=[1, 1, 1, 1], group=96)),
    ((1, 8, 7, 160), 160, (3, 3), dict(pads=[0, 2, 1, 0], strides=[2, 2], group=160)),
    ((3, 3, 1, 17), 17, (3, 3), dict(pads=[1, 1, 1, 1], strides=[1, 2], group=17)),
    ((1, 5, 6, 32), 32, (3, 3), dict(pads=[2, 3, 2, 3], dilations=[2, 1], group=32)),
    ((1, 9, 11, 72), 72, (5, 5), dict(pads=[2, 2, 2, 2], group=72)),
    ((1, 3, 11, 16), 16, (1, 1), {}),
    ((1, 5, 5, 24), 24, (1, 1), {}),
    ((1, 3, 9, 20), 45, (1, 1), {}),
    ((1, 2, 2, 192), 640, (1, 1), {}),
    ((1, 3, 3, 256), 256, (3, 3), dict(pads=[1, 1, 1, 1])),
    ((0, 3, 3, 8), 8, (3, 3), dict(pads=[1, 1, 1, 1])),
]
TYPES = [(np.uint8, np.uint8, np.uint8), (np.int8, np.int8, np.int8), (np.uint8, np.int8, np.uint8)]


@pytest.mark.parametrize("group", [1, 24])
@pytest.mark.parametrize("residual", [False, True])
def test_scales_that_leave_the_range_of_integers(group, residual):
    """A real value beyond 2^31 saturates on its own side."""
    rng = np.random.default_rng(5)
    x, w = bits(rng, np.uint8, 1, 5, 6, 24), bits(rng, np.int8, 24, 24 // group, 3, 3)
    ws = np.geomspace(1e-6, 1e9, 24).astype(F)
    one, zero = F(1), np.uint8(100)
    sums = to_last(conv(np.moveaxis(x, -1, 1).astype(np.float64), w.astype(np.float64), pads=[1, 1, 1, 1], group=group))
    inputs = [x, one, np.uint8(0), w, ws, np.zeros(24, np.int8), one, zero, None]
    r = bits(rng, np.uint8, *sums.shape)
    inputs += [r, F(1e7), np.uint8(90)] if residual else []
    want = expected(sums, ws, one, zero, (r, F(1e7), np.uint8(90)) if residual else None)
    check_node("QConv", inputs, expected=[want], domain="fastinfer", constants=(3, 4, 5), channels_last=1,
               pads=[1, 1, 1, 1], group=group)  # fmt: skip


@pytest.mark.parametrize("channels", [40, 9])
def test_negative_padding(channels):
    rng = np.random.default_rng(6)
    x, w = bits(rng, np.uint8, 1, 6, 7, channels), bits(rng, np.int8, channels, 1, 3, 3)
    sums = to_last(conv(np.moveaxis(x[:, :, 1:-2], -1, 1).astype(np.float64) - 7, w.astype(np.float64), group=channels))
    inputs = [x, F(0.01), np.uint8(7), w, F(0.1), np.int8(0), F(1), np.uint8(100)]
    check_node("QConv", inputs, expected=[expected(sums, F(0.01) * F(0.1), F(1), np.uint8(100))], domain="fastinfer",
               constants=(3, 4, 5), channels_last=1, pads=[0, -1, 0, -2], group=channels)  # fmt: skip


@pytest.mark.parametrize("form", ["plain", "range", "residual", "inner", "float"])
@pytest.mark.parametrize("types", TYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_conv(case, types, form):
    shape, o, kernel, attrs = case
    xt, yt, rt = types
    rng = np.random.default_rng(len(form) + o)
    x = bits(rng, xt, *shape)
    # Zero points at either end: padding is not 0, and the correction is at its largest.
    xz = np.array(np.iinfo(xt).max if o % 2 else np.iinfo(xt).min, xt)
    w = bits(rng, np.int8, o, shape[-1] // attrs.get("group", 1), *kernel)
    ws, xs = rng.uniform(0.005, 0.02, o).astype(F), F(0.02)
    b = rng.integers(-5000, 5000, o).astype(np.int32)
    s = conv(np.moveaxis(x, -1, 1).astype(np.float64) - float(xz), w.astype(np.float64), b=b, **attrs)
    sums = to_last(s)
    # In the kernel's order of operations; the last bit of a scale can turn a half.
    scale = xs * ws
    ys = F(np.abs(sums * scale).max(initial=1) / 150)
    yz = np.array(np.iinfo(yt).min + (5 if form == "plain" else 100), yt)
    inputs = [x, xs, xz, w, ws, np.zeros(o, np.int8), ys, yz, b]
    extra = {}
    if form == "float":
        want = (sums * scale.astype(np.float64)).astype(F)
        inputs[6] = inputs[7] = None
    elif form == "range":
        extra = dict(low=int(yz), high=int(yz) + 20)
        want = expected(sums, scale, ys, yz, **extra)
    elif form == "plain":
        want = expected(sums, scale, ys, yz)
    else:
        r, rs, rz = bits(rng, rt, *sums.shape), F(ys * 0.7), np.array(np.iinfo(rt).max, rt)
        inputs += [r, rs, rz]
        c = None
        if form == "inner":
            c, extra = (F(ys * 0.9), np.array(60, yt)), dict(c_low=60)
            inputs += list(c)
        want = expected(sums, scale, ys, yz, (r, rs, rz), c, **extra)
    constants = [i for i, v in enumerate(inputs) if i not in (0, 9) and v is not None]
    model_attrs = dict(channels_last=1, kernel_shape=list(kernel), domain="fastinfer", **attrs, **extra)
    if form == "float":
        check_node("QConv", inputs, expected=[want], constants=constants, rtol=1e-5, atol=1e-4, **model_attrs)
    else:
        check_close("QConv", inputs, want, constants, **model_attrs)


def check_close(op, inputs, want, constants, **attrs):
    """Within a step of the numbers, few elements off at all; the same bits on every instruction set."""
    from support import run_everywhere

    model = node_model(op, inputs, constants=constants, **attrs)
    feeds = {f"x{i}": np.asarray(a) for i, a in enumerate(inputs) if a is not None and i not in constants}
    first = None
    for label, (got,) in run_everywhere(model, feeds):
        assert got.dtype == want.dtype and got.shape == want.shape, label
        off = np.abs(got.astype(int) - want.astype(int))
        assert off.max(initial=0) <= 1 and (off != 0).sum() <= 1 + off.size // 1000, label
        first = got if first is None else first
        np.testing.assert_array_equal(got, first, err_msg=label)


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("form", ["plain", "range", "residual", "inner", "float", "bias"])
@pytest.mark.parametrize("m, k, n", [(1, 1, 1), (7, 33, 70), (13, 64, 256), (100, 5, 65), (0, 4, 4), (3, 0, 5)])
def test_matmul(m, k, n, form, constant):
    rng = np.random.default_rng(m + n)
    a, b = bits(rng, np.uint8, 2, m, k), bits(rng, np.int8, k, n)
    za, zb = np.uint8(255 if m % 2 else 0), np.zeros(n, np.int8) if constant else np.int8(-128)
    sums = np.matmul(a.astype(np.int64) - int(za), b.astype(np.int64) - np.asarray(zb, np.int64))
    sa, sb = F(0.02), rng.uniform(0.01, 0.03, n).astype(F)
    scale = sa * sb
    ys, yz = F(max(np.abs(sums * scale).max(initial=0) / 150, 1e-3)), np.uint8(90)
    inputs, extra = [a, sa, za, b, sb, zb, ys, yz], {}
    if form == "bias":
        bias = rng.integers(-5000, 5000, n).astype(np.int32)
        sums = sums + bias
        inputs.append(bias)
    if form == "float":
        inputs[6] = inputs[7] = None
        constants = [i for i in (1, 2, 4, 5) + ((3,) if constant else ())]
        want = (sums * scale.astype(np.float64)).astype(F)
        return check_node("QMatMul", inputs, expected=[want], domain="fastinfer", constants=constants, atol=1e-4)
    r = c = None
    if form in ("residual", "inner"):
        r = (bits(rng, np.int8, *sums.shape), F(ys * 0.5), np.int8(-128))
        c = (F(ys * 0.8), np.int8(10)) if form == "inner" else None
        inputs += [None, *r, *(c or ())]
    if form == "range":
        extra = dict(low=40, high=200)
    want = expected(sums, scale, ys, yz, r, c, **extra)
    constants = [i for i, v in enumerate(inputs) if v is not None and i not in (0, 9) and (constant or i != 3)]
    check_close("QMatMul", inputs, want, constants, domain="fastinfer", **extra)


@pytest.mark.parametrize("group", [1, 24])
def test_same_bits(group):
    rng = np.random.default_rng(2)
    x, w = bits(rng, np.uint8, 5, 9, 9, 24), bits(rng, np.int8, 24, 24 // group, 3, 3)
    one, r = F(0.01), bits(rng, np.uint8, 5, 9, 9, 24)
    inputs = [x, one, np.uint8(3), w, one, np.int8(0), F(0.02), np.uint8(128), None, r, one, np.uint8(9)]
    check_same_bits("QConv", inputs, batch_inputs=(0, 9), domain="fastinfer", constants=(1, 2, 3, 4, 5, 6, 7, 10, 11),
                    channels_last=1, group=group, kernel_shape=[3, 3], pads=[1, 1, 1, 1])  # fmt: skip


@pytest.mark.parametrize("change, words", [
    ({9: np.zeros((1, 4, 4, 5), np.uint8)}, "the residual is"),
    ({9: np.zeros((1, 4, 4, 6), np.float32)}, "the residual is"),
    ({11: np.int8(0)}, "zero point is of another type"),
    ({10: None}, "float32 scales"),
    ({2: np.int8(0)}, "of another type"),
])  # fmt: skip
def test_refused(change, words):
    one = F(0.1)
    inputs = [np.zeros((1, 4, 4, 8), np.uint8), one, np.uint8(0), np.zeros((6, 8, 1, 1), np.int8), one, np.int8(0), one,
              np.uint8(0), None, np.zeros((1, 4, 4, 6), np.uint8), one, np.uint8(0)]  # fmt: skip
    inputs = [change.get(i, v) for i, v in enumerate(inputs)]
    constants = [i for i, v in enumerate(inputs) if v is not None and i not in (0, 9)]
    model = node_model("QConv", inputs, domain="fastinfer", constants=constants, channels_last=1)
    with pytest.raises(FastinferError, match=words):
        build(model).run({"x0": inputs[0], "x9": inputs[9]})


def test_float_bias():
    rng = np.random.default_rng(5)
    a, b = bits(rng, np.uint8, 9, 40), bits(rng, np.int8, 40, 70)
    sa, za, sb, bias = F(0.02), np.uint8(77), rng.uniform(0.01, 0.03, 70).astype(F), rng.standard_normal(70).astype(F)
    want = (np.matmul(a.astype(np.int64) - 77, b.astype(np.int64)) * (sa * sb).astype(np.float64) + bias).astype(F)
    inputs = [a, sa, za, b, sb, np.zeros(70, np.int8), *[None] * 8, bias]
    for constants in ((3, 4, 5, 14), (1, 2, 3, 4, 5, 14), ()):  # dynamic, static, nothing known
        check_node("QMatMul", inputs, expected=[want], domain="fastinfer", constants=constants, atol=1e-4)


@pytest.mark.parametrize("out", [np.uint8, np.int8])
@pytest.mark.parametrize("n", [1, 15, 64, 1000])
def test_pointwise_on_bytes(out, n):
    from onnx import TensorProto

    rng = np.random.default_rng(n)
    x, z = bits(rng, np.uint8, 3, n), bits(rng, np.int8, 3, n)
    v = (x.astype(F) - F(3)) * F(0.5) + z.astype(F)
    info = np.iinfo(out)
    want = np.clip(np.rint(v / F(0.25)) + F(7), info.min, info.max).astype(out)
    inputs = [x, z, F(3), F(0.5), F(0.25), F(7)]
    kind = TensorProto.UINT8 if out == np.uint8 else TensorProto.INT8
    check_node("Pointwise", inputs, expected=[want], domain="fastinfer", ops=["sub", "mul", "add", "quantize"], outputs=[3],
               args=[0, 2, -1, 6, 3, -1, 7, 1, -1, 8, 4, 5], output_type=kind)  # fmt: skip


@pytest.mark.parametrize("out", [np.uint8, np.int8])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("n", [1, 31, 32, 33, 256, 1000])
def test_a_function_of_one_byte(dtype, out, n):
    """By a table, which holds what the program gives."""
    x = np.resize(np.arange(256).astype(np.uint8).view(dtype), (3, n))
    scale, zero, ys = F(0.05), F(7), F(0.04)
    info = np.iinfo(out)
    real = (x.astype(F) - zero) * scale
    want = np.clip(np.rint(np.maximum(real, 0) / ys) + zero, info.min, info.max).astype(out)
    attributes = {"ops": ["sub", "mul", "relu", "quantize"], "outputs": [3], "output_type": 2 if out == np.uint8 else 3,
                  "args": [0, 1, -1, 4, 2, -1, 5, -1, -1, 6, 3, 1]}  # fmt: skip
    check_node(
        "Pointwise", [x, zero, scale, ys], expected=[want], domain="fastinfer", constants=(1, 2, 3), **attributes
    )


def test_bytes_looked_up_in_place_of_a_concatenation():
    """Rows that lie apart, on either side."""
    rng = np.random.default_rng(9)
    x, z = bits(rng, np.uint8, 1, 9, 9, 40), bits(rng, np.uint8, 1, 9, 9, 24)
    constants = [F(0.05), F(7), F(0.04)]
    attributes = dict(ops=["sub", "mul", "quantize"], args=[0, 2, -1, 4, 1, -1, 5, 3, 2], outputs=[2], output_type=2)

    def looked_up(v):
        return np.clip(np.rint((v.astype(F) - F(7)) * F(0.05) / F(0.04)) + F(7), 0, 255).astype(np.uint8)

    def table(value, result):
        node = helper.make_node("Pointwise", [value, "scale", "zero", "ys"], [result], domain="fastinfer")
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        return node

    nodes = [
        table("x", "qx"),
        table("z", "qz"),
        helper.make_node("Concat", ["qx", "qz"], ["c"], axis=3),
        helper.make_node("Split", ["c"], ["s", "t"], axis=3, num_outputs=2),
        table("t", "y"),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(n, TensorProto.UINT8, v.shape) for n, v in (("x", x), ("z", z))],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
        [numpy_helper.from_array(np.asarray(v), n) for v, n in zip(constants, ("scale", "zero", "ys"))],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23), helper.make_opsetid("fastinfer", 1)])
    want = looked_up(np.concatenate([looked_up(x), looked_up(z)], axis=3)[..., 32:])
    for _, (got,) in run_everywhere(model, {"x": x, "z": z}):
        np.testing.assert_array_equal(got, want)
