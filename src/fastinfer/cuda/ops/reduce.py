# SPDX-License-Identifier: Apache-2.0
"""Reductions over any axes, ArgMax, ArgMin."""

from __future__ import annotations

from math import prod

import numpy as np
import torch

from fastinfer.cuda.context import Binder, Declined, NodeContext
from fastinfer.cuda.kernels import reduce

_FLOATS = {torch.float32, torch.float16, torch.bfloat16}
_INTS = {"Sum": {torch.int32, torch.int64}, "Prod": {torch.int32, torch.int64}}
_INTS["Max"] = _INTS["Min"] = {torch.int8, torch.uint8, torch.int32, torch.int64}
_INTS["ArgMax"] = _INTS["ArgMin"] = _INTS["Max"]
# Over axes with others between them, one run of axes after the other; all but the last by this.
_BEFORE_THE_LAST = {"LogSum": "Sum", "SumSquare": "SumSquare"}
_AFTER_THE_FIRST = {"SumSquare": "Sum"}


def _axes(ctx: NodeContext, rank: int) -> list[int] | None:
    """None: the values are left as they are."""
    given = ctx.attr("axes")
    if ctx.has(1):
        given = ctx.known(1)
        if given is None:
            raise Declined("axes that are not known before the model runs")
    axes = [int(a) % rank for a in np.ravel(given)] if given is not None and rank else []
    if axes:
        return axes
    return None if ctx.attr("noop_with_empty_axes", 0) else list(range(rank))


def runs(shape: tuple[int, ...], axes: list[int]) -> list[tuple[bool, int]]:
    """(whether it is reduced, extent) of neighbouring dimensions taken together."""
    found: list[tuple[bool, int]] = []
    for d, extent in enumerate(shape):
        if extent == 1:
            continue
        if found and found[-1][0] == (d in axes):
            found[-1] = d in axes, found[-1][1] * extent
        else:
            found.append((d in axes, extent))
    return found


def _problems(op: str, shape: tuple[int, ...], axes: list[int], dtype: torch.dtype) -> list[reduce.Problem]:
    """One per run of axes, the last run first."""
    left, found = runs(shape, axes), []
    wanted = [k for k, (reduced, _) in enumerate(left) if reduced]
    for nth, k in enumerate(reversed(wanted)):
        name = op if nth == 0 else _AFTER_THE_FIRST.get(op, op)
        if nth < len(wanted) - 1:
            name = _BEFORE_THE_LAST.get(name, name)
        outer, inner = prod(e for _, e in left[:k]), prod(e for reduced, e in left[k + 1 :] if not reduced)
        found.append(reduce.Problem(name, outer, left[k][1], inner, dtype))
        dtype = torch.float32 if dtype in _FLOATS else dtype
    return found or [reduce.Problem(op, prod(shape), 1, 1, dtype)]


def _check(ctx: NodeContext, op: str) -> None:
    dtype = ctx.desc(0).dtype
    if dtype not in _FLOATS and dtype not in _INTS.get(op, set()):
        raise Declined(f"{op} of {dtype}")


def _reduction(op: str) -> Binder:
    def bind(ctx: NodeContext) -> None:
        _check(ctx, op)
        shape, dtype = ctx.desc(0).shape, ctx.desc(0).dtype
        axes = _axes(ctx, len(shape))
        if axes is None:
            if op not in ("Sum", "Mean", "Max", "Min", "Prod"):
                raise Declined("no axes")
            ctx.alias(0, 0)
            return
        problems = _problems(op, shape, axes, dtype)
        if dtype not in _FLOATS and len(problems) > 1 and dtype not in (torch.int32, torch.int64):
            raise Declined(f"several runs of axes of {dtype}")
        y = ctx.output(0, wide=True)
        if ctx.out_desc(0).elements == 0:
            return
        at = ctx.input(0, wide=True)
        for nth, problem in enumerate(problems):
            config = ctx.choose(reduce, problem)
            whole = torch.int64 if problem.dtype == torch.int64 else torch.int32
            part = torch.float32 if dtype in _FLOATS else whole
            n = reduce.workspace(problem, config) // part.itemsize
            work = ctx.scratch((n,), part) if n else None
            to = y if nth == len(problems) - 1 else ctx.scratch((problem.outer * problem.inner,), part)
            ctx.step(f"triton_reduce {config}", reduce.run, at, to, work, problem=problem, config=config)
            at = to

    return bind


def _arg(op: str) -> Binder:
    def bind(ctx: NodeContext) -> None:
        _check(ctx, op)
        shape = ctx.desc(0).shape
        axis = int(ctx.attr("axis", 0)) % max(len(shape), 1)
        length = shape[axis] if shape else 1
        if length >= 2**31 - 1 or length == 0:
            raise Declined(f"an axis of {length}")
        last = bool(ctx.attr("select_last_index", 0))
        problem = reduce.Problem(op, prod(shape[:axis]), length, prod(shape[axis + 1 :]), ctx.desc(0).dtype, last)
        config = ctx.choose(reduce, problem)
        x, y = ctx.input(0, wide=True), ctx.output(0)
        if ctx.out_desc(0).elements:
            ctx.step(f"triton_{op.lower()} {config}", reduce.run, x, y, None, problem=problem, config=config)

    return bind


BINDERS: dict[tuple[str, str], Binder] = {
    **{("", f"Reduce{op}"): _reduction(op) for op in reduce.OPS},
    **{("", op): _arg(op) for op in ("ArgMax", "ArgMin")},
}
