# SPDX-License-Identifier: Apache-2.0
"""Packed attention and reductions: lengths in memory, empty sequences, tokens of no sequence, the same bits alone."""

import attention_oracle as oracle
import pytest
import torch

from fastinfer.cuda.kernels import attention as family
from fastinfer.cuda.kernels import attention_segments as segments
from fastinfer.cuda.kernels.attention import Config, Problem

CONFIG = Config("tiled", 16, 16, 4, 1)
LENGTHS = [5, 0, 18, 1, 0]
LAYOUTS = ("BSNH", "BSNH", "BSNH", "BSNH")


def attend(device, q, k, v, lengths, mask=None, form="", config=CONFIG, layouts=LAYOUTS, **attrs):
    tokens, n, d = q.shape[1:]
    kind = "none" if mask is None else ("kept" if mask.dtype == torch.bool else "added") + "/" + form
    problem = Problem(
        q.dtype, "ieee" if q.dtype == torch.float32 else "half", n, k.shape[2], 0, 0, d, v.shape[3], mask=kind,
        layouts=layouts, packed=True, **attrs,
    )  # fmt: skip
    o = torch.full((1, tokens, n, v.shape[3]), oracle.POISON, dtype=q.dtype)
    given = [None if t is None else t.to(device) for t in (q, k, v, mask, torch.tensor(lengths), o)]
    family.run(*given, None, problem=problem, config=config or family.default(problem), scale=0.3)
    return given[5].cpu()


def operands(tokens, n, kv, d, dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(1, tokens, h, d, generator=g).to(dtype) for h in (n, kv, kv)]


def expected(x, lengths, masks=None, **attrs):
    out = torch.zeros(1, x[0].shape[1], x[0].shape[2], x[2].shape[3], dtype=torch.float64)
    first = 0
    for s, length in enumerate(lengths):
        if length:
            part = [t[:, first : first + length].transpose(1, 2) for t in x]
            mask = None if masks is None else masks(s, first, length)
            out[:, first : first + length] = oracle.attention(*part, mask, scale=0.3, **attrs).transpose(1, 2)
        first += length
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_against_each_alone(device, dtype, causal):
    """8 tokens, all NaN, belong to nobody: 0. Grouped heads."""
    x = operands(sum(LENGTHS) + 8, 2, 1, 24, dtype)
    x[0][:, -8:] = float("nan")
    x[1][:, -8:] = float("nan")
    x[2][:, -8:] = float("nan")
    oracle.check(attend(device, *x, LENGTHS, causal=causal), expected(x, LENGTHS, causal=causal), dtype)


@pytest.mark.parametrize("lengths", [[1], [24], [0, 0, 3], [0], [], [16, 8], [3] * 8], ids=str)
def test_lengths(device, lengths):
    x = operands(24, 1, 1, 16, torch.float32)
    oracle.check(attend(device, *x, lengths), expected(x, lengths), torch.float32)


def test_lengths_that_lie(device):
    """Lengths are data: more tokens than there are, or fewer than none, reach nothing outside."""
    x = operands(20, 1, 1, 16, torch.float32)
    assert attend(device, *x, [15, 1 << 40, -3, 9]).abs().max() < 10
    assert attend(device, *x, [-5, 1 << 62, 1 << 62, 1 << 62]).abs().max() < 10


def test_more_sequences_than_one_look(device, monkeypatch):
    monkeypatch.setattr(family, "CHUNK", 2)
    x = operands(sum(LENGTHS), 1, 1, 16, torch.float32)
    oracle.check(attend(device, *x, LENGTHS), expected(x, LENGTHS), torch.float32)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("form", ["fixed", "keys", "queries", "pairs"])
def test_masks(device, form, heads):
    x = operands(sum(LENGTHS), 2, 1, 16, torch.float32)
    tokens, pairs = sum(LENGTHS), sum(n * n for n in LENGTHS)
    n = {"fixed": 1, "keys": tokens, "queries": tokens, "pairs": pairs}[form]
    mask = torch.randn(1, heads, n, 1) if form == "queries" else torch.randn(1, heads, 1, n)

    def of(s, first, length):
        if form == "pairs":
            start = sum(m * m for m in LENGTHS[:s])
            return mask[..., start : start + length * length].reshape(1, heads, length, length)
        if form == "queries":
            return mask[:, :, first : first + length]
        return mask[..., first : first + length] if form == "keys" else mask

    oracle.check(attend(device, *x, LENGTHS, mask, form), expected(x, LENGTHS, of), torch.float32)


@pytest.mark.parametrize("config", [CONFIG, None], ids=["small", "default"])
def test_same_bits_alone(device, config):
    """With the config of the bucket: a sequence's bits do not depend on its neighbours or its place."""
    x = operands(sum(LENGTHS), 2, 1, 16, torch.bfloat16)
    whole = attend(device, *x, LENGTHS, config=config)
    for s, length in enumerate(LENGTHS):
        first = sum(LENGTHS[:s])
        if length:
            rolled = [torch.roll(t, -first, 1) for t in x]
            alone = attend(device, *rolled, [length], config=config)
            assert torch.equal(whole[:, first : first + length], alone[:, :length])


def reduce(device, x, lengths, reduction, config=None):
    problem = segments.Problem(x.dtype, reduction, x.shape[2])
    y = torch.full((x.shape[0], len(lengths), x.shape[2]), 77, dtype=x.dtype)
    given = [t.to(device) for t in (x, torch.tensor(lengths), y)]
    segments.run(*given, problem=problem, config=config or segments.default(problem))
    return given[2].cpu()


FOLDS = {
    "sum": lambda t: t.sum(1), "max": lambda t: t.amax(1), "min": lambda t: t.amin(1),
    "mean": lambda t: t.mean(1) if t.is_floating_point() else torch.div(t.sum(1), t.shape[1], rounding_mode="trunc"),
}  # fmt: skip


def nothing(reduction, dtype):
    """What the CPU makes of an empty sequence (tests/ops/test_batching.py: what ReduceX makes of an empty axis)."""
    low, high = (-torch.inf, torch.inf) if dtype.is_floating_point else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    return {"sum": 0, "max": low, "min": high, "mean": torch.nan if dtype.is_floating_point else 0}[reduction]


@pytest.mark.parametrize("reduction", FOLDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.int32], ids=str)
def test_reduce(device, reduction, dtype):
    g = torch.Generator().manual_seed(1)
    x = (torch.randn(2, sum(LENGTHS) + 3, 37, generator=g) * 9).to(dtype)
    got = reduce(device, x, LENGTHS, reduction, segments.Config(4, 16, 4))
    for s, length in enumerate(LENGTHS):
        first = sum(LENGTHS[:s])
        wide = x[:, first : first + length].to(torch.float64 if dtype.is_floating_point else dtype)
        want = FOLDS[reduction](wide) if length else torch.full((2, 37), nothing(reduction, dtype), dtype=wide.dtype)
        tolerance = {"rtol": 1e-2 if dtype == torch.bfloat16 else 1e-5, "atol": 1e-4, "equal_nan": True}
        torch.testing.assert_close(got[:, s].to(want.dtype), want, **tolerance)


def test_reduce_edges(device):
    """NaN stays in max and min; −inf is a number; a wrong length reaches nothing outside; bits do not depend on neighbours."""
    x = torch.randn(1, 12, 5)
    x[0, 3, 2] = float("nan")
    x[0, :6, 1] = -torch.inf
    got = reduce(device, x, [6, 6], "max")
    assert got[0, 0, 2].isnan() and got[0, 0, 1] == -torch.inf and not got[0, 1].isnan().any()
    assert torch.equal(
        reduce(device, x, [6, 1 << 50], "sum")[0, 1], reduce(device, x[:, 6:].contiguous(), [6], "sum")[0, 0]
    )
    assert reduce(device, torch.randn(1, 4, 3), [], "sum").shape == (1, 0, 3)
