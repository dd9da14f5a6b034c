# SPDX-License-Identifier: Apache-2.0
"""Every variant of the matrix product and of its epilogue against float64, at edges, in outputs of NaNs."""

import random

import numpy as np
import pytest
import torch
from gemm_cases import ACTIVATIONS, make

from fastinfer.cuda.kernels import gemm
from fastinfer.cuda.kernels.gemm_epilogue import ACTIVATIONS as PARAMETERS

SMALL = gemm.Config(16, 32, 16, 4, 3)
HALF = {"dtype": torch.bfloat16, "products": "half"}
VARIANTS = [
    SMALL,
    gemm.Config(16, 32, 16, 4, 3, "persistent"),
    gemm.Config(16, 32, 64, 4, 3, "split_k"),
    gemm.Config(16, 32, 16, 4, 3, "tiled", tma=True),
    gemm.Config(16, 32, 16, 4, 3, "persistent", tma=True),
    gemm.Config(16, 32, 64, 4, 3, "split_k", tma=True),
    gemm.Config(64, 256, 64, 4, 3),  # finished in parts
]


@pytest.mark.parametrize("config", VARIANTS, ids=str)
@pytest.mark.parametrize("trans", ["nt", "tn"])
def test_variants(config: gemm.Config, trans: str) -> None:
    k = 1032 if config.variant == "split_k" else 72
    case = make(
        24, 40, k, **HALF, out=torch.float32, rows=1, trans_a=trans[0] == "t", trans_b=trans[1] == "t", bias=True,
        residual="before", activation="relu", alpha=0.5,
    )  # fmt: skip
    case.check(config)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: str) -> None:
    parameters = {"clip": (-0.5, 1.0), "hard_sigmoid": (0.3, 0.4)}.get(activation, PARAMETERS[activation])
    make(16, 32, 5, bias=True, activation=activation, act=parameters).check(SMALL)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_gelu_of_half_outputs() -> None:
    """Its polynomial, in steps of 1/64 from -16 to 16, and at the ends: within a rounding to bfloat16 and 6e-5."""
    x = torch.cat([torch.arange(-1024, 1024) / 64, torch.tensor([3e38, -3e38, float("inf"), float("nan")])])[:, None]
    case = make(len(x), 1, 1, **HALF, activation="gelu")
    case.tensors.update(a=x.bfloat16()[None], b=torch.ones(1, 1, 1, dtype=torch.bfloat16))
    got, v = case.run(SMALL)[0, :, 0], x.bfloat16().double().numpy()[:, 0]
    expected = ACTIVATIONS["gelu"](v[:-2], 0, 0)
    assert (np.abs(got[:-2] - expected) <= 6e-5 + np.abs(expected) / 256).all()
    assert got[-2] == np.inf and np.isnan(got[-1])


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_activations_at_the_far_ends() -> None:
    """x = 1e4·a, -1e-4·a and the like: no overflow, no cancellation."""
    for activation in ACTIVATIONS:
        parameters = {"clip": (-0.5, 1.0), "hard_sigmoid": (0.3, 0.4)}.get(activation, PARAMETERS[activation])
        for alpha in (1e4, 1e-4):
            case = make(4, 8, 1, activation=activation, alpha=alpha, act=parameters)
            error = np.abs(case.run(SMALL) - case.expected) / np.maximum(np.abs(case.expected), 1e-6)
            assert error.max() < 1e-5, activation


@pytest.mark.parametrize("residual", ["before", "after"])
@pytest.mark.parametrize("strides", [None, (0, 1), (1, 0), (0, 0)])
def test_residuals_broadcast(residual: str, strides: tuple[int, int] | None) -> None:
    case = make(19, 37, 8, residual=residual, strides=strides, beta=-1.5, bias=True, activation="relu")
    case.check(SMALL)
    make(19, 37, 1032, rows=1, residual=residual, strides=strides, beta=0.5).check(
        gemm.Config(16, 32, 64, 4, 3, "split_k")
    )


def test_random_shapes() -> None:
    r = random.Random(7)
    for seed in range(12):
        m, n, k = (r.choice([1, 2, 3, 7, 13, 16, 17, 31, 33]) for _ in range(3))
        batch = r.choice([(), (), (3,), (2, 2)])
        case = make(
            m, n, k, trans_a=r.random() < 0.5, trans_b=r.random() < 0.5, bias=r.random() < 0.5, seed=seed,
            residual=r.choice(["", "before", "after"]), batch=batch, same_b=bool(batch) and r.random() < 0.5,
        )  # fmt: skip
        case.check(r.choice(VARIANTS[:2]))


def test_no_k() -> None:
    make(5, 40, 0, bias=True, activation="relu").check(SMALL)
    make(5, 40, 0).check(SMALL)


@pytest.mark.parametrize("products", ["int8", "fp8"])
def test_eight_bits(products: str) -> None:
    for config in (gemm.Config(16, 32, 32, 4, 3), gemm.Config(16, 32, 32, 4, 3, tma=True)):
        make(20, 37, 48, products=products, bias=True, activation="gelu").check(config)
    make(5, 37, 1100, products=products, rows=1, bias=True).check(gemm.Config(16, 32, 64, 4, 3, "split_k"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_outputs(dtype: torch.dtype) -> None:
    make(17, 33, 40, dtype, "half", bias=True, residual="before", activation="gelu").check(SMALL)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize(("n", "k"), [(48, 64), (40, 1100)])
def test_a_row_has_the_same_bits_in_every_batch(n: int, k: int) -> None:
    """Alone, in a batch, and under both variants that add segments up: as default() and configs() would have it."""
    batch = make(9, n, k, **HALF, rows=1, bias=True, activation="silu")
    outs = []
    for variant in ("tiled", "split_k"):
        config = gemm.Config(16, 32, 64, 4, 3, variant)
        outs.append(batch.run(config)[0])
        alone = make(1, n, k, **HALF, rows=1, bias=True, activation="silu")
        for row in (0, 8):
            alone.tensors.update(batch.tensors, a=batch.tensors["a"][:, row : row + 1])  # type: ignore[index]
            np.testing.assert_array_equal(alone.run(config)[0, 0], outs[0][row])
    np.testing.assert_array_equal(outs[0], outs[1])


def test_segments_are_a_samples_own() -> None:
    """Their number does not depend on how many rows there are in all, and all of k is in them."""
    for rows, n, k in [(1, 1000, 2048), (1, 4096, 4096), (128, 768, 3072), (1, 64, 257), (49, 96, 96)]:
        cuts = {gemm.segments(make_problem(m, n, k, rows)) for m in (rows, 7 * rows, 512 * rows)}
        assert len(cuts) == 1
        count, length = cuts.pop()
        assert count == 1 or ((count - 1) * length < k <= count * length and length % 256 == 0)
    assert gemm.segments(make_problem(128, 768, 3072, 128))[0] > 1


def make_problem(m: int, n: int, k: int, rows: int) -> gemm.Problem:
    return gemm.Problem(m, n, k, torch.bfloat16, torch.bfloat16, "half", k, k, rows)


def test_default_is_offered_or_the_only_one() -> None:
    for m in (0, 1, 16, 17, 64, 100, 4096):
        for n, k in [(1, 1), (10, 64), (768, 3072), (4096, 4096), (50257, 768)]:
            for products, dtype in [("ieee", torch.float32), ("tf32", torch.float32), ("half", torch.bfloat16)]:
                p = gemm.Problem(m, n, k, dtype, dtype, products, k, k, min(m, 128))
                found = gemm.configs(p)
                assert 1 <= len(found) <= 24 and len(set(found)) == len(found)
                assert gemm.default(p) in found, p
