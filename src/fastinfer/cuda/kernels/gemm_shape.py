# SPDX-License-Identifier: Apache-2.0
"""Shapes of a numpy-style matrix product: the counterpart of csrc/ops/matmul_shape.h."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np


@dataclass(frozen=True)
class MatMulShape:
    """batch: (extent, a's stride, b's stride) in elements, outermost first, without axes of extent 1 and with those merged that
    go on from one another. rows: m of one sample, with its share of what was folded into m."""

    m: int
    n: int
    k: int
    batch: tuple[tuple[int, int, int], ...]
    rows: int

    @property
    def batches(self) -> int:
        return prod(extent for extent, _, _ in self.batch)


def matmul_shape(a: tuple[int, ...], b: tuple[int, ...], trans_a: bool = False, trans_b: bool = False) -> MatMulShape:
    """trans_*: the last two axes of an operand that is not a vector are swapped first. The first axis of a counts samples."""
    m, k = (1, a[0]) if len(a) == 1 else (a[-1], a[-2]) if trans_a else (a[-2], a[-1])
    n = 1 if len(b) == 1 else b[-2] if trans_b else b[-1]
    lead_a, lead_b = a[:-2], b[:-2]
    extents = np.broadcast_shapes(lead_a, lead_b)
    batch: list[tuple[int, int, int]] = []
    for extent, s, t in zip(extents, _strides(lead_a, m * k, len(extents)), _strides(lead_b, k * n, len(extents))):
        if extent == 1:
            continue
        if batch and batch[-1][1:] == (s * extent, t * extent):
            batch[-1] = batch[-1][0] * extent, s, t
        else:
            batch.append((extent, s, t))
    rows = prod(a[1:-2]) * m if len(a) > 2 else 1
    while batch and not trans_a and batch[-1][1:] == (m * k, 0):
        m *= batch.pop()[0]  # one b for matrices of a that follow one another: these are more rows
    return MatMulShape(m, n, k, tuple(batch), rows)


def _strides(lead: tuple[int, ...], step: int, rank: int) -> list[int]:
    """Of the batch axes in elements, aligned with `rank` axes of the output; 0 where broadcast."""
    strides = [0] * rank
    for d in range(len(lead) - 1, -1, -1):
        strides[rank - len(lead) + d] = step if lead[d] != 1 else 0
        step *= lead[d]
    return strides
