# SPDX-License-Identifier: Apache-2.0
"""Several feeds in as few calls as their shapes allow, each with the bits that it has alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from fastinfer.batching.packing import Extent, PackedForm
from fastinfer.errors import FastinferError, ModelError

Arrays = Sequence[Any]
Outcome = list[np.ndarray] | Exception

# Tokens per packed call: the widest intermediates of BERT-base are then 48 MB, and matrices are long past the length
# where more rows make them faster.
MAX_TOKENS = 4096


class Many:
    """How one model takes many feeds.

    alone: runs one feed. packed: makes the packed form when it is first needed, None where there is none. rows: why a
    batch may not be made of feeds like this one; empty when its rows are independent. dropped: is told why the packed
    form will not be used after all.
    """

    def __init__(
        self,
        alone: Callable[[Arrays], list],
        packed: Callable[[], PackedForm | None],
        rows: Callable[[Arrays], str],
        dropped: Callable[[str], None],
    ) -> None:
        self._alone = alone
        self._make_packed = packed
        self._rows = rows
        self._dropped = dropped
        self._may_batch: bool | None = None
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

    def _batches(self, arrays: Arrays) -> bool:
        if self._may_batch is None:
            try:
                self._may_batch = not self._rows(arrays)
            except FastinferError:
                return False  # this feed is wrong; another one decides
        return self._may_batch

    def group(self, arrays: Arrays) -> tuple[Hashable | None, int, int]:
        """Which feeds share a call with this one (equal groups; None: no other), how many rows it has, how much work it is."""
        packed = self.packed()
        if packed is not None:
            extent = packed.extent(arrays)
            return (None, 1, 1) if extent is None else ("packed", extent.rows, extent.rows * extent.length)
        signature = shape_signature(arrays)
        if signature is None or not self._batches(arrays):
            return None, 1, 1
        return signature, len(arrays[0]), len(arrays[0])

    def run(self, feeds: Sequence[Arrays]) -> list[Outcome]:
        """The outputs of each feed, or what it raised. One feed's failure is its own."""
        outcomes: list[Outcome | None] = [None] * len(feeds)
        packed = self.packed() if len(feeds) > 1 else None
        left = list(range(len(feeds)))
        if packed is not None:
            extents = {i: e for i in left if (e := packed.extent(feeds[i])) is not None}
            for group in token_groups(extents):
                self._settle(outcomes, feeds, group, lambda g: self._pack(packed, feeds, extents, g))
            left = [i for i in left if i not in extents]
        elif len(feeds) > 1:
            for group in shape_groups(feeds, left):
                if len(group) > 1 and self._batches(feeds[group[0]]):
                    self._settle(outcomes, feeds, group, lambda g: self._batch([feeds[i] for i in g]))
            left = [i for i in left if outcomes[i] is None]
        for i in left:
            outcomes[i] = self._one(feeds[i])
        return outcomes  # type: ignore[return-value]

    def _pack(self, packed: PackedForm, feeds: Sequence[Arrays], extents: dict[int, Extent], group: list[int]) -> list:
        try:
            return packed.run([feeds[i] for i in group], [extents[i] for i in group])
        except ModelError as e:  # an operator lacks a native form for these types: no later call will fare better
            with self._guard:
                self._packed = [None]
            self._dropped(str(e))
            raise

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


def shape_signature(arrays: Arrays) -> tuple | None:
    """What must agree for two feeds to be one batch; None when their arrays do not share a number of rows."""
    rows, signature = 0, []
    for a in arrays:
        if not isinstance(a, np.ndarray) or not (shape := a.shape) or not shape[0] or shape[0] != (rows or shape[0]):
            return None
        rows = shape[0]
        signature.append((a.dtype, shape[1:]))
    return tuple(signature) or None


def shape_groups(feeds: Sequence[Arrays], which: Sequence[int]) -> list[list[int]]:
    """Feeds that may be one batch."""
    groups: dict[tuple, list[int]] = {}
    for i in which:
        if (signature := shape_signature(feeds[i])) is not None:
            groups.setdefault(signature, []).append(i)
    return list(groups.values())
