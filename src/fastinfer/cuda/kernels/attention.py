# SPDX-License-Identifier: Apache-2.0
"""Attention without a score matrix in memory (FlashAttention-2's order of loops: Dao, arXiv 2307.08691; the split over keys
is Flash-Decoding's), dense and packed:

    S[b,n,i,j] = softcap(scale · Σ_e Q[b,n,i,e]·K[b,n/g,j,e]) + mask[b,n,i,j]     keys of row i: j <= i + sk − sq if causal
    O[b,n,i,:] = Σ_j softmax_j(S)[b,n,i,j] · V[b,n/g,j,:]                         g = heads / kv_heads

A row that sees no key is 0 with zero_empty (and where there are no keys at all), else NaN. Packed: one batch entry of
sequences one behind the other, their lengths in device memory, each attending to itself; tokens of no sequence give 0.

The g·sq rows of a key head are one matrix (row = i·g + head in group), so K and V of grouped heads are read once. Keys pass
by in blocks from key 0: the order of every sum depends on a sample's own extents and the Config, never on the batch.

Variants: "tiled" (a block of rows per program), "windows" (all keys in one block; several (batch, head) units per program,
so that the loads of the next overlap with this one's products), "split" (keys cut into `splits` parts, partial results
combined in order: few rows, long keys). Bounds: tiled by the tensor cores and, at head size 64, by exp2 (16 per clock and
SM); windows and split by memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton

from fastinfer.cuda.kernels import attention_triton as device
from fastinfer.cuda.kernels.attention_segments import blocks_of
from fastinfer.cuda.kernels.launch import launch

CHUNK = 256  # lengths that a program looks at at once
PROGRAMS = 4 * 132  # enough for every multiprocessor to hold four
# Where [batch, head, sequence, element] are.
AXES = {"BNSH": (0, 1, 2, 3), "BSNH": (0, 2, 1, 3), "BNHS": (0, 1, 3, 2)}
SHARED = 227 << 10


@dataclass(frozen=True)
class Problem:
    """sq, sk: 0 where packed: lengths are data, and a sequence's bits must not depend on the bucket; mask: none, added, kept (bool) or, packed,
    with its form behind a slash; products: ieee, tf32 or half."""

    dtype: torch.dtype
    products: str
    heads: int
    kv_heads: int
    sq: int
    sk: int
    d: int
    dv: int
    mask: str = "none"
    causal: bool = False
    softcap: bool = False
    zero_empty: bool = False
    layouts: tuple[str, str, str, str] = ("BNSH",) * 4  # q, k, v, o
    packed: bool = False

    @property
    def group(self) -> int:
        return self.heads // self.kv_heads

    @property
    def rows(self) -> int:
        return self.group * (512 if self.packed else self.sq)  # packed: a middle length

    @property
    def widths(self) -> tuple[int, int]:
        return max(triton.next_power_of_2(self.d), 16), max(triton.next_power_of_2(self.dv), 16)


@dataclass(frozen=True)
class Config:
    variant: str
    rows: int
    keys: int
    num_warps: int
    num_stages: int
    splits: int = 1
    units: int = 1


def shared_bytes(problem: Problem, config: Config) -> int:
    """Estimate: Q once, K, V and a mask as often as there are stages, and P on its way to the second product."""
    d, dv = problem.widths
    item = problem.dtype.itemsize
    stages = max(config.num_stages, 1)
    tile = config.rows * config.keys
    masks = 0 if problem.mask == "none" else stages * tile
    return item * (config.rows * d + stages * config.keys * (d + dv) + tile + masks)


def _half(problem: Problem) -> bool:
    return problem.products == "half"


def configs(problem: Problem) -> list[Config]:
    """At most 24, the default first."""
    found = [default(problem)]
    wide = max(problem.widths)
    for rows, keys, warps in _tiles(problem):
        for stages in (2, 3) if _half(problem) else (1, 2):
            found.append(Config("tiled", rows, keys, warps, stages))
    if problem.products != "ieee" and not problem.packed and max(problem.sk, problem.rows) <= 128:
        keys = max(16, triton.next_power_of_2(problem.sk))
        rows = max(16, triton.next_power_of_2(problem.rows))
        found += [Config("windows", rows, keys, w, s, units=u) for u in (2, 4, 8) for w in (2, 4) for s in (2, 3)]
    if not problem.packed and problem.sk >= 1024 and problem.rows <= 64:
        rows = max(16, triton.next_power_of_2(problem.rows))
        keys = 64 if _half(problem) else 32
        found += [Config("split", rows, keys, 4, 3, splits=s) for s in (4, 8, 16, 32) if s * 128 <= problem.sk]
    fit = [c for c in dict.fromkeys(found) if shared_bytes(problem, c) <= SHARED and c.rows * wide <= 128 * 256]
    return fit[:24]


def _tiles(problem: Problem) -> list[tuple[int, int, int]]:
    wide, rows = max(problem.widths), problem.rows
    if not _half(problem):
        return _single(problem)
    tiles = [(128, 128, 8), (128, 64, 8), (128, 64, 4), (64, 64, 4), (64, 128, 4), (32, 64, 2), (16, 64, 1)]
    if wide == 128:  # 128 rows by 4 warps spill, as do 16 by one
        tiles = [(128, 128, 8), (128, 64, 8), (64, 64, 4), (64, 128, 4), (32, 64, 2), (16, 64, 2)]
    if wide > 128:
        tiles = [(128, 64, 8), (64, 64, 4), (64, 32, 4), (16, 32, 2)]
    return [t for t in tiles if t[0] <= max(16, 2 * rows)]


def _single(problem: Problem) -> list[tuple[int, int, int]]:
    """float32: "ieee" products take registers for their operands too, and spill with 4 warps."""
    wide, small = max(problem.widths), problem.rows <= 32
    warps = 4 if problem.products == "tf32" else 8
    if wide > 128:
        return [(16, 16, 4), (32, 16, 8)]
    if wide > 64 or small:
        return [(32, 32, warps), (16, 32, 4)]
    return [(64, 32, warps), (32, 32, warps), (16, 32, 4)]


def default(problem: Problem) -> Config:
    """Blocks of 64 rows by one warp group (a wgmma's rows), so that one sample of a few hundred tokens is many blocks; of
    128 by two for longer ones, which read K and V half as often. With 64 keys and head size 64 that is 112 registers and
    64 KB: two such blocks share a multiprocessor, one's exp2 under the other's products. From 1024 keys on, 16 rows or fewer split the keys so that one sample with 8 key heads fills 132 multiprocessors."""
    wide, rows, half = max(problem.widths), problem.rows, _half(problem)
    if not problem.packed and problem.sk >= 1024 and rows <= 16:
        splits = min(16, triton.next_power_of_2(problem.sk) // 256)
        return Config("split", 16, 64 if half and wide <= 128 else 32 if wide <= 128 else 16, 4, 2, splits=splits)
    if not half:
        return Config("tiled", *_single(problem)[0], 1)
    if not problem.packed and problem.sk <= 64 and rows <= 64 and wide <= 128:
        keys = max(16, triton.next_power_of_2(problem.sk))
        return Config("windows", max(16, triton.next_power_of_2(rows)), keys, 4, 2, units=4)
    if problem.packed or (
        64 < rows <= 512 and wide <= 128
    ):  # packed: most sequences are short: 64 rows, one warp group's, waste least
        return Config("tiled", 64, 64 if wide <= 128 else 32, 4, 3 if wide <= 64 else 2)
    if rows <= 64:
        return Config("tiled", max(16, triton.next_power_of_2(rows)), 64 if wide <= 128 else 32, 4, 2)
    return Config("tiled", 128, 64, 8, 3 if wide <= 128 else 2)


def workspace(problem: Problem, config: Config, batch: int = 1) -> int:
    """Bytes: per row and split the unscaled sum [dv], its maximum and its denominator, float32."""
    if config.variant != "split":
        return 0
    return 4 * batch * problem.heads * problem.sq * config.splits * (problem.dv + 2)


def _strides(x: torch.Tensor, layout: str) -> tuple[int, ...]:
    return tuple(x.stride(a) for a in AXES[layout])


def _mask_strides(mask: torch.Tensor | None) -> tuple[int, int, int, int]:
    if mask is None:
        return 0, 0, 0, 0
    missing = 4 - mask.dim()
    at = [0] * missing + [s if n > 1 else 0 for n, s in zip(mask.shape, mask.stride())]
    return at[0], at[1], at[2], at[3]


def run(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, lengths: torch.Tensor | None,
    o: torch.Tensor, partial: torch.Tensor | None, *, problem: Problem, config: Config, scale: float, softcap: float = 0.0,
) -> None:  # fmt: skip
    """q, k, v, o: rank 4 in problem.layouts, element stride 1 but for k. mask: dense, broadcastable to [batch, heads, sq,
    sk]; packed: [1, heads or 1, 1, n] ("queries": [.., n, 1]) as fastinfer.PackedAttention has it. lengths: int64
    [sequences] on the device. partial: float32, of workspace() bytes."""
    p, c = problem, config
    if o.numel() == 0:
        return
    qs, ks = _strides(q, p.layouts[0]), _strides(k, p.layouts[1])
    vs, os = _strides(v, p.layouts[2])[:3], _strides(o, p.layouts[3])[:3]
    batch = q.shape[0]
    sq, sk = q.shape[AXES[p.layouts[0]][2]], k.shape[AXES[p.layouts[1]][2]]
    kind, _, form = p.mask.partition("/")
    ms = _packed_mask_strides(mask, form) if p.packed else _mask_strides(mask)
    # With float masks the scores can be near float32's limits: log2(e) comes after the subtraction of the maximum.
    log2 = kind != "added"
    sequences = lengths.shape[0] if lengths is not None else 0
    if p.packed:
        blocks = blocks_of(sq, sequences, p.group, c.rows)
    else:
        blocks = triton.cdiv(p.group * sq, c.rows)
    common = dict(
        GROUP=p.group, D=p.d, DV=p.dv, BD=p.widths[0], BDV=p.widths[1], BM=c.rows, BN=c.keys,
        MASK=kind, MASK_ROWS=ms[2] != 0 or form == "pairs" or (p.group > 1 and ms[1] != 0), MASK_KEYS=ms[3] != 0 or form == "pairs",
        CAUSAL=p.causal, SOFTCAP=p.softcap, ZERO_EMPTY=p.zero_empty, LOG2=log2,
        PRECISION="ieee" if p.products == "ieee" else "tf32", num_warps=c.num_warps, num_stages=c.num_stages,
    )  # fmt: skip
    factor = math.log2(math.e) if log2 else 1.0
    scalars = (scale * factor if not p.softcap else scale / softcap, softcap * factor)
    extents = (*qs[:3], *ks, *vs, *os, *ms, p.kv_heads, sq, sk)
    units = batch * p.kv_heads
    mask_given = q if mask is None else mask
    if c.variant == "windows":
        each = max(1, min(c.units, units // PROGRAMS))  # does not change a unit's bits
        grid = (triton.cdiv(units, each),)
        launch(device.windows_kernel, grid)(q, k, v, mask_given, o, *scalars, *extents, units, each, **common)
        return
    split = c.variant == "split"
    sums = o if partial is None else partial
    launch(device.tiled_kernel, (blocks * c.splits * units,))(
        q, k, v, mask_given, q if lengths is None else lengths, o, sums, *scalars, *extents, sequences, blocks,
        PACKED=p.packed, PAIRS=form == "pairs", MASK_FIRST=form in ("keys", "queries"), SPLITS=c.splits, SPLIT=split,
        CHUNK=CHUNK, **common,
    )  # fmt: skip
    if split:
        launch(device.combine_kernel, (batch * p.heads * sq,))(
            sums, o, *os, p.heads, sq, SPLITS=c.splits, DV=p.dv, BDV=p.widths[1], ZERO_EMPTY=p.zero_empty or sk == 0,
            LOG2=log2, num_warps=1,
        )  # fmt: skip


def _packed_mask_strides(mask: torch.Tensor | None, form: str) -> tuple[int, int, int, int]:
    """Of a token, or of a pair's second token."""
    if mask is None:
        return 0, 0, 0, 0
    shape = (1,) * (4 - mask.dim()) + tuple(mask.shape)
    head = 0 if shape[1] == 1 else shape[2] * shape[3]
    return 0, head, int(form == "queries"), int(form == "keys" or form == "pairs")
