# SPDX-License-Identifier: Apache-2.0
"""Stream-K (Osama et al. 2023, arXiv 2301.03598): the tiles past the last full wave are shared by all programs.

As many programs as multiprocessors. Each first takes an equal run of those tiles' blocks of k, across the tiles' borders, and
leaves a sum per tile in the workspace; then its share of the full waves' tiles, whole. A second launch adds the sums, in order of
k, and finishes the tiles. So there are no flags to wait for, and an order of sums that only the partition decides.

The partition (gemm_config.stream) depends on m. Where the problem has segments, the unit that is shared is a segment, which has a
sum of its own in every variant: the bits are those of all variants. Where it has none, the unit is a block, and a row's bits depend on the
rows beside it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastinfer.cuda.kernels.gemm_epilogue import finish, finish_parts
from fastinfer.cuda.kernels.gemm_tile import part, segment, tile_at, whole

UNSPECIALIZED = ["m", "alpha", "beta", "act_alpha", "act_beta", "full", "rest", "streams"]


@triton.jit
def _leave(acc, work, slot, BM: tl.constexpr, BN: tl.constexpr):
    at = tl.cast(slot, tl.int64) * (BM * BN) + tl.arange(0, BM)[:, None] * BN + tl.arange(0, BN)[None, :]
    tl.store(work + at, acc)


@triton.jit
def _share(
    a, b, work, m, n, k, lda, ldb, full, rest, streams, SEGMENTS: tl.constexpr, SEGMENT: tl.constexpr,
    TRANS_A: tl.constexpr, TRANS_B: tl.constexpr, EVEN_K: tl.constexpr, PRODUCTS: tl.constexpr, TMA: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """work[slot, BM, BN]: this program's sums of the `rest` tiles after the `full` ones. A slot per segment, or per part of a tile:
    from one part to the next in order, the program or the tile goes up by one, hence their sum numbers the slots."""
    pid = tl.program_id(0)
    if SEGMENTS > 1:
        for unit in range(pid * (rest * SEGMENTS) // streams, (pid + 1) * (rest * SEGMENTS) // streams):
            i, j = tile_at(full + unit // SEGMENTS, m, n, BM, BN, GROUP)
            acc = segment(
                a, b, unit % SEGMENTS, i, j, m, n, k, lda, ldb, SEGMENT, TRANS_A, TRANS_B, EVEN_K, PRODUCTS, TMA, BM, BN, BK
            )  # fmt: skip
            _leave(acc, work, unit, BM, BN)
    else:
        units = tl.cdiv(k, BK)
        begin, end = pid * (rest * units) // streams, (pid + 1) * (rest * units) // streams
        for tile in range(begin // units, tl.cdiv(end, units)):
            first, last = tl.maximum(begin - tile * units, 0), tl.minimum(end - tile * units, units)
            i, j = tile_at(full + tile, m, n, BM, BN, GROUP)
            acc = part(
                a, b, first, last, i, j, m, n, k, lda, ldb, TRANS_A, TRANS_B, EVEN_K, PRODUCTS, TMA, BM, BN, BK
            )  # fmt: skip
            _leave(acc, work, pid + tile, BM, BN)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def _stream(
    a, b, c, work, bias, residual, a_scale, b_scale, m, n, k, lda, ldb, residual_m, residual_n,
    alpha, beta, act_alpha, act_beta, full, rest, streams, SEGMENTS: tl.constexpr, SEGMENT: tl.constexpr,
    TRANS_A: tl.constexpr, TRANS_B: tl.constexpr, EVEN_K: tl.constexpr, PRODUCTS: tl.constexpr, TMA: tl.constexpr,
    BIAS: tl.constexpr, RESIDUAL: tl.constexpr, SCALED: tl.constexpr, ACTIVATION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """full: tiles that a program computes whole; rest: tiles that the first `streams` programs share."""
    if tl.program_id(0) < streams:
        _share(
            a, b, work, m, n, k, lda, ldb, full, rest, streams, SEGMENTS, SEGMENT,
            TRANS_A, TRANS_B, EVEN_K, PRODUCTS, TMA, BM, BN, BK, GROUP,
        )  # fmt: skip
    for tile in tl.range(tl.program_id(0), full, tl.num_programs(0), flatten=True):
        i, j = tile_at(tile, m, n, BM, BN, GROUP)
        acc = whole(a, b, i, j, m, n, k, lda, ldb, SEGMENT, TRANS_A, TRANS_B, EVEN_K, PRODUCTS, TMA, BM, BN, BK)
        finish_parts(
            acc, c, bias, residual, a_scale, b_scale, 0, i * BM + tl.arange(0, BM), j * BN, m, n, 0, residual_m, residual_n,
            alpha, beta, act_alpha, act_beta, BIAS, RESIDUAL, SCALED, ACTIVATION, PARTS,
        )  # fmt: skip


@triton.jit(do_not_specialize=UNSPECIALIZED)
def _mend(
    work, c, bias, residual, a_scale, b_scale, m, n, k, residual_m, residual_n, alpha, beta, act_alpha, act_beta,
    full, rest, streams, SEGMENTS: tl.constexpr,
    BIAS: tl.constexpr, RESIDUAL: tl.constexpr, SCALED: tl.constexpr, ACTIVATION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """ROWS of a shared tile: its sums in order, and the epilogue. As _share numbers the slots."""
    PIECES: tl.constexpr = BM // ROWS
    tile = tl.program_id(0) // PIECES
    row = tl.program_id(0) % PIECES * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BN)
    i, j = tile_at(full + tile, m, n, BM, BN, GROUP)
    at = work + row[:, None] * BN + column[None, :]
    acc = tl.zeros((ROWS, BN), work.dtype.element_ty)
    if SEGMENTS > 1:
        at += tl.cast(tile, tl.int64) * (SEGMENTS * BM * BN)
        for s in tl.static_range(SEGMENTS):
            acc += tl.load(at + s * (BM * BN))
    else:
        units = tl.cdiv(k, BK)
        first = ((tile * units + 1) * streams - 1) // (rest * units)  # the program that has the tile's first block
        last = ((tile + 1) * units * streams - 1) // (rest * units)
        for program in range(first, last + 1):
            acc += tl.load(at + tl.cast(tile + program, tl.int64) * (BM * BN))
    finish(
        acc, c, bias, residual, a_scale, b_scale, 0, i * BM + row, j * BN + column, m, n, 0, residual_m, residual_n,
        alpha, beta, act_alpha, act_beta, BIAS, RESIDUAL, SCALED, ACTIVATION,
    )  # fmt: skip


def rows_of_piece(bm: int, bn: int) -> int:
    """So that a program of 4 warps has 8 numbers per thread."""
    return max(1, min(bm, 1024 // bn))
