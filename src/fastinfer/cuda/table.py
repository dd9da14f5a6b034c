# SPDX-License-Identifier: Apache-2.0
"""Which kernels an operator has: binders in the order they are tried. What all decline runs through torch (torch_ops/)."""

from __future__ import annotations

from fastinfer.cuda.context import Binder
from fastinfer.cuda.ops import (
    attention,
    conv,
    gather,
    matmul,
    movement,
    norm,
    pointwise,
    pool,
    quantize_linear,
    quantized,
    reduce,
    rnn,
    weight_only,
)

_MODULES = (
    matmul,
    weight_only,
    conv,
    quantized,
    quantize_linear,
    pool,
    attention,
    norm,
    pointwise,
    reduce,
    gather,
    movement,
    rnn,
)


def _table() -> dict[tuple[str, str], list[Binder]]:
    table: dict[tuple[str, str], list[Binder]] = {}
    for module in _MODULES:
        for key, binder in module.BINDERS.items():
            table.setdefault(key, []).append(binder)
    return table


TABLE = _table()

# The output is the first input under another shape.
RENAMES = {("", op) for op in ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")}

# Known while planning wherever shapes are.
FOLDED = {("", op) for op in ("Shape", "Size", "Constant")}
