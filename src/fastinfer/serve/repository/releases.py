# SPDX-License-Identifier: Apache-2.0
"""What people do with a repository: push a model, pull, list, remove a version. Promoting and rolling back is in log.py."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.repository import manifest as manifests
from fastinfer.serve.repository import settings
from fastinfer.serve.repository.directory import KINDS, OWN, SETTINGS, Directory, Version, files_below
from fastinfer.serve.repository.durable import write_whole
from fastinfer.serve.repository.log import Live, Log
from fastinfer.serve.repository.manifest import MANIFEST, File, Manifest
from fastinfer.serve.repository.names import check_file, check_name, check_version, inside, quoted
from fastinfer.serve.repository.push import Uploads
from fastinfer.serve.repository.signing import Signer

CHUNK = 8 << 20
Report = Callable[[float], None]  # the share that is done, 0 to 1


@dataclass(frozen=True)
class Listed:
    """A version in a repository. signed: there is a signature, which nobody has checked here."""

    model: str
    version: str
    roles: list[str]
    bytes: int
    signed: bool


def sources(source: Path) -> dict[str, Path]:
    """What a version is made of: every file of a folder, or an ONNX file and its external data, or a saved program.
    Path inside the version → path. Raises ServeError."""
    if source.is_dir():
        found = {name: source / name for name in files_below(source, source)}
        return {check_file(k): v for k, v in found.items() if k not in (MANIFEST, manifests.SIGNATURE)}
    if source.suffix not in KINDS or not source.is_file():
        raise ServeError(
            Kind.INVALID_ARGUMENT, f"{quoted(source.name)} is no folder, no .onnx and no .safetensors file"
        )
    found = {f"model{source.suffix}": source}
    for name in external_files(source) if source.suffix == ".onnx" else ():
        if check_file(name) in found:
            raise ServeError(
                Kind.INVALID_ARGUMENT,
                f"{quoted(source.name)} keeps weights in {quoted(name)}, which the model itself is to be called",
            )
        found[name] = source.parent / name
    return found


def external_files(path: Path) -> list[str]:
    """The files beside an ONNX model that hold its weights, as it names them. Raises ServeError."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as e:
        raise ServeError(Kind.INVALID_ARGUMENT, f"{quoted(path.name)} is no ONNX model: {type(e).__name__}") from None
    names = {e.value: None for t in _tensors(model.graph) for e in t.external_data if e.key == "location"}
    for f in model.functions:
        names |= {e.value: None for n in f.node for t in _of_node(n) for e in t.external_data if e.key == "location"}
    return list(names)


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _of_node(node)


def _of_node(node: Any) -> Iterator[Any]:
    for a in node.attribute:
        yield from (a.t, *a.tensors, a.sparse_tensor.values, a.sparse_tensor.indices)
        for sub in (a.g, *a.graphs):
            yield from _tensors(sub)


def digests(files: Mapping[str, Path]) -> dict[str, File]:
    """What a manifest says of files (see `sources`). Raises ServeError."""
    try:
        return {name: manifests.digest(path) for name, path in sorted(files.items())}
    except OSError as e:
        raise ServeError(Kind.INVALID_ARGUMENT, f"a file of the model cannot be read: {e.strerror}") from None


def push(
    root: Path, model: str, source: Path, *, version: str = "", signer: Signer | None = None, by: str = "",
    report: Report = lambda share: None,
) -> Manifest:  # fmt: skip
    """Adds a version, by default the one after the highest there ever was. Goes on where an earlier try stopped. Raises
    ServeError."""
    check_name(model)
    files = sources(source)
    listed = digests(files)
    manifest = Manifest(model, check_version(version or next_version(root, model)), listed)
    manifests.decode(manifest.encode())  # what nobody could load is refused here
    uploads = Uploads(root)
    progress = uploads.begin(manifest)
    done, total = sum(progress.received.values()), max(1, manifest.size)
    for name, path in files.items():
        with open(path, "rb") as f:
            f.seek(offset := progress.received[name])
            while chunk := f.read(CHUNK):
                offset = uploads.write(progress.upload, name, offset, chunk)
                done += len(chunk)
                report(done / total)
    return uploads.commit(progress.upload, signer.sign(manifest.encode()) if signer else None, by=by)


def set_settings(root: Path, model: str, text: bytes) -> None:
    """Puts a model.toml in place of the model's. Raises ServeError."""
    settings.parse(text)
    directory = Directory(root)
    folder = directory.root / check_name(model)
    try:
        write_whole(inside(directory.root, folder) / SETTINGS, text)
    except OSError as e:
        raise ServeError(Kind.UNAVAILABLE, f"model.toml cannot be written: {e.strerror}") from e


def next_version(root: Path, model: str) -> str:
    """Numbers of versions that were removed are not used again."""
    try:
        there = list(Directory(root).versions(model))
    except ServeError as e:
        if e.kind is not Kind.NOT_FOUND:
            raise
        there = []
    logged = [e.version for e in Log(Directory(root).root).entries(model) if e.version.isdigit()]
    return str(1 + max((int(v) for v in [*there, *logged]), default=0))


def find(root: Path, model: str, version: str = "") -> Version:
    """A version, or what an alias stands for; by default the stable or else the highest one. Raises ServeError."""
    directory = Directory(root)
    found = directory.versions(model)
    chosen = resolve(Log(directory.root).live(model), version, list(found))
    if chosen not in found:
        raise ServeError(Kind.NOT_FOUND, f"model '{model}' has no version {quoted(version or chosen)}")
    return found[chosen]


def pull(root: Path, model: str, version: str, target: Path) -> Version:
    """Copies a version (see `find`) to a new folder, checked against its manifest where it has one. Raises ServeError."""
    held = find(root, model, version)

    def copy(name: str, to: Path) -> None:
        shutil.copyfile(held.folder / name, to)

    bring(model, held.version, held.files if held.whole else [f for f in held.files if f != MANIFEST], copy, target)
    return held


def bring(model: str, version: str, files: Iterable[str], copy: Callable[[str, Path], None], target: Path) -> None:
    """Makes the folder `target` of a version's files, which `copy` writes: all of it or nothing, and checked against its
    manifest where it has one. Raises ServeError."""
    if os.path.lexists(target):
        raise ServeError(Kind.ALREADY_EXISTS, f"{quoted(target.name)} exists already")
    try:
        with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".fastinfer-pull-") as made:
            folder = Path(made, "version")
            for name in files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                copy(name, folder / name)
            if (folder / MANIFEST).exists():
                copied = manifests.make(model, version, folder, files)
                manifests.decode((folder / MANIFEST).read_bytes()).check(model, version, copied.files)
            os.rename(folder, target)
    except OSError as e:
        raise ServeError(Kind.UNAVAILABLE, f"the version cannot be copied: {e.strerror}") from e


def resolve(live: Live, version: str, versions: list[str]) -> str:
    """A version or alias as a version; empty: the stable one, or the highest."""
    if version:
        return live.aliases.get(version, version)
    return live.stable or max(versions, key=int, default="")


def listing(root: Path, model: str = "") -> list[Listed]:
    """Every version of every model, or of one. A model that cannot be read is left out. Raises ServeError."""
    directory = Directory(root)
    log = Log(directory.root)
    listed: list[Listed] = []
    for name in [check_name(model)] if model else directory.names():
        try:
            found = directory.versions(name)
        except ServeError:
            if model:
                raise
            continue
        live = log.live(name)
        for v in found.values():
            try:
                size = sum(s[1] for s in v.stamp())
            except OSError:  # removed just now
                continue
            listed.append(Listed(name, v.version, roles(live, v.version), size, manifests.SIGNATURE in v.files))
    return listed


def roles(live: Live, version: str) -> list[str]:
    """Aliases, share of the requests, share of copies."""
    shares = [f"{live.split[version]:g} %"] if version in live.split else []
    copies = [f"{live.shadow[version]:g} % copied"] if version in live.shadow else []
    return [*sorted(a for a, v in live.aliases.items() if v == version), *shares, *copies]


def remove(root: Path, model: str, version: str, *, force: bool = False, by: str = "") -> None:
    """Takes a version away. A server that has it loaded goes on until it next reads the directory. Raises ServeError for
    one that an alias or traffic names, unless `force`."""
    directory = Directory(root)
    held = directory.versions(model).get(check_version(version))
    if held is None:
        raise ServeError(Kind.NOT_FOUND, f"model '{model}' has no version {version}")
    log = Log(directory.root)
    if (named := roles(log.live(model), version)) and not force:
        raise ServeError(Kind.CONFLICT, f"version {version} of model '{model}' is live ({', '.join(named)})")
    if not held.whole or held.folder != directory.root / model / version:
        raise ServeError(
            Kind.UNSUPPORTED, f"model '{model}' was put there without versions: take its files away yourself"
        )
    grave = directory.root / OWN / "removed"
    try:
        grave.mkdir(parents=True, exist_ok=True)
        gone = Path(tempfile.mkdtemp(dir=grave))
        os.rename(held.folder, gone / version)  # whoever reads the directory sees all of it or nothing
        log.note(model, "remove", version=version, by=by)
        shutil.rmtree(grave, ignore_errors=True)  # with what a crash left
    except OSError as e:
        raise ServeError(Kind.UNAVAILABLE, f"the version cannot be removed: {e.strerror}") from e
