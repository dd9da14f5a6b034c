# SPDX-License-Identifier: Apache-2.0
"""From what lies on disk to endpoints that serve, and from endpoints to memory given back. Files and compilation run in
threads; what requests see changes on the loop, at once."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fastinfer.serve.endpoint import Endpoint
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.observe import Observation
from fastinfer.serve.overrides import Overrides
from fastinfer.serve.repository.directory import Directory, Found
from fastinfer.serve.repository.loading import load_version
from fastinfer.serve.repository.log import Live, Log
from fastinfer.serve.repository.programs import ProgramCache
from fastinfer.serve.repository.signing import Trust
from fastinfer.serve.slot import LOADING, READY, UNAVAILABLE, UNLOADING, Slot, State

log = logging.getLogger("fastinfer.serve")
# Models compiled at a time: each takes a core and the memory of its weights twice.
COMPILERS = 2


T = TypeVar("T")


@dataclass(frozen=True)
class Change:
    """Of what is live: what it becomes, and what notes it once its versions are loaded (blocking)."""

    new: Callable[[Live], Live]
    note: Callable[[], Live]


class Loader:
    def __init__(
        self,
        directory: Directory,
        journal: Log,
        cache: ProgramCache | None,
        trust: Trust | None,
        observe: Callable[[Observation], None],
    ) -> None:
        self._observe = observe
        self._directory, self._log, self._cache, self.trust = directory, journal, cache, trust
        self._pool = ThreadPoolExecutor(COMPILERS, thread_name_prefix="fastinfer-loader")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def index(self) -> dict[str, tuple[list[str], str]]:
        """Model → its versions on disk, and what is wrong with it. Blocks."""
        index: dict[str, tuple[list[str], str]] = {}
        for name in self._directory.names():
            try:
                index[name] = list(self._directory.find(name).versions), ""
            except ServeError as e:
                index[name] = [], str(e)
        return index

    async def load(
        self, slot: Slot, given: Overrides, change: Change | None = None
    ) -> tuple[list[Endpoint], ServeError | None]:
        """Brings a slot, whose lock is held, to what the disk says. Returns endpoints that take no more requests, and what
        went wrong; then everything that served before goes on serving, but what is trusted no more. Raises ServeError when nothing could be done."""
        stack = ExitStack()
        try:
            found, logged = await self._in_thread(self._look, slot.name, given, stack)
            live = change.new(logged) if change is not None else logged
            wanted = _wanted(found, live, change is not None)
            fingerprints = await self._in_thread(_fingerprints, found, wanted, self.trust)
            kept = {
                v: e for v, e in slot.endpoints.items()
                if v in fingerprints and fingerprints[v] == slot.fingerprints.get(v) and not given.force
            }  # fmt: skip
            opened, failed = await self._open_all(slot, [v for v in wanted if v not in kept], found)
        finally:
            await self._in_thread(stack.close)
        if change is not None and not failed:
            live = await self._in_thread(change.note)
        untrusted = [v for v, e in failed.items() if e.kind is Kind.FORBIDDEN]
        before = {v: e for v, e in slot.endpoints.items() if v not in untrusted} if failed else {}
        endpoints = {**before, **kept, **opened}
        slot.fingerprints = {v: fingerprints.get(v, slot.fingerprints.get(v)) for v in endpoints}
        slot.overridden, slot.unloaded, slot.on_disk = bool(given), False, frozenset(found.versions)
        slot.failed = not endpoints
        as_it_was = failed and slot.endpoints and not live.versions <= set(endpoints)
        retired = slot.switch(endpoints, slot.live if as_it_was else live)
        for v in [v for v in slot.states if v not in endpoints and v not in found.versions and v not in failed]:
            del slot.states[v]
        if retired or opened:
            log.info("model '%s' serves version %s of %s", slot.name, slot.default, list(slot.endpoints))
        return retired, _failure(slot, failed) if failed else None

    def _look(self, name: str, given: Overrides, stack: ExitStack) -> tuple[Found, Live]:
        directory = self._directory
        if given.files:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastinfer-load-")))
            given.write(root, name)
            directory = Directory(root)
        found = directory.find(name)
        return replace(found, settings=given.apply(found.settings)), self._log.live(name)

    async def _open_all(
        self, slot: Slot, versions: Iterable[str], found: Found
    ) -> tuple[dict[str, Endpoint], dict[str, ServeError]]:
        opened: dict[str, Endpoint] = {}
        failed: dict[str, ServeError] = {}
        for v in versions:
            try:
                opened[v] = await self._open(slot, v, found)
            except ServeError as e:
                log.warning("model '%s' version %s cannot be loaded: %s", slot.name, v, e)
                failed[v] = e
        return opened, failed

    async def _open(self, slot: Slot, version: str, found: Found) -> Endpoint:
        served = version in slot.endpoints
        if not served:
            slot.states[version] = State(LOADING)
        try:
            if version not in found.versions:
                raise ServeError(Kind.NOT_FOUND, "there is no such version")
            loaded = await self._in_thread(
                load_version, found.versions[version], found.settings, self._cache, self.trust
            )
            endpoint = Endpoint(
                slot.name, version, loaded.model, found.settings, loaded.ports, max_batch=loaded.max_batch,
                memory=loaded.memory, observe=self._observe,
            )  # fmt: skip
            await endpoint.open()
        except ServeError as e:
            still = served and e.kind is not Kind.FORBIDDEN
            slot.states[version] = (
                State(READY, f"loading it again failed: {e}") if still else State(UNAVAILABLE, str(e))
            )
            raise
        slot.states[version] = State(READY)
        return endpoint

    async def retire(self, slot: Slot, endpoint: Endpoint, reason: str, wait_for_sequences: bool) -> None:
        """Lets an endpoint finish what it holds, and gives its memory back to the system."""
        version, device = endpoint.version, endpoint.device
        if version not in slot.endpoints:
            slot.states[version] = State(UNLOADING, reason)
        await endpoint.close(wait_for_sequences)
        slot.draining.discard(endpoint)
        del endpoint
        await asyncio.to_thread(_give_back, device)
        if version not in slot.endpoints and slot.states.get(version) == State(UNLOADING, reason):
            if version in slot.on_disk:
                slot.states[version] = State(UNAVAILABLE, reason)
            else:
                del slot.states[version]

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)


def _wanted(found: Found, live: Live, must_exist: bool) -> list[str]:
    """The versions that shall be loaded, lowest first: those of the policy, and those that traffic goes to."""
    if must_exist and (absent := sorted(live.versions - set(found.versions), key=int)):
        raise ServeError(Kind.NOT_FOUND, f"model '{found.name}' has no version {absent[0]}")
    chosen = {*found.settings.versions.choose(list(found.versions)), *(live.versions & set(found.versions))}
    if not chosen:
        raise ServeError(Kind.NOT_FOUND, f"model '{found.name}' has no version")
    return sorted(chosen, key=int)


def _fingerprints(found: Found, versions: Iterable[str], trust: Trust | None) -> dict[str, Any]:
    try:
        return {v: (found.versions[v].stamp(), found.settings, trust) for v in versions if v in found.versions}
    except OSError as e:
        raise ServeError(Kind.UNAVAILABLE, f"model '{found.name}' cannot be read: {e.strerror}") from e


def _failure(slot: Slot, failed: Mapping[str, ServeError]) -> ServeError:
    version, error = next(iter(failed.items()))
    rest = f"version {slot.default} still serves" if slot.default else "none is loaded"
    return ServeError(error.kind, f"version {version} of model '{slot.name}' cannot be loaded: {error}; {rest}")


def _give_back(device: str) -> None:
    """What the C library keeps of freed memory for later goes back to the system (glibc; others do so themselves), what torch
    keeps of a GPU's to the driver."""
    if device != "cpu":
        from fastinfer.cuda.device import give_back

        give_back()
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
