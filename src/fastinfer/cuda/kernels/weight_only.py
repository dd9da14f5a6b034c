# SPDX-License-Identifier: Apache-2.0
"""Products with weights of 4 or 8 bits in blocks along k (com.microsoft MatMulNBits), in Triton.

    y[m, n] = bias[n] + sum over k of a[m, k] * (q[n, k] - zero[n, k // block]) * scale[n, k // block]

Weights are the left operand: what is dequantised in registers then goes to the tensor cores from registers, and only the
activations pass through shared memory. They are reordered once (``pack_words``): in a word of 32 bits lie the fields of k = w,
w + 32, w + 64, …, so that one shift of a tile [BN, 32] of words is a tile of weights with k ascending, and a block's tile is one
piece of memory.

decode: few rows. Bound by the weights' n k bits / 8 bytes; k is split over programs so that all SMs read, the sums are added in
the order of the splits by a second launch. (q - zero) is exact in half types, scales are applied to float32 sums of a block: no
weight is rounded. The split depends on n and k only, the tile is fixed, so a row's bits do not depend on m.
tiled: many rows. Bound by the tensor cores, at 2 m n k operations; weights are dequantised to the activations' type (one rounding).
Which of the two is asked of one sample's rows, never of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from fastinfer.cuda.device import H200, INTERPRET
from fastinfer.cuda.kernels import interpreter_range  # noqa: F401  (loops whose bounds are computed)
from fastinfer.cuda.kernels.launch import launch

WORDS = 32  # of a row of a tile: k's of one field
_SMS = H200[2]


@dataclass(frozen=True)
class Problem:
    """dtype: of a, bias and y. zeros: "none" (half of the range), "int" (uint8 [blocks, n]) or "float" (float32 [blocks, n]).
    sample_rows: rows of a that belong to one sample. products: of float32, "ieee" or "tf32"."""

    m: int
    n: int
    k: int
    bits: int
    block: int
    dtype: str
    zeros: str
    bias: bool
    sample_rows: int
    products: str = "ieee"

    @property
    def chunk(self) -> int:
        return WORDS * 32 // self.bits

    @property
    def chunks(self) -> int:
        return -(-self.k // self.chunk)


@dataclass(frozen=True)
class Config:
    variant: str  # "decode" or "tiled"
    bm: int
    bn: int
    split: int
    warps: int
    stages: int


FEW = 16  # rows of a sample
_INTERPRETED = tl.constexpr(INTERPRET)


def default(problem: Problem) -> Config:
    if problem.sample_rows > FEW:
        bm = 64 if problem.sample_rows <= 64 or problem.dtype == "float32" else 128
        return Config("tiled", bm, 64 if problem.dtype == "float32" else 128, 1, 8, 3)
    return Config("decode", 16, 64, _split(problem, 64, 2), 4, 4)


def configs(problem: Problem) -> list[Config]:
    if problem.sample_rows > FEW:
        tiles = [(64, 64, 4), (64, 128, 8), (128, 64, 4), (128, 128, 8), (256, 64, 8)]
        return [Config("tiled", bm, bn, 1, warps, stages) for bm, bn, warps in tiles for stages in (2, 3, 4)]
    columns = [(32, 2), (64, 4), (128, 4), (128, 8)]
    found = [
        Config("decode", 16, bn, _split(problem, bn, waves), warps, stages)
        for bn, warps in columns
        for waves in (1, 2, 4)
        for stages in (3, 4)
    ]
    return list(dict.fromkeys(found))


def _split(problem: Problem, bn: int, waves: int) -> int:
    """So many that `waves` programs per SM read, each at least two chunks."""
    tiles = -(-problem.n // bn)
    return max(1, min(-(-waves * _SMS // tiles), problem.chunks // 2, 64))


def workspace(problem: Problem, config: Config) -> int:
    return config.split * problem.m * problem.n * 4 if config.split > 1 else 0


# ------------------------------------------------------------------------------------------------------------- layouts


def unpack(packed: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """uint8 [n, bytes], low half first → uint8 [n, count]."""
    if bits == 4:
        packed = torch.stack([packed & 15, packed >> 4], -1).reshape(packed.shape[0], -1)
    return packed[:, :count]


def pack_words(q: torch.Tensor, n: int, k: int, bits: int, block: int) -> torch.Tensor:
    """MatMulNBits' B, uint8 [n, ceil(k / block), block * bits / 8] → int32 [chunks, n, 32]: field i of word w is k = chunk * c +
    32 i + w. Beyond k: 0."""
    per = 32 // bits
    chunks = -(-k // (WORDS * per))
    out = torch.zeros((chunks, n, WORDS), dtype=torch.int32, device=q.device)
    values = unpack(q.reshape(n, -1), bits, k)
    for i in range(per):  # a field at a time: not all n k weights as int32
        for c in range(chunks):
            at = (c * per + i) * WORDS
            field = values[:, at : at + WORDS].to(torch.int32)
            out[c, :, : field.shape[1]] |= field << (bits * i)
    return out


def pack_scales(scales: torch.Tensor, n: int) -> torch.Tensor:
    """[n, blocks] → [blocks, n], in 16 bits where that is exact."""
    turned = scales.reshape(n, -1).float().T.contiguous()
    for dtype in (torch.float16, torch.bfloat16):
        if torch.equal(turned.to(dtype).float(), turned):
            return turned.to(dtype)
    return turned


def pack_zeros(zeros: torch.Tensor, n: int, bits: int, blocks: int) -> torch.Tensor:
    """Packed uint8 [n, …] or floats [n, blocks] → [blocks, n]."""
    values = unpack(zeros.reshape(n, -1), bits, blocks) if zeros.dtype == torch.uint8 else zeros.reshape(n, -1).float()
    return values.T.contiguous()


# ------------------------------------------------------------------------------------------------------------- kernels


@triton.jit
def _dot(x, y, acc, PRECISION: tl.constexpr):
    if _INTERPRETED:  # numpy has no bfloat16: the product would be the bits'
        return tl.dot(x.to(tl.float32), y.to(tl.float32), acc, input_precision="ieee")
    return tl.dot(x, y, acc, input_precision=PRECISION)


@triton.jit
def _product_kernel(
    a_ptr, words_ptr, scales_ptr, zeros_ptr, bias_ptr, y_ptr, m, n, k, chunks,
    BITS: tl.constexpr, BLOCK: tl.constexpr, ZEROS: tl.constexpr, BIAS: tl.constexpr, EXACT: tl.constexpr,
    SPLIT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y: [m, n], or with SPLIT > 1 float32 [SPLIT, m, n]. EXACT: scales are applied to sums."""
    PER: tl.constexpr = 32 // BITS
    rank = tl.program_id(2)
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rn = tl.program_id(1) * BN + tl.arange(0, BN)
    rw = tl.arange(0, 32)
    in_m, in_n = rm < m, rn < n
    row_ptr = a_ptr + rm.to(tl.int64)[None, :] * k + rw[:, None]
    word_ptr = words_ptr + rn[:, None] * 32 + rw[None, :]
    acc = tl.zeros((BN, BM), tl.float32)
    part = tl.zeros((BN, BM), tl.float32)
    for c in range(chunks * rank // SPLIT, chunks * (rank + 1) // SPLIT):
        word = tl.load(word_ptr + tl.cast(c, tl.int64) * n * 32, mask=in_n[:, None], other=0)
        for i in tl.static_range(PER):
            k0 = c * (32 * PER) + 32 * i
            x = tl.load(row_ptr + k0, mask=in_m[None, :] & (k0 + rw < k)[:, None], other=0.0)
            q = (word >> (BITS * i)) & ((1 << BITS) - 1)
            if BLOCK < 32:  # several blocks in a tile
                at = ((k0 + rw) // BLOCK)[None, :] * n + rn[:, None]
                inside = in_n[:, None] & (k0 + rw < k)[None, :]
            elif i == 0 or 32 * i % BLOCK == 0:
                at = (k0 // BLOCK) * n + rn[:, None]
                inside = in_n[:, None] & (k0 < k)
            if BLOCK < 32 or i == 0 or 32 * i % BLOCK == 0:
                scale = tl.load(scales_ptr + at, mask=inside, other=0.0).to(tl.float32)
                if ZEROS == "none":
                    zero = 1.0 * (1 << (BITS - 1))
                else:
                    zero = tl.load(zeros_ptr + at, mask=inside, other=0).to(tl.float32)
            # 2^23 + q by its bits, less 2^23 + zero: exact, and two instructions of full rate where a conversion has half of it.
            value = (q | 0x4B000000).to(tl.float32, bitcast=True)
            if ZEROS == "float":
                value = (value - 8388608.0) - zero
            else:
                value = value - (8388608.0 + zero)
            if EXACT:
                part = _dot(value.to(x.dtype), x, part, PRECISION)
                if i == PER - 1 or 32 * (i + 1) % BLOCK == 0:
                    acc += part * scale
                    part = tl.zeros((BN, BM), tl.float32)
            else:
                acc = _dot((value * scale).to(x.dtype), x, acc, PRECISION)
    out = tl.trans(acc)
    if BIAS and SPLIT == 1:
        out += tl.load(bias_ptr + rn, mask=in_n, other=0.0).to(tl.float32)[None, :]
    to = y_ptr + (tl.cast(rank, tl.int64) * m + rm.to(tl.int64))[:, None] * n + rn[None, :]
    tl.store(to, out.to(y_ptr.dtype.element_ty), mask=in_m[:, None] & in_n[None, :])


@triton.jit
def _sum_kernel(partial_ptr, bias_ptr, y_ptr, total, n, BIAS: tl.constexpr, SPLIT: tl.constexpr, SIZE: tl.constexpr):
    """The sums of all splits, in their order."""
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = at < total
    out = tl.zeros((SIZE,), tl.float32)
    for s in tl.static_range(SPLIT):
        out += tl.load(partial_ptr + s * total + at, mask=inside, other=0.0)
    if BIAS:
        out += tl.load(bias_ptr + at % n, mask=inside, other=0.0).to(tl.float32)
    tl.store(y_ptr + at, out.to(y_ptr.dtype.element_ty), mask=inside)


_SUM = 256  # elements of a program: y is small where k is split


def meta(problem: Problem, config: Config) -> dict[str, object]:
    """The compile-time arguments of the product."""
    half = problem.dtype != "float32"
    exact = half and config.variant == "decode" and problem.block >= WORDS and problem.zeros != "float"
    return {
        "BITS": problem.bits, "BLOCK": problem.block, "ZEROS": problem.zeros, "BIAS": problem.bias, "EXACT": exact,
        "SPLIT": config.split, "BM": config.bm, "BN": config.bn, "PRECISION": "tf32" if problem.products == "tf32" else "ieee",
    }  # fmt: skip


def run(
    a: torch.Tensor, words: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor | None, bias: torch.Tensor | None,
    y: torch.Tensor, partial: torch.Tensor | None, *, problem: Problem, config: Config,
) -> None:  # fmt: skip
    """a [..., k] → y [..., n]; words, scales, zeros: of pack_words, pack_scales, pack_zeros; partial: `workspace` bytes."""
    p, c = problem, config
    given = {"BIAS": p.bias, "SPLIT": c.split}
    target = y if c.split == 1 else partial.view(torch.float32)  # type: ignore[union-attr]
    grid = (triton.cdiv(p.m, c.bm), triton.cdiv(p.n, c.bn), c.split)
    launch(_product_kernel, grid)(
        a, words, scales, scales if zeros is None else zeros, bias if p.bias else y, target, p.m, p.n, p.k, p.chunks,
        **meta(p, c), num_warps=c.warps, num_stages=c.stages,
    )  # fmt: skip
    if c.split > 1:
        total = p.m * p.n
        launch(_sum_kernel, (triton.cdiv(total, _SUM),))(
            target, bias if p.bias else y, y, total, p.n, **given, SIZE=_SUM, num_warps=2
        )
