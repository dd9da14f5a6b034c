# SPDX-License-Identifier: Apache-2.0
"""Pooling over any number of spatial axes; LRN."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastinfer.cuda.torch_ops.call import Call, TorchOp
from fastinfer.cuda.torch_ops.conv import padded, window
from fastinfer.errors import UnsupportedError

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def _out_extent(n: int, k: int, s: int, d: int, begin: int, end: int, ceil: int) -> int:
    room = n + begin + end - ((k - 1) * d + 1)
    if not ceil:
        return room // s + 1
    out = math.ceil(room / s) + 1
    return out - 1 if (out - 1) * s >= n + begin else out  # no window starts in the padding after the end


class Window:
    """Where the windows of a pool lie: `end` is the padding that the last window needs, beyond the declared too."""

    def __init__(self, call: Call, extents: Sequence[int]) -> None:
        self.kernel = call.attr("kernel_shape")
        self.strides, self.dilations, self.begin, self.declared = window(call, extents, self.kernel)
        ceil = call.attr("ceil_mode", 0)
        geometry = zip(extents, self.kernel, self.strides, self.dilations, self.begin, self.declared, strict=True)
        self.out = [_out_extent(n, k, s, d, b, e, ceil) for n, k, s, d, b, e in geometry]
        reach = zip(self.out, self.strides, self.kernel, self.dilations, strict=True)
        needed = [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in reach]
        self.end = [need - n - b for need, n, b in zip(needed, extents, self.begin)]
        self.extents = list(extents)

    def sums(self, x: Tensor) -> Tensor:
        """Σ over each window (float)."""
        x = padded(x, self.begin, self.end)
        for axis, (o, s, k, d) in enumerate(zip(self.out, self.strides, self.kernel, self.dilations)):
            taps = [x.narrow(axis + 2, t * d, (o - 1) * s + 1) for t in range(k)]
            step = [slice(None)] * (axis + 2) + [slice(None, None, s)]
            x = torch.stack([tap[tuple(step)] for tap in taps]).sum(0)
        return x

    def counts(self, padding_too: int) -> np.ndarray:
        """Elements of each window that count: those of the input, or the declared padding too."""
        counts = np.ones(())
        geometry = zip(self.extents, self.out, self.strides, self.kernel, self.dilations, self.begin, self.declared)
        for n, o, s, k, d, begin, end in geometry:
            at = (np.arange(o) * s - begin)[:, None] + np.arange(k) * d
            low, high = (-begin, n + end) if padding_too else (0, n)
            counts = counts[..., None] * ((at >= low) & (at < high)).sum(1)
        return counts


def _max_pool(call: Call) -> list[Tensor | None]:
    x = call.x(0)
    w = Window(call, x.shape[2:])
    if len(w.kernel) not in _MAX:
        raise UnsupportedError(f"a pool over {len(w.kernel)} axes")
    lowest = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    real = x if x.is_floating_point() else x.float() if x.dtype.itemsize < 4 else x.double()
    full = padded(real, w.begin, w.end, lowest)
    y, at = _MAX[len(w.kernel)](full, w.kernel, w.strides, 0, w.dilations, return_indices=True)
    if not call.wants(1):
        return [y.to(x.dtype), None]
    places: list[Tensor] = []
    rest = at
    for size, begin in zip(reversed(full.shape[2:]), reversed(w.begin)):
        places.insert(0, rest % size - begin)
        rest = rest // size
    return [y.to(x.dtype), _flat(places, x.shape, call.attr("storage_order", 0), y)]


def _flat(places: list[Tensor], shape: torch.Size, columns_first: int, y: Tensor) -> Tensor:
    """Indices into the whole tensor."""
    flat = torch.zeros_like(places[0])
    order = list(zip(places, shape[2:]))
    for place, size in reversed(order) if columns_first else order:
        flat = flat * size + place
    planes = torch.arange(shape[0] * shape[1], device=y.device).reshape(*shape[:2], *[1] * (y.ndim - 2))
    return flat + planes * math.prod(shape[2:])


def _average_pool(call: Call) -> Tensor:
    x = call.wide(0)
    w = Window(call, x.shape[2:])
    return w.sums(x) / call.upload(w.counts(call.attr("count_include_pad", 0)), x.dtype)


def _lp_pool(call: Call) -> Tensor:
    x, p = call.wide(0), call.attr("p", 2)
    return Window(call, x.shape[2:]).sums(x.abs() ** p) ** (1.0 / p)


def _spatial(x: Tensor) -> list[int]:
    return list(range(2, x.ndim))


def _global_average(call: Call) -> Tensor:
    x = call.wide(0)
    return x.mean(_spatial(x), keepdim=True) if x.ndim > 2 else x


def _global_max(call: Call) -> Tensor:
    x = call.x(0)
    return x.amax(_spatial(x), keepdim=True) if x.ndim > 2 else x


def _global_lp(call: Call) -> Tensor:
    x, p = call.wide(0), call.attr("p", 2)
    total = (x.abs() ** p).sum(_spatial(x), keepdim=True) if x.ndim > 2 else x.abs() ** p
    return total ** (1.0 / p)


def _lrn(call: Call) -> Tensor:
    """y = x / (bias + alpha/size · Σ x² over `size` channels) ^ beta"""
    x, size = call.wide(0), call.attr("size")
    before = (size - 1) // 2
    squares = F.pad(x * x, [0, 0] * (x.ndim - 2) + [before, size - 1 - before])
    total = torch.stack([squares.narrow(1, t, x.shape[1]) for t in range(size)]).sum(0)
    return x / (call.attr("bias", 1.0) + call.attr("alpha", 1e-4) / size * total) ** call.attr("beta", 0.75)


def _max_unpool(call: Call) -> Tensor:
    x, at = call.x(0), call.x(1)
    kernel = call.attr("kernel_shape")
    n = len(kernel)
    strides, pads = call.attr("strides") or [1] * n, call.attr("pads") or [0] * (2 * n)
    geometry = zip(x.shape[2:], strides, kernel, pads[:n], pads[n:])
    small = [(e - 1) * s + k - b - a for e, s, k, b, a in geometry]
    shape = call.ints(2) if call.has(2) else [*x.shape[:2], *small]
    if call.has(2):  # indices are those of the smaller tensor
        at, rest = torch.zeros_like(at), at
        scale = 1
        for own, given in zip(reversed([*x.shape[:2], *small]), reversed(shape)):
            at, rest, scale = at + rest % own * scale, rest // own, scale * given
    y = torch.zeros(math.prod(shape), dtype=x.dtype, device=x.device)
    return y.scatter(0, at.reshape(-1), x.reshape(-1)).reshape(shape)


ROUNDED: dict[str, TorchOp] = {
    "AveragePool": _average_pool, "LpPool": _lp_pool, "GlobalAveragePool": _global_average, "GlobalMaxPool": _global_max,
    "GlobalLpPool": _global_lp, "LRN": _lrn,
}  # fmt: skip
EXACT: dict[str, TorchOp] = {"MaxPool": _max_pool, "MaxUnpool": _max_unpool}
