# SPDX-License-Identifier: Apache-2.0
"""com.microsoft's Attention and MultiHeadAttention."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastinfer.cuda.torch_ops.attention import additive, attend
from fastinfer.cuda.torch_ops.call import HALF, Call, TorchOp
from fastinfer.cuda.torch_ops.matmul import matched
from fastinfer.errors import UnsupportedError


def _kept(mask: Tensor, batch: int, queries: int, keys: int) -> Tensor:
    """Which keys a mask keeps, against [B,N,Sq,Sk]: ends [B], ends and starts [2B], per key [B,Sk], per query [B,Sq,Sk]."""
    at = torch.arange(keys, device=mask.device)
    if tuple(mask.shape) == (batch, keys) and mask.ndim == 2:
        return (mask != 0)[:, None, None]
    if tuple(mask.shape) == (batch, queries, keys):
        return (mask != 0)[:, None]
    if mask.ndim != 1 or mask.numel() not in (batch, 2 * batch, 3 * batch + 2):
        raise UnsupportedError(f"a mask of shape {list(mask.shape)}")
    kept = at < mask[:batch, None]
    if mask.numel() == 2 * batch:
        kept = kept & (at >= mask[batch:, None])
    return kept[:, None, None]


def _bias(call: Call, mask: int, added: int, q: Tensor, keys: int, offset: int) -> Tensor | None:
    bias = None
    if (given := call.maybe(mask)) is not None:
        kept = _kept(given, q.shape[0], q.shape[2], keys)
        hidden = torch.full(kept.shape, call.attr("mask_filter_value", -10000.0), device=q.device)
        bias = hidden.masked_fill(kept, 0.0)
    if (more := call.maybe_wide(added)) is not None:
        bias = more if bias is None else bias + more
    if call.attr("unidirectional", 0):
        at = torch.arange(q.shape[2], device=q.device)[:, None] + offset
        causal = additive(torch.arange(keys, device=q.device) <= at)
        bias = causal if bias is None else bias + causal
    return bias


def _run(call: Call, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """[B,N,S,H] operands → [B,S,N·H] in the type of input 0."""
    scale = call.attr("scale", 0.0) or 1 / math.sqrt(q.shape[-1])
    y = attend(q, k, v, bias, scale, 0.0, False)
    return y.transpose(1, 2).reshape(y.shape[0], y.shape[2], -1).to(call.x(0).dtype)


def _heads(x: Tensor, n: int) -> Tensor:
    return x.reshape(x.shape[0], x.shape[1], n, -1).transpose(1, 2)


def _attention(call: Call) -> list[Tensor | None]:
    """X, weights, bias, mask, past [2,B,N,S,H], added bias → Y, present."""
    if call.attr("do_rotary", 0) or call.attr("past_present_share_buffer", 0) or call.has(6):
        raise UnsupportedError("rotary embedding or a shared cache inside Attention")
    x, w = matched(call.x(0), call.x(1))
    y = torch.matmul(x, w)
    if call.has(2):
        y = ((y.float() if y.dtype in HALF else y) + call.wide(2)).to(y.dtype)
    sizes = call.attr("qkv_hidden_sizes") or [w.shape[1] // 3] * 3
    q, k, v = (_heads(part, call.attr("num_heads")) for part in torch.split(y, list(sizes), -1))
    offset, present = 0, None
    if (past := call.maybe(4)) is not None:
        offset = past.shape[3]
        k, v = torch.cat([past[0].to(k.dtype), k], 2), torch.cat([past[1].to(v.dtype), v], 2)
    if call.wants(1):
        present = torch.stack([k, v])
    return [_run(call, q, k, v, _bias(call, 3, 5, q, k.shape[2], offset)), present]


def _multi_head(call: Call) -> list[Tensor | None]:
    """query, key, value, bias, mask, added bias, past_key, past_value → Y, present_key, present_value."""
    if call.has(8) or call.has(9) or call.wants(3):
        raise UnsupportedError("a shared cache, beam search or scores")
    n, cached = call.attr("num_heads"), False
    if call.x(0).ndim == 5:  # [B,S,N,3,H]
        q, k, v = (call.x(0)[:, :, :, i].transpose(1, 2) for i in range(3))
    else:
        q = _heads(call.x(0), n)
        key = call.x(1)
        cached = key.ndim == 4
        if key.ndim == 5:
            k, v = (key[:, :, :, i].transpose(1, 2) for i in range(2))
        elif cached:
            k, v = key, call.x(2)
        else:
            k, v = _heads(key, n), _heads(call.x(2), n)
    if (bias := call.maybe_wide(3)) is not None:
        parts = torch.split(bias, [n * q.shape[-1], n * k.shape[-1], n * v.shape[-1]])
        rows = [p.reshape(1, n, 1, -1) for p in parts]
        q = (q + rows[0]).to(call.x(0).dtype)
        if not cached:
            k, v = (k + rows[1]).to(q.dtype), (v + rows[2]).to(q.dtype)
    offset = 0
    if (past := call.maybe(6)) is not None:
        offset = past.shape[2]
        k, v = torch.cat([past.to(k.dtype), k], 2), torch.cat([call.x(7).to(v.dtype), v], 2)
    return [_run(call, q, k, v, _bias(call, 4, 5, q, k.shape[2], offset)), k, v]


MICROSOFT: dict[str, TorchOp] = {"Attention": _attention, "MultiHeadAttention": _multi_head}
