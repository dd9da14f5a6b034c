# SPDX-License-Identifier: Apache-2.0
"""A repository as ``fastinfer models`` sees it: a directory here, or a server's (remote.py), with the same methods."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.repository import releases
from fastinfer.serve.repository.directory import Directory
from fastinfer.serve.repository.log import Entry, Live, Log
from fastinfer.serve.repository.manifest import Manifest
from fastinfer.serve.repository.names import check_name, quoted
from fastinfer.serve.repository.releases import Listed, Report
from fastinfer.serve.repository.signing import Signer


class Repository(Protocol):
    """Methods raise ServeError. version: also an alias, where it is one that exists; by: for the log, empty for this user."""

    def listing(self, model: str = "") -> list[Listed]: ...

    def push(
        self, model: str, source: Path, *, version: str, signer: Signer | None, settings: bytes, by: str, report: Report
    ) -> Manifest: ...

    def pull(self, model: str, version: str, target: Path) -> tuple[str, int]:
        """(version, files)"""
        ...

    def change(
        self, model: str, action: str, version: str, *, percent: float = 0, alias: str = "", by: str = ""
    ) -> Live:
        """action: promote, canary, shadow or alias."""
        ...

    def rollback(self, model: str, *, by: str = "") -> Live: ...

    def remove(self, model: str, version: str, *, force: bool = False, by: str = "") -> None: ...

    def log(self, model: str = "", *, check: bool = False) -> list[Entry]: ...


def resolved(repository: Repository, model: str, version: str) -> str:
    """A version, or an alias as the version that it stands for. Raises ServeError for what there is not."""
    for row in repository.listing(check_name(model)):
        if version == row.version or version in row.roles:
            return row.version
    raise ServeError(Kind.NOT_FOUND, f"model '{model}' has no version {quoted(version)}")


class Local:
    """A directory. A server that serves it takes changes up on SIGHUP."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._log = Log(Directory(root).root)

    def listing(self, model: str = "") -> list[Listed]:
        return releases.listing(self._root, model)

    def push(
        self, model: str, source: Path, *, version: str, signer: Signer | None, settings: bytes, by: str, report: Report
    ) -> Manifest:
        made = releases.push(self._root, model, source, version=version, signer=signer, by=by, report=report)
        if settings:
            releases.set_settings(self._root, model, settings)
        return made

    def pull(self, model: str, version: str, target: Path) -> tuple[str, int]:
        held = releases.pull(self._root, check_name(model), version, target)
        return held.version, len(held.files)

    def change(
        self, model: str, action: str, version: str, *, percent: float = 0, alias: str = "", by: str = ""
    ) -> Live:
        def new(live: Live) -> Live:
            if action in ("canary", "shadow"):
                return live.canary(version, percent) if action == "canary" else live.copied_to(version, percent)
            return live.alias(alias, version) if action == "alias" else live.promote(version)

        return self._log.change(model, action, new, version=version, by=by)

    def rollback(self, model: str, *, by: str = "") -> Live:
        there = set(Directory(self._root).versions(model))
        highest = max(there, key=int, default="")
        previous = lambda live: self._log.previous(model, live, there, highest)  # noqa: E731
        return self._log.change(model, "rollback", previous, by=by)

    def remove(self, model: str, version: str, *, force: bool = False, by: str = "") -> None:
        releases.remove(self._root, check_name(model), version, force=force, by=by)

    def log(self, model: str = "", *, check: bool = False) -> list[Entry]:
        if check:
            self._log.verify()
        return self._log.entries(model)
