# SPDX-License-Identifier: Apache-2.0
"""A repository in a file system of fsspec's (``s3://``, ``gs://``, ``sftp://``, ``file://``, …): versions are put there, and
mirrored to directories that servers serve.

A version is there once its ``manifest.json`` is, which is written last. Nothing in it is believed: a mirror takes files as
an upload takes chunks, against the manifest's sizes and sha256s, goes on where it stopped, and renames into place. What is
live is each directory's own. URLs come from who runs the command, never from the network.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.repository import manifest as manifests
from fastinfer.serve.repository import releases
from fastinfer.serve.repository import settings as model_toml
from fastinfer.serve.repository.directory import SETTINGS
from fastinfer.serve.repository.log import Entry, Live
from fastinfer.serve.repository.manifest import MANIFEST, SIGNATURE, Manifest
from fastinfer.serve.repository.names import check_name, check_version, is_name, is_version, quoted
from fastinfer.serve.repository.push import Uploads
from fastinfer.serve.repository.releases import CHUNK, Listed, Report
from fastinfer.serve.repository.signing import Signer, Trust


class Storage:
    """Methods as local.Repository has them, and `mirror`. Raise ServeError; ModuleNotFoundError without fsspec. One push of a model at a time: two would mix their files, which every mirror then refuses."""

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as e:  # an unknown kind of URL, or one whose package is missing
            raise ServeError(Kind.INVALID_ARGUMENT, f"the URL cannot be opened: {str(e)[:300]}") from None
        self._root = str(root).rstrip("/")

    def _path(self, *parts: str) -> str:
        return "/".join((self._root, *parts))

    def versions(self, model: str = "") -> dict[str, list[str]]:
        """Model → its versions, lowest first. Names that are none of ours are left out."""
        found: dict[str, list[str]] = {}
        with _asked("the repository cannot be listed"):
            paths = self._fs.glob(f"{glob.escape(self._root)}/{model or '*'}/*/{MANIFEST}")
        for path in sorted(paths):
            name, version = path.split("/")[-3:-1]
            if is_name(name) and is_version(version):
                found.setdefault(name, []).append(version)
        return {name: sorted(versions, key=int) for name, versions in found.items()}

    def manifest(self, model: str, version: str) -> Manifest:
        made = manifests.decode(self._read(manifests.MAX_BYTES, model, version, MANIFEST))
        if (made.model, made.version) != (model, version):
            raise ServeError(
                Kind.INVALID_ARGUMENT, f"the manifest of {model}/{version} is of {made.model}/{made.version}"
            )
        return made

    def _read(self, most: int, *parts: str) -> bytes:
        with _asked(f"{quoted('/'.join(parts))} cannot be read"), self._fs.open(self._path(*parts), "rb") as f:
            return f.read(most + 1)

    def _optional(self, most: int, *parts: str) -> bytes:
        """Empty for a file that is not there."""
        with _asked(f"{quoted('/'.join(parts))} cannot be looked for"):
            there = self._fs.isfile(self._path(*parts))
        return self._read(most, *parts) if there else b""

    # -------------------------------------------------------------------------------------------------------- mirroring

    def mirror(self, root: Path, *, latest: int = 0, trust: Trust | None = None, report: Report) -> list[str]:
        """Brings versions that the directory lacks ("model/version", returned), and every model.toml that differs. latest:
        only so many of each model; 0: all. Takes nothing away."""
        uploads = Uploads(root, trust=trust)
        brought = []
        for model, versions in self.versions().items():
            there = {v.version for v in releases.listing(root, model)} if (root / model).is_dir() else set()
            for version in [v for v in versions[-latest:] if v not in there]:
                self._bring(self.manifest(model, version), uploads, report)
                brought.append(f"{model}/{version}")
            text = self._optional(model_toml.MAX_BYTES, model, SETTINGS)
            path = root / model / SETTINGS
            if text and (root / model).is_dir() and not (path.is_file() and path.read_bytes() == text):
                releases.set_settings(root, model, text)
        return brought

    def _bring(self, manifest: Manifest, uploads: Uploads, report: Report) -> None:
        begun = uploads.begin(manifest)
        done = sum(begun.received.values())
        for name, declared in manifest.files.items():
            path = self._path(manifest.model, manifest.version, name)
            if (offset := begun.received[name]) >= declared.size:
                continue
            with _asked(f"{quoted(name)} cannot be read"), self._fs.open(path, "rb") as f:
                f.seek(offset)
                while chunk := f.read(CHUNK):
                    offset = uploads.write(begun.upload, name, offset, chunk)
                    done += len(chunk)
                    report(done / max(1, manifest.size))
        signature = self._optional(4096, manifest.model, manifest.version, SIGNATURE)
        uploads.commit(begun.upload, signature or None, by="mirror")

    # ------------------------------------------------------------------------------------------------ as a Repository

    def listing(self, model: str = "") -> list[Listed]:
        found = self.versions(check_name(model) if model else "")
        if model and not found:
            raise ServeError(Kind.NOT_FOUND, f"no model is called '{model}'")
        return [
            Listed(name, v, [], self.manifest(name, v).size, bool(self._optional(4096, name, v, SIGNATURE)))
            for name, versions in found.items() for v in versions
        ]  # fmt: skip

    def push(
        self, model: str, source: Path, *, version: str, signer: Signer | None, settings: bytes, by: str, report: Report
    ) -> Manifest:
        files = releases.sources(source)
        there = self.versions(check_name(model)).get(model, [])
        chosen = check_version(version or str(int(there[-1]) + 1 if there else 1))
        if chosen in there:
            raise ServeError(Kind.ALREADY_EXISTS, f"version {chosen} of model '{model}' exists already")
        manifest = Manifest(model, chosen, releases.digests(files))
        text = manifests.decode(manifest.encode()).encode()
        done = 0
        with _asked("the version cannot be written"):
            for name, path in files.items():
                target = self._path(model, chosen, name)
                self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
                with open(path, "rb") as f, self._fs.open(target, "wb") as g:
                    while chunk := f.read(CHUNK):
                        g.write(chunk)
                        report((done := done + len(chunk)) / max(1, manifest.size))
            if signer is not None:
                self._fs.pipe_file(self._path(model, chosen, SIGNATURE), signer.sign(text))
            if settings:
                self._fs.pipe_file(self._path(model, SETTINGS), settings)
            self._fs.pipe_file(self._path(model, chosen, MANIFEST), text)
        return manifest

    def pull(self, model: str, version: str, target: Path) -> tuple[str, int]:
        chosen = version or max(self.versions(check_name(model)).get(model, []), key=int, default="")
        if chosen not in self.versions(check_name(model)).get(model, []):
            raise ServeError(Kind.NOT_FOUND, f"model '{model}' has no version {quoted(version)}")
        signed = [SIGNATURE] if self._optional(4096, model, chosen, SIGNATURE) else []
        files = [*self.manifest(model, chosen).files, MANIFEST, *signed]

        def copy(name: str, to: Path) -> None:
            with _asked(f"{quoted(name)} cannot be read"):
                self._fs.get_file(self._path(model, chosen, name), str(to))

        releases.bring(model, chosen, files, copy, target)
        return chosen, len(files)

    def remove(self, model: str, version: str, *, force: bool = False, by: str = "") -> None:
        if version not in self.versions(check_name(model)).get(model, []):
            raise ServeError(Kind.NOT_FOUND, f"model '{model}' has no version {quoted(version)}")
        with _asked("the version cannot be removed"):
            self._fs.rm_file(self._path(model, version, MANIFEST))  # from now on it is none
            self._fs.rm(self._path(model, version), recursive=True)

    def change(
        self, model: str, action: str, version: str, *, percent: float = 0, alias: str = "", by: str = ""
    ) -> Live:
        raise _elsewhere()

    def rollback(self, model: str, *, by: str = "") -> Live:
        raise _elsewhere()

    def log(self, model: str = "", *, check: bool = False) -> list[Entry]:
        raise _elsewhere()


def _elsewhere() -> ServeError:
    return ServeError(
        Kind.INVALID_ARGUMENT,
        "a store of versions has no requests: what is live is said to a server or a mirrored directory",
    )


@contextmanager
def _asked(what: str) -> Iterator[Any]:
    """File systems raise what they like."""
    try:
        yield
    except ServeError:
        raise
    except FileNotFoundError as e:
        raise ServeError(Kind.NOT_FOUND, f"{what}: it is not there") from e
    except Exception as e:
        raise ServeError(Kind.UNAVAILABLE, f"{what}: {type(e).__name__}: {str(e)[:200]}") from e
