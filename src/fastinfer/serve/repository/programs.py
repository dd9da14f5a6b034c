# SPDX-License-Identifier: Apache-2.0
"""Compiled programs kept between starts: a folder of ours alone, files under a hash of all that made them."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import fastinfer
from fastinfer import _core
from fastinfer.errors import FastinferError, ModelError, UnsupportedError
from fastinfer.model import Model
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.repository.manifest import CHUNK

ABANDONED = 86400.0  # seconds; what a killed process left half written


class ProgramCache:
    """What is in the folder is used only if it, and the folder, can be written by this user alone, and the file still has
    the sha256 that was noted when it was written. max_files: beyond, the longest unused go."""

    def __init__(self, folder: str | os.PathLike, max_files: int = 64) -> None:
        """Makes the folder (mode 700). Raises ServeError when others may write to it."""
        self.folder = Path(os.path.abspath(folder))
        self._max_files = max_files
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            info = os.lstat(self.folder)
        except OSError as e:
            raise ServeError(Kind.INVALID_ARGUMENT, f"the program cache cannot be made: {e.strerror}") from None
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o022:
            raise ServeError(
                Kind.INVALID_ARGUMENT, "the program cache must be a folder of this user that no other can write to"
            )

    @staticmethod
    def key(digest: str, file: str, *, precision: str, strict: bool, device: str = "cpu") -> str:
        """digest: of the version's contents. A program is good for one build of fastinfer, one kind of device and one
        instruction set."""
        with open(_core.__file__, "rb") as f:
            build = os.fstat(f.fileno())
        parts = [
            digest,
            file,
            device,
            precision,
            strict,
            fastinfer.__version__,
            _core.active_isa(),
            build.st_size,
            build.st_mtime_ns,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def load(self, key: str, map_program: Callable[[str], Model]) -> Model | None:
        """The program of that key, as `map_program` opens its path; None when there is none that may be trusted."""
        path, note = self.folder / f"{key}.safetensors", self.folder / f"{key}.json"
        try:
            with open(note, "rb") as f:
                _check_owner(f.fileno())
                expected = json.loads(f.read(4096))["sha256"]
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        with open(descriptor, "rb") as f:
            try:
                _check_owner(descriptor)
                if _sha256(descriptor) != expected:
                    raise ModelError("the cached program is damaged")
                # The file that was hashed is the one that is mapped, whatever has its name by now.
                model = map_program(f"/proc/self/fd/{descriptor}")
            except UnsupportedError:  # its device is not there: nothing is wrong with the file
                return None
            except (OSError, FastinferError):
                self._remove(key)
                return None
        with suppress(OSError):
            os.utime(path)
        return model

    def store(self, key: str, save: Callable[[Path], None]) -> None:
        """Keeps the program that `save` writes to a path. Raises OSError, and what `save` raises."""
        token = f"{key}.{secrets.token_hex(8)}"
        path, note = self.folder / f"{token}.part", self.folder / f"{token}.note"
        try:
            save(path)
            os.chmod(path, 0o600)
            with open(path, "rb") as f:
                os.fsync(f.fileno())
                sha = _sha256(f.fileno())
            with open(os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as g:
                json.dump({"sha256": sha}, g)
                g.flush()
                os.fsync(g.fileno())
            os.replace(path, self.folder / f"{key}.safetensors")
            os.replace(note, self.folder / f"{key}.json")
        finally:
            for left in (path, note):
                left.unlink(missing_ok=True)
        self._evict()

    def _remove(self, key: str) -> None:
        for kind in ("json", "safetensors"):
            with suppress(OSError):
                (self.folder / f"{key}.{kind}").unlink(missing_ok=True)

    def _evict(self) -> None:
        held = sorted(self.folder.glob("*.safetensors"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
        for path in held[self._max_files :]:
            self._remove(path.stem)
        for part in [*self.folder.glob("*.part"), *self.folder.glob("*.note")]:
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > ABANDONED:
                    part.unlink()


def _check_owner(descriptor: int) -> None:
    info = os.fstat(descriptor)
    if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o022 or info.st_nlink != 1:
        raise ModelError("the cached program could have been written by others")


def _sha256(descriptor: int) -> str:
    sha, at = hashlib.sha256(), 0
    while chunk := os.pread(descriptor, CHUNK, at):
        sha.update(chunk)
        at += len(chunk)
    return sha.hexdigest()
