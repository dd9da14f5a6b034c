# SPDX-License-Identifier: Apache-2.0
"""Resize, one axis after another: a table of source positions and weights per axis, made in float64 on the host; so all modes
of ONNX have one form, and it is exact."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastinfer.cuda.torch_ops.call import Call, TorchOp, moved


def _source(mode: str, out: int, n: int, scale: float, roi: tuple[float, float]) -> np.ndarray:
    """Where each output lies in the input."""
    y, width = np.arange(out, dtype=np.float64), scale * n
    if mode == "align_corners":
        return np.zeros(out) if width == 1 else y * (n - 1) / (width - 1)
    if mode == "asymmetric":
        return y / scale
    if mode == "tf_crop_and_resize":
        low, high = roi
        if width == 1:
            return np.full(out, (high - low) * (n - 1) / 2 + low * (n - 1))
        return y * (high - low) * (n - 1) / (width - 1) + low * (n - 1)
    if mode == "pytorch_half_pixel" and width == 1:
        return np.full(out, -0.5)
    x = (y + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        x = x + n / 2 * (1 - out / width)
    return x


def cubic(d: Any, a: float) -> Any:
    """Keys' cubic weight at a distance; an array or a tensor."""
    where = torch.where if isinstance(d, Tensor) else np.where
    d = abs(d)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = a * (((d - 5) * d + 8) * d - 4)
    return where(d <= 1, near, where(d < 2, far, 0 * d))


def _nearest(x: np.ndarray, mode: str) -> np.ndarray:
    if mode == "round_prefer_floor":
        return np.ceil(x - 0.5)
    if mode == "round_prefer_ceil":
        return np.floor(x + 0.5)
    return np.floor(x) if mode == "floor" else np.ceil(x)


def _table(call: Call, x: np.ndarray, n: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions [out, taps], clamped to the input, and weights [out, taps]."""
    kind = call.attr("mode", "nearest")
    if kind == "nearest":
        at = _nearest(x, call.attr("nearest_mode", "round_prefer_floor"))[:, None]
        return at.clip(0, n - 1).astype(np.int64), np.ones(at.shape)
    radius = 1 if kind == "linear" else 2
    shrink = min(scale, 1.0) if call.attr("antialias", 0) else 1.0
    reach = math.ceil(radius / shrink)
    at = np.floor(x)[:, None] + np.arange(1 - reach, reach + 1)
    distance = (at - x[:, None]) * shrink
    if kind == "linear":
        weights = np.clip(1 - abs(distance), 0, 1)
    else:
        weights = cubic(distance, call.attr("cubic_coeff_a", -0.75))
    if call.attr("exclude_outside", 0):
        weights = np.where((at < 0) | (at >= n), 0.0, weights)
    if shrink != 1.0 or call.attr("exclude_outside", 0):
        total = weights.sum(1, keepdims=True)
        weights = weights / np.where(total == 0, 1.0, total)
    return at.clip(0, n - 1).astype(np.int64), weights


def _geometry(call: Call, shape: torch.Size) -> tuple[list[int], list[float], list[int]]:
    """axes, scale and output extent of each."""
    rank = len(shape)
    axes = [a % rank for a in call.attr("axes") or range(rank)]
    extents = [shape[a] for a in axes]
    if not (call.has(3) and call.host(3).size):
        scales = [float(s) for s in call.host(2).reshape(-1)]
        return axes, scales, [math.floor(s * n) for s, n in zip(scales, extents)]
    sizes = call.ints(3)
    scales = [o / n for o, n in zip(sizes, extents)]
    policy = call.attr("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        one = min(scales) if policy == "not_larger" else max(scales)
        scales, sizes = [one] * len(axes), [int(one * n + 0.5) for n in extents]
    return axes, scales, sizes


def _resize(call: Call) -> Tensor:
    x = call.x(0)
    axes, scales, sizes = _geometry(call, x.shape)
    mode = call.attr("coordinate_transformation_mode", "half_pixel")
    crop = mode == "tf_crop_and_resize"
    roi = call.host(1).reshape(-1).astype(np.float64) if crop else np.array([0.0] * len(axes) + [1.0] * len(axes))
    nearest = call.attr("mode", "nearest") == "nearest"
    y = x if nearest else call.wide(0) if x.is_floating_point() else x.float()
    for i, (axis, scale, size) in enumerate(zip(axes, scales, sizes)):
        n, ends = x.shape[axis], (float(roi[i]), float(roi[i + len(axes)]))
        if scale == 1.0 and size == n and (not crop or ends == (0.0, 1.0)):
            continue
        at = _source(mode, size, n, scale, ends)
        y = _along(call, y, axis, *_table(call, at, n, scale), nearest)
        if crop:
            outside = call.upload((at < 0) | (at > n - 1)).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
            y = torch.where(outside, torch.full_like(y, call.attr("extrapolation_value", 0.0)), y)
    if nearest or x.is_floating_point():
        return y
    limits = torch.iinfo(x.dtype)
    return torch.round(y).clamp(limits.min, limits.max).to(x.dtype)


def _along(call: Call, x: Tensor, axis: int, at: np.ndarray, weights: np.ndarray, nearest: bool) -> Tensor:
    """Σ over taps of x at its positions, weighted."""
    if nearest:
        places = call.upload(at[:, 0])
        return moved(lambda v: v.index_select(axis, places), x)
    shape = [-1 if a == axis else 1 for a in range(x.ndim)]
    total: Any = 0
    for tap in range(at.shape[1]):
        w = call.upload(np.ascontiguousarray(weights[:, tap]), x.dtype).reshape(shape)
        total = total + x.index_select(axis, call.upload(np.ascontiguousarray(at[:, tap]))) * w
    return total


ROUNDED: dict[str, TorchOp] = {"Resize": _resize}
