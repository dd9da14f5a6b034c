# SPDX-License-Identifier: Apache-2.0
"""Attention of dense and of packed batches."""

from __future__ import annotations

import torch

from fastinfer.cuda.context import Binder, Declined, NodeContext
from fastinfer.cuda.kernels import attention, attention_segments

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_LIMIT = 2**31


def _layouts(ctx: NodeContext) -> tuple[str, str, str, str]:
    q, k, v, o = (ctx.attr(f"{name}_layout", "BNSH") for name in "qkvo")
    if "BNHS" in (q, v, o):
        raise Declined("only keys may be laid out as BNHS")
    return q, k, v, o


def _extents(ctx: NodeContext, layouts: tuple[str, ...]) -> list[tuple[int, ...]]:
    """[batch, heads, sequence, size] of q, k and v."""
    found = []
    for i in range(3):
        shape = ctx.desc(i).shape
        if len(shape) != 4:
            raise Declined(f"input {i} is {list(shape)}, needed: rank 4")
        found.append(tuple(shape[a] for a in attention.AXES[layouts[i]]))
    return found


def _mask_kind(ctx: NodeContext, i: int) -> str:
    if not ctx.has(i):
        return "none"
    dtype, shape = ctx.desc(i).dtype, ctx.desc(i).shape
    if dtype != torch.bool and dtype not in _FLOATS:
        raise Declined(f"the mask is {dtype}")
    if len(shape) > 4:
        raise Declined(f"the mask is {list(shape)}, needed: at most 4 axes")
    return "kept" if dtype == torch.bool else "added"


def _problem(ctx: NodeContext, mask: str, packed: bool) -> attention.Problem:
    layouts = _layouts(ctx)
    (_, heads, sq, d), (_, kv_heads, sk, _), (*_, dv) = _extents(ctx, layouts)
    dtypes = {ctx.desc(i).dtype for i in range(3)}
    dtype = dtypes.pop()
    if dtypes or dtype not in _FLOATS:
        raise Declined(f"queries, keys and values are {', '.join(str(ctx.desc(i).dtype) for i in range(3))}")
    if max(d, dv) > 256:
        raise Declined(f"heads of {max(d, dv)} elements, needed: at most 256")
    if heads == 0 or kv_heads == 0 or heads % kv_heads:
        raise Declined(f"{heads} query heads do not share {kv_heads} key heads evenly")
    if max(sq * heads * d, sk * kv_heads * max(d, dv)) >= _LIMIT:
        raise Declined("a sample has 2^31 elements or more")
    products = ctx.precision.products if dtype == torch.float32 else "half"
    return attention.Problem(
        dtype, products if products in ("tf32", "half") and (dtype != torch.float32 or products == "tf32") else "ieee",
        heads, kv_heads, 0 if packed else sq, 0 if packed else sk, d, dv, mask=mask,
        causal=bool(ctx.attr("causal", 0)), softcap=ctx.attr("softcap", 0.0) > 0,
        zero_empty=bool(ctx.attr("zero_empty", 0)), layouts=layouts, packed=packed,
    )  # fmt: skip


def _name(config: attention.Config) -> str:
    return f"triton_attention_{config.variant} {config.rows}x{config.keys}"


def bind_attention(ctx: NodeContext) -> None:
    """fastinfer.Attention: Q, K, V, mask? → O."""
    problem = _problem(ctx, _mask_kind(ctx, 3), packed=False)
    config = ctx.choose(attention, problem)
    batch = _extents(ctx, problem.layouts)[0][0]
    room = attention.workspace(problem, config, batch)
    flops = 2.0 * batch * problem.heads * problem.sq * problem.sk * (problem.d + problem.dv)
    ctx.step(
        _name(config), attention.run, *(ctx.input(i) for i in range(3)), ctx.input(3) if ctx.has(3) else None, None,
        ctx.output(0), ctx.scratch((room // 4,), torch.float32) if room else None, flops=flops, problem=problem,
        config=config, scale=float(ctx.attr("scale", 1.0)), softcap=float(ctx.attr("softcap", 0.0)),
    )  # fmt: skip


def bind_packed_attention(ctx: NodeContext) -> None:
    """fastinfer.PackedAttention: Q, K, V, lengths, mask? → O."""
    if ctx.desc(3).dtype != torch.int64 or len(ctx.desc(3).shape) != 1:
        raise Declined(f"the lengths are {ctx.desc(3)}, needed: int64 [sequences]")
    kind = _mask_kind(ctx, 4)
    problem = _problem(ctx, kind if kind == "none" else f"{kind}/{ctx.attr('mask_form')}", packed=True)
    q, k, _ = _extents(ctx, problem.layouts)
    if q[0] != 1 or q[2] != k[2]:
        raise Declined(f"packed queries are {list(q)} and keys {list(k)}: not the same tokens")
    config = ctx.choose(attention, problem)
    mean = q[2] / max(ctx.desc(3).shape[0], 1)  # as if all sequences were equally long
    ctx.step(
        "packed_" + _name(config), attention.run, *(ctx.input(i) for i in range(3)),
        ctx.input(4) if ctx.has(4) else None, ctx.input(3), ctx.output(0), None,
        flops=2.0 * problem.heads * q[2] * mean * (problem.d + problem.dv), problem=problem, config=config,
        scale=float(ctx.attr("scale", 1.0)), softcap=float(ctx.attr("softcap", 0.0)),
    )  # fmt: skip


def bind_packed_reduce(ctx: NodeContext) -> None:
    """fastinfer.PackedReduce: X, lengths → Y, the axis of the tokens becoming that of the sequences."""
    x = ctx.desc(0)
    if x.dtype not in (*_FLOATS, torch.int32, torch.int64):
        raise Declined(f"input 0 is {x.dtype}")
    axis = ctx.attr("axis") % len(x.shape)
    inner = 1
    for extent in x.shape[axis + 1 :]:
        inner *= extent
    outer = 1
    for extent in x.shape[:axis]:
        outer *= extent
    if outer > 65535 or inner == 0:
        raise Declined(f"{outer} times {inner} reductions")
    problem = attention_segments.Problem(x.dtype, ctx.attr("reduction"), inner)
    config = ctx.choose(attention_segments, problem)
    ctx.step(
        f"triton_packed_{problem.reduction}", attention_segments.run, ctx.input(0), ctx.input(1), ctx.output(0),
        problem=problem, config=config,
    )  # fmt: skip


BINDERS: dict[tuple[str, str], Binder] = {
    ("fastinfer", "Attention"): bind_attention,
    ("fastinfer", "PackedAttention"): bind_packed_attention,
    ("fastinfer", "PackedReduce"): bind_packed_reduce,
}
