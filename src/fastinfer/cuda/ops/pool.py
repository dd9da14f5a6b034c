# SPDX-License-Identifier: Apache-2.0
"""Pooling and resizing, channels last."""

from __future__ import annotations

import torch

from fastinfer.cuda.context import Binder, Declined, NodeContext
from fastinfer.cuda.kernels import pool, resize
from fastinfer.cuda.kernels.conv_geometry import Window, triple, window_of

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
_BYTES = (torch.uint8, torch.int8)  # between quantised convolutions


def _check(ctx: NodeContext, what: str, *more: torch.dtype) -> None:
    if not ctx.attr("channels_last", 0):
        raise Declined(f"{what}: data is channels first")
    if ctx.desc(0).dtype not in (*_FLOATS, *more):
        raise Declined(f"{what}: {ctx.desc(0).dtype}")


def _bind_pool(ctx: NodeContext, problem: pool.Problem) -> None:
    config = ctx.choose(pool, problem)
    size = pool.workspace(problem, config)
    ctx.step(
        f"triton_{problem.kind}_pool", pool.run, ctx.input(0),
        ctx.scratch((size,), torch.uint8) if size else None, ctx.output(0), problem=problem, config=config,
    )  # fmt: skip


def _bind_window(ctx: NodeContext, kind: str) -> None:
    _check(ctx, "pool", *_BYTES if kind == "max" else ())
    x, y = ctx.desc(0), ctx.out_desc(0)
    if ctx.wants(1):
        raise Declined("pool: indices are wanted")
    if len(x.shape) > 5:
        raise Declined("pool: more than three spatial axes")
    kernel, auto_pad = ctx.attr("kernel_shape"), ctx.attr("auto_pad", "NOTSET") or "NOTSET"
    pads = list(ctx.attr("pads") or [0] * (2 * len(kernel)))
    window = window_of(x.shape[1:-1], y.shape[1:-1], kernel, ctx.attr("strides"), ctx.attr("dilations"), pads, auto_pad)
    end = triple(pads[len(kernel) :], 0) if auto_pad == "NOTSET" else _same_end(window, auto_pad)
    counts = kind == "average" and bool(ctx.attr("count_include_pad", 0))
    _bind_pool(ctx, pool.Problem(kind, x.dtype, x.shape[0], x.shape[-1], window, False, end, counts))


def _same_end(w: Window, auto_pad: str) -> tuple[int, int, int]:
    if auto_pad == "VALID":
        return (0, 0, 0)
    axes = zip(w.size, w.out, w.kernel, w.stride, w.dilation, w.pad, strict=True)
    return triple([max(0, (o - 1) * s + (k - 1) * d + 1 - n) - p for n, o, k, s, d, p in axes])


def _bind_whole(ctx: NodeContext, kind: str) -> None:
    _check(ctx, "pool")
    x = ctx.desc(0)
    if not 3 <= len(x.shape) <= 5 or x.elements == 0:
        raise Declined("pool: no image")
    window = window_of(x.shape[1:-1], (1,) * (len(x.shape) - 2), x.shape[1:-1])
    _bind_pool(ctx, pool.Problem(kind, x.dtype, x.shape[0], x.shape[-1], window, whole=True))


def _bind_max(ctx: NodeContext) -> None:
    _bind_window(ctx, "max")


def _bind_average(ctx: NodeContext) -> None:
    _bind_window(ctx, "average")


def _bind_global_average(ctx: NodeContext) -> None:
    _bind_whole(ctx, "average")


def _bind_global_max(ctx: NodeContext) -> None:
    _bind_whole(ctx, "max")


def _exact(ctx: NodeContext) -> bool:
    """Whether the scales are quotients of the extents: with given sizes, and with scales that leave no fraction."""
    if ctx.has(3) and ctx.desc(3).elements > 0:
        return str(ctx.attr("keep_aspect_ratio_policy", "stretch")) == "stretch"
    scales = ctx.known(2)
    if scales is None:
        return False
    x, y = ctx.desc(0).shape, ctx.out_desc(0).shape
    rank = len(x)
    axes = [a % rank for a in ctx.attr("axes") or range(rank)]  # of the channels-first form
    stored = [0, rank - 1, *range(1, rank - 1)]
    return all(abs(float(s) * x[stored[a]] - y[stored[a]]) < 1e-6 for a, s in zip(axes, scales, strict=True))


def bind_resize(ctx: NodeContext) -> None:
    _check(ctx, "resize")
    x, y, mode = ctx.desc(0), ctx.out_desc(0), ctx.attr("mode", "nearest")
    if len(x.shape) != 4 or x.shape[0] != y.shape[0] or x.shape[3] != y.shape[3] or x.elements == 0:
        raise Declined("resize: of other axes than height and width")
    if mode not in ("nearest", "linear") or ctx.attr("antialias", 0) or ctx.attr("exclude_outside", 0):
        raise Declined(f"resize: {mode}, antialias or exclude_outside")
    if not _exact(ctx):
        raise Declined("resize: the scales are not the extents' quotients")
    coordinates = ctx.attr("coordinate_transformation_mode", "half_pixel")
    rounding = ctx.attr("nearest_mode", "round_prefer_floor") if mode == "nearest" else ""
    height, width = (resize.axis_of(x.shape[i], y.shape[i], coordinates, rounding) for i in (1, 2))
    if height is None or width is None:
        raise Declined(f"resize: {coordinates} {rounding}")
    problem = resize.Problem(mode, x.dtype, x.shape[0], x.shape[3], height, width)
    config = ctx.choose(resize, problem)
    ctx.step(f"triton_resize {mode}", resize.run, ctx.input(0), ctx.output(0), problem=problem, config=config)


BINDERS: dict[tuple[str, str], Binder] = {
    ("fastinfer", "MaxPool"): _bind_max,
    ("fastinfer", "AveragePool"): _bind_average,
    ("fastinfer", "GlobalAveragePool"): _bind_global_average,
    ("fastinfer", "GlobalMaxPool"): _bind_global_max,
    ("fastinfer", "Resize"): bind_resize,
}
