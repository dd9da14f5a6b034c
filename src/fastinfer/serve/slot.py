# SPDX-License-Identifier: Apache-2.0
"""All that a server knows of one model's name: its loaded versions, which of them takes a request, what became of the
others."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastinfer.serve.endpoint import Endpoint
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.messages import InferRequest
from fastinfer.serve.repository.log import CANARY, STABLE, Live
from fastinfer.serve.repository.names import quoted
from fastinfer.serve.sequences import key_of
from fastinfer.serve.traffic import CanaryWatch, Splitter

READY, LOADING, UNLOADING, UNAVAILABLE = "READY", "LOADING", "UNLOADING", "UNAVAILABLE"


@dataclass(frozen=True)
class State:
    """Of one version, as the repository index has it."""

    state: str
    reason: str = ""


class Slot:
    """Changed on the event loop only, so a request sees the versions from before a change or from after it, and nothing
    between. lock: held while versions are loaded or unloaded."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = asyncio.Lock()
        self.users = 0  # who hold or want the lock
        self.endpoints: dict[str, Endpoint] = {}
        self.fingerprints: dict[str, Any] = {}
        self.draining: set[Endpoint] = set()
        self.states: dict[str, State] = {}
        self.on_disk: frozenset[str] = frozenset()  # versions, when the directory was last read
        self.overridden = False  # by parameters of a load request: changes on disk wait for the next one
        self.unloaded = False  # by request: only a request loads it again
        self.failed = False  # nothing of it could be loaded
        self.live = Live()
        self.default = ""
        self.split = Splitter({})
        self.shadow = Splitter({})
        self.watch: CanaryWatch | None = None

    def switch(self, endpoints: Mapping[str, Endpoint], live: Live) -> list[Endpoint]:
        """From now on requests go to these; returns those that no longer take any."""
        gone = [e for e in self.endpoints.values() if e not in endpoints.values()]
        same = not gone and set(endpoints) == set(self.endpoints) and live == self.live
        self.endpoints = dict(sorted(endpoints.items(), key=lambda pair: int(pair[0])))
        if not same:
            self.direct(live)
        return gone

    def direct(self, live: Live) -> None:
        """Aliases, traffic split and shadowing from now on. Versions that are not loaded get nothing."""
        self.live = live
        stable = live.stable
        # Not the canary: a version on trial is no default, unless there is no other.
        settled = [v for v in self.endpoints if v not in live.split and v not in live.shadow] or list(self.endpoints)
        self.default = stable if stable in self.endpoints else settled[-1] if settled else ""
        split = {v: p for v, p in live.split.items() if v in self.endpoints and v != self.default}
        self.split = Splitter(split)
        self.shadow = Splitter({v: p for v, p in live.shadow.items() if v in self.endpoints})
        trial = self.endpoints.get(next(iter(split), ""))
        self.watch = CanaryWatch(trial.settings.canary) if trial is not None else None

    def resolve(self, version: str) -> str:
        """A version or an alias as a version; empty for the one that takes requests by default."""
        if not version or version == STABLE:
            return self.default
        return self.live.aliases.get(version, version)

    def find(self, version: str) -> Endpoint:
        """Raises ServeError: NOT_FOUND for a version there is not, UNAVAILABLE for one that is not loaded."""
        endpoint = self.endpoints.get(self.resolve(version))
        if endpoint is None:
            raise self._absent(version)
        return endpoint

    def choose(self, request: InferRequest) -> Endpoint:
        """The version that takes this request. Raises ServeError, as `find`."""
        if request.sequence and not request.sequence_start and (held := self._held(request)) is not None:
            return held
        if request.version or not self.split:
            return self.find(request.version)
        key = str(request.sequence) if request.sequence else request.id
        return self.find(self.split.choose(key) or "")

    def _held(self, request: InferRequest) -> Endpoint | None:
        """Who holds the request's sequence, perhaps a version that is being unloaded. A version that was asked for
        must be it."""
        wanted = self.resolve(request.version) if request.version else ""
        for endpoint in (*self.endpoints.values(), *self.draining):
            if key_of(request) in endpoint.sequences and wanted in ("", endpoint.version):
                return endpoint
        return None

    def _absent(self, version: str) -> ServeError:
        if version and self.resolve(version) not in {*self.states, *self.on_disk}:
            return ServeError(Kind.NOT_FOUND, f"model '{self.name}' has no version {quoted(version)}")
        which = f"version {self.resolve(version)} of model '{self.name}'" if version else f"model '{self.name}'"
        loading = any(s.state == LOADING for s in self.states.values())
        how = "loaded yet" if loading else "loaded: the repository index says why" if self.failed else "loaded"
        return ServeError(Kind.UNAVAILABLE, f"{which} is not {how}", retry_after=1)

    @property
    def canary(self) -> str:
        return self.live.aliases.get(CANARY) or next(iter(self.live.split), "")

    @property
    def ready(self) -> bool:
        """It serves, perhaps while another version is being loaded."""
        return bool(self.endpoints)

    def unusable(self, error: ServeError) -> None:
        """Settings that cannot be read keep a model from being served as a file that cannot be does."""
        if error.kind is not Kind.NOT_FOUND and not self.endpoints and not self.unloaded and set(self.states) <= {""}:
            self.states[""], self.failed = State(UNAVAILABLE, str(error)), True

    def vanish(self) -> None:
        """It is no longer on disk: what could not be loaded there, or was unloaded, is forgotten."""
        self.on_disk = frozenset()
        self.states = {v: s for v, s in self.states.items() if s.state != UNAVAILABLE}

    @property
    def forgotten(self) -> bool:
        return not (self.endpoints or self.draining or self.states or self.users)
