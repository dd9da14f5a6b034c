# SPDX-License-Identifier: Apache-2.0
"""Which version takes a request, and whether a canary does as well as the stable version."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping

from fastinfer.serve.repository.settings import CanarySettings

KEPT = 400  # requests of each side that are looked at
# Seconds: below, the scheduler decides: on a busy machine of two cores, p95s of 0.2 and 0.7 ms were of one model's noise.
NOISE = 0.002
FIRST_FAILURES = 3  # fewer are never enough to end a canary early


class Splitter:
    """shares: version → per cent; the rest goes to nobody (None), which is the stable version.

    Requests of one key always go the same way; the others are dealt out so that after n requests each version has its
    share of n, give or take one."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        self._shares = [(version, percent / 100) for version, percent in shares.items() if percent > 0]
        rest = 1 - sum(share for _, share in self._shares)
        self._all: list[tuple[str | None, float]] = [*self._shares, (None, max(0.0, rest))]
        self._credit = [0.0] * len(self._all)

    def __bool__(self) -> bool:
        return bool(self._shares)

    def choose(self, key: str) -> str | None:
        if key:
            return self._by_key(key)
        for i, (_, share) in enumerate(self._all):
            self._credit[i] += share
        chosen = max(range(len(self._all)), key=self._credit.__getitem__)
        self._credit[chosen] -= 1.0
        return self._all[chosen][0]

    def _by_key(self, key: str) -> str | None:
        point = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") / 2.0**64
        for version, share in self._shares:
            if point < share:
                return version
            point -= share
        return None


class _Side:
    """The last requests of one version: seconds, or None for a failure."""

    def __init__(self) -> None:
        self._last: deque[float | None] = deque(maxlen=KEPT)
        self.failures = 0
        self.seen = 0

    def record(self, seconds: float | None) -> None:
        if len(self._last) == KEPT:
            self.failures -= self._last[0] is None
        self._last.append(seconds)
        self.seen += 1
        self.failures += seconds is None

    def __len__(self) -> int:
        return len(self._last)

    @property
    def error_rate(self) -> float:
        return self.failures / max(1, len(self))

    def p95(self) -> float | None:
        """Seconds; None below 20 successes, where the slowest one would decide."""
        times = sorted(t for t in self._last if t is not None)
        return times[int(0.95 * len(times))] if len(times) >= 20 else None


class CanaryWatch:
    """Compares the canary's requests with the stable version's. record() gives the reason to roll back, once."""

    def __init__(self, settings: CanarySettings) -> None:
        self._settings = settings
        self._stable, self._canary = _Side(), _Side()
        self._over = False

    def record(self, canary: bool, seconds: float | None) -> str:
        """seconds: how long a request took, None if it failed. Empty while nothing speaks against the canary."""
        side = self._canary if canary else self._stable
        side.record(seconds)
        if not canary or self._over:
            return ""
        reason = self._errors() or self._latency()
        self._over = bool(reason)
        return reason

    def _errors(self) -> str:
        # Before there are enough requests: were all that are missing to succeed, it would still be too many.
        count = max(len(self._canary), self._settings.requests)
        allowed = self._settings.error_rate + self._stable.error_rate
        failures = self._canary.failures
        if failures >= FIRST_FAILURES and failures / count > allowed:
            return f"{failures} of {len(self._canary)} requests failed; {allowed:.1%} may"
        return ""

    def _latency(self) -> str:
        if len(self._canary) < self._settings.requests or self._canary.seen % 10:  # sorting costs 20 µs
            return ""
        ours, theirs = self._canary.p95(), self._stable.p95()
        if ours is None or theirs is None or ours <= max(theirs * self._settings.latency, theirs + NOISE):
            return ""
        return f"p95 is {ours * 1e3:.3g} ms, the stable version's {theirs * 1e3:.3g} ms"
