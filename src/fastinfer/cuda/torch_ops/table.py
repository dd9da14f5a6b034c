# SPDX-License-Identifier: Apache-2.0
"""THE table of torch forms: (domain, operator) → function of a Call.

A family's ROUNDED operators return what they computed, which is float32 where the operands are stored in half of that: the
result goes back to the type of the first floating operand, except inside fused operators, which round once at their end.
EXACT ones return the types that the node has.
"""

from __future__ import annotations

import functools
from types import ModuleType

import torch

from fastinfer.cuda.torch_ops import (
    attention,
    casts,
    contrib,
    conv,
    elementwise,
    gather,
    generate,
    matmul,
    movement,
    ms_attention,
    norm,
    pool,
    quantize,
    recurrent,
    reduce,
    resize,
    spatial,
)
from fastinfer.cuda.torch_ops.call import HALF, Call, TorchOp
from fastinfer.cuda.torch_ops.fused import FusedOp
from fastinfer.passes.fused import BODIES

_FAMILIES: tuple[ModuleType, ...] = (
    elementwise, casts, matmul, conv, pool, norm, reduce, gather, movement, quantize, attention, recurrent,
    resize, generate, contrib, ms_attention, spatial,
)  # fmt: skip


def _rounded(fn: TorchOp) -> TorchOp:
    @functools.wraps(fn)
    def run(call: Call) -> torch.Tensor:
        y = fn(call)
        assert isinstance(y, torch.Tensor)
        given = next((t.dtype for t in call.tensors if t is not None and t.is_floating_point()), None)
        return y.to(given) if given in HALF and y.dtype == torch.float32 else y

    return run


# As computed: what fused operators are made of.
UNROUNDED: dict[tuple[str, str], TorchOp] = {
    ("", op): fn
    for family in _FAMILIES
    for op, fn in {**getattr(family, "EXACT", {}), **getattr(family, "ROUNDED", {})}.items()
}
OPS: dict[tuple[str, str], TorchOp] = {
    **UNROUNDED,
    **{("", op): _rounded(fn) for family in _FAMILIES for op, fn in getattr(family, "ROUNDED", {}).items()},
    **{("fastinfer", op): FusedOp(UNROUNDED) for op in BODIES},
    **{("fastinfer", op): fn for f in _FAMILIES for op, fn in getattr(f, "FASTINFER", {}).items()},
    **{("com.microsoft", op): fn for f in _FAMILIES for op, fn in getattr(f, "MICROSOFT", {}).items()},
}


def find(domain: str, op: str) -> TorchOp | None:
    return OPS.get((domain, op))
