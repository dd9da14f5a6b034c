# SPDX-License-Identifier: Apache-2.0
"""Gather, GatherElements, GatherND."""

from __future__ import annotations

from math import prod

import torch

from fastinfer.cuda.context import Binder, Declined, NodeContext
from fastinfer.cuda.kernels import gather
from fastinfer.cuda.kernels.pointwise_walk import dense, walk_over


def _check(ctx: NodeContext, extents: tuple[int, ...]) -> None:
    if ctx.desc(0).dtype.itemsize not in (1, 2, 4, 8):
        raise Declined("elements of 16 bytes")
    if ctx.desc(1).dtype not in (torch.int32, torch.int64):
        raise Declined(f"indices of type {ctx.desc(1).dtype}")
    if 0 in extents and ctx.out_desc(0).elements:
        raise Declined("indices into nothing")


def _rows(ctx: NodeContext, problem: gather.Problem) -> None:
    x, index, y = ctx.input(0), ctx.input(1), ctx.output(0)
    if ctx.out_desc(0).elements == 0:
        return
    config = ctx.choose(gather, problem)
    ctx.step(f"triton_gather {config}", gather.run, x, index, y, problem=problem, config=config)


def bind_gather(ctx: NodeContext) -> None:
    shape = ctx.desc(0).shape
    axis = int(ctx.attr("axis", 0)) % len(shape)
    _check(ctx, (shape[axis],))
    _rows(ctx, gather.Problem(
        ctx.desc(0).dtype.itemsize, prod(shape[:axis]), (shape[axis],), ctx.desc(1).elements, prod(shape[axis + 1 :]), False
    ))  # fmt: skip


def bind_gather_nd(ctx: NodeContext) -> None:
    shape, index, batch = ctx.desc(0).shape, ctx.desc(1).shape, int(ctx.attr("batch_dims", 0))
    keys = index[-1]
    extents = shape[batch : batch + keys]
    _check(ctx, extents)
    if not 1 <= keys <= gather.KEYS:
        raise Declined(f"index tuples of {keys}; at most {gather.KEYS}")
    per, inner = prod(index[batch:-1]), prod(shape[batch + keys :])
    _rows(ctx, gather.Problem(ctx.desc(0).dtype.itemsize, prod(shape[:batch]), extents, per, inner, True))


def bind_gather_elements(ctx: NodeContext) -> None:
    shape, index = ctx.desc(0).shape, ctx.desc(1).shape
    axis = int(ctx.attr("axis", 0)) % len(shape)
    _check(ctx, (shape[axis],))
    strides = dense(shape)
    still = [0 if d == axis else s for d, s in enumerate(strides)]
    walk = walk_over(index, [dense(index), still])
    if len(walk.extents) > gather.RANK:
        raise Declined(f"{len(walk.extents)} dimensions")
    x, i, y = ctx.input(0), ctx.input(1), ctx.output(0)
    if walk.elements:
        ctx.step(
            "triton_gather_elements", gather.elements, x, i, y, walk=walk, extent=shape[axis], step=strides[axis]
        )  # fmt: skip


BINDERS: dict[tuple[str, str], Binder] = {
    ("", "Gather"): bind_gather,
    ("", "GatherND"): bind_gather_nd,
    ("", "GatherElements"): bind_gather_elements,
}
