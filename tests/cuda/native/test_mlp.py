# SPDX-License-Identifier: Apache-2.0
"""kernels/tiny/mlp.cu: partition, padding and order of sums on the host against float64; the machine code; a device's results."""

import cuda_binary as binary
import pytest
import torch

from fastinfer import InputError
from fastinfer.cuda import native

_cuda = pytest.importorskip("fastinfer._cuda", reason="built without a CUDA compiler")

FORMS = {
    "": lambda v: v,
    "relu": torch.relu,
    "gelu": torch.nn.functional.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": torch.nn.functional.silu,
}


def chain(m, widths, dtype=torch.float32, activations=("relu",)):
    """(x, layers, the result in float64)"""
    r = torch.Generator().manual_seed(sum(widths) + m)
    x = torch.randn((m, widths[0]), generator=r).to(dtype)
    layers, y = [], x.double()
    for i, (before, after) in enumerate(zip(widths, widths[1:])):
        w = (torch.randn((after, before), generator=r) / before**0.5).to(dtype)
        b = torch.randn(after, generator=r).to(dtype) if i % 3 != 2 else None
        name = activations[i % len(activations)]
        layers.append((native.mlp_weights(w), b, name))
        y = FORMS[name](y @ w.double().T + (0 if b is None else b.double()))
    return x, layers, y


@pytest.mark.parametrize(
    "m,widths",
    [(1, [4, 3]), (3, [13, 64, 64, 5]), (9, [784, 100, 30, 10]), (2, [8, 1, 257, 8, 2]), (1, [1030, 512, 16])],
)
def test_against_float64(m, widths):
    x, layers, expected = chain(m, widths, activations=tuple(FORMS))
    y = torch.full(expected.shape, float("nan"))
    native.mlp_on_host(x, layers, y)  # raises if a feature is written twice, or not
    assert float((y.double() - expected).norm() / expected.norm()) < 1e-6


def test_activations_are_in_the_order_of_the_enum():
    assert tuple(FORMS) == native.ACTIVATIONS


def test_blocks_follow_the_widest_layer():
    blocks = lambda *widths: native._mlp(*_with_output(*chain(1, list(widths)))).blocks  # noqa: E731
    assert [blocks(8, 8), blocks(33, 8), blocks(8, 65, 3), blocks(2000, 10)] == [1, 2, 4, 8]
    of_many = lambda m: native._mlp(*_with_output(*chain(m, [2000, 10]))).blocks  # noqa: E731
    assert [of_many(128), of_many(136), of_many(600)] == [8, 4, 1]  # no more than the chip's SMs


def _with_output(x, layers, expected):
    return x, layers, torch.empty(expected.shape)


def test_what_is_refused():
    x, layers, y = _with_output(*chain(2, [8, 16, 4]))
    with pytest.raises(ValueError, match="layer 0 takes 9 features"):
        native.mlp_on_host(torch.zeros(2, 9), layers, y)
    with pytest.raises(ValueError, match="the result is"):
        native.mlp_on_host(x, layers, torch.zeros(2, 5))
    with pytest.raises(InputError, match="17 layers; needed: 1 to 16"):
        native.mlp_on_host(*_with_output(*chain(1, [8] * 18)))


def test_machine_code():
    names = binary.kernels("mlp_kernel")
    assert len(names) == 3
    for name in names:
        code, used = binary.instructions()[name], binary.resources()[name]
        assert used.registers * 256 <= 65536 and used.stack == 0, (name, used)
        assert sum(i.startswith("LDG.E.128") for i in code) >= 4, name  # four features' weights, 16 bytes a lane
        assert sum(i.startswith("SHFL.BFLY") for i in code) % 31 == 0, name
        assert any(i.startswith("UCGABAR") for i in code), name  # barriers of the cluster


@pytest.mark.gpu
@pytest.mark.parametrize("dtype,limit", [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("m,widths", [(1, [784, 512, 256, 10]), (33, [13, 64, 64, 5]), (8, [1024, 2048, 3])])
def test_on_a_device(dtype, limit, m, widths):
    x, layers, expected = chain(m, widths, dtype, tuple(FORMS))
    moved = [(w.cuda(), None if b is None else b.cuda(), name) for w, b, name in layers]
    y = torch.full(expected.shape, float("nan"), dtype=dtype, device="cuda")
    native.mlp(x.cuda(), moved, y)
    assert float((y.cpu().double() - expected).norm() / expected.norm()) < limit
