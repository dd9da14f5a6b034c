# SPDX-License-Identifier: Apache-2.0
"""Matrix products with a fused epilogue: c[z, m, n] = act(alpha·a[z]·b[z] + bias + beta·residual).

Bound by tensor cores where m is some hundreds and more: tiles of up to 128×256 with wgmma, operands staged by the copy engine.
Bound by memory where m is small: tiles of 16 rows that stream b, and k cut into segments until all multiprocessors stream. In
what order a sum is taken is said in gemm_tile.py. Grouped tile order and persistent grid after Triton's tutorials 03 and 09;
for tiles that leave the last wave half empty, gemm_stream.py.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from fastinfer.cuda.kernels import device
from fastinfer.cuda.kernels.gemm_choice import configs, default
from fastinfer.cuda.kernels.gemm_config import MULTIPROCESSORS, Config, Problem, programs, segments, stream, workspace
from fastinfer.cuda.kernels.gemm_epilogue import finish, finish_parts
from fastinfer.cuda.kernels.gemm_stream import _mend, _stream, rows_of_piece
from fastinfer.cuda.kernels.gemm_tile import segment, tile_at, whole
from fastinfer.cuda.kernels.launch import launch

__all__ = ["Config", "Problem", "configs", "default", "run", "segments", "workspace"]

_UNSPECIALIZED = ["m", "alpha", "beta", "act_alpha", "act_beta", "programs"]


@triton.jit
def _product(
    pid, a, b, c, bias, residual, a_scale, b_scale, m, n, k, lda, ldb,
    inner, a_outer, a_inner, b_outer, b_inner, residual_z, residual_m, residual_n, alpha, beta, act_alpha, act_beta,
    BATCHED: tl.constexpr, SEGMENT: tl.constexpr,
    TRANS_A: tl.constexpr, TRANS_B: tl.constexpr, EVEN_K: tl.constexpr, PRODUCTS: tl.constexpr, TMA: tl.constexpr,
    BIAS: tl.constexpr, RESIDUAL: tl.constexpr, SCALED: tl.constexpr, ACTIVATION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Tile pid of all products' tiles, from its operands to c."""
    z = 0
    if BATCHED:
        tiles = tl.cdiv(m, BM) * tl.cdiv(n, BN)
        z = pid // tiles
        pid = pid % tiles
        outer, within = tl.cast(z // inner, tl.int64), tl.cast(z % inner, tl.int64)
        a += outer * a_outer + within * a_inner
        b += outer * b_outer + within * b_inner
    i, j = tile_at(pid, m, n, BM, BN, GROUP)
    acc = whole(a, b, i, j, m, n, k, lda, ldb, SEGMENT, TRANS_A, TRANS_B, EVEN_K, PRODUCTS, TMA, BM, BN, BK)
    finish_parts(
        acc, c, bias, residual, a_scale, b_scale, z, i * BM + tl.arange(0, BM), j * BN, m, n,
        residual_z, residual_m, residual_n, alpha, beta, act_alpha, act_beta, BIAS, RESIDUAL, SCALED, ACTIVATION, PARTS,
    )  # fmt: skip


@triton.jit(do_not_specialize=_UNSPECIALIZED)
def _tiled(
    a, b, c, bias, residual, a_scale, b_scale, m, n, k, lda, ldb,
    inner, a_outer, a_inner, b_outer, b_inner, residual_z, residual_m, residual_n, alpha, beta, act_alpha, act_beta,
    BATCHED: tl.constexpr, SEGMENT: tl.constexpr,
    TRANS_A: tl.constexpr, TRANS_B: tl.constexpr, EVEN_K: tl.constexpr, PRODUCTS: tl.constexpr, TMA: tl.constexpr,
    BIAS: tl.constexpr, RESIDUAL: tl.constexpr, SCALED: tl.constexpr, ACTIVATION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    _product(
        tl.program_id(0), a, b, c, bias, residual, a_scale, b_scale, m, n, k, lda, ldb,
        inner, a_outer, a_inner, b_outer, b_inner, residual_z, residual_m, residual_n, alpha, beta, act_alpha, act_beta,
        BATCHED, SEGMENT, TRANS_A, TRANS_B, EVEN_K, PRODUCTS, TMA, BIAS, RESIDUAL, SCALED, ACTIVATION,
        BM, BN, BK, GROUP, PARTS,
    )  # fmt: skip


@triton.jit(do_not_specialize=_UNSPECIALIZED)
def _persistent(
    a, b, c, bias, residual, a_scale, b_scale, m, n, k, lda, ldb,
    inner, a_outer, a_inner, b_outer, b_inner, residual_z, residual_m, residual_n, alpha, beta, act_alpha, act_beta,
    programs,
    BATCHED: tl.constexpr, SEGMENT: tl.constexpr,
    TRANS_A: tl.constexpr, TRANS_B: tl.constexpr, EVEN_K: tl.constexpr, PRODUCTS: tl.constexpr, TMA: tl.constexpr,
    BIAS: tl.constexpr, RESIDUAL: tl.constexpr, SCALED: tl.constexpr, ACTIVATION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """As many programs as multiprocessors; the loops over tiles and over k are one, so that a tile's first loads run under
    the last one's epilogue. programs: tiles of all products."""
    for pid in tl.range(tl.program_id(0), programs, tl.num_programs(0), flatten=True):
        _product(
            pid, a, b, c, bias, residual, a_scale, b_scale, m, n, k, lda, ldb,
            inner, a_outer, a_inner, b_outer, b_inner, residual_z, residual_m, residual_n,
            alpha, beta, act_alpha, act_beta,
            BATCHED, SEGMENT, TRANS_A, TRANS_B, EVEN_K, PRODUCTS, TMA, BIAS, RESIDUAL, SCALED, ACTIVATION,
            BM, BN, BK, GROUP, PARTS,
        )  # fmt: skip


@triton.jit(do_not_specialize=["m"])
def _split(
    a, b, work, m, n, k, lda, ldb, SEGMENT: tl.constexpr,
    TRANS_A: tl.constexpr, TRANS_B: tl.constexpr, EVEN_K: tl.constexpr, PRODUCTS: tl.constexpr, TMA: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """work[s, m, n]: the sum over segment s."""
    s = tl.program_id(1)
    i, j = tile_at(tl.program_id(0), m, n, BM, BN, GROUP)
    acc = segment(a, b, s, i, j, m, n, k, lda, ldb, SEGMENT, TRANS_A, TRANS_B, EVEN_K, PRODUCTS, TMA, BM, BN, BK)
    rm, rn = i * BM + tl.arange(0, BM), j * BN + tl.arange(0, BN)
    at = work + (tl.cast(s, tl.int64) * m + rm)[:, None] * n + rn[None, :]
    tl.store(at, acc, mask=(rm < m)[:, None] & (rn < n)[None, :])


@triton.jit(do_not_specialize=_UNSPECIALIZED)
def _reduce(
    work, c, bias, residual, a_scale, b_scale, m, n, residual_m, residual_n, alpha, beta, act_alpha, act_beta,
    SEGMENTS: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, SCALED: tl.constexpr, ACTIVATION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The segments' sums in order, and the epilogue."""
    tiles_n = tl.cdiv(n, BN)
    pid = tl.program_id(0)
    rm, rn = pid // tiles_n * BM + tl.arange(0, BM), pid % tiles_n * BN + tl.arange(0, BN)
    inside = (rm < m)[:, None] & (rn < n)[None, :]
    acc = tl.zeros((BM, BN), work.dtype.element_ty)
    for s in tl.static_range(SEGMENTS):
        at = work + (tl.full((), s, tl.int64) * m + rm)[:, None] * n + rn[None, :]
        acc += tl.load(at, mask=inside, other=0)
    finish(
        acc, c, bias, residual, a_scale, b_scale, 0, rm, rn, m, n, 0, residual_m, residual_n,
        alpha, beta, act_alpha, act_beta, BIAS, RESIDUAL, SCALED, ACTIVATION,
    )  # fmt: skip


_REDUCE_ROWS, _REDUCE_COLUMNS = 4, 128  # a reduction's tile: a float4 per thread of 4 warps


def run(
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    a_scale: torch.Tensor | None = None,
    b_scale: torch.Tensor | None = None,
    work: torch.Tensor | None = None,
    *,
    problem: Problem,
    config: Config,
    alpha: float = 1.0,
    beta: float = 1.0,
    act_alpha: float = 0.0,
    act_beta: float = 0.0,
) -> None:
    """Tensors as Problem says, dense. bias: [n]. a_scale: float32, a row each; b_scale: float32 [n]. work: workspace() bytes of
    float32 (int32 for int8 products)."""
    p, f = problem, config
    count, length = segments(p)
    split = f.variant == "split_k" and count > 1
    operands = {"a": a, "b": b, **_dims(p), "lda": p.lda, "ldb": p.ldb}
    flags: dict[str, Any] = {
        "TRANS_A": p.trans_a, "TRANS_B": p.trans_b, "EVEN_K": p.k % f.bk == 0, "PRODUCTS": p.products, "TMA": f.tma,
        "BM": f.bm, "BN": f.bn, "BK": f.bk, "GROUP": f.group, "SEGMENT": length,
        "num_warps": f.num_warps, "num_stages": f.num_stages,
    }  # fmt: skip
    epilogue = {
        "c": c, "bias": bias, "residual": residual, "a_scale": a_scale, "b_scale": b_scale, "BIAS": p.bias,
        "RESIDUAL": p.residual, "SCALED": p.quantized, "ACTIVATION": p.activation, "alpha": alpha, "beta": beta,
        "act_alpha": act_alpha, "act_beta": act_beta, "residual_m": p.residual_strides[1], "residual_n": p.residual_strides[2],
    }  # fmt: skip
    if f.tma:
        operands["a"] = _descriptor(
            a, (p.k, p.m) if p.trans_a else (p.m, p.k), p.lda, (f.bk, f.bm) if p.trans_a else (f.bm, f.bk)
        )
        operands["b"] = _descriptor(
            b, (p.n, p.k) if p.trans_b else (p.k, p.n), p.ldb, (f.bn, f.bk) if p.trans_b else (f.bk, f.bn)
        )
    tiles = programs(p, f)
    if s := stream(p, f):
        given = {"work": work, "full": s.full, "rest": s.rest, "streams": s.streams, "SEGMENTS": count, **epilogue}
        launch(_stream, (f.programs,))(PARTS=f.parts, **given, **operands, **flags)
        rows = rows_of_piece(f.bm, f.bn)
        blocks = {"BM": f.bm, "BN": f.bn, "BK": f.bk, "GROUP": f.group, "ROWS": rows}
        launch(_mend, (s.rest * (f.bm // rows),))(**_dims(p), **given, **blocks)
        return
    if split:
        launch(_split, (tiles, count))(work=work, **operands, **flags)
        grid = -(-p.m // _REDUCE_ROWS) * -(-p.n // _REDUCE_COLUMNS)
        launch(_reduce, (grid,))(
            work=work, m=p.m, n=p.n, SEGMENTS=count, BM=_REDUCE_ROWS, BN=_REDUCE_COLUMNS, **epilogue
        )
        return
    everything = {
        **operands,
        **flags,
        **epilogue,
        **_batch(p),
        "PARTS": f.parts,
        "residual_z": p.residual_strides[0],
    }
    if f.variant == "persistent":
        launch(_persistent, (min(tiles, _multiprocessors()),))(programs=tiles, **everything)
    else:
        launch(_tiled, (tiles,))(**everything)


def _dims(p: Problem) -> dict[str, int]:
    return {"m": p.m, "n": p.n, "k": p.k}


def _batch(p: Problem) -> dict[str, Any]:
    (_, a_outer, b_outer), (inner, a_inner, b_inner) = [(1, 0, 0)] * (2 - len(p.batch)) + list(p.batch)
    return {
        "BATCHED": bool(p.batch), "inner": inner, "a_outer": a_outer, "a_inner": a_inner, "b_outer": b_outer,
        "b_inner": b_inner,
    }  # fmt: skip


def _descriptor(x: torch.Tensor, shape: tuple[int, int], stride: int, block: tuple[int, int]) -> TensorDescriptor:
    return TensorDescriptor(x, list(shape), [stride, 1], list(block))


def _multiprocessors() -> int:
    if device.INTERPRET:
        return 3  # so that a test's few tiles make a program loop
    return torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count or MULTIPROCESSORS
