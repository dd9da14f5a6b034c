# SPDX-License-Identifier: Apache-2.0
"""The device side of attention.py: three kernels and what they share."""

from __future__ import annotations

import triton
import triton.language as tl

from fastinfer.cuda.device import INTERPRET
from fastinfer.cuda.kernels.attention_segments import locate

INTERPRETED = tl.constexpr(INTERPRET)


@triton.jit
def _dot(a, b, acc, PRECISION: tl.constexpr):
    if INTERPRETED:  # numpy has no bfloat16: its products would be those of the bits
        return acc + tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def _power(x, LOG2: tl.constexpr):
    return tl.exp2(x) if LOG2 else tl.exp(x)


@triton.jit
def _capped(s, scale, softcap, SOFTCAP: tl.constexpr):
    """s·scale, or softcap·tanh(s·scale) where scale has been divided by the cap."""
    s = s * scale
    if SOFTCAP:
        t = tl.exp(-2.0 * tl.abs(s))
        tanh = (1.0 - t) / (1.0 + t)
        s = softcap * tl.where(s < 0, -tanh, tanh)
    return s


@triton.jit
def _masked(
    s, mask_ptr, row_at, key_at, row_in, key_in, MASK: tl.constexpr, MASK_ROWS: tl.constexpr, MASK_KEYS: tl.constexpr,
    ZERO_EMPTY: tl.constexpr,
):  # fmt: skip
    """Masks that do not change along the rows or keys are read once per key or row."""
    if MASK != "none":
        if MASK_ROWS and MASK_KEYS:
            m = tl.load(mask_ptr + row_at[:, None] + key_at[None, :], mask=row_in[:, None] & key_in[None, :], other=0)
        elif MASK_ROWS:
            m = tl.load(mask_ptr + row_at, mask=row_in, other=0)[:, None]
        else:
            m = tl.load(mask_ptr + key_at, mask=key_in, other=0)[None, :]
        if MASK == "kept":
            s = tl.where(m != 0, s, float("-inf"))
        else:
            m = m.to(tl.float32)
            if mask_ptr.dtype.element_ty == tl.float16:
                # float16's lowest number was float32's, beside which scores do not count
                m = tl.where(m == -65504.0, -3.3e38, m)
            if mask_ptr.dtype.element_ty != tl.float32 and not ZERO_EMPTY:
                # float32's lowest number is −∞ in 16 bits; a row of nothing else is their mean, not NaN
                m = tl.maximum(m, -3.3e38)
            s = s + m
    return s


@triton.jit
def _sweep(
    acc, total, m, q, k_ptr, v_ptr, mask_ptr, row_at, row_in, limit, lo, hi, sk, scale, softcap, ks, ke, vs, mask_k,
    D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    MASK: tl.constexpr, MASK_ROWS: tl.constexpr, MASK_KEYS: tl.constexpr, SOFTCAP: tl.constexpr,
    ZERO_EMPTY: tl.constexpr, LOG2: tl.constexpr, PRECISION: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """Keys lo to hi in blocks. EDGE: some are not seen by some row (limit: keys of each row), or are not there."""
    e, ev = tl.arange(0, BD), tl.arange(0, BDV)
    for start in range(lo, hi, BN):
        keys = start + tl.arange(0, BN)
        at = k_ptr + keys[None, :] * ks + e[:, None] * ke
        v_at = v_ptr + keys[:, None] * vs + ev[None, :]
        there = keys < sk
        if EDGE:
            k = tl.load(at, mask=there[None, :] & (e < D)[:, None], other=0.0)
        elif D < BD:
            k = tl.load(at, mask=(e < D)[:, None], other=0.0)
        else:
            k = tl.load(at)
        s = _capped(_dot(q, k, tl.zeros([BM, BN], tl.float32), PRECISION), scale, softcap, SOFTCAP)
        s = _masked(s, mask_ptr, row_at, keys * mask_k, row_in, there, MASK, MASK_ROWS, MASK_KEYS, ZERO_EMPTY)
        if EDGE:
            s = tl.where(keys[None, :] < limit[:, None], s, float("-inf"))
        top = tl.maximum(m, tl.max(s, 1))
        origin = tl.where(top == float("-inf"), 0.0, top)
        p = _power(s - origin[:, None], LOG2)
        alpha = _power(m - origin, LOG2)
        total = total * alpha + tl.sum(p, 1)
        acc = acc * alpha[:, None]
        if EDGE:
            v = tl.load(v_at, mask=there[:, None] & (ev < DV)[None, :], other=0.0)
        elif DV < BDV:
            v = tl.load(v_at, mask=(ev < DV)[None, :], other=0.0)
        else:
            v = tl.load(v_at)
        acc = _dot(p.to(v.dtype), v, acc, PRECISION)
        m = top
    return acc, total, m


@triton.jit
def _normalized(acc, total, no_keys, ZERO_EMPTY: tl.constexpr):
    """A row without keys: 0, or 0/0."""
    y = acc / total[:, None]
    if ZERO_EMPTY:
        return tl.where((total == 0.0)[:, None], 0.0, y)
    return tl.where(no_keys, 0.0, y)


@triton.jit
def tiled_kernel(
    q_ptr, k_ptr, v_ptr, mask_ptr, lengths_ptr, o_ptr, partial_ptr, scale, softcap,
    qb, qh, qs, kb, kh, ks, ke, vb, vh, vs, ob, oh, os, mask_b, mask_h, mask_q, mask_k, kv_heads, sq, sk,
    sequences, blocks,
    GROUP: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, MASK: tl.constexpr, MASK_ROWS: tl.constexpr, MASK_KEYS: tl.constexpr, CAUSAL: tl.constexpr,
    SOFTCAP: tl.constexpr, ZERO_EMPTY: tl.constexpr, LOG2: tl.constexpr, PRECISION: tl.constexpr,
    PACKED: tl.constexpr, PAIRS: tl.constexpr, MASK_FIRST: tl.constexpr, SPLITS: tl.constexpr, SPLIT: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    """Program: (unit = batch and key head, split, block of rows), blocks fastest: K and V of a unit stay in L2."""
    block = tl.program_id(0) % blocks
    split = tl.program_id(0) // blocks % SPLITS
    unit = tl.program_id(0) // blocks // SPLITS
    batch, head = (unit // kv_heads).to(tl.int64), (unit % kv_heads).to(tl.int64)
    if CAUSAL:
        block = blocks - 1 - block  # those with most keys first
    q_ptr += batch * qb + head * GROUP * qh
    k_ptr += batch * kb + head * kh
    v_ptr += batch * vb + head * vh
    o_ptr += batch * ob + head * GROUP * oh
    mask_ptr += batch * mask_b + head * GROUP * mask_h
    if PACKED:
        first, sq, sk, block, pairs = locate(lengths_ptr, sequences, sq, block, GROUP, BM, CHUNK)
        first = first.to(tl.int64)
        q_ptr += first * qs
        k_ptr += first * ks
        v_ptr += first * vs
        o_ptr += first * os
        if PAIRS:
            mask_ptr += pairs
            mask_q = sk
        elif MASK_FIRST:
            mask_ptr += first
    row = block * BM + tl.arange(0, BM)
    if block * BM >= sq * GROUP:
        return
    row_in = row < sq * GROUP
    i, g = row // GROUP, row % GROUP
    e, ev = tl.arange(0, BD), tl.arange(0, BDV)
    q_at = q_ptr + (g.to(tl.int64) * qh + i.to(tl.int64) * qs)[:, None] + e[None, :]
    q = tl.load(q_at, mask=row_in[:, None] & (e < D)[None, :], other=0.0)
    row_at = g.to(tl.int64) * mask_h + i.to(tl.int64) * mask_q
    acc = tl.zeros([BM, BDV], tl.float32)
    total = tl.zeros([BM], tl.float32)
    m = tl.full([BM], float("-inf"), tl.float32)
    limit = tl.zeros([BM], tl.int32) + sk
    lo, hi, inner = 0, sk, sk // BN * BN  # inner: keys below are there and seen by every row of the block
    if CAUSAL:
        limit = tl.minimum(i + (sk - sq) + 1, sk)
        hi = tl.maximum(tl.minimum((block * BM + BM - 1) // GROUP + (sk - sq) + 1, sk), 0)
        inner = tl.maximum(tl.minimum(block * BM // GROUP + (sk - sq) + 1, sk), 0) // BN * BN
    if SPLIT:
        each = tl.cdiv(tl.cdiv(sk, BN), SPLITS) * BN
        lo = split * each
        hi = tl.minimum(hi, lo + each)
        inner = tl.minimum(tl.maximum(inner, lo), lo + each)
    acc, total, m = _sweep(
        acc, total, m, q, k_ptr, v_ptr, mask_ptr, row_at, row_in, limit, lo, inner, sk, scale, softcap, ks, ke, vs, mask_k,
        D, DV, BD, BDV, BM, BN, MASK, MASK_ROWS, MASK_KEYS, SOFTCAP, ZERO_EMPTY, LOG2, PRECISION, False,
    )  # fmt: skip
    acc, total, m = _sweep(
        acc, total, m, q, k_ptr, v_ptr, mask_ptr, row_at, row_in, limit, inner, hi, sk, scale, softcap, ks, ke, vs, mask_k,
        D, DV, BD, BDV, BM, BN, MASK, MASK_ROWS, MASK_KEYS, SOFTCAP, ZERO_EMPTY, LOG2, PRECISION, True,
    )  # fmt: skip
    kept = row_in[:, None] & (ev < DV)[None, :]
    if SPLIT:
        line = ((batch * kv_heads + head) * GROUP + g) * sq + i  # [batch, heads, sq] of [splits, DV + 2]
        to = partial_ptr + (line * SPLITS + split) * (DV + 2)
        tl.store(to[:, None] + ev[None, :], acc, mask=kept)
        tl.store(to + DV, m, mask=row_in)
        tl.store(to + DV + 1, total, mask=row_in)
    else:
        y = _normalized(acc, total, sk == 0, ZERO_EMPTY)
        to = o_ptr + (g.to(tl.int64) * oh + i.to(tl.int64) * os)[:, None] + ev[None, :]
        tl.store(to, y.to(o_ptr.dtype.element_ty), mask=kept)


@triton.jit
def combine_kernel(
    partial_ptr, o_ptr, ob, oh, os, heads, sq, SPLITS: tl.constexpr, DV: tl.constexpr, BDV: tl.constexpr,
    ZERO_EMPTY: tl.constexpr, LOG2: tl.constexpr,
):  # fmt: skip
    """One row: its parts in order."""
    line = tl.program_id(0).to(tl.int64)
    ev = tl.arange(0, BDV)
    from_ = partial_ptr + line * SPLITS * (DV + 2)
    top = tl.full([], float("-inf"), tl.float32)
    for split in range(SPLITS):
        top = tl.maximum(top, tl.load(from_ + split * (DV + 2) + DV))
    origin = tl.where(top == float("-inf"), 0.0, top)
    total = tl.full([], 0.0, tl.float32)
    acc = tl.zeros([BDV], tl.float32)
    for split in range(SPLITS):
        at = from_ + split * (DV + 2)
        weight = _power(tl.load(at + DV) - origin, LOG2)
        total += weight * tl.load(at + DV + 1)
        acc += weight * tl.load(at + ev, mask=ev < DV, other=0.0)
    y = acc / total
    if ZERO_EMPTY:
        y = tl.where(total == 0.0, 0.0, y)
    batch, head, i = line // sq // heads, line // sq % heads, line % sq
    tl.store(o_ptr + batch * ob + head * oh + i * os + ev, y.to(o_ptr.dtype.element_ty), mask=ev < DV)


@triton.jit
def windows_kernel(
    q_ptr, k_ptr, v_ptr, mask_ptr, o_ptr, scale, softcap,
    qb, qh, qs, kb, kh, ks, ke, vb, vh, vs, ob, oh, os, mask_b, mask_h, mask_q, mask_k, kv_heads, sq, sk, units, each,
    GROUP: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, MASK: tl.constexpr, MASK_ROWS: tl.constexpr, MASK_KEYS: tl.constexpr, CAUSAL: tl.constexpr,
    SOFTCAP: tl.constexpr, ZERO_EMPTY: tl.constexpr, LOG2: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Program: `each` (batch, key head) units one after the other, each with all its rows and keys at once."""
    e, ev = tl.arange(0, BD), tl.arange(0, BDV)
    row, keys = tl.arange(0, BM), tl.arange(0, BN)
    row_in, there = row < sq * GROUP, keys < sk
    i, g = row // GROUP, row % GROUP
    limit = tl.zeros([BM], tl.int32) + sk
    if CAUSAL:
        limit = tl.minimum(i + (sk - sq) + 1, sk)
    q_at = (g * qh + i * qs)[:, None] + e[None, :]
    k_at = keys[None, :] * ks + e[:, None] * ke
    v_at = keys[:, None] * vs + ev[None, :]
    o_at = (g * oh + i * os)[:, None] + ev[None, :]
    begin = tl.program_id(0) * each
    for unit in range(begin, tl.minimum(begin + each, units)):
        batch, head = (unit // kv_heads).to(tl.int64), (unit % kv_heads).to(tl.int64)
        q_mask, k_mask = row_in[:, None] & (e < D)[None, :], there[None, :] & (e < D)[:, None]
        q = tl.load(q_ptr + batch * qb + head * GROUP * qh + q_at, mask=q_mask, other=0.0)
        k = tl.load(k_ptr + batch * kb + head * kh + k_at, mask=k_mask, other=0.0)
        v_mask = there[:, None] & (ev < DV)[None, :]
        v = tl.load(v_ptr + batch * vb + head * vh + v_at, mask=v_mask, other=0.0)
        s = _capped(_dot(q, k, tl.zeros([BM, BN], tl.float32), PRECISION), scale, softcap, SOFTCAP)
        mask = mask_ptr + batch * mask_b + head * GROUP * mask_h
        row_at = g.to(tl.int64) * mask_h + i.to(tl.int64) * mask_q
        s = _masked(s, mask, row_at, keys * mask_k, row_in, there, MASK, MASK_ROWS, MASK_KEYS, ZERO_EMPTY)
        s = tl.where(keys[None, :] < limit[:, None], s, float("-inf"))
        top = tl.max(s, 1)
        p = _power(s - tl.where(top == float("-inf"), 0.0, top)[:, None], LOG2)
        acc = _dot(p.to(v.dtype), v, tl.zeros([BM, BDV], tl.float32), PRECISION)
        y = _normalized(acc, tl.sum(p, 1), sk == 0, ZERO_EMPTY)
        to = o_ptr + batch * ob + head * GROUP * oh + o_at
        tl.store(to, y.to(o_ptr.dtype.element_ty), mask=row_in[:, None] & (ev < DV)[None, :])
