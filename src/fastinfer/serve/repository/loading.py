# SPDX-License-Identifier: Apache-2.0
"""From files to a model that is ready to serve: verified, compiled or mapped, checked against its settings, warm."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastinfer.api import compile, load
from fastinfer.errors import FastinferError
from fastinfer.model import Model
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.ports import Port, Ports
from fastinfer.serve.repository import compiling
from fastinfer.serve.repository import manifest as manifests
from fastinfer.serve.repository.compiling import Unsaved, compile_elsewhere
from fastinfer.serve.repository.directory import Version
from fastinfer.serve.repository.manifest import MANIFEST, SIGNATURE, Manifest
from fastinfer.serve.repository.programs import ProgramCache
from fastinfer.serve.repository.settings import PortSettings, Settings
from fastinfer.serve.repository.signing import Trust

log = logging.getLogger("fastinfer.serve")

MAX_SAMPLES = 256 << 20  # bytes


@dataclass(frozen=True)
class Loaded:
    """max_batch, memory: see Endpoint. digest: of the version's files; empty where nobody needed it."""

    model: Model
    ports: Ports
    max_batch: int
    memory: int
    digest: str


def load_version(
    version: Version, settings: Settings, cache: ProgramCache | None = None, trust: Trust | None = None
) -> Loaded:
    """Blocks for as long as compiling takes. Raises ServeError, whose text names no path."""
    try:
        with _source(version, trust) as folder:
            digest = _verify(version, folder, cache is not None, trust)
            model = _open(version, folder, settings, cache, digest)
            samples = _samples(version, folder, settings.warmup.samples)
        held = settings.sequence.state
        ports = Ports(model.inputs, model.outputs, held)
        _check_ports(settings.inputs, ports.inputs, "input")
        _check_ports(settings.outputs, ports.outputs, "output")
        model.prepare_many()
        max_batch = settings.batching.max_batch if rows_are_batch(model) else 0
        _warm_up(version, model, settings, bool(max_batch), samples)
        return Loaded(model, ports, max_batch, model.memory().constants, digest)
    except ServeError:
        raise
    except FastinferError as e:
        raise ServeError(Kind.INVALID_ARGUMENT, _without_paths(str(e), version.folder)) from e
    except OSError as e:
        raise ServeError(Kind.UNAVAILABLE, f"a file of the model cannot be read: {e.strerror}") from e
    except Exception as e:
        log.exception("model '%s' version %s: unforeseen error in loading", version.model, version.version)
        raise ServeError(Kind.INTERNAL, f"loading failed in a way that was logged ({type(e).__name__})") from e


def _without_paths(text: str, folder: Path) -> str:
    for prefix in {str(folder), os.path.realpath(folder)}:
        text = text.replace(f"{prefix}{os.sep}", "").replace(prefix, ".")
    return text[:2000]


@contextmanager
def _source(version: Version, trust: Trust | None) -> Iterator[Path]:
    """The folder to read from. Where signatures count, a private copy: what is verified is what is loaded, whoever may
    write to the repository meanwhile. Mappings outlive the copy."""
    if trust is None:
        yield version.folder
        return
    with tempfile.TemporaryDirectory(prefix="fastinfer-verify-") as made:
        folder = Path(made)
        for name in version.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(version.folder / name, folder / name)
        yield folder


def _verify(version: Version, folder: Path, needed: bool, trust: Trust | None) -> str:
    """The digest of the contents, checked against a manifest that is there, and that against whom we trust."""
    text = signature = None
    if version.whole and MANIFEST in version.files:
        text = (folder / MANIFEST).read_bytes()
        signature = (folder / SIGNATURE).read_bytes() if SIGNATURE in version.files else None
    if trust is not None:
        trust.check(version.model, version.version, text, signature)
    if text is None and not (needed and version.whole):
        return ""
    found = manifests.make(version.model, version.version, folder, version.files)
    if text is not None:
        manifests.decode(text).check(version.model, version.version, found.files)
    return Manifest("contents", "1", found.files).digest


def _open(version: Version, folder: Path, settings: Settings, cache: ProgramCache | None, digest: str) -> Model:
    name = version.model_file(settings.file)
    threads, strict, precision, device = settings.threads, settings.strict, settings.precision, settings.device

    def map_program(path: str | os.PathLike) -> Model:
        own = {} if device == "cpu" else {"device": device, "precision": precision}  # on the CPU it has its own
        return load(path, threads=threads, strict=strict, **own)

    def compile_it() -> Model:
        return compile(folder / name, device=device, threads=threads, strict=strict, precision=precision)

    if name.endswith(".safetensors"):
        return map_program(folder / name)
    if cache is None or not digest:
        return compile_it()
    asked: dict[str, Any] = {"device": device.split(":")[0], "precision": precision, "strict": strict}
    key = cache.key(digest, name, **asked)
    if (model := cache.load(key, map_program)) is not None:
        return model
    if sum(os.path.getsize(folder / f) for f in version.files) >= compiling.LARGE:
        with suppress(Unsaved, OSError):
            cache.store(key, lambda to: compile_elsewhere(folder / name, to, **asked))
        if (model := cache.load(key, map_program)) is not None:
            return model
    model = compile_it()
    try:
        cache.store(key, model.save)
    except (OSError, FastinferError) as e:  # full, read-only, or a model that no file can hold: it still serves
        log.warning("model '%s' version %s is not cached: %s", version.model, version.version, type(e).__name__)
    return model


def _check_ports(wanted: tuple[PortSettings, ...], ports: list[Port], what: str) -> None:
    by_name = {p.name: p for p in ports}
    for w in wanted:
        port = by_name.get(w.name)
        if port is None:
            raise ServeError(
                Kind.INVALID_ARGUMENT, f"model.toml names the {what} '{w.name}'; the model has: {', '.join(by_name)}"
            )
        shape_fits = w.shape is None or port.shape is None or w.shape == port.shape
        if (w.datatype and w.datatype != port.datatype) or not shape_fits:
            asked = f"{w.datatype or port.datatype} {list(w.shape) if w.shape is not None else ''}"
            raise ServeError(Kind.INVALID_ARGUMENT, f"model.toml: {what} '{w.name}' is {asked}; the model's is {port}")


def rows_are_batch(model: Model) -> bool:
    """Whether the first extent of every input and output is the batch, and rows of several requests may share a call."""
    if not all(s.shape and not isinstance(s.shape[0], int) for s in [*model.inputs, *model.outputs]):
        return False
    try:
        return model.batch_group({s.name: s.zeros() for s in model.inputs})[0] is not None
    except FastinferError:
        return False


# ------------------------------------------------------------------------------------------------------------ warm-up


def _samples(version: Version, folder: Path, name: str) -> dict[str, Any] | None:
    if name not in version.files:
        return None
    try:
        with zipfile.ZipFile(folder / name) as archive:  # which reads no more of an entry than it says here
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_SAMPLES:
            raise ServeError(
                Kind.INVALID_ARGUMENT, f"the samples have {size} bytes unpacked; at most {MAX_SAMPLES} are taken"
            )
        with np.load(folder / name, allow_pickle=False) as held:
            return {key: held[key] for key in held.files}
    except (ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile) as e:
        raise ServeError(Kind.INVALID_ARGUMENT, f"the samples cannot be read: {type(e).__name__}") from e


def _warm_up(version: Version, model: Model, settings: Settings, batches: bool, samples: dict[str, Any] | None) -> None:
    """Runs samples, whose failure is the version's; or zeros, whose failure may only mean that zeros make no sense."""
    if samples is not None:
        model.run(samples)
        return
    for rows in settings.warmup.rows if batches else (1,):
        feed = {s.name: s.zeros() for s in model.inputs}
        if batches:
            feed = {n: np.repeat(a, rows, axis=0) for n, a in feed.items()}
        try:
            model.run(feed)
        except FastinferError as e:
            text = _without_paths(str(e), version.folder)[:300]
            log.info("model '%s' version %s does not run on zeros: %r", version.model, version.version, text)
            return
