# SPDX-License-Identifier: Apache-2.0
"""Operators that only move elements: as walks over memory, by kernels.movement and kernels.movement_parts."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch

from fastinfer.cuda.context import Binder, Declined, NodeContext
from fastinfer.cuda.dtypes import tensor_of
from fastinfer.cuda.kernels import movement, movement_parts, pointwise
from fastinfer.cuda.kernels.pointwise_walk import LIMIT, Walk, broadcast, dense, walk_over


def _itemsize(ctx: NodeContext, i: int = 0) -> int:
    """Raises Declined for types of 16 bytes."""
    size = ctx.desc(i).dtype.itemsize
    if size not in (1, 2, 4, 8):
        raise Declined(f"elements of {size} bytes")
    return size


def host(ctx: NodeContext, i: int) -> list[int]:
    """An input of integers that decides shapes. Raises Declined where only the device knows it."""
    known = ctx.known(i)
    if known is None:
        raise Declined(f"input {i} is not known before the model runs")
    return [int(v) for v in np.ravel(known)]


def move(ctx: NodeContext, walk: Walk) -> None:
    """Input 0 to output 0. walk: over both."""
    size = _itemsize(ctx)
    if walk.elements == 0:
        ctx.output(0)
        return
    x, y = ctx.input(0, wide=True), ctx.output(0, wide=True)
    tiled = movement.transpose_problem(walk, max(x.desc.dtype.itemsize, size))
    if tiled is not None:
        chosen = ctx.choose(movement, tiled)
        ctx.step(f"triton_transpose {chosen}", movement.run, x, y, problem=tiled, config=chosen)
        return
    if x.desc.dtype != y.desc.dtype:
        problem = pointwise.cast_problem(walk, x.desc.dtype, y.desc.dtype)
        config = ctx.choose(pointwise, problem)
        ctx.step(f"triton_copy {config}", pointwise.run, x, y, problem=problem, config=config)
        return
    problem = pointwise.copy_problem(walk, x.desc.dtype.itemsize)
    config = ctx.choose(pointwise, problem)
    ctx.step(f"triton_copy {config}", pointwise.copy, x, y, problem=problem, config=config)


def _walk(extents: Sequence[int], strides: Sequence[int], offset: int = 0) -> Walk:
    """Into a dense output."""
    return walk_over(extents, [strides, dense(extents)], [offset, 0])


def bind_transpose(ctx: NodeContext) -> None:
    shape = ctx.desc(0).shape
    perm = [int(p) for p in ctx.attr("perm") or reversed(range(len(shape)))]
    strides = dense(shape)
    walk = _walk([shape[p] for p in perm], [strides[p] for p in perm])
    moved = [p for p in perm if shape[p] != 1]
    if moved == sorted(moved):
        ctx.alias(0, 0)
    else:
        move(ctx, walk)


def bind_expand(ctx: NodeContext) -> None:
    shape, to = ctx.desc(0).shape, ctx.out_desc(0).shape
    if shape == to:
        ctx.alias(0, 0)
    else:
        move(ctx, _walk(to, broadcast(shape, to)))


def bind_tile(ctx: NodeContext) -> None:
    shape, repeats = ctx.desc(0).shape, host(ctx, 1)
    extents = [e for pair in zip(repeats, shape) for e in pair]
    strides = [s for stride in dense(shape) for s in (0, stride)]
    move(ctx, _walk(extents, strides))


def bind_slice(ctx: NodeContext) -> None:
    shape, out = ctx.desc(0).shape, ctx.out_desc(0).shape
    starts = host(ctx, 1)
    axes = host(ctx, 3) if ctx.has(3) else list(range(len(starts)))
    steps = host(ctx, 4) if ctx.has(4) else [1] * len(starts)
    strides, offset = list(dense(shape)), 0
    for start, axis, step in zip(starts, axes, steps, strict=True):
        extent = shape[axis]
        start = start + extent if start < 0 else start
        start = min(max(start, 0), extent if step > 0 else extent - 1)
        offset += start * strides[axis]
        strides[axis] *= step
    move(ctx, _walk(out, strides, offset))


def _blocks(ctx: NodeContext, space_to_depth: bool) -> None:
    """As a transpose of six dimensions."""
    b = int(ctx.attr("blocksize"))
    n, c, h, w = ctx.desc(0).shape
    mode = ctx.attr("mode", "DCR")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    if space_to_depth:
        shape, perm = (n, c, h // b, b, w // b, b), (0, 3, 5, 1, 2, 4)
        if mode == "CRD":
            perm = (0, 1, 3, 5, 2, 4)
    elif mode == "CRD":
        shape, perm = (n, c // (b * b), b, b, h, w), (0, 1, 4, 2, 5, 3)
    else:
        shape, perm = (n, b, b, c // (b * b), h, w), (0, 3, 4, 1, 5, 2)
    strides = dense(shape)
    move(ctx, _walk([shape[p] for p in perm], [strides[p] for p in perm]))


def bind_depth_to_space(ctx: NodeContext) -> None:
    _blocks(ctx, False)


def bind_space_to_depth(ctx: NodeContext) -> None:
    _blocks(ctx, True)


# ----------------------------------------------------------------------------------------------------------- several parts


def _parts(ctx: NodeContext, size: int, shapes: list[tuple[int, ...]], axis: int, join: bool) -> None:
    """shapes: of the parts, all of which are there."""
    rows = prod(shapes[0][:axis])
    cols = [prod(s[axis:]) for s in shapes]
    if rows * sum(cols) == 0:
        return
    if max(sum(cols), rows) >= LIMIT:
        raise Declined("rows of more than 2^31 elements")
    parts = [ctx.input(p) if join else ctx.output(p) for p in range(len(shapes)) if cols[p]]
    whole, at = ctx.output(0) if join else ctx.input(0), 0
    for problem in movement_parts.problem_of(size, rows, cols, join):
        n, config = len(problem.cols), ctx.choose(movement_parts, problem)
        name = f"triton_{'concat' if join else 'split'}[{n}] {config}"
        ctx.step(name, movement_parts.run, *parts[at : at + n], whole, problem=problem, config=config)
        at += n


def bind_concat(ctx: NodeContext) -> None:
    shapes = [ctx.desc(i).shape for i in range(ctx.n_inputs)]
    size, axis = _itemsize(ctx), int(ctx.attr("axis")) % len(shapes[0])
    if len(shapes) == 1:
        ctx.alias(0, 0)
        return
    ctx.output(0)
    _parts(ctx, size, shapes, axis, True)


def bind_split(ctx: NodeContext) -> None:
    if not all(ctx.wants(j) for j in range(ctx.n_outputs)):
        raise Declined("a split of which not every part is read")
    shapes = [ctx.out_desc(j).shape for j in range(ctx.n_outputs)]
    size, axis = _itemsize(ctx), int(ctx.attr("axis", 0)) % len(shapes[0])
    if len(shapes) == 1:
        ctx.alias(0, 0)
        return
    for j in range(ctx.n_outputs):
        ctx.output(j)
    _parts(ctx, size, shapes, axis, False)


# ---------------------------------------------------------------------------------------------------------------- padding


def _bits(ctx: NodeContext, size: int) -> int:
    """The value of input 2 as it is stored, as an integer of as many bytes."""
    dtype = ctx.desc(0).dtype
    if not ctx.has(2):
        return 0
    known = ctx.known(2)
    if known is None:
        raise Declined("input 2 is not known before the model runs")
    return int(pointwise.raw(tensor_of(np.ravel(known)[:1], dtype, torch.device("cpu"))).item())


def bind_pad(ctx: NodeContext) -> None:
    shape, mode, size = ctx.desc(0).shape, ctx.attr("mode", "constant"), _itemsize(ctx)
    mode = mode.decode() if isinstance(mode, bytes) else mode
    pads, rank = host(ctx, 1), len(shape)
    axes = [a % rank for a in host(ctx, 3)] if ctx.has(3) else list(range(rank))
    before, after = [0] * rank, [0] * rank
    for k, axis in enumerate(axes):
        before[axis], after[axis] = pads[k], pads[len(axes) + k]
    if mode not in movement.MODES:
        raise Declined(f"mode '{mode}'")
    most = {"reflect": -1, "wrap": 0}.get(mode)
    if most is not None and any(max(b, a) > n + most or min(b, a) < 0 for b, a, n in zip(before, after, shape)):
        raise Declined(f"mode '{mode}' over more than one extent, or cutting")
    value = _bits(ctx, size) if mode == "constant" else 0
    kept: list[list[int]] = []  # extent, before, after; neighbours without padding are one
    for n, b, a in zip(shape, before, after):
        if kept and not (b or a or kept[-1][1] or kept[-1][2]):
            kept[-1][0] *= n
        else:
            kept.append([n, b, a])
    kept = [k for k in kept if k != [1, 0, 0]]
    if len(kept) > movement.RANK:
        raise Declined(f"padding along {len(kept)} separate dimensions")
    if prod(ctx.out_desc(0).shape) == 0 or prod(shape) == 0 and mode != "constant":
        ctx.output(0)
        return
    kept = [[1, 0, 0]] * (movement.RANK - len(kept)) + kept
    extents, front, back = (tuple(k[at] for k in kept) for at in range(3))
    ctx.step(
        "triton_pad", movement.pad, ctx.input(0), ctx.output(0),
        extents=extents, before=front, after=back, mode=mode, value=value,
    )  # fmt: skip


BINDERS: dict[tuple[str, str], Binder] = {
    ("", "Transpose"): bind_transpose,
    ("", "Expand"): bind_expand,
    ("", "Tile"): bind_tile,
    ("", "Slice"): bind_slice,
    ("", "DepthToSpace"): bind_depth_to_space,
    ("", "SpaceToDepth"): bind_space_to_depth,
    ("", "Concat"): bind_concat,
    ("", "Split"): bind_split,
    ("", "Pad"): bind_pad,
}
