# SPDX-License-Identifier: Apache-2.0
"""Norms of rows, group norms and softmax against float64: every variant and type, edges, large means, the same bits alone."""

import pytest
import torch

from fastinfer.cuda.kernels import norm, norm_groups, softmax

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
BOUND = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}
POISON = 1e4


def randn(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(got, want, dtype):
    torch.testing.assert_close(got.double(), want, rtol=BOUND[dtype], atol=BOUND[dtype], equal_nan=True)


def rows(device, x, *, rms=False, scale=None, bias=None, r=None, xbias=None, total=False, config=None, epsilon=1e-5):
    """(y, sum) of the kernel and of float64."""
    n = x.shape[-1]
    kinds = ["none" if t is None else "row" if t.numel() == n else "one" for t in (scale, bias)]
    problem = norm.Problem(x.dtype, n, rms, *kinds, r is not None, xbias is not None, total)
    out = [torch.full_like(x, POISON), torch.full_like(x, POISON) if total else None]
    given = [None if t is None else t.to(device) for t in (x, r, xbias, scale, bias, *out)]
    norm.run(*given, problem=problem, config=config or norm.default(problem), epsilon=epsilon)
    s = x.double() + (0 if xbias is None else xbias.double())
    if r is not None:
        s = s + r.double().repeat(x.shape[0] // r.shape[0], 1)
    away = s if rms else s - s.mean(-1, keepdim=True)
    y = away / (away.square().mean(-1, keepdim=True) + epsilon).sqrt()
    y = y * (1 if scale is None else scale.double()) + (0 if bias is None else bias.double())
    return given[5].cpu(), y, given[6].cpu() if total else None, s


HELD, LOOPED = norm.Config("held", 4, 64, 1), norm.Config("looped", 1, 16, 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("config", [HELD, LOOPED, None], ids=["held", "looped", "default"])
def test_rows(device, config, dtype):
    x, r = randn(6, 37, dtype=dtype), randn(3, 37, dtype=dtype, seed=1)
    scale, bias, xbias = (randn(37, seed=i) for i in (2, 3, 4))
    for rms in (False, True):
        got, want, sums, total = rows(
            device, x, rms=rms, scale=scale, bias=None if rms else bias, r=r, xbias=xbias, total=True, config=config
        )
        close(got, want, dtype)
        close(sums, total, dtype)
        got, want, *_ = rows(device, x, rms=rms, config=config)
        close(got, want, dtype)


@pytest.mark.parametrize("n", [1, 2, 64, 1000, 17000])
def test_row_lengths(device, n):
    got, want, *_ = rows(device, randn(3, n), scale=randn(1, seed=1), bias=randn(n, seed=2))
    close(got, want, torch.float32)


@pytest.mark.parametrize("config", [HELD, LOOPED], ids=lambda c: c.variant)
def test_large_means(device, config):
    """A mean of 10^4 and a deviation of 1: E[x²] − E[x]² would leave no digit in float32."""
    x = randn(2, 50) + 1e4
    got, want, *_ = rows(device, x, config=config)
    torch.testing.assert_close(got.double(), want, rtol=3e-3, atol=3e-3)  # x itself has 3 digits behind the point


def test_rows_same_bits_alone(device):
    x = randn(5, 200, dtype=torch.bfloat16)
    for config in (norm.Config("held", 4, 256, 2), LOOPED, None):
        whole, alone = rows(device, x, config=config)[0], rows(device, x[4:], config=config)[0]
        assert torch.equal(whole[4:], alone)


def groups(device, x, count, config=None):
    batch, space, channels = x.shape
    problem = norm_groups.Problem(x.dtype, space, count, channels // count)
    config = config or norm_groups.default(problem)
    scale, bias = randn(channels, seed=5), randn(channels, seed=6)
    room = torch.full((norm_groups.workspace(problem, config, batch) // 4,), float("nan"))
    given = [t.to(device) for t in (x, scale, bias, torch.full_like(x, POISON), room)]
    norm_groups.run(*given, problem=problem, config=config, epsilon=1e-5)
    split = x.double().view(batch, space, count, -1)
    away = split - split.mean((1, 3), keepdim=True)
    y = away / (away.square().mean((1, 3), keepdim=True) + 1e-5).sqrt()
    return given[3].cpu(), y.view(x.shape) * scale.double() + bias.double()


PARTS = norm_groups.Config("parts", 4, 8, 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("config", [PARTS, None], ids=["parts", "default"])
@pytest.mark.parametrize("count", [1, 3, 12])
def test_groups(device, count, config, dtype):
    """12 groups of one channel: an instance norm. A mean of 100."""
    got, want = groups(device, (randn(2, 19, 12) * 4 + 100).to(dtype), count, config)
    close(got, want, dtype) if dtype != torch.float32 else torch.testing.assert_close(
        got.double(), want, rtol=1e-4, atol=1e-4
    )


def test_group_shapes(device, monkeypatch):
    close(*groups(device, randn(1, 1, 8), 1), torch.float32)
    close(*groups(device, randn(2, 25, 48), 3, norm_groups.Config("held", 32, 16, 2)), torch.float32)
    close(*groups(device, randn(1, 5, 200), 2, PARTS), torch.float32)
    monkeypatch.setattr(norm_groups, "PIECES", 2)
    close(*groups(device, randn(1, 50, 10), 5, PARTS), torch.float32)


def test_groups_same_bits_alone(device):
    x = randn(3, 20, 16)
    for config in (PARTS, norm_groups.Config("held", 32, 8, 1)):
        assert torch.equal(groups(device, x, 2, config)[0][2:], groups(device, x[2:], 2, config)[0])


def soft(device, x, axis, log=False, config=None):
    problem = softmax.Problem(x.dtype, x.shape[axis], x.shape[axis + 1 :].numel(), log)
    given = x.to(device), torch.full_like(x, POISON).to(device)
    softmax.run(*given, problem=problem, config=config or softmax.default(problem))
    return given[1].cpu(), (torch.log_softmax if log else torch.softmax)(x.double(), axis)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("log", [False, True])
def test_softmax(device, log, dtype):
    x = randn(3, 5, 37, dtype=dtype) * 3
    for axis in range(3):
        close(*soft(device, x, axis, log), dtype)
    close(*soft(device, x, 2, log, softmax.Config("long", 16, 1, 1)), dtype)
    close(*soft(device, x, 1, log, softmax.Config("columns", 2, 16, 1)), dtype)


@pytest.mark.parametrize("config", [None, softmax.Config("long", 16, 1, 1)], ids=["rows", "long"])
def test_softmax_edges(device, config):
    """−inf at the start of a row, a row of float32's lowest, a row of −inf (NaN), NaN, +inf, large numbers."""
    x = randn(7, 40)
    x[0, :20] = -torch.inf
    x[1] = torch.finfo(torch.float32).min
    x[2] = -torch.inf
    x[3, 5] = torch.nan
    x[4, 5] = torch.inf
    x[5] += 1e30
    close(*soft(device, x, 1, config=config), torch.float32)
    close(*soft(device, x[:, :1].contiguous(), 1, config=config), torch.float32)


def test_long_softmax(device):
    close(*soft(device, randn(2, 17000), 1), torch.float32)
    x = randn(4, 30)
    for config in (None, softmax.Config("long", 16, 1, 1)):
        assert torch.equal(soft(device, x, 1, config=config)[0][3:], soft(device, x[3:], 1, config=config)[0])


def test_configs_are_sensible():
    for family, problem in [
        *((norm, norm.Problem(torch.bfloat16, n, False)) for n in (1, 96, 768, 4096, 100000)),
        *((softmax, softmax.Problem(torch.bfloat16, n, i)) for n, i in ((1, 1), (1000, 1), (50000, 1), (21, 4096))),
        *(
            (norm_groups, norm_groups.Problem(torch.bfloat16, s, g, c))
            for s, g, c in ((64, 32, 40), (65536, 32, 10), (9, 64, 1))
        ),
    ]:
        found = family.configs(problem)
        assert found[0] == family.default(problem) and len(found) <= 24 and len(set(found)) == len(found)
        assert all(c.num_warps in (1, 2, 4, 8, 16) for c in found)


def test_every_candidate(device):
    """What a race may pick computes the same."""
    x = randn(3, 40)
    for config in norm.configs(norm.Problem(x.dtype, 40, False)):
        got, want, *_ = rows(device, x, config=config)
        close(got, want, x.dtype)
    for config in softmax.configs(softmax.Problem(x.dtype, 40, 1)):
        close(*soft(device, x, 1, config=config), x.dtype)
    y = randn(2, 3, 20)
    for config in softmax.configs(softmax.Problem(x.dtype, 3, 20)):
        close(*soft(device, y, 1, config=config), x.dtype)
    for config in norm_groups.configs(norm_groups.Problem(x.dtype, 3, 2, 10)):
        close(*groups(device, y, 2, config), x.dtype)
