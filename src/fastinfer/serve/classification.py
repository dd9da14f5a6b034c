# SPDX-License-Identifier: Apache-2.0
"""The classification extension: of each row of an output the k largest elements, as strings "value:index"."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastinfer.serve.datatypes import BYTES
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.messages import Tensor


def classify(tensor: Tensor, k: Any) -> Tensor:
    """[n, …] → BYTES [n, k], [m] → [k], where k is at most the elements of a row; the best first, of equal ones the first,
    NaN last. Raises ServeError."""
    if tensor.datatype == BYTES:
        raise ServeError(Kind.INVALID_ARGUMENT, f"output '{tensor.name}': {BYTES} cannot be classified")
    if type(k) is not int or k < 1:
        raise ServeError(
            Kind.INVALID_ARGUMENT, f"output '{tensor.name}': classification needs an integer of at least 1"
        )
    array = tensor.array
    batched = array.ndim > 1
    count = len(array) if batched else 1
    rows = array.reshape(count, -1 if array.size else 0)
    k = min(k, rows.shape[1])
    # Only a stable sort keeps the first of equal elements first. lexsort's last key is the first criterion.
    wide = rows.astype(np.float64) if rows.dtype.kind in "fV" else rows
    unknown = wide != wide
    value = np.where(unknown, -np.inf, wide) if wide.dtype.kind == "f" else wide
    best = np.empty((count, k), object)
    integral = wide.dtype.kind != "f"
    for row in range(count):
        order = _largest(value[row], unknown[row])[:k].tolist()
        best[row] = [
            (f"{int(wide[row, i])}:{i}" if integral else f"{float(wide[row, i]):f}:{i}").encode() for i in order
        ]
    return Tensor(tensor.name, BYTES, best if batched else best[0], tensor.parameters)


def _largest(values: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """Indices of the values from the largest on."""
    backwards = np.lexsort((values[::-1], ~unknown[::-1]))  # ascending: the unknown, then by value
    return (len(values) - 1 - backwards)[::-1]
