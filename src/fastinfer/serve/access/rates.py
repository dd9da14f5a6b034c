# SPDX-License-Identifier: Apache-2.0
"""Token buckets: how fast each caller may come."""

from __future__ import annotations

from fastinfer.serve.access.caller import Caller
from fastinfer.serve.errors import Kind, ServeError


class Rates:
    """One bucket per caller that has a rate. Callers are those of the key files and tokens, so buckets are bounded by
    forgetting the fullest beyond `most`: a full bucket is what a new one is."""

    def __init__(self, most: int = 10_000) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}  # name: (requests left, at this time)
        self._most = most

    def check(self, caller: Caller, now: float) -> None:
        """Takes one request out of the caller's bucket. Raises ServeError (RATE) with the time after which one is there."""
        if not caller.rate:
            return
        left, at = self._buckets.get(caller.name, (caller.burst, now))
        left = min(caller.burst, left + (now - at) * caller.rate)
        if left < 1:
            self._buckets[caller.name] = left, now
            wait = (1 - left) / caller.rate
            raise ServeError(
                Kind.RATE, f"'{caller.name}' may send {caller.rate:g} requests per second", retry_after=wait
            )
        if caller.name not in self._buckets and len(self._buckets) >= self._most:
            self._forget(now)
        self._buckets[caller.name] = left - 1, now

    def _forget(self, now: float) -> None:
        by_age = sorted(self._buckets.items(), key=lambda item: item[1][1])
        self._buckets = dict(by_age[len(by_age) // 2 :])
