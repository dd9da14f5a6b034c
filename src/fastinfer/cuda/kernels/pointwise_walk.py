# SPDX-License-Identifier: Apache-2.0
"""Which elements a pass over memory visits: extents and, for each operand, strides and an offset, in the fewest dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

LIMIT = 2**31  # offsets beyond are computed in 64 bits


def dense(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides in elements."""
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def broadcast(shape: Sequence[int], to: Sequence[int]) -> tuple[int, ...]:
    """Strides with which a dense tensor of `shape` is read as one of shape `to`. Raises ValueError where it cannot be."""
    missing = len(to) - len(shape)
    if missing < 0 or any(a not in (1, b) for a, b in zip(shape, to[missing:])):
        raise ValueError(f"shape {tuple(shape)} does not broadcast to {tuple(to)}")
    return (0,) * missing + tuple(0 if a == 1 else s for a, s in zip(shape, dense(shape)))


@dataclass(frozen=True)
class Walk:
    """extents: of at least one dimension. strides[k][d]: of operand k (in, then out), in elements; offsets[k]: where it starts."""

    extents: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]

    @property
    def elements(self) -> int:
        return prod(self.extents)

    @property
    def wide(self) -> bool:
        """Whether an offset may pass 31 bits."""
        ends = (
            o + sum((e - 1) * abs(s) for e, s in zip(self.extents, strides))
            for o, strides in zip(self.offsets, self.strides)
        )
        return self.elements >= LIMIT or any(end >= LIMIT for end in ends)


def walk_over(extents: Sequence[int], strides: Sequence[Sequence[int]], offsets: Sequence[int] | None = None) -> Walk:
    """Collapsed: dimensions of one element go, and neighbours that every operand walks as one dimension become one."""
    kept: list[tuple[int, tuple[int, ...]]] = []
    for d, extent in enumerate(extents):
        steps = tuple(s[d] for s in strides)
        if extent == 1:
            continue
        if kept and all(outer == inner * extent for outer, inner in zip(kept[-1][1], steps)):
            kept[-1] = kept[-1][0] * extent, steps
        else:
            kept.append((extent, steps))
    kept = kept or [(1, (1,) * len(strides))]
    return Walk(
        tuple(e for e, _ in kept),
        tuple(tuple(steps[k] for _, steps in kept) for k in range(len(strides))),
        tuple(offsets) if offsets is not None else (0,) * len(strides),
    )


def walk_broadcast(shape: Sequence[int], inputs: Sequence[Sequence[int]], outputs: int) -> Walk:
    """Dense inputs of these shapes against dense outputs of `shape`."""
    return walk_over(shape, [broadcast(s, shape) for s in inputs] + [dense(shape)] * outputs)
