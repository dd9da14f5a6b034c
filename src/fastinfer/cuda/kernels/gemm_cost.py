# SPDX-License-Identifier: Apache-2.0
"""Seconds that a configuration of the matrix product should take on an H200: a model to compare configurations of one problem by,
with no measurement in it that was made with these kernels.

A tile's block of k takes the longest of: tensor cores; shared memory, which the copies write and wgmma reads; the L2, shared by all
multiprocessors at work; and what is in flight over the latency. A multiprocessor has its share of the tiles one after another,
each with a start (first copies) and an end (epilogue) that only another resident block can hide; persistent programs start once.
The whole takes no less than its bytes through memory.
"""

from __future__ import annotations

from fastinfer.cuda.kernels.gemm_config import MULTIPROCESSORS, Config, Problem, programs, segments, shared, stream

# Bytes per second of memory, operations per second of bfloat16: measured here (KINDS.md: a copy 4.3e12, 8192³ by cuBLAS 788e12).
# tf32 has half of that rate by the datasheet; fp8 and int8: cuBLASLt's 1600e12 (KERNELS.md section 6); float32: 0.7 of the datasheet's 67e12.
BYTES = 4.3e12
RATE = {"half": 788e12, "tf32": 394e12, "fp8": 1600e12, "int8": 1600e12, "ieee": 47e12}
# mma.sync reaches some 0.6 of wgmma's rate on Hopper (arXiv 2402.13499).
MMA_SYNC = 0.6
# The L2: 5120 bytes a clock, as the A100's (Hopper's is not published), at 1.755 GHz, 0.8 of it. A multiprocessor's port: 64 bytes.
L2, PORT = 7.2e12, 64 * 1.755e9
# Seconds: a load from memory under load; a launch within a graph (KERNELS.md section 6); a block's start until its first data are
# there, and its end besides the bytes that it stores (the last two: guesses).
LATENCY, LAUNCH, START, END = 0.8e-6, 1.3e-6, 1.0e-6, 0.5e-6
# Guesses: the share of the shorter of two bounds that the longer does not hide; what addresses cost that the copy engine makes.
OVERLAP, POINTERS = 0.1, 1.05
# Triton 3.6 waits for wgmma after each block where sums are int32; another resident block can use the time. A guess.
STALL = 0.1e-6
# Float32 instructions of an epilogue's number, as compiled for sm_90: 8, and those of the activation; 128 lanes.
FINISH, LANES = 8, 128 * 1.755e9
ACTIVATIONS = {
    "sigmoid": 12, "silu": 13, "quick_gelu": 14, "tanh": 22, "gelu_tanh": 29, "gelu": 32, "elu": 38, "softplus": 40, "mish": 69,
    "hard_swish": 5, "hard_sigmoid": 4,
}  # fmt: skip
GELU_HALF = 14
_REGISTERS, _SHARED, _THREADS = 65536, 228 << 10, 2048  # of a multiprocessor; a block takes 1 KB of shared memory more


def seconds(p: Problem, c: Config) -> float:
    count = segments(p)[0]
    tiles = programs(p, c)
    split = c.variant == "split_k" and count > 1
    items = tiles * count if split else tiles
    blocks = -(-p.k // c.bk)
    out = c.bm * c.bn * (4 if split else p.out.itemsize * (2 if p.residual else 1))
    finish = c.bm * c.bn * (1 if split else _instructions(p)) / LANES
    work, end = blocks / (count if split else 1) * _block(p, c, items), END + out / PORT + finish
    if shares := stream(p, c):
        most = -(-shares.rest * count // MULTIPROCESSORS) / count if count > 1 else shares.rest / MULTIPROCESSORS
        busy = START + most * work + end + shares.full // MULTIPROCESSORS * (work + end)
        return _launched(p, busy) + _second(2 * 4 * shares.slots * c.bm * c.bn)
    rounds = -(-items // MULTIPROCESSORS)
    if c.variant == "persistent":
        return _launched(p, START + rounds * (work + end))
    chain = -(-rounds // _resident(p, c)) * (START + work + end)
    whole = _launched(p, max(rounds * max(work, finish) + START + end, chain))
    return whole + (_second(2 * 4 * count * p.m * p.n) if split else 0.0)


def _instructions(p: Problem) -> int:
    return FINISH + (GELU_HALF if p.activation == "gelu" and p.out.itemsize == 2 else ACTIVATIONS.get(p.activation, 1))


def _launched(p: Problem, busy: float) -> float:
    """A launch whose busiest multiprocessor works so long."""
    memory = START + _bytes(p) / BYTES
    return LAUNCH + max(busy, memory) + OVERLAP * min(busy, memory)


def _second(size: float) -> float:
    """A second launch, which adds sums: `size` bytes written and read, through the L2 while they fit there (60 MB)."""
    return LAUNCH + END + LATENCY + size / (L2 if size <= 2 * (30 << 20) else BYTES)


def _bytes(p: Problem) -> float:
    read = p.dtype.itemsize * p.batches * (p.m * p.k + p.n * p.k)
    return read + p.batches * p.m * p.n * p.out.itemsize * (2 if p.residual else 1)


def _block(p: Problem, c: Config, items: int) -> float:
    """Seconds of a block of k of one tile, where `items` such are to be done."""
    size = (c.bm + c.bn) * c.bk * p.dtype.itemsize
    wide = c.bm >= 64 and p.products != "ieee"
    active = max(1, min(items, MULTIPROCESSORS))
    resident = min(_resident(p, c), -(-items // MULTIPROCESSORS) or 1)
    ahead = (c.num_stages - 1 if wide else c.num_stages - 2) * size * resident
    arrive = size / min(L2 / active, PORT, max(ahead, size) / LATENCY)
    products = 2 * c.bm * c.bn * c.bk / (RATE[p.products] / MULTIPROCESSORS * _share(p, c))
    if p.products == "int8" and wide:
        products += STALL / resident
    return max(products, arrive) * (1.0 if c.tma else POINTERS)


def _share(p: Problem, c: Config) -> float:
    """Of the arithmetic rate that the tile's shape allows."""
    if p.products == "ieee":  # operands from shared memory per product: few where a thread has many sums
        sums = c.bm * c.bn / (32 * c.num_warps)
        return sums / (sums + 8)
    if c.bm < 64:
        return MMA_SYNC
    # Clocks of 32 bytes of k: a wgmma of 64 rows takes bn/2 and reads 64 + bn rows, copies write bm + bn, 128 bytes a clock.
    wgmma = c.bm // 64
    products, memory = wgmma * c.bn / 2, (wgmma * (64 + c.bn) + c.bm + c.bn) / 4
    return min(1.0, products / memory)


def _resident(p: Problem, c: Config) -> int:
    """Blocks that a multiprocessor holds at once. Registers: sums and some 72 more, as the compiler has it."""
    twice = segments(p)[0] > 1 and c.variant != "split_k" or p.products == "fp8"
    registers = min(255, c.per_thread * (2 if twice else 1) + 72) * 32 * c.num_warps
    return max(1, min(_SHARED // (shared(p, c) + 1024), _REGISTERS // registers, _THREADS // (32 * c.num_warps)))
