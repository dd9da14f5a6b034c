# SPDX-License-Identifier: Apache-2.0
"""Sampling and regions: GridSample, AffineGrid, Col2Im, RoiAlign, NonMaxSuppression; the Fourier transform."""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastinfer.cuda.torch_ops.call import Call, TorchOp
from fastinfer.cuda.torch_ops.resize import cubic
from fastinfer.errors import UnsupportedError


def _reflected(x: Tensor, low: float, high: float) -> Tensor:
    """Mirrored at the borders until it lies between them."""
    span = high - low
    if span <= 0:
        return torch.full_like(x, low)
    away = torch.where(x < low, low - x, torch.where(x > high, x - high, torch.zeros_like(x)))
    turns = torch.floor(away / span)
    rest, even = away - turns * span, turns % 2 == 0
    from_low, from_high = low + rest, high - rest
    below = torch.where(even, from_low, from_high)
    above = torch.where(even, from_high, from_low)
    return torch.where(x < low, below, torch.where(x > high, above, x))


def _grid_sample(call: Call) -> Tensor:
    """X [N,C,d1..dk] at grid [N,o1..ok,k] (last coordinate first, −1..1): one weight table per axis, all their products."""
    x, grid, mode = call.wide(0), call.wide(1), call.attr("mode", "linear")
    corners, padding = bool(call.attr("align_corners", 0)), call.attr("padding_mode", "zeros")
    k, dims = x.ndim - 2, x.shape[2:]
    at = [grid[..., k - 1 - i] for i in range(k)]
    places, weights = [], []
    for v, n in zip(at, dims):
        low, high = (0.0, n - 1.0) if corners else (-0.5, n - 0.5)
        p = (v + 1) / 2 * (n - 1) if corners else ((v + 1) * n - 1) / 2
        p = torch.round(p) if mode == "nearest" else p
        if padding == "border":
            p = torch.where((p < low) | (p > high), p.clamp(0, n - 1), p)
        elif padding == "reflection":
            p = _reflected(p, low, high)
        taps = {"nearest": [0], "linear": [0, 1], "cubic": [-1, 0, 1, 2]}[mode]
        first = torch.floor(p)
        index = [first + t for t in taps]
        if mode == "nearest":
            weight = [torch.ones_like(p)]
        else:
            weight = [(1 - (p - i).abs()) if mode == "linear" else cubic(p - i, -0.75) for i in index]
        if padding == "zeros":
            weight = [torch.where((i >= 0) & (i < n), w, torch.zeros_like(w)) for i, w in zip(index, weight)]
        elif padding == "reflection":
            index = [torch.trunc(_reflected(i, low, high)) for i in index]
        places.append([i.clamp(0, n - 1).to(torch.int64) for i in index])
        weights.append(weight)
    flat = x.reshape(*x.shape[:2], -1)
    total = torch.zeros(*x.shape[:2], *grid.shape[1:-1], dtype=x.dtype, device=x.device)
    for combination in itertools.product(*[range(len(p)) for p in places]):
        index, weight = torch.zeros_like(places[0][0]), torch.ones_like(weights[0][0])
        for axis, tap in enumerate(combination):
            index = index * dims[axis] + places[axis][tap]
            weight = weight * weights[axis][tap]
        picked = torch.gather(flat, 2, index.reshape(len(x), 1, -1).expand(-1, x.shape[1], -1))
        total = total + picked.reshape(total.shape) * weight.unsqueeze(1)
    return total


def _affine_grid(call: Call) -> Tensor:
    return F.affine_grid(call.wide(0), call.ints(1), align_corners=bool(call.attr("align_corners", 0)))


def _col2im(call: Call) -> Tensor:
    """Sums of overlapping blocks, any number of spatial axes."""
    x, image, block = call.wide(0), call.ints(1), call.ints(2)
    n = len(image)
    strides, dilations = call.attr("strides") or [1] * n, call.attr("dilations") or [1] * n
    pads = call.attr("pads") or [0] * (2 * n)
    wide = [e + b + a for e, b, a in zip(image, pads[:n], pads[n:])]
    counts = [(w - (k - 1) * d - 1) // s + 1 for w, k, d, s in zip(wide, block, dilations, strides)]
    blocks = x.reshape(x.shape[0], -1, *block, *counts)
    y = torch.zeros(x.shape[0], blocks.shape[1], *wide, dtype=x.dtype, device=x.device)
    for tap in itertools.product(*map(range, block)):
        where = [slice(t * d, t * d + (c - 1) * s + 1, s) for t, d, c, s in zip(tap, dilations, counts, strides)]
        y[(slice(None), slice(None), *where)] += blocks[(slice(None), slice(None), *tap)]
    return y[(slice(None), slice(None), *[slice(b, b + e) for b, e in zip(pads[:n], image)])]


def _corners(boxes: Tensor, centred: bool) -> Tensor:
    """[.., 4] as low y, low x, high y, high x."""
    if centred:
        x, y, w, h = boxes.unbind(-1)
        return torch.stack([y - h / 2, x - w / 2, y + h / 2, x + w / 2], -1)
    a, b = boxes[..., :2], boxes[..., 2:]
    return torch.cat([torch.minimum(a, b), torch.maximum(a, b)], -1)


def _overlap(corners: Tensor) -> Tensor:
    """Intersection over union of all pairs [m,m]."""
    size = (corners[:, 2:] - corners[:, :2]).prod(-1)
    low = torch.maximum(corners[:, None, :2], corners[None, :, :2])
    high = torch.minimum(corners[:, None, 2:], corners[None, :, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    union = size[:, None] + size - common
    valid = (common > 0) & (union > 0) & (size[:, None] > 0) & (size > 0)
    return torch.where(valid, common / union, torch.zeros_like(common))


def _nms(call: Call) -> Tensor:
    """Overlaps on the device, the greedy choice on the host: it is a chain of decisions."""
    boxes, scores = call.wide(0), call.wide(1)
    most = int(call.host(2).reshape(-1)[0]) if call.has(2) and call.host(2).size else 0
    threshold = float(call.host(3).reshape(-1)[0]) if call.has(3) and call.host(3).size else 0.0
    least = float(call.host(4).reshape(-1)[0]) if call.has(4) and call.host(4).size else None
    corners = _corners(boxes, bool(call.attr("center_point_box", 0)))
    found: list[tuple[int, int, int]] = []
    for batch in range(scores.shape[0]) if most > 0 else ():
        above = (_overlap(corners[batch]) > threshold).cpu().numpy()
        for category, row in enumerate(scores[batch]):
            order = torch.sort(row, descending=True, stable=True)[1].cpu().numpy()
            values = row.cpu().numpy()
            hidden, kept = np.zeros(len(values), bool), 0
            for i in order:
                if kept >= most:
                    break
                if hidden[i] or (least is not None and not values[i] > least):
                    continue
                found.append((batch, category, int(i)))
                kept += 1
                hidden |= above[i]
    return torch.tensor(found, dtype=torch.int64, device=call.device).reshape(-1, 3)


def _dft(call: Call) -> Tensor:
    """[.., n, .., 1 or 2] along an axis; opset 20: the axis is input 2."""
    x, axis = call.wide(0), call.int_(2) if call.has(2) else call.attr("axis", -2)
    axis %= x.ndim
    length = call.int_(1) if call.has(1) else x.shape[axis]
    onesided = call.attr("onesided", 0)
    if call.attr("inverse", 0):
        raise UnsupportedError("the inverse transform")
    z = torch.complex(x[..., 0], x[..., 1] if x.shape[-1] == 2 else torch.zeros_like(x[..., 0]))
    y = torch.fft.fft(z, length, axis)
    if onesided:
        y = y.narrow(axis, 0, length // 2 + 1)
    return torch.view_as_real(y.contiguous())


def _roi_samples(low: Tensor, size: Tensor, bins: int, count: int, extent: int, device: torch.device) -> Tensor:
    """Sample positions [rois, bins, count]."""
    each = size / bins
    offset = (torch.arange(count, device=device) + 0.5) / count
    return low[:, None, None] + each[:, None, None] * (torch.arange(bins, device=device)[:, None] + offset)


def _roi_align(call: Call) -> Tensor:
    """Bilinear samples of each bin, averaged; their number must be given (sampling_ratio): it would depend on each region."""
    x, rois, batch = call.wide(0), call.wide(1), call.x(2).to(torch.int64)
    ratio = call.attr("sampling_ratio", 0)
    if ratio <= 0 or call.attr("mode", "avg") != "avg":
        raise UnsupportedError("RoiAlign with samples that depend on the region, or their maximum")
    half = call.attr("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    corners = rois * call.attr("spatial_scale", 1.0) - (0.5 if half else 0.0)
    size = corners[:, 2:] - corners[:, :2]
    size = size if half else size.clamp(min=1.0)
    tables = []
    for axis, (name, extent) in enumerate((("output_width", x.shape[3]), ("output_height", x.shape[2]))):
        bins = call.attr(name, 1)
        at = _roi_samples(corners[:, axis], size[:, axis], bins, ratio, extent, x.device).reshape(len(rois), -1)
        inside = (at >= -1) & (at <= extent)
        at = at.clamp(min=0)
        low = at.floor().clamp(max=extent - 1)
        at = torch.where(low >= extent - 1, low, at)
        high = (low + 1).clamp(max=extent - 1)
        part = at - low
        tables.append((low.to(torch.int64), high.to(torch.int64), (1 - part) * inside, part * inside))
    (x0, x1, wx0, wx1), (y0, y1, wy0, wy1) = tables
    images = x[batch]  # [rois, C, H, W]
    total = torch.zeros((), device=x.device)
    for y, wy in ((y0, wy0), (y1, wy1)):
        rows = torch.gather(images, 2, y[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3]))
        for c, wc in ((x0, wx0), (x1, wx1)):
            picked = torch.gather(rows, 3, c[:, None, None].expand(-1, x.shape[1], y.shape[1], -1))
            total = total + picked * wy[:, None, :, None] * wc[:, None, None]
    h, w = call.attr("output_height", 1), call.attr("output_width", 1)
    return total.reshape(len(rois), x.shape[1], h, ratio, w, ratio).mean((3, 5))


ROUNDED: dict[str, TorchOp] = {
    "GridSample": _grid_sample, "AffineGrid": _affine_grid, "Col2Im": _col2im, "RoiAlign": _roi_align,
}  # fmt: skip
EXACT: dict[str, TorchOp] = {"NonMaxSuppression": _nms, "DFT": _dft}
