# SPDX-License-Identifier: Apache-2.0
"""Elements by index: Gather*, Scatter*, OneHot, NonZero, Compress."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastinfer.cuda.torch_ops.call import Call, TorchOp, like, moved, signed

_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _wrapped(at: Tensor, extent: int) -> Tensor:
    """Negative indices count from the end."""
    at = at.to(torch.int64)
    return torch.where(at < 0, at + extent, at)


def _gather(call: Call) -> Tensor:
    x, at = call.x(0), call.x(1)
    axis = call.attr("axis", 0) % max(x.ndim, 1)
    flat = _wrapped(at, x.shape[axis]).reshape(-1)
    shape = [*x.shape[:axis], *at.shape, *x.shape[axis + 1 :]]
    return moved(lambda v: v.index_select(axis, flat).reshape(shape), x)


def _gather_elements(call: Call) -> Tensor:
    x, axis = call.x(0), call.attr("axis", 0)
    return moved(lambda v: torch.gather(v, axis, _wrapped(call.x(1), x.shape[axis])), x)


def _linear(at: Tensor, extents: list[int]) -> Tensor:
    """Index tuples in the last axis → offsets into those extents."""
    flat = torch.zeros(at.shape[:-1], dtype=torch.int64, device=at.device)
    for i, extent in enumerate(extents):
        flat = flat * extent + _wrapped(at[..., i], extent)
    return flat


def _gather_nd(call: Call) -> Tensor:
    x, at, batch = call.x(0), call.x(1), call.attr("batch_dims", 0)
    depth, lead = at.shape[-1], math.prod(x.shape[:batch])
    inner = list(x.shape[batch : batch + depth])
    rest = list(x.shape[batch + depth :])
    flat = _linear(at, inner).reshape(lead, -1)
    flat = flat + torch.arange(lead, device=x.device)[:, None] * math.prod(inner)
    shape = [*at.shape[:-1], *rest]
    rows = [lead * math.prod(inner), *rest]
    return moved(lambda v: v.reshape(rows).index_select(0, flat.reshape(-1)).reshape(shape), x)


def _scattered(x: Tensor, axis: int, at: Tensor, updates: Tensor, reduction: str) -> Tensor:
    """In x's type; half-precision numbers are combined in it too: there is no order to lose."""
    if reduction == "none":
        return like(signed(x).scatter(axis, at, signed(updates)), x.dtype)
    if x.dtype == torch.bool:
        y = x.to(torch.int32).scatter_reduce(axis, at, updates.to(torch.int32), _REDUCE[reduction], include_self=True)
        return y != 0
    return x.scatter_reduce(axis, at, updates, _REDUCE[reduction], include_self=True)


def _scatter_elements(call: Call) -> Tensor:
    x, axis = call.x(0), call.attr("axis", 0)
    at = _wrapped(call.x(1), x.shape[axis])
    return _scattered(x, axis, at, call.x(2).to(x.dtype), call.attr("reduction", "none"))


def _scatter_nd(call: Call) -> Tensor:
    x, at, updates = call.x(0), call.x(1), call.x(2).to(call.x(0).dtype)
    depth = at.shape[-1]
    outer, rest = list(x.shape[:depth]), math.prod(x.shape[depth:])
    flat = _linear(at, outer).reshape(-1, 1).expand(-1, rest)
    rows = x.reshape(math.prod(outer), rest)
    return _scattered(rows, 0, flat, updates.reshape(-1, rest), call.attr("reduction", "none")).reshape(x.shape)


def _tensor_scatter(call: Call) -> Tensor:
    """A key/value cache [batch, …, positions, …]: updates go to write_indices[batch] onwards."""
    cache, update = call.x(0), call.x(1).to(call.x(0).dtype)
    axis, length = call.attr("axis", -2) % cache.ndim, cache.shape[call.attr("axis", -2)]
    batch, steps = cache.shape[0], torch.arange(update.shape[axis], device=cache.device)
    start = call.x(2).to(torch.int64) if call.has(2) else torch.zeros(batch, dtype=torch.int64, device=cache.device)
    at = start[:, None] + steps
    at = at % length if call.attr("mode", "linear") == "circular" else at
    shape = [1] * cache.ndim
    shape[0], shape[axis] = batch, len(steps)
    return _scattered(cache, axis, at.reshape(shape).expand(update.shape), update, "none")


def _one_hot(call: Call) -> Tensor:
    """values: off, on. Indices outside [-depth, depth) give off everywhere."""
    at, depth, values = call.x(0), call.int_(1), call.x(2)
    axis = call.attr("axis", -1) % (at.ndim + 1)
    at = _wrapped(at, depth).unsqueeze(axis)
    places = torch.arange(depth, device=at.device).reshape([-1 if a == axis else 1 for a in range(at.ndim)])
    return moved(lambda v: torch.where(at == places, v[1], v[0]), values)


def _non_zero(call: Call) -> Tensor:
    x = signed(call.x(0))
    if x.ndim == 0:
        return torch.zeros((0, int(x != 0)), dtype=torch.int64, device=x.device)
    return torch.nonzero(x).T.contiguous()


def _compress(call: Call) -> Tensor:
    x, axis = call.x(0), call.attr("axis")
    kept = torch.nonzero(call.x(1).reshape(-1)).reshape(-1)
    if axis is None:
        return moved(lambda v: v.reshape(-1)[kept], x)
    return moved(lambda v: v.index_select(axis, kept), x)


EXACT: dict[str, TorchOp] = {
    "Gather": _gather, "GatherElements": _gather_elements, "GatherND": _gather_nd, "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements, "ScatterND": _scatter_nd, "TensorScatter": _tensor_scatter,
    "OneHot": _one_hot, "NonZero": _non_zero, "Compress": _compress,
}  # fmt: skip
