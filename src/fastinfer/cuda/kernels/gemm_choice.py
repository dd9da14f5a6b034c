# SPDX-License-Identifier: Apache-2.0
"""Configurations that suit a matrix product on Hopper, and which to take without a race: the one that gemm_cost.py finds fastest.

m may decide, since all that default() takes and the tuner races give a row the same bits: in what order sums are taken is a property of
the problem (gemm_config.segments). Only Problem.any_order adds candidates of which that is not true."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from fastinfer.cuda.kernels.gemm_config import (
    MULTIPROCESSORS,
    SHARED,
    Config,
    Problem,
    programs,
    segments,
    shared,
    stream,
    takes_tma,
)
from fastinfer.cuda.kernels.gemm_cost import seconds

# (bm, bn, warps, stages) of tensor-core tiles. 64 rows and more run as wgmma, fewer as mma.sync. 128x128 with 3 stages: two
# blocks fit a multiprocessor, one computes while the other stores.
_TILES = (
    (128, 256, 8, 3), (128, 256, 8, 4), (256, 128, 8, 3), (128, 128, 8, 4), (128, 128, 8, 3), (128, 128, 4, 3), (128, 64, 4, 4),
    (64, 128, 4, 4), (64, 64, 4, 5), (64, 32, 4, 6), (32, 64, 4, 5), (16, 128, 4, 4), (16, 64, 4, 5), (16, 32, 4, 6),
)  # fmt: skip
# (bm, bn, bk, warps, stages) of products on ordinary float32 units.
_IEEE = (
    (128, 128, 16, 8, 3), (128, 64, 16, 8, 3), (64, 64, 16, 4, 3), (64, 32, 32, 4, 3), (32, 64, 32, 4, 3),
    (16, 64, 32, 4, 4), (16, 32, 64, 4, 4), (4, 64, 64, 4, 4), (4, 32, 64, 2, 4), (1, 64, 64, 4, 4), (1, 32, 64, 2, 4),
)  # fmt: skip
_MOST = 24


@lru_cache(maxsize=4096)
def default(p: Problem) -> Config:
    """Never "stream_k", which waits for a measurement."""
    best = takes_tma(p)
    found = [c for c in _candidates(p) if c.variant != "stream_k" and (c.tma == best or c.bm < 64)]
    return min(found or _candidates(p), key=lambda c: seconds(p, c))


def configs(p: Problem) -> list[Config]:
    """At most 24, the fastest by the model first. All give the same bits, but with any_order, and where the tensor cores'
    instructions for few and for many rows round alike."""
    return sorted(_candidates(p), key=lambda c: seconds(p, c))[:_MOST]


def _candidates(p: Problem) -> list[Config]:
    found = []
    for t in [c for c in _tiles(p) if _fits(p, c)] or _tiles(p)[-1:]:
        found += [f for f in _forms(p, t) if shared(p, f) <= SHARED]
    return found or _tiles(p)[-1:]


def _forms(p: Problem, t: Config) -> Iterator[Config]:
    """The tile in all variants that make sense."""
    cut, tma = segments(p)[0] > 1, takes_tma(p) and t.bm >= 64
    forms = (True, False) if tma else (False,)
    for copies in forms:
        yield _form(t, "tiled", copies)
        if cut:
            yield _form(t, "split_k", copies)
    spills = cut and t.per_thread > 32 and p.out.itemsize == 4  # two sums, and results that are not narrower
    if programs(p, t) > MULTIPROCESSORS and t.bm >= 64 and not spills:
        yield _form(t, "persistent", tma)
        shares = _form(t, "stream_k", tma)
        if (cut or p.any_order) and stream(p, shares):
            yield shares


@lru_cache(maxsize=512)
def _form(t: Config, variant: str, tma: bool) -> Config:
    return replace(t, variant=variant, tma=tma, programs=MULTIPROCESSORS if variant == "stream_k" else 0)


def _tiles(p: Problem) -> list[Config]:
    return _tiles_of(p.products, p.dtype.itemsize)


@lru_cache(maxsize=16)
def _tiles_of(products: str, size: int) -> list[Config]:
    """Blocks of k of 128 bytes, the widest swizzle, so that a row is one line; 256 where the tile is small and B only streams."""
    if products == "ieee":
        return [Config(*t) for t in _IEEE]
    return [Config(bm, bn, (256 if bm < 64 else 128) // size, warps, stages) for bm, bn, warps, stages in _TILES]


def _fits(p: Problem, c: Config) -> bool:
    """Less than twice the rows and columns that there are, few rows only where there are few, and registers for it."""
    small = p.products == "ieee"
    rows = max(p.m, 1 if small else 16)
    enough = c.bm < 2 * rows and (c.bm >= 64 or small or p.m <= 2 * c.bm)
    twice = segments(p)[0] > 1 or p.products == "fp8"  # accumulators: the tile's, and that of the segment or block of k
    return enough and c.bn < 2 * max(p.n, 32) and shared(p, c) <= SHARED and not (twice and c.per_thread > 64)
