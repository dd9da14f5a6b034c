# SPDX-License-Identifier: Apache-2.0
"""Attention in float64, and problems to try it on."""

from __future__ import annotations

import torch

from fastinfer.cuda.kernels.attention import AXES

POISON = 1e4


def to_bnsh(x, layout):
    return x.permute(AXES[layout])


def attention(q, k, v, mask=None, *, scale, causal=False, softcap=0.0, zero_empty=False, offset=None):
    """[B,N,S,H] in float64; a row without keys: 0 with zero_empty or where sk == 0, else NaN."""
    q, k, v = (x.double() for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    s = q @ k.transpose(-1, -2) * scale
    if softcap:
        s = softcap * torch.tanh(s / softcap)
    if mask is not None:
        s = s.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else s + mask.double()
    sq, sk = s.shape[-2:]
    if causal:
        i, j = torch.arange(sq)[:, None], torch.arange(sk)
        s = s.masked_fill(j > i + (sk - sq if offset is None else offset), -torch.inf)
    if sk == 0:
        return torch.zeros(*q.shape[:3], v.shape[-1], dtype=torch.float64)
    w = torch.softmax(s, -1)
    return (torch.nan_to_num(w, nan=0.0) if zero_empty else w) @ v


def laid_out(shape, layout, dtype, generator, scale=1.0):
    """A dense random tensor in `layout` of the [B,N,S,H] extents `shape`."""
    stored = [shape[AXES[layout].index(a)] if layout != "BNHS" else shape[(0, 1, 3, 2)[a]] for a in range(4)]
    return (torch.randn(stored, generator=generator) * scale).to(dtype)


def tolerance(dtype):
    return {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]


def check(got, want, dtype):
    bound = tolerance(dtype)
    torch.testing.assert_close(got.double(), want, rtol=bound, atol=bound, equal_nan=True)
