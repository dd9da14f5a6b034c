# SPDX-License-Identifier: Apache-2.0
"""What calls of a model cost, measured as they run: how much work is worth one call, and which calls are over before a
thread would have taken them. Work is what a call's time follows: rows, or tokens where sequences are packed."""

from __future__ import annotations

from collections.abc import Hashable

# More work per call is worth the wait only while its unit gets this much cheaper.
WORTH = 0.95
# Calls of a size before its figure counts; and how many calls later larger sizes are looked at again, as clocks and
# neighbours change.
TRUSTED = 3
AGAIN = 2000
# A limit is found anew after so many calls (it takes longer than a small model's call).
LOOK = 16
# A new figure's weight in the mean. A mean follows a machine that slows down; a minimum would not.
WEIGHT = 0.2
# A call that the system interrupts takes any time at all: no call counts for more than so many times the mean.
MOST = 3.0


class _Size:
    __slots__ = "calls", "seconds", "work"

    def __init__(self) -> None:
        self.calls, self.work, self.seconds = 0, 0.0, 0.0

    def add(self, work: int, seconds: float) -> None:
        # The first call of a size plans its shapes: the second one replaces it.
        weight = 1.0 if self.calls < 2 else WEIGHT
        if self.calls >= 2:
            seconds = min(seconds, MOST * self.seconds)
        self.work += weight * (work - self.work)
        self.seconds += weight * (seconds - self.seconds)
        self.calls += 1


class Costs:
    """Seconds of a call by group and work, in steps of a power of two (1, 2, 3-4, 5-8, ...)."""

    def __init__(self) -> None:
        self._tables: dict[Hashable, list[_Size]] = {}
        self._since: dict[Hashable, int] = {}
        self._limits: dict[Hashable, int | None] = {}

    def record(self, group: Hashable, work: int, seconds: float) -> None:
        """A call of so much work took `seconds`. At most 64 groups are remembered: after that all begins anew."""
        if group not in self._tables and len(self._tables) >= 64:
            self._tables, self._since, self._limits = {}, {}, {}
        sizes = self._tables.setdefault(group, [])
        step = (max(work, 1) - 1).bit_length()
        while len(sizes) <= step:
            sizes.append(_Size())
        sizes[step].add(work, seconds)
        since = self._since[group] = self._since.get(group, 0) + 1
        if since >= AGAIN:
            self._since[group] = 0
            for size in sizes:
                size.calls = min(size.calls, TRUSTED - 1)
        if since % LOOK == 0 or sizes[step].calls <= TRUSTED or since >= AGAIN:
            self._limits[group] = _worthwhile(sizes)

    def limit(self, group: Hashable) -> int | None:
        """Work beyond which a call gives no better throughput, only later results; None while that is not known."""
        return self._limits.get(group)

    def seen(self, group: Hashable, work: int) -> tuple[int, float]:
        """How many calls of such a size have been measured, and their seconds."""
        sizes = self._tables.get(group, ())
        step = (max(work, 1) - 1).bit_length()
        return (sizes[step].calls, sizes[step].seconds) if step < len(sizes) else (0, 0.0)

    def predict(self, group: Hashable, work: int) -> float | None:
        """Seconds that a call of so much work takes; None where nothing of that size has been measured twice."""
        calls, seconds = self.seen(group, work)
        return seconds if calls >= 2 else None

    def table(self) -> dict[str, list[dict[str, float]]]:
        """{group: [{"work", "calls", "seconds"}]}, for people."""
        return {
            str(group): [{"work": s.work, "calls": s.calls, "seconds": s.seconds} for s in sizes if s.calls]
            for group, sizes in self._tables.items()
        }


def _worthwhile(sizes: list[_Size]) -> int | None:
    """The most work of the first size after which no measured one is cheaper per unit by more than 5 %. None while the
    largest size seen is the best: a still larger one may be better."""
    known = [(step, s.seconds / max(s.work, 1)) for step, s in enumerate(sizes) if s.calls >= TRUSTED]
    if len(known) < 2:
        return None
    best = min(cost for _, cost in known)
    for step, cost in known:
        if cost * WORTH <= best:
            return None if step == known[-1][0] else 1 << step
    return None
