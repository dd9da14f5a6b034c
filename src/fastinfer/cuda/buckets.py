# SPDX-License-Identifier: Apache-2.0
"""Few shapes for many: a batch runs in the graph of the next larger bucket, so that a new size inside one costs neither a
capture nor a compilation. Only for models whose rows do not see each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastinfer.program import Program

Signature = list[tuple[int, tuple[int, ...]]]


def bucket(n: int) -> int:
    """n or the next of 1 to 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, …: at most a quarter more."""
    step = 1
    while n > 8 * step:
        step *= 2
    return -(-n // step) * step


@dataclass(frozen=True)
class Batch:
    """A model whose inputs and outputs share a free first extent, along which rows are independent."""

    def widened(self, signature: Signature) -> tuple[Signature, int]:
        """The bucket's signature, and the rows that are the caller's."""
        rows = {shape[0] if shape else 0 for _, shape in signature}
        if len(rows) != 1 or not (n := rows.pop()):
            return signature, 0  # the plan says what is wrong with it
        return [(code, (bucket(n), *shape[1:])) for code, shape in signature], n


def batch_of(program: Program) -> Batch | None:
    """None where rows may see each other, or an extent is not named well enough to tell."""
    rows = program.packed.get("rows", "" if "graph" in program.packed else "not asked for")
    firsts = {_first(port) for port in program.graph.inputs}
    if rows or len(firsts) != 1 or None in firsts or program.notes.get("defaults"):
        return None
    return Batch() if all(_first(port) in firsts for port in program.graph.outputs) else None


def _first(port: dict[str, Any]) -> str | None:
    dims: Sequence[Any] = port["dims"] or ()
    return dims[0] if dims and isinstance(dims[0], str) and not dims[0].startswith("?") else None
