# SPDX-License-Identifier: Apache-2.0
"""Layer, RMS, group norms and softmax, with what is added before them."""

from __future__ import annotations

import math

import torch

from fastinfer.cuda.context import Binder, Declined, Handle, NodeContext
from fastinfer.cuda.kernels import norm, norm_groups, softmax

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def _float(ctx: NodeContext) -> tuple[int, ...]:
    """Input 0's shape."""
    x = ctx.desc(0)
    if x.dtype not in _FLOATS:
        raise Declined(f"input 0 is {x.dtype}")
    if ctx.attr("stash_type", 1) != 1:
        raise Declined("stash_type other than float32")
    return x.shape


def _kind(ctx: NodeContext, i: int, row: tuple[int, ...]) -> str:
    """How a parameter goes along a row of this shape."""
    if not ctx.has(i):
        return "none"
    shape = ctx.desc(i).shape
    if ctx.desc(i).elements == 1:
        return "one" if math.prod(row) != 1 else "row"
    lead = len(shape) - len(row)
    if lead < 0 or shape[lead:] != row or any(e != 1 for e in shape[:lead]):
        raise Declined(f"input {i} is {list(shape)}, needed: {list(row)}")
    return "row"


def _parameter(ctx: NodeContext, i: int) -> Handle | None:
    """Constants keep float32, whatever is stored between steps."""
    if not ctx.has(i):
        return None
    return ctx.constant(i, dtype=torch.float32) if ctx.is_constant(i) else ctx.input(i, wide=True)


def _bind_rows(
    ctx: NodeContext, axis: int, rms: bool, scale: int, bias: int = -1, residual: int = -1, xbias: int = -1
) -> None:
    shape = _float(ctx)
    row = shape[axis:]
    n = math.prod(row)
    if not ctx.wants(0):
        raise Declined("only the sum is wanted")
    if math.prod(shape) == 0:
        raise Declined("nothing to do")
    kinds = [_kind(ctx, i, row) if i >= 0 else "none" for i in (scale, bias, xbias)]
    if kinds[2] == "one":
        raise Declined(f"input {xbias} is one number, needed: {list(row)}")
    if residual >= 0:
        _check_residual(ctx, residual, shape, len(row))
    total = residual >= 0 and ctx.wants(1)
    problem = norm.Problem(ctx.desc(0).dtype, n, rms, kinds[0], kinds[1], residual >= 0, kinds[2] == "row", total)
    config = ctx.choose(norm, problem)
    ctx.step(
        f"triton_{'rms' if rms else 'layer'}_norm_{config.variant} {config.rows}x{config.columns}", norm.run,
        ctx.input(0, wide=True), ctx.input(residual, wide=True) if residual >= 0 else None,
        *(_parameter(ctx, i) if i >= 0 else None for i in (xbias, scale, bias)), ctx.output(0, wide=True),
        ctx.output(1, wide=True) if total else None, problem=problem, config=config, epsilon=float(ctx.attr("epsilon", 1e-5)),
    )  # fmt: skip


def _check_residual(ctx: NodeContext, i: int, shape: tuple[int, ...], row: int) -> None:
    """Leading ones aside its shape ends x's, so that its rows repeat."""
    given = list(ctx.desc(i).shape)
    while len(given) > row and given[0] == 1:
        given.pop(0)
    if ctx.desc(i).dtype not in _FLOATS or not given or list(shape[len(shape) - len(given) :]) != given:
        raise Declined(f"the residual is {list(ctx.desc(i).shape)}, which does not repeat to {list(shape)}")


def _axis(ctx: NodeContext) -> int:
    rank = len(_float(ctx))
    if rank == 0:
        raise Declined("a scalar has no axis")
    return int(ctx.attr("axis", -1)) % rank


def bind_layer_norm(ctx: NodeContext) -> None:
    if ctx.wants(1) or ctx.wants(2):
        raise Declined("mean and deviation are wanted")
    _bind_rows(ctx, _axis(ctx), rms=False, scale=1, bias=2)


def bind_rms_norm(ctx: NodeContext) -> None:
    if ctx.wants(1):
        raise Declined("the deviation is wanted")
    _bind_rows(ctx, _axis(ctx), rms=True, scale=1)


def bind_skip_layer_norm(ctx: NodeContext) -> None:
    """X, R, scale, bias?, xbias? → Y, X + R + xbias."""
    _bind_rows(ctx, len(_float(ctx)) - 1, rms=False, scale=2, bias=3, residual=1, xbias=4)


def bind_skip_rms_norm(ctx: NodeContext) -> None:
    """X, R, scale, xbias? → Y, X + R + xbias."""
    _bind_rows(ctx, len(_float(ctx)) - 1, rms=True, scale=2, residual=1, xbias=3)


def bind_group_norm(ctx: NodeContext) -> None:
    """GroupNormalization and InstanceNormalization: X, scale, bias → Y."""
    shape = _float(ctx)
    if not ctx.attr("channels_last", 0):
        raise Declined("channels are not last")
    channels = shape[-1]
    groups = channels if ctx.node["op"] == "InstanceNormalization" else int(ctx.attr("num_groups"))
    if groups <= 0 or channels % groups or math.prod(shape) == 0:
        raise Declined(f"{channels} channels in {groups} groups")
    problem = norm_groups.Problem(ctx.desc(0).dtype, math.prod(shape[1:-1]), groups, channels // groups)
    config = ctx.choose(norm_groups, problem)
    room = norm_groups.workspace(problem, config, shape[0])
    ctx.step(
        f"triton_group_norm_{config.variant}", norm_groups.run, ctx.input(0, wide=True), _parameter(ctx, 1),
        _parameter(ctx, 2), ctx.output(0, wide=True), ctx.scratch((room // 4,), torch.float32) if room else None, problem=problem, config=config,
        epsilon=float(ctx.attr("epsilon", 1e-5)),
    )  # fmt: skip


def bind_softmax(ctx: NodeContext) -> None:
    shape = _float(ctx)
    axis = int(ctx.attr("axis", -1)) % len(shape) if shape else 0
    n, inner = (shape[axis], math.prod(shape[axis + 1 :])) if shape else (1, 1)
    if math.prod(shape) == 0:
        raise Declined("nothing to do")
    problem = softmax.Problem(ctx.desc(0).dtype, n, inner, ctx.node["op"] == "LogSoftmax")
    config = ctx.choose(softmax, problem)
    ctx.step(
        f"triton_softmax_{config.variant} {config.along}x{config.across}", softmax.run, ctx.input(0, wide=True),
        ctx.output(0, wide=True), problem=problem, config=config,
    )  # fmt: skip


BINDERS: dict[tuple[str, str], Binder] = {
    ("", "LayerNormalization"): bind_layer_norm,
    ("", "RMSNormalization"): bind_rms_norm,
    ("fastinfer", "SkipLayerNorm"): bind_skip_layer_norm,
    ("fastinfer", "SkipRMSNorm"): bind_skip_rms_norm,
    ("fastinfer", "GroupNormalization"): bind_group_norm,
    ("fastinfer", "InstanceNormalization"): bind_group_norm,
    ("", "Softmax"): bind_softmax,
    ("", "LogSoftmax"): bind_softmax,
}
