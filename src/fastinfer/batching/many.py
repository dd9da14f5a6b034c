# SPDX-License-Identifier: Apache-2.0
"""Several feeds in as few calls as their shapes allow, each with the bits that it has alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastinfer.batching.packing import Extent, PackedForm

Arrays = Sequence[Any]
Outcome = list[np.ndarray] | Exception

# Tokens per packed call: the widest intermediates of BERT-base are then 48 MB, and matrices are long past the length
# where more rows make them faster.
MAX_TOKENS = 4096


class Many:
    """How one model takes many feeds.

    alone: runs one feed. packed: makes the packed form when it is first needed, None where there is none. rows: whether
    the rows of a batch are independent, so that feeds of equal shapes may be one batch.
    """

    def __init__(self, alone: Callable[[Arrays], list], packed: Callable[[], PackedForm | None], rows: bool) -> None:
        self._alone = alone
        self._make_packed = packed
        self._rows = rows
        self._guard = threading.Lock()
        self._packed: list[PackedForm | None] = []

    def packed(self) -> PackedForm | None:
        """The packed form. Raises ModelError when it cannot be built."""
        with self._guard:
            if not self._packed:
                self._packed.append(self._make_packed())
            return self._packed[0]

    def trim(self) -> None:
        with self._guard:
            for form in self._packed:
                if form is not None:
                    form.executor.trim()

    def run(self, feeds: Sequence[Arrays]) -> list[Outcome]:
        """The outputs of each feed, or what it raised. One feed's failure is its own."""
        outcomes: list[Outcome | None] = [None] * len(feeds)
        packed = self.packed() if len(feeds) > 1 else None
        left = list(range(len(feeds)))
        if packed is not None:
            extents = {i: e for i in left if (e := packed.extent(feeds[i])) is not None}
            for group in token_groups(extents):
                self._settle(
                    outcomes, feeds, group, lambda g: packed.run([feeds[i] for i in g], [extents[i] for i in g])
                )
            left = [i for i in left if i not in extents]
        elif self._rows:
            for group in shape_groups(feeds, left):
                self._settle(outcomes, feeds, group, lambda g: self._batch([feeds[i] for i in g]))
            left = [i for i in left if outcomes[i] is None]
        for i in left:
            outcomes[i] = self._one(feeds[i])
        return outcomes  # type: ignore[return-value]

    def _settle(self, outcomes: list, feeds: Sequence[Arrays], group: list[int], together: Callable) -> None:
        """Runs a group together; when that fails, each alone, so that the others do not suffer."""
        if len(group) > 1:
            try:
                for i, result in zip(group, together(group), strict=True):
                    outcomes[i] = result
                return
            except Exception:
                pass
        for i in group:
            outcomes[i] = self._one(feeds[i])

    def _one(self, arrays: Arrays) -> Outcome:
        try:
            return self._alone(arrays)
        except Exception as e:
            return e

    def _batch(self, feeds: Sequence[Arrays]) -> list[list[np.ndarray]]:
        counts = [len(arrays[0]) for arrays in feeds]
        joined = [np.concatenate(column, axis=0) for column in zip(*feeds, strict=True)]
        ends = np.cumsum(counts)
        results = self._alone(joined)
        return [[y[end - n : end] for y in results] for n, end in zip(counts, ends.tolist(), strict=True)]


def token_groups(extents: dict[int, Extent]) -> list[list[int]]:
    """Feeds in order, cut so that no call has more than MAX_TOKENS (a longer feed goes alone)."""
    groups: list[list[int]] = []
    tokens = 0
    for i, e in extents.items():
        own = e.rows * e.length
        if not groups or tokens + own > MAX_TOKENS:
            groups.append([])
            tokens = 0
        groups[-1].append(i)
        tokens += own
    return groups


def shape_groups(feeds: Sequence[Arrays], which: Sequence[int]) -> list[list[int]]:
    """Feeds whose arrays differ in nothing but the number of rows, which all their arrays share."""
    groups: dict[tuple, list[int]] = {}
    for i in which:
        arrays = feeds[i]
        if not all(isinstance(a, np.ndarray) and a.ndim > 0 and len(a) == len(arrays[0]) for a in arrays):
            continue
        groups.setdefault(tuple((str(a.dtype), a.shape[1:]) for a in arrays), []).append(i)
    return list(groups.values())
