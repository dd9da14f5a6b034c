# SPDX-License-Identifier: Apache-2.0
"""Dense attention against float64: every variant and type, the edges of each extent, masks, and the same bits alone."""

import attention_oracle as oracle
import pytest
import torch

from fastinfer.cuda.kernels import attention as family
from fastinfer.cuda.kernels.attention import Config, Problem

TILED, WINDOWS = Config("tiled", 16, 16, 4, 1), Config("windows", 64, 64, 4, 1, units=2)
SPLIT = Config("split", 16, 16, 4, 1, splits=2)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
ALL = ("BSNH", "BSNH", "BSNH", "BSNH")


@pytest.fixture(autouse=True)
def several_windows_per_program(monkeypatch):
    """However few there are."""
    monkeypatch.setattr(family, "PROGRAMS", 1)


def attend(device, q, k, v, mask, config, layouts=ALL, **attrs):
    """The kernel's output, from an output and a workspace full of poison."""
    scale = attrs.pop("scale", 0.3)
    b, n, sq, d = oracle.to_bnsh(q, layouts[0]).shape
    _, kv, sk, dv = oracle.to_bnsh(v, layouts[2]).shape
    kind = "none" if mask is None else "kept" if mask.dtype == torch.bool else "added"
    softcap = attrs.pop("softcap", 0.0)
    problem = Problem(
        q.dtype, attrs.pop("products", "ieee" if q.dtype == torch.float32 else "half"), n, kv, sq, sk, d, dv, mask=kind,
        softcap=softcap > 0, layouts=layouts, **attrs,
    )  # fmt: skip
    config = config or family.default(problem)
    o = torch.full((b, sq, n, dv) if layouts[3] == "BSNH" else (b, n, sq, dv), oracle.POISON, dtype=q.dtype)
    room = torch.full((family.workspace(problem, config, b) // 4,), float("nan"))
    given = [None if t is None else t.to(device) for t in (q, k, v, mask, None, o, room)]
    family.run(*given, problem=problem, config=config, scale=scale, softcap=softcap)
    want = oracle.attention(
        oracle.to_bnsh(q, layouts[0]), oracle.to_bnsh(k, layouts[1]), oracle.to_bnsh(v, layouts[2]), mask, scale=scale,
        softcap=softcap, causal=problem.causal, zero_empty=problem.zero_empty,
    )  # fmt: skip
    return oracle.to_bnsh(given[5].cpu(), layouts[3]), want


def operands(b, n, kv, sq, sk, d, dtype, dv=None, layouts=ALL, seed=0):
    g = torch.Generator().manual_seed(seed)
    make = oracle.laid_out
    return (
        make((b, n, sq, d), layouts[0], dtype, g),
        make((b, kv, sk, d), layouts[1], dtype, g),
        make((b, kv, sk, dv or d), layouts[2], dtype, g),
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("config", [TILED, WINDOWS, SPLIT], ids=lambda c: c.variant)
def test_variants(device, config, dtype):
    """Grouped heads, no extent a multiple of a block, keys as BNHS, causal with more keys than queries."""
    layouts = ("BSNH", "BNHS", "BNSH", "BSNH")
    x = operands(2, 2, 1, 5, 37, 24, dtype, layouts=layouts)
    oracle.check(*attend(device, *x, None, config, layouts, causal=True), dtype)


@pytest.mark.parametrize("config", [TILED, WINDOWS, SPLIT, None], ids=["tiled", "windows", "split", "default"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1, 1), (1, 1, 1, 3, 0, 8), (1, 3, 1, 7, 16, 80), (2, 1, 1, 16, 33, 16)])
def test_extents(device, shape, config):
    """One token, one element, no keys at all (0), all heads on one key head, whole blocks."""
    oracle.check(*attend(device, *operands(*shape, torch.float32), None, config), torch.float32)


@pytest.mark.parametrize("d", [32, 64, 80, 128, 256])
def test_head_sizes(device, d):
    x = operands(1, 2, 2, 9, 17, d, torch.float16)
    oracle.check(*attend(device, *x, None, TILED, scale=d**-0.5), torch.float16)


def test_value_size(device):
    """Values of another size than keys, out as BNSH."""
    layouts = ("BNSH", "BNSH", "BSNH", "BNSH")
    x = operands(2, 2, 1, 6, 20, 8, torch.float32, dv=40, layouts=layouts)
    for config in (TILED, WINDOWS, SPLIT):
        oracle.check(*attend(device, *x, None, config, layouts), torch.float32)


MASKS = [(2, 2, 5, 20), (2, 1, 1, 20), (1, 2, 1, 20), (2, 5, 1), (5, 20), (20,), (1, 1, 1, 1)]


@pytest.mark.parametrize("config", [TILED, WINDOWS, SPLIT], ids=lambda c: c.variant)
@pytest.mark.parametrize("shape", MASKS, ids=str)
def test_masks(device, shape, config):
    """All ways to broadcast to [batch, heads, sq, sk]; float and bool; a softcap before them."""
    g = torch.Generator().manual_seed(3)
    x = operands(2, 2, 1, 5, 20, 16, torch.float32)
    added = torch.randn(shape, generator=g)
    oracle.check(*attend(device, *x, added, config, softcap=2.0), torch.float32)
    kept = (torch.rand(shape, generator=g) > 0.4) | (torch.arange(shape[-1]) == 0)
    oracle.check(*attend(device, *x, kept, config), torch.float32)


@pytest.mark.parametrize("config", [TILED, WINDOWS, SPLIT], ids=lambda c: c.variant)
@pytest.mark.parametrize("zero_empty", [False, True])
def test_rows_without_keys(device, config, zero_empty):
    """Masked by −inf, by False, and by causality (more queries than keys); rows masked by float32's lowest are the mean."""
    x = operands(1, 2, 2, 6, 20, 16, torch.float32)
    kept = torch.ones(1, 1, 6, 20, dtype=torch.bool)
    kept[..., 2, :] = False
    kept[..., 4, :17] = False  # the first block sees none
    attrs = {"zero_empty": zero_empty}
    got, want = attend(device, *x, kept, config, **attrs)
    assert want[..., 2, :].isnan().all() != zero_empty
    oracle.check(got, want, torch.float32)
    oracle.check(*attend(device, *x, torch.where(kept, 0.0, -torch.inf), config, **attrs), torch.float32)
    lowest = torch.where(kept, 0.0, torch.finfo(torch.float32).min)
    oracle.check(*attend(device, *x, lowest, config, **attrs), torch.float32)
    y = operands(1, 2, 2, 9, 4, 16, torch.float32)
    oracle.check(*attend(device, *y, None, config, causal=True, **attrs), torch.float32)


@pytest.mark.parametrize("config", [TILED, WINDOWS], ids=lambda c: c.variant)
def test_lowest_in_bfloat16(device, config):
    """float32's lowest number becomes −inf in bfloat16: such a row is still the mean of the values."""
    x = operands(1, 1, 1, 3, 20, 16, torch.bfloat16)
    mask = torch.full((3, 20), torch.finfo(torch.float32).min)
    mask[0] = 0
    got, _ = attend(device, *x, mask.to(torch.bfloat16), config)
    mean = x[2].double().mean(1)
    oracle.check(got[0, 0, 1:], mean.expand(2, 1, 16).reshape(2, 16), torch.bfloat16)


def test_large_scores(device):
    """Scores of ±3000: exponents must not overflow, in any block order."""
    q, k, v = operands(1, 1, 1, 4, 40, 16, torch.float32)
    for config in (TILED, WINDOWS, SPLIT):
        got, want = attend(device, q * 100, k * 10, v, None, config, scale=1.0)
        torch.testing.assert_close(got.double(), want, rtol=1e-2, atol=1e-3)  # exp of a score's last bit


@pytest.mark.parametrize("dtype,shape", [(torch.float32, (2, 2, 1, 9, 21, 16)), (torch.bfloat16, (2, 1, 1, 1, 40, 32))])
def test_same_bits_alone(device, shape, dtype):
    """A sample has the bits that it has in a batch, in every variant and by default."""
    x = operands(*shape, dtype)
    for config in (TILED, WINDOWS, SPLIT, None):
        whole, _ = attend(device, *x, None, config)
        alone, _ = attend(device, *(t[1:].contiguous() for t in x), None, config)
        assert torch.equal(whole[1], alone[0])


def test_configs_are_sensible():
    for rows, sk, d, products in [
        (1, 4096, 128, "half"),
        (512, 512, 64, "half"),
        (49, 49, 32, "half"),
        (300, 300, 256, "tf32"),
    ]:
        dtype = torch.bfloat16 if products == "half" else torch.float32
        problem = Problem(dtype, products, 8, 8, rows, sk, d, d)
        found = family.configs(problem)
        assert found[0] == family.default(problem) and 1 < len(found) <= 24 and len(set(found)) == len(found)
        assert all(family.shared_bytes(problem, c) <= family.SHARED for c in found)


@pytest.mark.parametrize(
    "dtype,shape", [(torch.float16, (1, 1, 1, 5, 20, 16)), (torch.float32, (1, 2, 1, 1, 1030, 16))]
)
def test_every_candidate(device, dtype, shape):
    """What a race may pick computes the same."""
    x = operands(*shape, dtype)
    problem = Problem(dtype, "half" if dtype == torch.float16 else "ieee", *shape[1:], shape[-1], layouts=ALL)
    for config in family.configs(problem)[:: 1 if shape[4] < 100 else 3]:
        oracle.check(*attend(device, *x, None, config), dtype)
