# SPDX-License-Identifier: Apache-2.0
"""Reductions, arg-reductions, sums along an axis."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fastinfer.cuda.torch_ops.call import Call, TorchOp, int64, like

Fold = Callable[[Tensor, list[int], bool], Tensor]


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keepdim=keep)
    count = math.prod(x.shape[a] for a in axes)
    return torch.div(_sum(x.to(torch.int64), axes, keep), max(count, 1), rounding_mode="trunc").to(x.dtype)


def _prod(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _extreme(x: Tensor, axes: list[int], keep: bool, largest: bool) -> Tensor:
    if any(x.shape[a] == 0 for a in axes):
        shape = [1 if a in axes else n for a, n in enumerate(x.shape) if keep or a not in axes]
        return torch.full(shape, _identity(x.dtype, largest), dtype=x.dtype, device=x.device)
    if x.dtype == torch.bool:
        return _extreme(x.to(torch.uint8), axes, keep, largest).to(torch.bool)
    return x.amax(axes, keepdim=keep) if largest else x.amin(axes, keepdim=keep)


def _identity(dtype: torch.dtype, largest: bool) -> float | int | bool:
    if dtype.is_floating_point:
        return -math.inf if largest else math.inf
    if dtype == torch.bool:
        return not largest
    limits = torch.iinfo(dtype)
    return limits.min if largest else limits.max


def _log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return torch.logsumexp(x, axes, keepdim=keep)
    return torch.logsumexp(x.double(), axes, keepdim=keep).to(x.dtype)


def _real(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return fn(x) if x.is_floating_point() else fn(x.double()).to(x.dtype)


def _reduction(fold: Fold) -> TorchOp:
    """Axes: input 1. Without them all, or none with noop_with_empty_axes (then each element by itself)."""

    def run(call: Call) -> Tensor:
        x = call.wide(0)
        axes = call.ints_or_attr(1, "axes") or []
        if not axes and call.attr("noop_with_empty_axes", 0):
            return like(fold(int64(x).unsqueeze(0), [0], False), x.dtype)
        axes = [a % x.ndim for a in axes] or list(range(x.ndim))
        if not axes:  # a scalar
            return like(fold(int64(x).reshape(1), [0], False), x.dtype)
        return like(fold(int64(x), axes, bool(call.attr("keepdims", 1))), x.dtype)

    return run


def _arg(largest: bool) -> TorchOp:
    def run(call: Call) -> Tensor:
        x, axis, keep = int64(call.x(0)), call.attr("axis", 0), bool(call.attr("keepdims", 1))
        pick = torch.argmax if largest else torch.argmin
        if call.attr("select_last_index", 0):
            return x.shape[axis] - 1 - pick(x.flip(axis), axis, keepdim=keep)
        return pick(x, axis, keepdim=keep)

    return run


def _cumulative(fn: Callable[..., Tensor], unit: int) -> TorchOp:
    def run(call: Call) -> Tensor:
        x, axis = call.wide(0), call.int_(1) % max(call.x(0).ndim, 1)
        y = int64(x).flip(axis) if call.attr("reverse", 0) else int64(x)
        y = fn(y, axis, dtype=y.dtype)
        if call.attr("exclusive", 0) and x.shape[axis]:
            first = torch.full_like(y.narrow(axis, 0, 1), unit)
            y = torch.cat([first, y.narrow(axis, 0, x.shape[axis] - 1)], axis)
        return like(y.flip(axis) if call.attr("reverse", 0) else y, x.dtype)

    return run


def _top_k(call: Call) -> list[Tensor | None]:
    """Equal values keep their order, as ONNX says."""
    x, k, axis = call.x(0), call.int_(1), call.attr("axis", -1)
    real = int64(x) ^ (-(1 << 63)) if x.dtype == torch.uint64 else int64(x)
    at = torch.sort(real, dim=axis, descending=bool(call.attr("largest", 1)), stable=True)[1].narrow(axis, 0, k)
    return [like(torch.gather(int64(x), axis, at), x.dtype), at]


def _unique(call: Call) -> list[Tensor | None]:
    """values, index of the first occurrence, inverse, counts"""
    x, axis = call.x(0), call.attr("axis")
    values, inverse, counts = torch.unique(
        int64(x), sorted=True, return_inverse=True, return_counts=True, dim=axis if axis is None else axis % x.ndim
    )
    inverse = inverse.reshape(-1)
    n = len(counts)
    first = torch.full((n,), inverse.numel(), dtype=torch.int64, device=x.device)
    first = first.scatter_reduce(0, inverse, torch.arange(inverse.numel(), device=x.device), "amin")
    if not call.attr("sorted", 1):
        order = torch.argsort(first)
        rank = torch.empty_like(order).scatter(0, order, torch.arange(n, device=x.device))
        values, first, counts, inverse = (
            values.index_select(axis or 0, order),
            first[order],
            counts[order],
            rank[inverse],
        )
    return [like(values, x.dtype), first, inverse, counts]


ROUNDED: dict[str, TorchOp] = {
    "ReduceSum": _reduction(_sum), "ReduceMean": _reduction(_mean), "ReduceProd": _reduction(_prod),
    "ReduceMax": _reduction(lambda x, a, k: _extreme(x, a, k, True)),
    "ReduceMin": _reduction(lambda x, a, k: _extreme(x, a, k, False)),
    "ReduceL1": _reduction(lambda x, a, k: _sum(x.abs(), a, k)),
    "ReduceL2": _reduction(lambda x, a, k: _real(torch.sqrt, _sum(x * x, a, k))),
    "ReduceSumSquare": _reduction(lambda x, a, k: _sum(x * x, a, k)),
    "ReduceLogSum": _reduction(lambda x, a, k: _real(torch.log, _sum(x, a, k))),
    "ReduceLogSumExp": _reduction(_log_sum_exp),
    "CumSum": _cumulative(torch.cumsum, 0), "CumProd": _cumulative(torch.cumprod, 1),
}  # fmt: skip
EXACT: dict[str, TorchOp] = {"ArgMax": _arg(True), "ArgMin": _arg(False), "TopK": _top_k, "Unique": _unique}
