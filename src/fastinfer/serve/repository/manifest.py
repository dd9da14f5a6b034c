# SPDX-License-Identifier: Apache-2.0
"""``manifest.json`` in a version's folder: what the version consists of, each file with its size and sha256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.repository.directory import MAX_FILES
from fastinfer.serve.repository.names import check_file, check_name, check_version, quoted

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
MAX_BYTES = 1 << 20
CHUNK = 1 << 20


@dataclass(frozen=True)
class File:
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    model: str
    version: str
    files: Mapping[str, File]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(f.size for f in self.files.values())

    def encode(self) -> bytes:
        """The same bytes for the same contents."""
        files = {path: {"sha256": f.sha256, "size": f.size} for path, f in self.files.items()}
        value = {"format": 1, "model": self.model, "version": self.version, "files": files}
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    @property
    def digest(self) -> str:
        """sha256 of :meth:`encode`: one name for the contents of a version."""
        return hashlib.sha256(self.encode()).hexdigest()

    def check(self, model: str, version: str, found: Mapping[str, File]) -> None:
        """Raises ServeError unless the manifest is of this version and these are its files, all of them."""
        if (self.model, self.version) != (model, version):
            raise ServeError(
                Kind.INVALID_ARGUMENT, f"the manifest is of version {self.version} of '{self.model}', not of this one"
            )
        if missing := sorted(self.files.keys() - found.keys()):
            raise ServeError(Kind.INVALID_ARGUMENT, f"{quoted(missing[0])} is in the manifest, but not there")
        if extra := sorted(found.keys() - self.files.keys()):
            raise ServeError(Kind.INVALID_ARGUMENT, f"{quoted(extra[0])} is not in the manifest")
        for path, file in self.files.items():
            if found[path] != file:
                raise ServeError(
                    Kind.INVALID_ARGUMENT,
                    f"{quoted(path)} is not what the manifest says: {found[path].size} bytes with sha256 "
                    f"{found[path].sha256[:16]}…, not {file.size} with {file.sha256[:16]}…",
                )


def make(model: str, version: str, folder: Path, files: Iterable[str]) -> Manifest:
    """Reads the files. Raises OSError."""
    listed = {path: digest(folder / path) for path in sorted(files) if path not in (MANIFEST, SIGNATURE)}
    return Manifest(model, version, listed)


def digest(path: Path) -> File:
    sha, size = hashlib.sha256(), 0
    with open(path, "rb") as f:
        while chunk := f.read(CHUNK):
            sha.update(chunk)
            size += len(chunk)
    return File(size, sha.hexdigest())


def decode(text: bytes) -> Manifest:
    """The contents of a manifest.json, checked. Raises ServeError."""
    if len(text) > MAX_BYTES:
        raise ServeError(Kind.INVALID_ARGUMENT, f"the manifest has {len(text)} bytes; at most {MAX_BYTES} are read")
    try:
        return of_json(json.loads(text))
    except (ValueError, RecursionError) as e:
        raise ServeError(Kind.INVALID_ARGUMENT, f"the manifest is no JSON: {str(e)[:100]}") from None


def of_json(value: Any) -> Manifest:
    if not isinstance(value, dict) or value.get("format") != 1 or not isinstance(value.get("files"), dict):
        raise ServeError(Kind.INVALID_ARGUMENT, "the manifest is not of format 1 with files")
    if unknown := value.keys() - {"format", "model", "version", "files"}:
        raise ServeError(Kind.INVALID_ARGUMENT, f"the manifest has the unknown key {quoted(min(unknown))}")
    entries = value["files"]
    if not 1 <= len(entries) <= MAX_FILES:
        raise ServeError(
            Kind.INVALID_ARGUMENT, f"the manifest lists {len(entries)} files; 1 to {MAX_FILES} are possible"
        )
    files = {check_file(path): _file(path, entry) for path, entry in entries.items()}
    _check_paths(files)
    return Manifest(check_name(value.get("model", "")), check_version(value.get("version", "")), files)


def _file(path: str, entry: Any) -> File:
    size, sha = (entry.get("size"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
    is_sha = isinstance(sha, str) and len(sha) == 64 and not set(sha) - set("0123456789abcdef")
    if type(size) is not int or not 0 <= size < 1 << 50 or not is_sha:
        raise ServeError(Kind.INVALID_ARGUMENT, f"the manifest's {quoted(path)} needs a size and a sha256 in small hex")
    return File(size, str(sha))


def _check_paths(files: Mapping[str, File]) -> None:
    """No two paths that some file system takes for one, none that is a folder of another, none of ours."""
    folded: dict[str, str] = {}
    for path in files:
        if path.lower() in (MANIFEST, SIGNATURE):
            raise ServeError(Kind.INVALID_ARGUMENT, f"{quoted(path)} cannot be a file of the manifest itself")
        if (other := folded.setdefault(path.lower(), path)) != path:
            raise ServeError(Kind.INVALID_ARGUMENT, f"{quoted(path)} and {quoted(other)} differ in case only")
    for path in folded:
        parts = path.split("/")
        if any("/".join(parts[:n]) in folded for n in range(1, len(parts))):
            raise ServeError(Kind.INVALID_ARGUMENT, f"a folder of {quoted(path)} is also a file")
