# SPDX-License-Identifier: Apache-2.0
"""What models and versions a directory holds.

``name/VERSION/…``, ``name/model.onnx`` (version 1) or ``name.onnx`` (version 1). A version's folder holds one model:
``model.onnx``, ``model.safetensors`` (a saved program), or one file of either kind by another name. Names that begin with
a dot, and folders that are no version, are left alone.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.repository import settings as model_toml
from fastinfer.serve.repository.names import check_name, inside, is_name, is_version, quoted
from fastinfer.serve.repository.settings import Settings

SETTINGS = "model.toml"
OWN = ".fastinfer"  # what is not a model: uploads under way, the log
KINDS = (".onnx", ".safetensors")
MAX_FILES = 256
Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Version:
    """One version as it lies on disk. files: relative paths of all it consists of; whole: folder and files are its own
    (False for a bare ``name.onnx``, whose external data may be anything beside it)."""

    model: str
    version: str
    folder: Path
    files: tuple[str, ...]
    whole: bool = True

    def stamp(self) -> Stamp:
        """Changes when a file changes: path, size, time of change (ns) and inode of each."""
        stats = [(name, os.stat(self.folder / name)) for name in self.files]
        return tuple((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in stats)

    def model_file(self, chosen: str = "") -> str:
        """The relative path of the model. Raises ServeError when there is none or more than one."""
        if chosen:
            if chosen not in self.files or not chosen.endswith(KINDS):
                raise self._wrong(f"has no model file {quoted(chosen)}")
            return chosen
        for name in ("model.onnx", "model.safetensors"):
            if name in self.files:
                return name
        for kind in KINDS:
            found = [f for f in self.files if f.endswith(kind) and "/" not in f]
            if len(found) > 1:
                raise self._wrong(f"holds {len(found)} {kind} files; name one model{kind}, or set file in model.toml")
            if found:
                return found[0]
        raise self._wrong("holds no .onnx and no .safetensors file")

    def _wrong(self, what: str) -> ServeError:
        return ServeError(Kind.INVALID_ARGUMENT, f"version {self.version} of model '{self.model}' {what}")


@dataclass(frozen=True)
class Found:
    """A model on disk: its settings, and its versions, lowest first."""

    name: str
    settings: Settings
    versions: dict[str, Version]


class Directory:
    """A repository of models in a local directory. Every method raises ServeError, also for what the system refuses."""

    def __init__(self, root: str | os.PathLike) -> None:
        self.root = Path(os.path.realpath(root))

    def names(self) -> list[str]:
        """All models, sorted. A directory that holds no version yet is no model."""
        names = set()
        try:
            with os.scandir(self.root) as entries:
                for entry in entries:
                    name, kind = os.path.splitext(entry.name)
                    if entry.is_dir() and is_name(entry.name):
                        names.add(entry.name)
                    elif kind in KINDS and is_name(name) and entry.is_file():
                        names.add(name)
        except OSError as e:
            raise ServeError(Kind.UNAVAILABLE, f"the repository cannot be read: {e.strerror}") from e
        return sorted(names)

    def find(self, name: str) -> Found:
        """Raises ServeError: NOT_FOUND when there is no such model, else what is wrong with it."""
        versions = self.versions(name)
        try:
            folder = self.root / name
            return Found(name, self._settings(inside(self.root, folder)) if folder.is_dir() else Settings(), versions)
        except OSError as e:
            raise ServeError(Kind.UNAVAILABLE, f"model '{name}' cannot be read: {e.strerror}") from e

    def versions(self, name: str) -> dict[str, Version]:
        """Lowest first; also of a model whose settings are wrong. Raises ServeError, as `find`."""
        check_name(name)
        folder = self.root / name
        try:
            if folder.is_dir():
                return self._versions(name, inside(self.root, folder))
            for kind in KINDS:
                if (path := self.root / f"{name}{kind}").is_file():
                    inside(self.root, path)
                    return {"1": Version(name, "1", self.root, (path.name,), whole=False)}
        except OSError as e:
            raise ServeError(Kind.UNAVAILABLE, f"model '{name}' cannot be read: {e.strerror}") from e
        raise ServeError(Kind.NOT_FOUND, f"no model is called '{name}'")

    def _settings(self, folder: Path) -> Settings:
        path = folder / SETTINGS
        if not path.exists():
            return Settings()
        with open(inside(self.root, path), "rb") as f:
            return model_toml.parse(f.read(model_toml.MAX_BYTES + 1))

    def _versions(self, name: str, folder: Path) -> dict[str, Version]:
        numbers = sorted((e for e in os.listdir(folder) if is_version(e) and (folder / e).is_dir()), key=int)
        versions = {}
        for number in numbers:
            real = inside(self.root, folder / number)
            files: tuple[str, ...] = ()
            with suppress(FileNotFoundError):
                files = files_below(self.root, real)
            # One that was removed while it was read was there in part.
            if real.is_dir():
                versions[number] = Version(name, number, real, files)
        if "1" not in versions and any((folder / f"model{kind}").is_file() for kind in KINDS):
            own = [f for f in files_below(self.root, folder) if f != SETTINGS and not is_version(f.split("/")[0])]
            versions = {"1": Version(name, "1", folder, tuple(own)), **versions}
        return versions


def files_below(root: Path, folder: Path) -> tuple[str, ...]:
    """Relative paths of the regular files below a folder, hidden ones left out. Raises ServeError for links that leave
    `root`, for what is no regular file, and for more than MAX_FILES files."""
    found: list[str] = []
    for here, folders, names in os.walk(folder):
        # Folders that are links are not entered: they could make circles.
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not os.path.islink(os.path.join(here, f)))
        for name in sorted(n for n in names if not n.startswith(".")):
            path = Path(here, name)
            if not stat.S_ISREG(os.stat(inside(root, path)).st_mode):
                raise ServeError(Kind.INVALID_ARGUMENT, f"{quoted(name)} is not a regular file")
            found.append(path.relative_to(folder).as_posix())
            if len(found) > MAX_FILES:
                raise ServeError(Kind.INVALID_ARGUMENT, f"a version has at most {MAX_FILES} files")
    return tuple(found)
