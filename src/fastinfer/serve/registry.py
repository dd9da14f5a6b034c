# SPDX-License-Identifier: Apache-2.0
"""The models of a repository behind the Service protocol: loaded, routed to, replaced while they serve."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

import fastinfer
from fastinfer.serve import describe, overrides
from fastinfer.serve.endpoint import Endpoint
from fastinfer.serve.errors import Kind, ServeError, as_serve_error
from fastinfer.serve.loader import Change, Loader
from fastinfer.serve.messages import InferRequest, InferResponse
from fastinfer.serve.observe import Observation
from fastinfer.serve.repository.directory import Directory
from fastinfer.serve.repository.log import Live, Log
from fastinfer.serve.repository.names import check_name, quoted
from fastinfer.serve.repository.programs import ProgramCache
from fastinfer.serve.repository.signing import Trust
from fastinfer.serve.service import EXTENSIONS, NAME
from fastinfer.serve.shadow import Shadow
from fastinfer.serve.slot import UNAVAILABLE, Slot, State
from fastinfer.serve.trial import Trial, who

log = logging.getLogger("fastinfer.serve")


class Registry:
    """Serves the models in a directory (fastinfer.serve.repository.directory). Implements Service.

    models: what open() loads; None for all. cache: a folder for compiled programs; None keeps none. trust: whose
    signatures are needed; None asks for none. allow_files: whether a load request may bring a model along. on_change: is
    told the name of every model whose versions or traffic have changed; on_rollback: of one whose canary was taken back, once
    that is in the log. observe: is told of every request that ended.

    The directory is read when something is loaded, indexed or refreshed (`refresh`, which the server calls on SIGHUP).
    """

    def __init__(
        self,
        root: str | os.PathLike,
        *,
        models: Iterable[str] | None = None,
        cache: str | os.PathLike | None = None,
        trust: Trust | None = None,
        allow_files: bool = False,
        on_change: Callable[[str], None] = lambda name: None,
        on_rollback: Callable[[str], None] = lambda name: None,
        observe: Callable[[Observation], None] = lambda observation: None,
    ) -> None:
        self.directory = Directory(root)
        self.log = Log(self.directory.root)
        self._wanted = None if models is None else [check_name(m) for m in models]
        programs = ProgramCache(cache) if cache is not None else None
        self._loader = Loader(self.directory, self.log, programs, trust, observe)
        self._allow_files = allow_files
        self._on_change = on_change
        self._slots: dict[str, Slot] = {}
        self._shadow = Shadow()
        self._trial = Trial(self.log, on_change, on_rollback, self._background)
        self._tasks: set[asyncio.Task] = set()
        self._opened = self._draining = False

    # ------------------------------------------------------------------------------------------------- open and close

    async def open(self) -> dict[str, ServeError]:
        """Loads what shall be loaded; returns what could not be, which does not keep the rest from serving."""
        names = await asyncio.to_thread(self.directory.names) if self._wanted is None else self._wanted
        failed = await self._load_each(names)
        self._opened = True
        return failed

    async def refresh(self) -> dict[str, ServeError]:
        """Takes up what has changed on disk: versions, settings, aliases and traffic, models that are new or gone. What was
        unloaded, or loaded with settings of its own, by request stays so. Returns what could not be loaded."""
        names = await asyncio.to_thread(self.directory.names)
        for name in {n for n, s in self._slots.items() if not s.overridden} - set(names):
            self._slots[name].vanish()
            await self._background(self._unload(name, "removed from the repository"))
        left = {n for n, s in self._slots.items() if s.unloaded or s.overridden}
        wanted = [n for n in names if self._wanted is None or n in self._wanted or n in self._slots]
        return await self._load_each([n for n in wanted if n not in left])

    def trust(self, trust: Trust | None) -> None:
        """Whose signatures are needed from now on; `refresh` then ends what is trusted no more."""
        self._loader.trust = trust

    async def _load_each(self, names: Iterable[str]) -> dict[str, ServeError]:
        names = list(names)
        outcomes = await asyncio.gather(*(self.load(n, {}) for n in names), return_exceptions=True)
        return {n: as_serve_error(e) for n, e in zip(names, outcomes, strict=True) if isinstance(e, BaseException)}

    def drain(self) -> None:
        """Not ready from now on; requests are still answered."""
        self._draining = True

    async def close(self) -> None:
        """Answers what has come, gives everything back."""
        self.drain()
        for slot in list(self._slots.values()):
            self._retire(slot, slot.switch({}, Live()), "the server is closing")
        await self.settled()
        self._shadow.close()
        self._loader.close()

    async def settled(self) -> None:
        """When everything under way behind the scenes is done: versions that drain, rollbacks."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._shadow.settled()

    def _background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Future:
        """Goes on when whoever waits for it is cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return asyncio.shield(task)

    # ----------------------------------------------------------------------------------------------------- inference

    def admit(self, model: str, version: str = "") -> None:
        slot = self._slots.get(model)
        if slot is None or (slot.split and not version):
            return  # only the whole request says which version it goes to
        if (endpoint := slot.endpoints.get(slot.resolve(version))) is not None:
            endpoint.admit()

    async def infer(self, request: InferRequest) -> InferResponse:
        slot, version = self._slot(request.model, request.version)
        if version != request.version:
            request.version = version
        endpoint = slot.choose(request)
        if slot.shadow and not request.version and (copy := slot.shadow.choose(request.id)):
            self._shadow.send(slot.endpoints[copy], request)
        if slot.watch is None or request.version:
            return await endpoint.infer(request)
        return await self._trial.infer(slot, endpoint, request)

    def _slot(self, model: str, version: str) -> tuple[Slot, str]:
        """`model` may be "name@alias"."""
        slot = self._slots.get(model)
        if slot is None:
            name, at, alias = model.partition("@")
            slot = self._slots.get(name)
            if slot is None or not at:
                raise ServeError(Kind.NOT_FOUND, f"no model is called {quoted(model)}")
            if version:
                raise ServeError(
                    Kind.INVALID_ARGUMENT, f"{quoted(model)} names a version, and so does {quoted(version)}"
                )
            if alias not in slot.live.aliases:
                raise ServeError(Kind.NOT_FOUND, f"model '{name}' has no alias {quoted(alias)}")
            version = alias
        return slot, version

    # ------------------------------------------------------------------------------------------------- what there is

    def live(self) -> bool:
        return True

    def ready(self) -> bool:
        """Not before all that was there has been loaded, nor while a model has no version that could be. What is loaded later
        takes nothing from those that serve."""
        return self._opened and not self._draining and not any(s.failed for s in self._slots.values())

    def model_ready(self, model: str, version: str = "") -> bool:
        try:
            self.endpoint(model, version)
        except ServeError:
            return False
        return not self._draining

    def endpoint(self, model: str, version: str = "") -> Endpoint:
        """The loaded version that is meant. Raises ServeError."""
        slot, version = self._slot(model, version)
        return slot.find(version)

    def slots(self) -> Mapping[str, Slot]:
        """What is known of every model, to read."""
        return self._slots

    def server_metadata(self) -> dict[str, Any]:
        return {"name": NAME, "version": fastinfer.__version__, "extensions": list(EXTENSIONS)}

    def model_metadata(self, model: str, version: str = "") -> dict[str, Any]:
        endpoint = self.endpoint(model, version)
        return describe.metadata(endpoint, list(self._slots[endpoint.name].endpoints))

    def model_config(self, model: str, version: str = "") -> dict[str, Any]:
        return describe.config(self.endpoint(model, version))

    async def statistics(self, model: str = "", version: str = "") -> list[dict[str, Any]]:
        if not model:
            endpoints = [e for s in self._slots.values() for e in s.endpoints.values()]
        elif version or "@" in model:
            endpoints = [self.endpoint(model, version)]
        else:
            endpoints = list(self._slot(model, "")[0].endpoints.values())
        return [e.statistics_json() for e in endpoints]

    async def repository_index(self, ready: bool = False) -> list[dict[str, Any]]:
        """Every version on disk and every loaded one. Reading the directory loads nothing."""
        on_disk = await asyncio.to_thread(self._loader.index)
        index = []
        for name in sorted(set(on_disk) | set(self._slots)):
            found, fault = on_disk.get(name, ([], ""))
            states = dict.fromkeys(found, State(UNAVAILABLE, "not loaded"))
            if name in self._slots:
                states |= self._slots[name].states
            if not states:
                states = {"": State(UNAVAILABLE, fault or "it has no version")}
            for version in sorted(states, key=lambda v: int(v or 0)):
                state = states[version]
                if not ready or state.state == "READY":
                    index.append({"name": name, "version": version, "state": state.state, "reason": state.reason})
        return index

    # -------------------------------------------------------------------------------------------------------- control

    async def load(self, model: str, parameters: dict[str, Any]) -> None:
        """Loads what is new or has changed; the versions before serve until the new ones are warm, and go on when loading
        fails. parameters: see fastinfer.serve.overrides. Goes on when the caller is cancelled."""
        await self._background(self._load(check_name(model), overrides.read(parameters, self._allow_files)))

    async def reload(self, model: str) -> None:
        """As load, for what has not changed too."""
        await self.load(model, {"force": True})

    async def unload(self, model: str, parameters: dict[str, Any]) -> None:
        """Returns when no new request can reach the model; those it has are still answered."""
        name = check_name(model)
        if name not in self._slots:
            raise ServeError(Kind.NOT_FOUND, f"no model called '{name}' is loaded")
        await self._background(self._unload(name, "unloaded"))

    async def change(self, model: str, action: str, new: Callable[[Live], Live], *, by: str = "") -> Live:
        """Changes aliases, traffic split or shadowing (methods of Live), loads what that needs, and notes it in the log,
        by: who asked. Nothing changes when a version cannot be loaded."""
        name = check_name(model)
        if name not in self._slots:
            raise ServeError(Kind.NOT_FOUND, f"no model called '{name}' is loaded")

        def checked(live: Live) -> Live:
            return Live.of_json(new(live).as_json())

        note = functools.partial(self.log.change, name, action, checked, by=who(by))
        await self._background(self._load(name, overrides.Overrides(), Change(checked, note)))
        return self._slots[name].live

    async def rollback(self, model: str, *, by: str = "") -> Live:
        """Ends a canary; without one, goes back to the version that was stable before."""
        slot, _ = self._slot(check_name(model), "")
        exist = set(await asyncio.to_thread(lambda: self.directory.find(slot.name).versions))
        return await self.change(
            model, "rollback", lambda live: self.log.previous(slot.name, live, exist, slot.default), by=by
        )

    async def _load(self, name: str, given: overrides.Overrides, change: Change | None = None) -> None:
        slot = self._slots.setdefault(name, Slot(name))
        slot.users += 1
        try:
            async with slot.lock:
                if self._draining:
                    raise ServeError(Kind.UNAVAILABLE, "the server is draining")
                try:
                    retired, failure = await self._loader.load(slot, given, change)
                except ServeError as e:
                    if not given and change is None:
                        slot.unusable(e)
                        self._on_change(name)
                    raise
                self._retire(slot, retired, "replaced")
                self._on_change(name)
                if failure is not None:
                    raise failure
        finally:
            slot.users -= 1
            self._forget(slot)

    async def _unload(self, name: str, reason: str) -> None:
        slot = self._slots.get(name)
        if slot is None:
            return
        slot.users += 1
        try:
            async with slot.lock:
                slot.unloaded, slot.overridden, slot.failed = reason == "unloaded", False, False
                slot.fingerprints.clear()
                self._retire(slot, slot.switch({}, slot.live), reason)
                self._on_change(name)
        finally:
            slot.users -= 1
            self._forget(slot)

    def _retire(self, slot: Slot, endpoints: Iterable[Endpoint], reason: str) -> None:
        for endpoint in endpoints:
            slot.draining.add(endpoint)
            self._background(self._loader.retire(slot, endpoint, reason, not self._draining)).add_done_callback(
                lambda _: self._forget(slot)
            )

    def _forget(self, slot: Slot) -> None:
        if slot.forgotten and self._slots.get(slot.name) is slot:
            del self._slots[slot.name]
