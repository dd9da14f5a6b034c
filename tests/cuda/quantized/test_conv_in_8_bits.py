# SPDX-License-Identifier: Apache-2.0
"""precision int8 and fp8: convolutions of float models, against float64 within what 8 bits must cost."""

import numpy as np
import pytest
import torch
from cuda_nodes import run_node

from fastinfer.cuda.device import INTERPRET, open_device
from fastinfer.cuda.kernels import conv8
from fastinfer.cuda.kernels.conv_config import runs
from fastinfer.cuda.kernels.conv_epilogue import Epilogue
from fastinfer.cuda.kernels.conv_geometry import window_of
from fastinfer.cuda.kernels.requantize import scaled

RNG = np.random.default_rng(0)
# Root mean square of the error by that of the result. int8: steps of max/127, rounding each operand by step/√12: for normal
# numbers with the largest at 4 σ, 0.9 % each, 1.3 % together. fp8: three bits of mantissa, 2⁻⁴/√3 at most, 2.6 % each, 3.7 %.
# Both with bfloat16 inputs and outputs, 0.2 % each. The interpreter's conversion to fp8 forgets to carry into the exponent: numbers
# just below a power of two come out as half of it.
ERRORS = {"int8": 1.7e-2, "fp8": 8e-2 if INTERPRET else 4.5e-2}


def conv(x, w, b, *, kernel=3, strides=(1, 1), residual=None, after=0, precision="int8", **attrs):
    pads = [kernel // 2] * 4
    inputs = [x, w, b, residual][: 3 if residual is None else 4]
    (y,), steps = run_node(
        "Conv", inputs, domain="fastinfer", constants=(1, 2), precision=precision, channels_last=1, pads=pads,
        strides=list(strides), kernel_shape=[kernel, kernel], residual_after=after, **attrs,
    )  # fmt: skip
    return y, steps


def expected(x, w, b, strides, kernel, residual, after):
    y = torch.nn.functional.conv2d(
        torch.from_numpy(x).double().movedim(-1, 1),
        torch.from_numpy(w).double(),
        torch.from_numpy(b).double(),
        strides,
        kernel // 2,
    ).movedim(1, -1)
    y = y if residual is None or after else y + torch.from_numpy(residual).double()
    y = y.relu()
    return (y if residual is None or not after else y + torch.from_numpy(residual).double()).numpy()


def drawn(*shape, scale=1.0):
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


@pytest.mark.parametrize("precision", ["int8", "fp8"])
@pytest.mark.parametrize(
    ("kernel", "strides", "cin", "cout", "residual"),
    [(3, (1, 1), 32, 96, ""), (3, (1, 1), 48, 90, "before"), (3, (2, 1), 64, 180, ""), (1, (1, 1), 40, 800, "after"), (3, (1, 1), 20, 88, "")],
)  # fmt: skip
def test_accuracy(kernel, strides, cin, cout, residual, precision):
    x, w, b = drawn(2, 4, 5, cin), drawn(cout, cin, kernel, kernel, scale=1 / np.sqrt(cin * kernel**2)), drawn(cout)
    x[1] *= 50  # samples have scales of their own
    want = expected(x, w, b, strides, kernel, None, 0)
    r = drawn(*want.shape) if residual else None
    want = expected(x, w, b, strides, kernel, r, residual == "after")
    y, steps = conv(
        x,
        w,
        b,
        kernel=kernel,
        strides=strides,
        residual=r,
        after=int(residual == "after"),
        activation="relu",
        precision=precision,
    )
    assert any(s.startswith(f"triton_conv8 {precision}") for s in steps), steps
    for sample in range(2):
        error = np.sqrt(np.mean((y[sample] - want[sample]) ** 2) / np.mean(want[sample] ** 2))
        assert error < ERRORS[precision], error


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_a_sample_has_the_same_bits_alone(precision):
    x, w, b = drawn(3, 3, 4, 64), drawn(90, 64, 3, 3, scale=0.05), drawn(90)
    together, _ = conv(x, w, b, precision=precision)
    alone, _ = conv(x[1:2], w, b, precision=precision)
    np.testing.assert_array_equal(together[1], alone[0])


@pytest.mark.parametrize(
    ("shape", "group"), [((16, 3, 3, 3), 1), ((16, 16, 3, 3), 1), ((32, 1, 3, 3), 32), ((96, 32, 3, 3), 2)], ids=str
)
def test_what_stays_in_16_bits(shape, group):
    x, w, b = drawn(1, 4, 4, shape[1] * group), drawn(*shape, scale=0.1), drawn(shape[0])
    _, steps = conv(x, w, b, group=group)
    assert not any(s.startswith("triton_conv8") for s in steps), steps


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("variant", ["tiled", "split"])
def test_sums_of_what_was_quantised(dtype, variant):
    """Operands quantised by torch: what is left is float32's rounding and bfloat16's at the end."""
    device, g = open_device("cuda").torch, torch.Generator().manual_seed(1)
    end, numbers = scaled(Epilogue(True, "before", "silu"))
    window = window_of((3, 3), (3, 3), (3, 3), None, None, (1, 1, 1, 1))
    products = "int8" if dtype == torch.int8 else "fp8"
    p = conv8.Problem(dtype, products, 2, window, 1, 132, 20, torch.bfloat16, end)
    assert runs(p) > 1
    x = (torch.randn(2, 3, 3, 132, generator=g) * 30).to(dtype).to(device)
    w = (torch.randn(20, 132, 3, 3, generator=g) * 30).to(dtype).to(device)
    x_scale, w_scale, bias = (torch.rand(n, generator=g).to(device) * s for n, s in ((2, 0.01), (20, 0.002), (20, 1.0)))
    r = torch.randn(2, 3, 3, 20, generator=g).bfloat16().to(device)
    y = torch.nn.functional.conv2d(x.double().movedim(-1, 1), w.double(), padding=1).movedim(1, -1)
    y = y * x_scale.double()[:, None, None, None] * w_scale.double() + bias.double() + r.double()
    want = y * y.sigmoid()
    c = conv8.Config(16, 16, conv8.block_k(p), 4, 2, variant)
    got = torch.full(want.shape, float("nan"), dtype=torch.bfloat16, device=device)
    partial = torch.full((conv8.workspace(p, c),), 255, dtype=torch.uint8, device=device)
    pad = torch.zeros(conv8.pad_bytes(p), dtype=dtype, device=device)
    conv8.run(x, conv8.lay_out_weights(w, p), pad, got, partial, None, w_scale, None, None, x_scale, None, bias, r,
              problem=p, config=c, numbers=numbers)  # fmt: skip
    bound = 8e-3 if INTERPRET else 4e-3  # the interpreter cuts a bfloat16 off, the device rounds it
    assert float((got.double() - want).abs().max() / want.abs().max()) < bound
