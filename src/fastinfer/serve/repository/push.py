# SPDX-License-Identifier: Apache-2.0
"""Versions come in: chunk by chunk, from where it stopped after a crash on either side, checked, then there all at once.

An upload is named by its manifest, so a client that starts again with the same files finds its upload. It lies in
``.fastinfer/uploads/ID``; its last step is one rename to ``name/version``, which must not exist: versions never change.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.repository import manifest as manifests
from fastinfer.serve.repository.directory import KINDS, OWN
from fastinfer.serve.repository.durable import FOLDER, alone, sync, write_whole
from fastinfer.serve.repository.log import Log
from fastinfer.serve.repository.manifest import MANIFEST, SIGNATURE, Manifest
from fastinfer.serve.repository.names import inside, quoted
from fastinfer.serve.repository.signing import Trust

MAX_CHUNK = 64 << 20
RESERVE = 64 << 20  # bytes of the disk that no upload may take


@dataclass(frozen=True)
class Progress:
    """received: path → bytes that are there; the next chunk of a file begins there."""

    upload: str
    received: dict[str, int]


class Uploads:
    """The uploads of a repository. Several processes may write to one repository, one at a time to each file.

    quota: bytes of all uploads under way, as their manifests declare them. most: how many there may be. abandoned:
    seconds after which one that nobody writes to is cleaned away. trust: whose signature a version needs to come in.
    Methods raise ServeError.
    """

    def __init__(
        self,
        root: Path,
        *,
        quota: int = 64 << 30,
        most: int = 16,
        abandoned: float = 86400.0,
        trust: Trust | None = None,
    ) -> None:
        self.root = Path(os.path.realpath(root))
        self._folder = self.root / OWN / "uploads"
        self._quota, self._most, self._abandoned, self.trust = quota, most, abandoned, trust

    def begin(self, manifest: Manifest) -> Progress:
        """Starts an upload, or finds the one that was begun with this manifest."""
        target = self._target(manifest)
        if os.path.lexists(target):
            raise ServeError(
                Kind.ALREADY_EXISTS, f"version {manifest.version} of model '{manifest.model}' exists already"
            )
        if not os.path.lexists(target.parent) and any(
            os.path.lexists(self.root / f"{manifest.model}{k}") for k in KINDS
        ):
            # The folder that the version needs would hide the file.
            raise ServeError(
                Kind.CONFLICT,
                f"model '{manifest.model}' is a single file: move it to {manifest.model}/1/model.onnx first",
            )
        upload = manifest.digest[:32]
        folder = self._folder / upload
        with _errors("the upload cannot be begun"):
            self.clean()
            self._folder.mkdir(parents=True, exist_ok=True)
            with alone(self._folder):  # or two of them pass the quota together
                if self._manifest(upload) is None:  # not there, or a crash left it before its manifest was whole
                    self._admit(manifest)
                    (folder / "files").mkdir(parents=True, exist_ok=True)
                    write_whole(folder / MANIFEST, manifest.encode())
        return self.progress(upload)

    def _admit(self, manifest: Manifest) -> None:
        others = [self._manifest(u) for u in self._under_way()]
        held = sum(m.size for m in others if m is not None)
        if len(others) >= self._most:
            raise ServeError(Kind.RATE, f"{len(others)} uploads are under way, as many as may be", retry_after=60)
        if held + manifest.size > self._quota:
            raise ServeError(
                Kind.TOO_LARGE, f"{manifest.size} bytes beside {held} of other uploads: the quota is {self._quota}"
            )
        if manifest.size > shutil.disk_usage(self._folder).free - RESERVE:
            raise ServeError(Kind.TOO_LARGE, f"the disk has no room for {manifest.size} bytes")

    def progress(self, upload: str) -> Progress:
        manifest, files = self.manifest(upload), self._folder / upload / "files"
        return Progress(upload, {p: _size(files / p) for p in manifest.files})

    def write(self, upload: str, path: str, offset: int, data: bytes | memoryview, sha256: str = "") -> int:
        """Adds a chunk of at most MAX_CHUNK bytes behind those that are there; returns how many there are then. sha256: of
        the chunk, if given. Refused (CONFLICT, naming the offset that is needed) when it leaves a gap or overlaps, and
        while another writer is at the file."""
        manifest = self.manifest(upload)
        declared = manifest.files.get(path)
        if declared is None:
            raise ServeError(Kind.INVALID_ARGUMENT, f"{quoted(path)} is not in the upload's manifest")
        if len(data) > MAX_CHUNK:
            raise ServeError(Kind.TOO_LARGE, f"the chunk has {len(data)} bytes; at most {MAX_CHUNK} are possible")
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise ServeError(Kind.INVALID_ARGUMENT, "the chunk does not have the sha256 that came with it")
        with self._locked(upload, fcntl.LOCK_SH), _errors("the chunk cannot be written"):
            target = self._folder / upload / "files" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            with open(descriptor, "r+b", buffering=0) as f:
                _lock(f.fileno(), fcntl.LOCK_EX)
                return _append(f.fileno(), path, offset, memoryview(data), declared.size)

    def commit(self, upload: str, signature: bytes | None = None, *, by: str = "") -> Manifest:
        """Makes the version that was uploaded part of the repository. A file with the wrong sha256 is dropped and must be
        sent again. signature: the contents of manifest.sig."""
        manifest = self.manifest(upload)
        text = manifest.encode()
        if (trust := self.trust) is not None:
            trust.check(manifest.model, manifest.version, text, signature)
        with self._locked(upload, fcntl.LOCK_EX), _errors("the upload cannot be completed"):
            files = self._folder / upload / "files"
            for path, declared in manifest.files.items():
                self._check(files / path, path, declared)
            write_whole(files / MANIFEST, text)
            if signature is not None:
                write_whole(files / SIGNATURE, signature)
            for folder in sorted({p.parent for p in files.rglob("*")} | {files}):
                sync(folder)
            self._publish(files, manifest)
            shutil.rmtree(self._folder / upload, ignore_errors=True)
        Log(self.root).note(manifest.model, "push", version=manifest.version, note=manifest.digest, by=by)
        return manifest

    @staticmethod
    def _check(file: Path, path: str, declared: manifests.File) -> None:
        if (size := _size(file)) < declared.size:
            raise ServeError(Kind.CONFLICT, f"{quoted(path)} has {size} of {declared.size} bytes")
        if not declared.size:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        found = manifests.digest(file)
        if found != declared:
            file.unlink()
            raise ServeError(
                Kind.INVALID_ARGUMENT,
                f"{quoted(path)} has the sha256 {found.sha256[:16]}…, not {declared.sha256[:16]}…: send it again",
            )
        sync(file)

    def _publish(self, files: Path, manifest: Manifest) -> None:
        target = self._target(manifest)
        inside(self.root, target.parent).mkdir(exist_ok=True)
        if os.path.lexists(target):  # rename would replace an empty folder
            raise ServeError(Kind.ALREADY_EXISTS, f"version {manifest.version} came from elsewhere meanwhile")
        os.rename(files, target)
        sync(target.parent)
        sync(self.root)  # the model's folder may be new

    def abandon(self, upload: str) -> None:
        self.manifest(upload)
        with self._locked(upload, fcntl.LOCK_EX):
            shutil.rmtree(self._folder / upload, ignore_errors=True)

    def clean(self) -> list[str]:
        """Removes uploads that nobody has written to for `abandoned` seconds; returns their names."""
        removed = []
        for upload in self._under_way():
            # Looked at before it is locked: whoever writes to it meanwhile would be refused.
            with suppress(ServeError, OSError):
                if self._is_abandoned(upload):
                    with self._locked(upload, fcntl.LOCK_EX):
                        if self._is_abandoned(upload):
                            shutil.rmtree(self._folder / upload, ignore_errors=True)
                            removed.append(upload)
        return removed

    def _is_abandoned(self, upload: str) -> bool:
        folder = self._folder / upload
        last = max(p.stat().st_mtime for p in (folder, *folder.rglob("*")))
        return time.time() - last > self._abandoned

    def _under_way(self) -> list[str]:
        try:
            return sorted(e.name for e in os.scandir(self._folder) if e.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []

    def _target(self, manifest: Manifest) -> Path:
        return self.root / manifest.model / manifest.version

    def manifest(self, upload: str) -> Manifest:
        """Of an upload under way."""
        is_id = isinstance(upload, str) and len(upload) == 32 and not set(upload) - set("0123456789abcdef")
        manifest = self._manifest(upload) if is_id else None
        if manifest is None:
            raise ServeError(
                Kind.NOT_FOUND, f"there is no upload {quoted(upload)}; perhaps it is done, or was abandoned"
            )
        return manifest

    def _manifest(self, upload: str) -> Manifest | None:
        """None for one that a crash left before its manifest was whole."""
        try:
            return manifests.decode((self._folder / upload / MANIFEST).read_bytes())
        except (OSError, ServeError):
            return None

    @contextmanager
    def _locked(self, upload: str, how: int) -> Iterator[None]:
        """Shared by writers of chunks; whole for what ends the upload."""
        try:
            descriptor = os.open(self._folder / upload, FOLDER)
        except OSError:
            raise ServeError(Kind.NOT_FOUND, f"there is no upload {quoted(upload)}") from None
        try:
            _lock(descriptor, how)
            yield
        finally:
            os.close(descriptor)


def _append(descriptor: int, path: str, offset: int, data: memoryview, declared: int) -> int:
    size = os.fstat(descriptor).st_size
    if offset != size:
        what = "leaves a gap" if offset > size else "overlaps what is there"
        raise ServeError(Kind.CONFLICT, f"{quoted(path)}: a chunk at {offset} {what}; the next one begins at {size}")
    if offset + len(data) > declared:
        raise ServeError(
            Kind.INVALID_ARGUMENT, f"{quoted(path)}: {offset + len(data)} bytes, and its manifest says {declared}"
        )
    try:
        while len(data):
            data = data[os.pwrite(descriptor, data, size) :]
            size = os.fstat(descriptor).st_size
    except OSError:
        os.ftruncate(descriptor, offset)
        raise
    return size


def _lock(descriptor: int, how: int) -> None:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ServeError(Kind.CONFLICT, "somebody else is writing to this upload", retry_after=1) from None


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


@contextmanager
def _errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise ServeError(Kind.TOO_LARGE if full else Kind.UNAVAILABLE, f"{what}: {e.strerror}") from e
