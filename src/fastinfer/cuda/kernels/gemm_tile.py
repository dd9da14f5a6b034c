# SPDX-License-Identifier: Apache-2.0
"""One tile of a matrix product: which one, and its sum over k.

Sums are taken in segments of k: each has an accumulator of its own that starts at zero, and the segments' sums are added in
order, whoever computed them. How many there are is a property of the problem (gemm_config.segments), so that a row's bits do
not depend on the variant, on the tile or on the rows beside it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastinfer.cuda.device import INTERPRET
from fastinfer.cuda.kernels import interpreter_range as interpreter_range

_INTERPRETED: tl.constexpr = tl.constexpr(INTERPRET)


@triton.jit
def tile_at(pid, m, n, BM: tl.constexpr, BN: tl.constexpr, GROUP: tl.constexpr):
    """Tiles in columns of GROUP, so that those running together share rows of A and columns of B in L2."""
    tiles_m, tiles_n = tl.cdiv(m, BM), tl.cdiv(n, BN)
    width = GROUP * tiles_n
    first = pid // width * GROUP
    size = tl.minimum(tiles_m - first, GROUP)
    return first + pid % width % size, pid % width // size


@triton.jit
def dot(a, b, acc, PRODUCTS: tl.constexpr, BK: tl.constexpr):
    if PRODUCTS == "int8":
        acc = tl.dot(a, b, acc, out_dtype=tl.int32)
    elif PRODUCTS == "fp8":
        # Hopper's fp8 sums keep 14 bits or so: each block's goes to a float32 register.
        acc = tl.dot(a, b, acc, max_num_imprecise_acc=BK)
    elif PRODUCTS == "fp8 runs":
        acc = tl.dot(a, b, acc)
    elif PRODUCTS == "tf32":
        acc = tl.dot(a, b, acc, input_precision="tf32")
    elif _INTERPRETED:  # numpy has no bfloat16: the product would be the bits'
        acc = tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    else:
        acc = tl.dot(a, b, acc, input_precision="ieee")
    return acc


@triton.jit
def _zeros(BM: tl.constexpr, BN: tl.constexpr, PRODUCTS: tl.constexpr):
    return tl.zeros((BM, BN), tl.int32 if PRODUCTS == "int8" else tl.float32)


@triton.jit
def _sum_pointers(
    a, b, i, j, m, n, k, first, last, lda, ldb,
    TRANS_A: tl.constexpr, TRANS_B: tl.constexpr, EVEN_K: tl.constexpr, PRODUCTS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EACH: tl.constexpr,
):  # fmt: skip
    """As blocks(). Where k is contiguous, rows past the end are the last one again, and not stored."""
    rm, rn, rk = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, BK)
    left_m, left_n = m - i * BM, n - j * BN
    row, column, start = tl.cast(i, tl.int64) * BM, tl.cast(j, tl.int64) * BN, tl.cast(first, tl.int64) * BK
    if TRANS_A:
        a_at = a + row + start * lda + rk[None, :] * lda + rm[:, None]
    else:
        a_at = a + row * lda + start + tl.minimum(rm, left_m - 1)[:, None] * lda + rk[None, :]
    if TRANS_B:
        b_at = b + column * ldb + start + tl.minimum(rn, left_n - 1)[None, :] * ldb + rk[:, None]
    else:
        b_at = b + column + start * ldb + rk[:, None] * ldb + rn[None, :]
    acc, total = _zeros(BM, BN, PRODUCTS), _zeros(BM, BN, PRODUCTS)
    for block in range(first, last):
        inside = rk < k - block * BK
        if TRANS_A:
            x = tl.load(a_at, mask=inside[None, :] & (rm < left_m)[:, None], other=0.0)
        elif EVEN_K:
            x = tl.load(a_at)
        else:
            x = tl.load(a_at, mask=inside[None, :], other=0.0)
        if not TRANS_B:
            y = tl.load(b_at, mask=inside[:, None] & (rn < left_n)[None, :], other=0.0)
        elif EVEN_K:
            y = tl.load(b_at)
        else:
            y = tl.load(b_at, mask=inside[:, None], other=0.0)
        acc = dot(x, y, acc, PRODUCTS, BK)
        if EACH > 0:
            if (block + 1) % EACH == 0:
                total += acc
                acc = _zeros(BM, BN, PRODUCTS)
        a_at += BK * lda if TRANS_A else BK
        b_at += BK if TRANS_B else BK * ldb
    return total + acc if EACH > 0 else acc


@triton.jit
def _sum_tma(
    a, b, i, j, first, last, TRANS_A: tl.constexpr, TRANS_B: tl.constexpr, PRODUCTS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EACH: tl.constexpr,
):  # fmt: skip
    """As blocks(), through tensor descriptors, which give zeros past the ends."""
    acc, total = _zeros(BM, BN, PRODUCTS), _zeros(BM, BN, PRODUCTS)
    for block in range(first, last):
        if TRANS_A:
            x = tl.trans(a.load([block * BK, i * BM]))
        else:
            x = a.load([i * BM, block * BK])
        if TRANS_B:
            y = tl.trans(b.load([j * BN, block * BK]))
        else:
            y = b.load([block * BK, j * BN])
        acc = dot(x, y, acc, PRODUCTS, BK)
        if EACH > 0:
            if (block + 1) % EACH == 0:
                total += acc
                acc = _zeros(BM, BN, PRODUCTS)
    return total + acc if EACH > 0 else acc


@triton.jit
def blocks(
    a, b, first, last, i, j, m, n, k, lda, ldb,
    TRANS_A: tl.constexpr, TRANS_B: tl.constexpr, EVEN_K: tl.constexpr, PRODUCTS: tl.constexpr, TMA: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EACH: tl.constexpr,
):  # fmt: skip
    """The sum over blocks first to last of k; EACH so many a sum of its own (0: all in one). One loop does it all, so that the
    copies of the next segment are under way when one ends."""
    if TMA:
        return _sum_tma(a, b, i, j, first, last, TRANS_A, TRANS_B, PRODUCTS, BM, BN, BK, EACH)
    else:
        return _sum_pointers(
            a, b, i, j, m, n, k, first, last, lda, ldb, TRANS_A, TRANS_B, EVEN_K, PRODUCTS, BM, BN, BK, EACH
        )  # fmt: skip


@triton.jit
def segment(
    a, b, s, i, j, m, n, k, lda, ldb, SEGMENT: tl.constexpr,
    TRANS_A: tl.constexpr, TRANS_B: tl.constexpr, EVEN_K: tl.constexpr, PRODUCTS: tl.constexpr, TMA: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """The sum over segment s of k: SEGMENT elements, a multiple of BK."""
    first = s * (SEGMENT // BK)
    last = tl.minimum(first + SEGMENT // BK, tl.cdiv(k, BK))
    return blocks(a, b, first, last, i, j, m, n, k, lda, ldb, TRANS_A, TRANS_B, EVEN_K, PRODUCTS, TMA, BM, BN, BK, 0)


@triton.jit
def part(
    a, b, first, last, i, j, m, n, k, lda, ldb,
    TRANS_A: tl.constexpr, TRANS_B: tl.constexpr, EVEN_K: tl.constexpr, PRODUCTS: tl.constexpr, TMA: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Blocks first to last where there are no segments. fp8: what the compiler does for every block waits for the tensor cores
    each time; 512 of k in their 14 bits, with an error of 2^-10 or so that drowns in that of the operands, wait once."""
    if PRODUCTS == "fp8":
        return blocks(
            a, b, first, last, i, j, m, n, k, lda, ldb, TRANS_A, TRANS_B, EVEN_K, "fp8 runs", TMA, BM, BN, BK, 512 // BK
        )  # fmt: skip
    else:
        return blocks(
            a, b, first, last, i, j, m, n, k, lda, ldb, TRANS_A, TRANS_B, EVEN_K, PRODUCTS, TMA, BM, BN, BK, 0
        )  # fmt: skip


@triton.jit
def whole(
    a, b, i, j, m, n, k, lda, ldb, SEGMENT: tl.constexpr,
    TRANS_A: tl.constexpr, TRANS_B: tl.constexpr, EVEN_K: tl.constexpr, PRODUCTS: tl.constexpr, TMA: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """The sum over k, segments (0: none) added in order."""
    if SEGMENT == 0:
        return part(
            a, b, 0, tl.cdiv(k, BK), i, j, m, n, k, lda, ldb, TRANS_A, TRANS_B, EVEN_K, PRODUCTS, TMA, BM, BN, BK
        )
    else:
        return blocks(
            a, b, 0, tl.cdiv(k, BK), i, j, m, n, k, lda, ldb,
            TRANS_A, TRANS_B, EVEN_K, PRODUCTS, TMA, BM, BN, BK, SEGMENT // BK,
        )  # fmt: skip
