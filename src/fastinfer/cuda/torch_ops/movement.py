# SPDX-License-Identifier: Apache-2.0
"""Shapes and movements: what only renames, reorders or repeats elements; any type that torch holds."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fastinfer.cuda.torch_ops.call import Call, TorchOp, like, moved, signed


def _identity(call: Call) -> Tensor:
    return call.x(0)


def _shape(call: Call) -> Tensor:
    """On the CPU: shape arithmetic stays there."""
    return torch.tensor(_extents(call)[call.attr("start", 0) : call.attr("end")], dtype=torch.int64)


def _extents(call: Call) -> list[int]:
    given = call.tensors[0]
    return list(call.host(0).shape if given is None else given.shape)


def _size(call: Call) -> Tensor:
    return torch.tensor(math.prod(_extents(call)), dtype=torch.int64)


def _reshape(call: Call) -> Tensor:
    x, wanted = call.x(0), call.ints(1)
    if not call.attr("allowzero", 0):
        wanted = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    if -1 in wanted and x.numel() == 0:  # torch cannot tell; ONNX can where the rest holds elements
        known = math.prod(n for n in wanted if n != -1)
        wanted = [0 if n == -1 and known else n for n in wanted]
    return x.reshape(wanted)


def _squeeze(call: Call) -> Tensor:
    x, axes = call.x(0), call.ints_or_attr(1, "axes")
    gone = {a for a, n in enumerate(x.shape) if n == 1} if axes is None else {a % x.ndim for a in axes}
    return x.reshape([n for a, n in enumerate(x.shape) if a not in gone])


def _unsqueeze(call: Call) -> Tensor:
    x, axes = call.x(0), call.ints_or_attr(1, "axes") or []
    new = {a % (x.ndim + len(axes)) for a in axes}
    rest = iter(x.shape)
    return x.reshape([1 if a in new else next(rest) for a in range(x.ndim + len(axes))])


def _flatten(call: Call) -> Tensor:
    x, axis = call.x(0), call.attr("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _transpose(call: Call) -> Tensor:
    x = call.x(0)
    return x.permute(call.attr("perm") or list(reversed(range(x.ndim))))


def _expand(call: Call) -> Tensor:
    x = call.x(0)
    return x.expand(torch.broadcast_shapes(x.shape, tuple(call.ints(1))))


def _tile(call: Call) -> Tensor:
    return moved(lambda v: v.repeat(call.ints(1)) if v.ndim else v, call.x(0))


def _concat(call: Call) -> Tensor:
    xs = [call.x(i) for i in range(call.n_inputs)]
    return like(torch.cat([signed(x) for x in xs], call.attr("axis")), xs[0].dtype)


def _split(call: Call) -> list[Tensor | None]:
    x, axis = call.x(0), call.attr("axis", 0)
    if call.has(1):
        sizes = call.ints(1)
    else:
        parts = call.attr("num_outputs") or call.n_outputs
        size = -(-x.shape[axis] // parts)
        sizes = [min(size, max(x.shape[axis] - i * size, 0)) for i in range(parts)]
    return list(torch.split(x, sizes, axis))


def _slice(call: Call) -> Tensor:
    x, starts, ends = call.x(0), call.ints(1), call.ints(2)
    axes = call.ints(3) if call.has(3) else list(range(len(starts)))
    steps = call.ints(4) if call.has(4) else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        places = range(x.shape[axis])[_bounds(start, end, step, x.shape[axis])]
        if step > 0:
            at = [slice(None)] * (axis % x.ndim) + [slice(places.start, max(places.stop, places.start), step)]
            x = x[tuple(at)]
        else:
            picked = call.upload(np.array(places, np.int64))
            x = moved(lambda v, a=axis, p=picked: v.index_select(a, p), x)  # type: ignore[misc]
    return x


def _bounds(start: int, end: int, step: int, n: int) -> slice:
    """Python's slice; an end before the first element, going down, is None there."""
    start = max(start + n, -1 if step < 0 else 0) if start < 0 else start
    end = max(end + n, -1) if end < 0 else end
    if step < 0:
        return slice(start if start >= 0 else -n - 1, None if end < 0 else end, step)
    return slice(start, max(end, 0), step)


def _pad(call: Call) -> Tensor:
    """Per axis, by an index of where each element comes from (-1: the constant)."""
    x, pads, mode = call.x(0), call.ints(1), call.attr("mode", "constant")
    axes = [a % x.ndim for a in call.ints(3)] if call.has(3) else list(range(x.ndim))
    value = call.x(2).reshape(()) if call.has(2) else torch.zeros((), dtype=x.dtype, device=x.device)
    for i, axis in enumerate(axes):
        before, after, n = pads[i], pads[i + len(axes)], x.shape[axis]
        if not before and not after:
            continue
        if mode == "constant":
            x = _pad_constant(x, axis, before, after, value.to(x.dtype))
            continue
        at = np.arange(-before, n + after)
        if mode == "edge":
            at = at.clip(0, n - 1)
        elif mode == "wrap":
            at = at % n
        else:
            period = max(2 * (n - 1), 1)
            at = (n - 1) - abs(at % period - (n - 1))
        picked = call.upload(at.astype(np.int64))
        x = moved(lambda v, a=axis, p=picked: v.index_select(a, p), x)  # type: ignore[misc]
    return x


def _pad_constant(x: Tensor, axis: int, before: int, after: int, value: Tensor) -> Tensor:
    low, high = max(-before, 0), x.shape[axis] - max(-after, 0)
    x = x.narrow(axis, low, max(high - low, 0))
    ends = [
        signed(value).expand([max(extent, 0) if a == axis else n for a, n in enumerate(x.shape)])
        for extent in (before, after)
    ]
    return like(torch.cat([ends[0], signed(x), ends[1]], axis), x.dtype)


def _depth_to_space(call: Call) -> Tensor:
    x, b = call.x(0), call.attr("blocksize")
    n, c, h, w = x.shape
    if call.attr("mode", "DCR") == "DCR":
        split = x.reshape(n, b, b, c // (b * b), h, w).permute(0, 3, 4, 1, 5, 2)
    else:
        split = x.reshape(n, c // (b * b), b, b, h, w).permute(0, 1, 4, 2, 5, 3)
    return split.reshape(n, c // (b * b), h * b, w * b)


def _space_to_depth(call: Call) -> Tensor:
    x, b = call.x(0), call.attr("blocksize")
    n, c, h, w = x.shape
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


def _trilu(call: Call) -> Tensor:
    k = call.int_(1) if call.has(1) else 0
    cut = torch.triu if call.attr("upper", 1) else torch.tril
    return moved(lambda v: cut(v, k), call.x(0))


def _reverse_sequence(call: Call) -> Tensor:
    x, lengths = call.x(0), call.x(1).to(torch.int64)
    time, batch = call.attr("time_axis", 0), call.attr("batch_axis", 1)
    t = torch.arange(x.shape[time], device=x.device)
    at = torch.where(t < lengths[:, None], lengths[:, None] - 1 - t, t)  # [batch, time]
    at = at if batch < time else at.T
    shape = [n if a in (time, batch) else 1 for a, n in enumerate(x.shape)]
    return moved(lambda v: torch.gather(v, time, at.reshape(shape).expand(x.shape)), x)


def _center_crop_pad(call: Call) -> Tensor:
    x, wanted = call.x(0), call.ints(1)
    axes = call.attr("axes") or list(range(len(wanted)))
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    for axis, extent in zip(axes, wanted, strict=True):
        missing = extent - x.shape[axis]
        before = missing // 2 if missing > 0 else -(-missing // 2)
        x = _pad_constant(x, axis % x.ndim, before, missing - before, zero)
    return x


EXACT: dict[str, TorchOp] = {
    "Identity": _identity, "Shape": _shape, "Size": _size, "Reshape": _reshape, "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze, "Flatten": _flatten, "Transpose": _transpose, "Expand": _expand, "Tile": _tile,
    "Concat": _concat, "Split": _split, "Slice": _slice, "Pad": _pad, "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth, "Trilu": _trilu, "ReverseSequence": _reverse_sequence,
    "CenterCropPad": _center_crop_pad,
}  # fmt: skip
