# SPDX-License-Identifier: Apache-2.0
"""Products with int4 and int8 weights: com.microsoft MatMulNBits."""

from __future__ import annotations

from typing import Any

import torch

from fastinfer.cuda import native
from fastinfer.cuda.context import Binder, Declined, Handle, NodeContext
from fastinfer.cuda.kernels import weight_only as family
from fastinfer.cuda.kernels import wna16
from fastinfer.errors import ModelError

_A, _B, _SCALES, _ZEROS, _GROUPS, _BIAS = range(6)
_FLOATS = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}


def bind_matmul_nbits(ctx: NodeContext) -> None:
    problem = _problem(ctx)
    bias = ctx.input(_BIAS) if problem.bias else None
    if problem.m == 0:
        ctx.output(0)
        return
    if why := _not_native(ctx, problem):
        ctx.refuse(f"w{problem.bits}a16: {why}")
        _bind_triton(ctx, problem, bias)
    else:
        _bind_native(ctx, problem, bias)


def _problem(ctx: NodeContext) -> family.Problem:
    n, k, block, bits = (int(ctx.attr(*a)) for a in (("N",), ("K",), ("block_size",), ("bits", 4)))
    a = ctx.desc(_A)
    if bits not in (4, 8):
        raise Declined(f"weights of {bits} bits")
    if ctx.has(_GROUPS):
        raise Declined("g_idx")
    if ctx.attr("weight_prepacked", 0):
        raise Declined("weights packed for another machine")
    if a.dtype not in _FLOATS:
        raise Declined(f"activations of type {a.dtype}")
    if block < 16 or block & (block - 1):
        raise Declined(f"block_size {block}; needed: a power of two from 16 on")
    if not (ctx.is_constant(_B) and ctx.is_constant(_SCALES) and (not ctx.has(_ZEROS) or ctx.is_constant(_ZEROS))):
        raise Declined("weights that are not constant")
    if ctx.has(_BIAS) and ctx.desc(_BIAS).dtype not in _FLOATS:
        raise Declined(f"a bias of type {ctx.desc(_BIAS).dtype}")
    _check_sizes(ctx, n, k, bits, block)
    zeros = "none" if not ctx.has(_ZEROS) else "int" if _known(ctx, _ZEROS).dtype.name == "uint8" else "float"
    rows = a.elements // k
    # [batch, ..., k]: a sample's rows are what lies behind the first extent; [m, k] is m samples.
    sample = rows // a.shape[0] if len(a.shape) > 1 and a.shape[0] else rows
    return family.Problem(
        rows, n, k, bits, block, _FLOATS[a.dtype], zeros, ctx.has(_BIAS), sample, "tf32" if ctx.precision.products == "tf32" else "ieee"
    )  # fmt: skip


def _check_sizes(ctx: NodeContext, n: int, k: int, bits: int, block: int) -> None:
    """Native code reads so many, whatever the file says."""
    blocks = -(-k // block)
    packed = _known(ctx, _ZEROS).dtype.name == "uint8" if ctx.has(_ZEROS) else False
    needed = {
        _B: n * blocks * block * bits // 8, _SCALES: n * blocks, _ZEROS: n * (-(-blocks * bits // 8) if packed else blocks), _BIAS: n,
    }  # fmt: skip
    for i, elements in needed.items():
        if ctx.has(i) and ctx.desc(i).elements != elements:
            raise ModelError(
                f"MatMulNBits: input {i} has shape {ctx.desc(i).shape}, needed: {elements} elements (N={n}, K={k}, {bits} bits, "
                f"blocks of {block})"
            )
    if _known(ctx, _B).dtype.name != "uint8":
        raise Declined(f"weights of type {_known(ctx, _B).dtype}")


def _known(ctx: NodeContext, i: int) -> Any:
    array = ctx.known(i)
    assert array is not None
    return array


def _not_native(ctx: NodeContext, p: family.Problem) -> str:
    """Why not the CUDA C++ kernel."""
    if p.block < 32 or p.zeros == "float" or p.dtype == "float32" or p.k % 8:
        return (
            f"{p.bits} bits, blocks of {p.block}, {p.zeros} zero points, {p.dtype}, k={p.k}; "
            "needed: blocks from 32 on, integer zero points, a half type, k a multiple of 8"
        )
    if ctx.has(_BIAS) and ctx.desc(_BIAS).dtype != ctx.desc(_A).dtype:
        return f"a bias of type {ctx.desc(_BIAS).dtype}"
    if p.sample_rows > family.FEW:
        return f"{p.sample_rows} rows a sample, more than {family.FEW}"
    scales = ctx.constant(_SCALES).tensor
    assert scales is not None
    return native.missing(scales.device)


def _bind_native(ctx: NodeContext, p: family.Problem, bias: Handle | None) -> None:
    n, k, bits, block = p.n, p.k, p.bits, p.block
    zeros = torch.from_numpy(_known(ctx, _ZEROS).copy()) if p.zeros == "int" else None
    tag = f"{bits} {n}x{k}/{block}"
    weights = ctx.constant(_B, f"wna16 {tag}", lambda q: native.wn_weights(q, n, k, bits, block))
    meta = ctx.constant(
        _SCALES,
        f"wna16 {tag} zeros {_number(ctx, _ZEROS)}",
        lambda s: native.wn_meta(s, zeros, n, k, bits, block),
        torch.float32,
    )
    problem = wna16.Problem(n, k, bits, block, p.dtype)
    config = ctx.choose(wna16, problem)
    name = f"w{bits}a16 {config.warps} warps, split {config.split}" if config.split else f"w{bits}a16"
    ctx.step(
        name, wna16.run, ctx.input(_A), weights, meta, bias, ctx.output(0), flops=2.0 * p.m * n * k, problem=problem, config=config
    )  # fmt: skip


def _bind_triton(ctx: NodeContext, p: family.Problem, bias: Handle | None) -> None:
    n, k, bits, block = p.n, p.k, p.bits, p.block
    tag, blocks = f"{n}x{k}/{block}", -(-k // block)
    words = ctx.constant(_B, f"words{bits} {tag}", lambda q: family.pack_words(q, n, k, bits, block))
    scales = ctx.constant(_SCALES, f"blocks {tag}", lambda s: family.pack_scales(s, n), torch.float32)
    zeros = None
    if p.zeros != "none":
        kept = torch.uint8 if p.zeros == "int" else torch.float32
        zeros = ctx.constant(_ZEROS, f"blocks{bits} {tag}", lambda z: family.pack_zeros(z, n, bits, blocks), kept)
    config = ctx.choose(family, p)
    size = family.workspace(p, config)
    partial = ctx.scratch((size,), torch.uint8) if size else None
    ctx.step(
        f"weight_only_{bits} {config.variant} {config.bm}x{config.bn} split {config.split}", family.run, ctx.input(_A), words, scales,
        zeros, bias, ctx.output(0), partial, flops=2.0 * p.m * n * k, problem=p, config=config,
    )  # fmt: skip


def _number(ctx: NodeContext, i: int) -> int:
    return ctx.node["inputs"][i] if ctx.has(i) else -1


BINDERS: dict[tuple[str, str], Binder] = {("com.microsoft", "MatMulNBits"): bind_matmul_nbits}
