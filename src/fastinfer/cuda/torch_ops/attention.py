# SPDX-License-Identifier: Apache-2.0
"""Attention: ONNX's (opset 26), the fused one, that of packed batches; rotary embeddings.

By torch's scaled_dot_product_attention, whose sums are float32 whatever the operands are; with a softcap, or where the
scores themselves are asked for, written out in float32.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fastinfer.cuda.dtypes import dtype_of_code
from fastinfer.cuda.torch_ops.call import HALF, Call, TorchOp
from fastinfer.cuda.torch_ops.matmul import matched
from fastinfer.errors import UnsupportedError


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in HALF else x


def _repeated(x: Tensor, heads: int) -> Tensor:
    """Each key head serves heads / x.shape[1] query heads that follow each other."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def scores(q: Tensor, k: Tensor, scale: float, softcap: float) -> Tensor:
    s = torch.matmul(_wide(q) * scale, _wide(k).transpose(-1, -2))
    return softcap * torch.tanh(s / softcap) if softcap else s


def attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, softcap: float, zero_empty: bool
) -> Tensor:
    """softmax(scale·q·kᵀ + bias)·v for [B,N,S,H] operands; a query without a key gives 0 with zero_empty."""
    k, v = _repeated(k, q.shape[1]), _repeated(v, q.shape[1])
    q, k = matched(q, k)
    q, v = matched(q, v)
    if softcap:
        s = scores(q, k, scale, softcap)
        weights = torch.softmax(s if bias is None else s + bias, -1)
        y = torch.matmul(weights.to(v.dtype), v)
    else:
        if bias is not None:
            bias = bias.to(q.dtype).expand(*q.shape[:3], k.shape[2])
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    if zero_empty and bias is not None:
        y = torch.where(bias.isneginf().all(-1, keepdim=True), torch.zeros_like(y), y)
    return y


def additive(mask: Tensor) -> Tensor:
    """0 where a bool mask keeps, −∞ where it does not; others as they are, in float32."""
    if mask.dtype != torch.bool:
        return _wide(mask)
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -math.inf)


def _plus(bias: Tensor | None, more: Tensor) -> Tensor:
    return more if bias is None else bias + more


def _bias(call: Call, q: Tensor, k: Tensor, offset: Tensor | int) -> Tensor | None:
    """Mask, causality and window (aligned by `offset`, one or one per batch entry), padding of the keys."""
    nq, nk, device = q.shape[2], k.shape[2], q.device
    bias = None
    if (mask := call.maybe(3)) is not None:
        mask = additive(mask)
        if mask.shape[-1] < nk:
            mask = F.pad(mask, [0, nk - mask.shape[-1]], value=-math.inf)
        bias = torch.zeros(nq, nk, device=device) + mask
    left, right = call.attr("left_window_size", -1), call.attr("right_window_size", -1)
    at = torch.arange(nq, device=device)[:, None] + (
        offset.reshape(-1, 1, 1, 1) if isinstance(offset, Tensor) else offset
    )
    ahead = torch.arange(nk, device=device) - at
    allowed = torch.ones_like(ahead, dtype=torch.bool)
    allowed = allowed & (ahead <= 0) if call.attr("is_causal", 0) else allowed
    allowed = allowed & (-ahead <= left) if left >= 0 else allowed
    allowed = allowed & (ahead <= right) if right >= 0 else allowed
    if call.attr("is_causal", 0) or left >= 0 or right >= 0:
        bias = _plus(bias, additive(allowed))
    if (lengths := call.maybe(6)) is not None:
        bias = _plus(bias, additive(torch.arange(nk, device=device) < lengths.reshape(-1, 1, 1, 1)))
    return bias


def _heads(x: Tensor, n: int | None) -> Tensor:
    """[B,S,N·H] → [B,N,S,H]"""
    if x.ndim == 4:
        return x
    assert n is not None
    return x.reshape(x.shape[0], x.shape[1], n, -1).transpose(1, 2)


def _attention(call: Call) -> list[Tensor | None]:
    q = _heads(call.x(0), call.attr("q_num_heads"))
    k, v = (_heads(call.x(i), call.attr("kv_num_heads")) for i in (1, 2))
    past, lengths = call.maybe(4), call.maybe(6)
    if past is not None:
        k, v = torch.cat([past.to(k.dtype), k], 2), torch.cat([call.x(5).to(v.dtype), v], 2)
    offset: Tensor | int = 0 if past is None else past.shape[2]
    if past is None and lengths is not None:
        offset = lengths - q.shape[2]
    bias, softcap = _bias(call, q, k, offset), call.attr("softcap", 0.0) or 0.0
    scale = call.attr("scale") or 1 / math.sqrt(q.shape[3])
    seen = None
    if call.wants(3) or call.attr("softmax_precision", 1) != 1:
        y, seen = _written_out(call, q, k, v, bias, scale, softcap)
    else:
        y = attend(q, k, v, bias, scale, softcap, True)
    if call.x(0).ndim == 3:
        y = y.transpose(1, 2).reshape(y.shape[0], y.shape[2], -1)
    kept = call.x(0).dtype
    return [y.to(kept), k, v, seen]


def _written_out(
    call: Call, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, softcap: float
) -> tuple[Tensor, Tensor]:
    """y, and the scores of qk_matmul_output_mode 0 (raw), 1 (after the softcap), 2 (with the bias), 3 (their softmax)."""
    mode, wide_k, wide_v = call.attr("qk_matmul_output_mode", 0), _repeated(k, q.shape[1]), _repeated(v, q.shape[1])
    raw = scores(q, wide_k, scale, 0.0)
    capped = softcap * torch.tanh(raw / softcap) if softcap else raw
    total = capped if bias is None else capped + bias
    code = call.attr("softmax_precision", 1)
    precise = total.to(dtype_of_code(code)) if code != 1 else total
    weights = torch.softmax(precise, -1).to(raw.dtype)
    if bias is not None:
        empty = bias.isneginf().all(-1, keepdim=True)
        weights = torch.where(empty, torch.zeros_like(weights), weights)
    seen = {0: raw, 1: capped, 2: total, 3: weights}[mode]
    return torch.matmul(weights.to(v.dtype), wide_v), seen.to(q.dtype)


_LAYOUTS = {"BNSH": (0, 1, 2, 3), "BSNH": (0, 2, 1, 3), "BNHS": (0, 1, 3, 2)}


def _laid_out(call: Call, i: int, name: str) -> Tensor:
    return call.x(i).permute(_LAYOUTS[call.attr(f"{name}_layout", "BNSH")])


def _fused(call: Call) -> Tensor:
    """fastinfer.Attention: passes/fused.py."""
    q, k, v = (_laid_out(call, i, name) for i, name in enumerate("qkv"))
    mask = call.maybe(3)
    bias = None if mask is None else additive(mask)
    if call.attr("causal", 0):
        nq, nk = q.shape[2], k.shape[2]
        at = torch.arange(nq, device=q.device)[:, None] + (nk - nq)
        bias = _plus(bias, additive(torch.arange(nk, device=q.device) <= at))
    y = attend(q, k, v, bias, call.attr("scale", 1.0), call.attr("softcap", 0.0), bool(call.attr("zero_empty", 0)))
    return y.permute(_LAYOUTS[call.attr("o_layout", "BNSH")]).to(call.x(0).dtype)


def _packed_places(lengths: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """Of each token: its sequence, and its position there."""
    ends = lengths.to(torch.int64).cumsum(0)
    at = torch.arange(tokens, device=lengths.device)
    sequence = torch.bucketize(at, ends, right=True).clamp(max=max(len(lengths) - 1, 0))
    return sequence, at - (ends - lengths)[sequence]


def _packed(call: Call) -> Tensor:
    """fastinfer.PackedAttention: sequences one behind the other ([1,N,ΣL,H]); a token sees those of its own sequence."""
    q, k, v = (_laid_out(call, i, name) for i, name in enumerate("qkv"))
    tokens, lengths = q.shape[2], call.x(3).to(torch.int64)
    sequence, place = _packed_places(lengths, tokens)
    allowed = sequence[:, None] == sequence
    if call.attr("causal", 0):
        allowed = allowed & (place[:, None] >= place)
    bias = additive(allowed)
    if (mask := call.maybe(4)) is not None:
        mask = mask.reshape(*[1] * (4 - mask.ndim), *mask.shape)
        if call.attr("mask_form") == "pairs":  # [1, heads or 1, 1, ΣL²]
            squares = lengths * lengths
            at = (squares.cumsum(0) - squares)[sequence][:, None] + place[:, None] * lengths[sequence][:, None] + place
            mask = mask[:, :, 0][:, :, at.clamp(0, mask.shape[-1] - 1)]
        bias = additive(mask) + bias
    y = attend(q, k, v, bias, call.attr("scale", 1.0), call.attr("softcap", 0.0), bool(call.attr("zero_empty", 0)))
    return y.permute(_LAYOUTS[call.attr("o_layout", "BNSH")]).to(call.x(0).dtype)


def _packed_reduce(call: Call) -> Tensor:
    """Over each sequence of the token axis."""
    x, lengths, axis = call.wide(0), call.x(1).to(torch.int64), call.attr("axis")
    rows = x.movedim(axis, 0)
    real = rows if rows.is_floating_point() else rows.double()
    y = torch.segment_reduce(real.contiguous(), call.attr("reduction"), lengths=lengths, axis=0, unsafe=True)
    return y.movedim(0, axis).to(call.x(0).dtype)


def rotate(call: Call, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B,S,N,H]; cos, sin [B or 1,S,1,R/2] turn the first R numbers of each head."""
    half = cos.shape[-1]
    turned, rest = x[..., : 2 * half], x[..., 2 * half :]
    if call.attr("interleaved", 0):
        a, b = turned[..., 0::2], turned[..., 1::2]
        y = torch.stack([cos * a - sin * b, sin * a + cos * b], -1).flatten(-2)
    else:
        a, b = turned[..., :half], turned[..., half:]
        y = torch.cat([cos * a - sin * b, sin * a + cos * b], -1)
    return torch.cat([y, rest], -1)


def _rotary(call: Call) -> Tensor:
    given, cos, sin = call.wide(0), call.wide(1), call.wide(2)
    x = given.transpose(1, 2) if given.ndim == 4 else given.reshape(*given.shape[:2], call.attr("num_heads"), -1)
    if (at := call.maybe(3)) is not None:
        cos, sin = cos[at.to(torch.int64)], sin[at.to(torch.int64)]
    y = rotate(call, x, cos.unsqueeze(2), sin.unsqueeze(2))
    return y.transpose(1, 2) if given.ndim == 4 else y.reshape(given.shape)


def _ms_rotary(call: Call) -> Tensor:
    """Position ids: [B,S], or one offset for all; caches of as many rows as there are positions."""
    if call.attr("is_packed_batching", 0):
        raise UnsupportedError("is_packed_batching")
    given, ids, cos, sin = call.wide(0), call.x(1).to(torch.int64), call.wide(2), call.wide(3)
    if given.ndim == 4:
        x = given.transpose(1, 2)
    else:
        heads = call.attr("num_heads", 0)
        x = given.reshape(*given.shape[:2], heads or given.shape[2] // (2 * cos.shape[-1]), -1)
    at = ids if ids.ndim == 2 else ids.reshape(1, 1) + torch.arange(x.shape[1], device=x.device)
    y = rotate(call, x, cos[at].unsqueeze(2), sin[at].unsqueeze(2))
    return y.transpose(1, 2) if given.ndim == 4 else y.reshape(given.shape)


ROUNDED: dict[str, TorchOp] = {"RotaryEmbedding": _rotary}
EXACT: dict[str, TorchOp] = {"Attention": _attention}
MICROSOFT: dict[str, TorchOp] = {"RotaryEmbedding": lambda call: _ms_rotary(call).to(call.x(0).dtype)}
FASTINFER: dict[str, TorchOp] = {"Attention": _fused, "PackedAttention": _packed, "PackedReduce": _packed_reduce}
