# SPDX-License-Identifier: Apache-2.0
"""A known caller: what it may do, on which models, how fast."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass

from fastinfer.errors import InputError
from fastinfer.serve.errors import Kind, ServeError

# infer: run models. read: metadata, configuration, statistics, the index. admin: load, unload, upload, promote, shared
# memory, settings. metrics: /metrics. None of them holds another one.
SCOPES = ("infer", "read", "admin", "metrics")


@dataclass(frozen=True)
class Caller:
    """models: patterns as in file names (``ocr-*``). rate: requests per second, 0 for no limit; burst: how many may come
    at once."""

    name: str
    scopes: frozenset[str]
    models: tuple[str, ...] = ("*",)
    rate: float = 0.0
    burst: float = 0.0

    @staticmethod
    def of(
        name: str, scopes: Iterable[str], models: Iterable[str] = ("*",), rate: float = 0, burst: float = 0
    ) -> Caller:
        """Raises InputError for scopes that there are not, and for rates that are no rate."""
        given = frozenset(scopes)
        if unknown := given - set(SCOPES):
            raise InputError(f"'{name}': no scope is called {sorted(unknown)[0]!r}; known: {', '.join(SCOPES)}")
        if not 0 <= rate < 1e9 or not 0 <= burst < 1e9:
            raise InputError(f"'{name}': rate={rate}, burst={burst}; needed: numbers of requests, at least 0")
        return Caller(name, given, tuple(models), float(rate), float(burst or max(1.0, rate)))

    def may(self, scope: str, model: str = "") -> bool:
        """model: may have an alias behind it; "" for what is of no model in particular. `admin` of some models is not
        `admin` of what all share: logs, traces, shared memory."""
        if scope not in self.scopes:
            return False
        if not model:
            return scope != "admin" or "*" in self.models
        if "*" in self.models:
            return True
        name = model.partition("@")[0]
        return any(fnmatch.fnmatchcase(name, p) for p in self.models)

    def check(self, scope: str, model: str = "") -> None:
        """Raises ServeError (FORBIDDEN) unless the caller may do this with this model ("": with none in particular)."""
        if not self.may(scope, model):
            where = (
                "" if scope not in self.scopes else f" on model '{model}'" if model else " for what all models share"
            )
            raise ServeError(Kind.FORBIDDEN, f"'{self.name}' lacks the scope '{scope}'{where}")


# Where no access rules are set up at all: the server then listens on this machine only.
ANYONE = Caller("", frozenset(SCOPES))
