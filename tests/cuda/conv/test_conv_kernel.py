# SPDX-License-Identifier: Apache-2.0
"""The implicit matrix product against torch in float64: geometries, modes, variants, epilogues, dtypes."""

import dataclasses

import numpy as np
import pytest
import torch
from conv_cases import Case, check, computed, error, tiny

from fastinfer.cuda.device import INTERPRET
from fastinfer.cuda.kernels import conv
from fastinfer.cuda.kernels.conv_epilogue import Epilogue
from fastinfer.cuda.kernels.gemm_epilogue import ACTIVATIONS


def in_order(a, b, dtype):
    """A product whose rows do not know their place in the tile, as the matrix units' (and not BLAS's)."""
    total = np.zeros((a.shape[0], b.shape[1]), dtype)
    for k in range(a.shape[1]):
        total += a[:, k : k + 1] * b[k]
    return total


FULL = Epilogue(True, "before", "relu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variant", ["tiled", "persistent", "split"])
@pytest.mark.parametrize("residual", ["before", "after"])
def test_variants(variant, residual, dtype):
    cin = 64 if dtype == torch.float32 else 128
    case = Case((4, 4), (3, 3), cin, 24, pads=(1, 1, 1, 1), epilogue=Epilogue(True, residual, "relu"), dtype=dtype)
    problem = check(case, block_m=32, block_n=32, variant=variant)
    assert problem.mode == "taps" and conv.runs(problem) > 1


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation):
    parameters = {"clip": (-0.3, 0.6), "leaky_relu": (0.1, 0), "elu": (0.7, 0)}.get(activation, ACTIVATIONS[activation])
    check(Case((3, 3), (1, 1), cout=20, epilogue=Epilogue(True, "", activation, *parameters)))


@pytest.mark.parametrize(
    ("mode", "case"),
    {
        "plain": ("dense", Case((5, 3), (1, 1), cin=40, cout=20, batch=2)),
        "plain_planes": ("dense", Case((5, 3), (1, 1), cin=20, batch=2, x_first=True)),
        "strided_1x1": ("taps", Case((5, 7), (1, 1), cin=24, stride=(2, 2), batch=2)),
        "asymmetric": ("taps", Case((5, 6), (3, 2), cin=32, pads=(0, 1, 2, 0), batch=2)),
        "dilated": ("taps", Case((7, 7), (3, 3), cin=32, dilation=(2, 3), pads=(2, 3, 2, 3))),
        "ragged_channels": ("taps", Case((4, 4), (3, 3), cin=36, cout=18, pads=(1, 1, 1, 1))),
        "cropping_pads": ("taps", Case((6, 6), (3, 3), cin=32, pads=(-1, 0, 0, -1))),
        "stem": ("gather", Case((9, 8), (7, 7), cin=3, cout=20, stride=(2, 2), pads=(3, 3, 3, 3), x_first=True, batch=2)),
        "few_channels": ("gather", Case((5, 5), (3, 3), cin=5, pads=(1, 1, 1, 1), batch=2)),
        "grouped": ("gather", Case((4, 5), (3, 3), cin=4, cout=6, groups=3, pads=(1, 1, 1, 1), batch=2)),
        "grouped_wide": ("taps", Case((3, 4), (3, 3), cin=32, cout=20, groups=2, pads=(1, 1, 1, 1))),
        "grouped_planes": ("gather", Case((3, 4), (3, 3), cin=4, cout=6, groups=2, pads=(1, 1, 1, 1), x_first=True)),
        "one_axis": ("taps", Case((9,), (3,), cin=32, stride=(2,), pads=(1, 1), batch=2)),
        "three_axes": ("taps", Case((3, 4, 4), (3, 2, 3), cin=32, pads=(1, 0, 1, 1, 1, 1))),
        "three_axes_stem": ("gather", Case((3, 4, 4), (2, 3, 3), cin=3, pads=(1, 1, 1, 0, 1, 1), x_first=True)),
        "one_pixel": ("dense", Case((1, 1), (1, 1), cin=33, cout=65)),
    }.values(),
)  # fmt: skip
def test_geometries(mode, case):
    case.epilogue = FULL
    assert check(case).mode == mode


@pytest.mark.parametrize("seed", range(12))
def test_random_geometries(seed):
    rng = np.random.default_rng(seed)
    kernel = tuple(int(v) for v in rng.integers(1, 4, 2))
    dilation = tuple(int(v) for v in rng.integers(1, 3, 2))
    size = tuple(int(d * (k - 1) + 1 + rng.integers(0, 4)) for k, d in zip(kernel, dilation, strict=True))
    groups = int(rng.choice([1, 1, 2]))
    check(Case(
        size, kernel, cin=int(rng.choice([3, 8, 32, 40])), cout=int(rng.integers(1, 20)), batch=int(rng.integers(1, 3)),
        stride=tuple(int(v) for v in rng.integers(1, 4, 2)), dilation=dilation, pads=tuple(int(v) for v in rng.integers(0, 3, 4)),
        groups=groups, x_first=bool(rng.integers(2)), epilogue=Epilogue(bool(rng.integers(2)), str(rng.choice(["", "before", "after"])), "silu"),
        dtype=[torch.float32, torch.bfloat16][seed % 2], seed=seed,
    ))  # fmt: skip


@pytest.mark.parametrize("variant", ["tiled", "persistent", "split"])
def test_bits_alone_and_in_a_batch(variant, monkeypatch):
    if INTERPRET:
        monkeypatch.setattr(np, "matmul", in_order)
    case = Case((3, 3), (3, 3), cin=64, pads=(1, 1, 1, 1), batch=3, epilogue=FULL)
    problem, x, w, bias, residual, reference = case.make()
    config = tiny(problem, variant=variant)
    together = computed(problem, config, x, w, bias, residual, reference.shape)
    one = dataclasses.replace(problem, batch=1)
    for i in range(3):
        alone = computed(one, config, x[i : i + 1], w, bias, residual[i : i + 1], reference[:1].shape)
        assert torch.equal(alone[0], together[i])


def test_split_has_the_bits_of_tiled(monkeypatch):
    if INTERPRET:
        monkeypatch.setattr(np, "matmul", in_order)
    case = Case((3, 3), (3, 3), cin=64, pads=(1, 1, 1, 1), epilogue=FULL, dtype=torch.bfloat16)
    problem, *tensors, reference = case.make()
    results = [computed(problem, tiny(problem, variant=v), *tensors, reference.shape) for v in ("tiled", "split")]
    assert torch.equal(*results)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_transposed(dtype):
    """Kernel = stride: every output pixel has one tap."""
    rng = np.random.default_rng(0)
    x, w = torch.from_numpy(rng.standard_normal((2, 20, 3, 4))).to(dtype), torch.from_numpy(rng.standard_normal((20, 18, 2, 3)) / 4).to(dtype)  # fmt: skip
    bias = torch.from_numpy(rng.standard_normal(18)).float()
    reference = (
        torch.nn.functional.conv_transpose2d(x.double(), w.double(), bias.double(), (2, 3)).relu().movedim(1, -1)
    )
    window = conv.Window((1, 6, 12), (1, 3, 4), (1, 2, 3), (1, 2, 3))
    problem = conv.Problem(dtype, "ieee" if dtype == torch.float32 else "half", 2, window, 1, 20, 18, Epilogue(True, "", "relu"), transposed=True)  # fmt: skip
    y = computed(problem, tiny(problem), x.movedim(1, -1).contiguous(), w, bias, None, reference.shape)
    assert error(y, reference) < (1e-5 if dtype == torch.float32 else 1e-2)
    assert conv.default(problem).variant == "tiled"


@pytest.mark.parametrize(("size", "cin", "cout", "kernel"), [(7, 512, 512, 3), (14, 256, 256, 3), (56, 64, 64, 3), (7, 2048, 512, 1), (1, 96, 24, 1)])  # fmt: skip
def test_runs_do_not_know_the_batch(size, cin, cout, kernel):
    """What decides bits is the same alone and in a batch of 32; every candidate has it."""
    pads = (kernel // 2,) * 4
    one = Case((size, size), (kernel, kernel), 8, 8, pads=pads, dtype=torch.bfloat16).make()[0]
    one = dataclasses.replace(one, cin=cin, cout=cout)
    many = dataclasses.replace(one, batch=32)
    assert conv.runs(one) == conv.runs(many) and conv.steps(one) == conv.steps(many)
    for p in (one, many):
        found = conv.configs(p)
        assert conv.default(p) == found[0] and len(found) <= 24
        assert {c.block_k for c in found} == {conv.block_k(p)}
        assert all(conv.shared_bytes(p, c) <= conv.SHARED and c.block_m >= 64 for c in found)


def test_small_maps_fill_the_chip():
    """7x7, 512 → 512, batch 1: one image of 49 rows as at least 100 programs."""
    problem = dataclasses.replace(
        Case((7, 7), (3, 3), 8, 8, pads=(1, 1, 1, 1), dtype=torch.bfloat16).make()[0], cin=512, cout=512
    )
    config = conv.default(problem)
    assert config.variant == "split" and conv.runs(problem) * -(-512 // config.block_n) >= 100


def test_new_sizes_are_the_same_kernel():
    a, b = (
        dataclasses.replace(Case((s, s), (3, 3), 64, 8, pads=(1, 1, 1, 1)).make()[0], batch=n)
        for s, n in ((72, 8), (80, 9))
    )
    assert conv.constants(a, conv.default(a)) == conv.constants(b, conv.default(b))
