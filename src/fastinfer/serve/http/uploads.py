# SPDX-License-Identifier: Apache-2.0
"""Models over HTTP: versions come in (repository/push.py) and go out, both in chunks; the list and the log of a repository.

All of it is for admins but the list. Files and checksums are work for threads.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs

from fastinfer.serve.access import Caller
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.http import fields
from fastinfer.serve.http.app import Route
from fastinfer.serve.http.jsontext import parse_object
from fastinfer.serve.http.reply import Call, Reply, answer
from fastinfer.serve.messages import Limits
from fastinfer.serve.repository import manifest as manifests
from fastinfer.serve.repository import releases
from fastinfer.serve.repository import settings as model_toml
from fastinfer.serve.repository.log import Log
from fastinfer.serve.repository.names import check_name, quoted
from fastinfer.serve.repository.push import MAX_CHUNK, Progress, Uploads

MAX_READ = 8 << 20  # bytes of a file in one answer
PREFIX = "/fastinfer/v1/models"
T = TypeVar("T")


class Transfers:
    """uploads: None where none are taken."""

    def __init__(self, root: Path, uploads: Uploads | None, limits: Limits) -> None:
        self._root, self._uploads, self._body = root, uploads, limits.body
        # A manifest of 256 files with long names, or a model.toml, and nothing larger.
        self._limits = dataclasses.replace(limits, json=manifests.MAX_BYTES)

    def routes(self) -> list[Route]:
        one, upload = f"{PREFIX}/{{model}}", f"{PREFIX}/{{model}}/uploads/{{upload}}"
        return [
            ("GET", PREFIX, "read", self.listing),
            ("GET", f"{one}/log", "admin", self.log),
            ("GET", "/fastinfer/v1/log", "admin", self.log),
            ("GET", f"{one}/files", "admin", self.files),
            ("GET", f"{one}/versions/{{version}}/file", "admin", self.read),
            ("POST", f"{one}/uploads", "admin", self.begin),
            ("GET", upload, "admin", self.progress),
            ("PUT", upload, "admin", self.write),
            ("DELETE", upload, "admin", self.abandon),
            ("POST", f"{upload}/commit", "admin", self.commit),
            ("DELETE", f"{one}/versions/{{version}}", "admin", self.remove),
        ]

    # ------------------------------------------------------------------------------------------------------ going out

    async def listing(self, call: Call) -> Reply:
        given = _query(call, "model")
        listed = await _thread(releases.listing, self._root, given["model"])
        caller: Caller = call.scope["fastinfer.caller"]
        return answer([vars(v) for v in listed if caller.may("read", v.model)])

    async def log(self, call: Call) -> Reply:
        """?check=true: fails if a line was changed."""
        check = _query(call, "check")["check"] == "true"

        def read() -> list[dict[str, Any]]:
            history = Log(self._root)
            if check:
                history.verify()
            entries = history.entries(check_name(call.arguments[0]) if call.arguments else "")
            return [vars(e) | {"live": e.live.as_json() if e.live else None} for e in entries]

        return answer(await _thread(read))

    async def files(self, call: Call) -> Reply:
        """{"model", "version", "files": {path: {"size", "sha256"}}} of a version or an alias: ?version=."""
        given = _query(call, "version")

        def look() -> dict[str, Any]:
            held = releases.find(self._root, check_name(call.arguments[0]), given["version"])
            listed = {path: vars(manifests.digest(held.folder / path)) for path in held.files}
            return {"model": held.model, "version": held.version, "files": listed}

        return answer(await _thread(look))

    async def read(self, call: Call) -> Reply:
        """At most MAX_READ bytes of a file from an offset: ?file=&offset=."""
        given = _query(call, "file", "offset")
        model, version = call.arguments
        offset = _offset(given)

        def look() -> bytes:
            held = releases.find(self._root, check_name(model), version)
            if given["file"] not in held.files:
                raise ServeError(Kind.NOT_FOUND, f"version {version} of '{model}' has no file {quoted(given['file'])}")
            with open(held.folder / given["file"], "rb") as f:
                f.seek(offset)
                return f.read(MAX_READ)

        return 200, [(b"content-type", b"application/octet-stream")], await _thread(look)

    # ------------------------------------------------------------------------------------------------------- coming in

    def _taken(self, call: Call) -> Uploads:
        if self._uploads is None:
            raise ServeError(Kind.FORBIDDEN, "this server takes no models over the network (--allow-files)")
        return self._uploads

    def _mine(self, call: Call) -> tuple[Uploads, str]:
        """The upload, which is one of the model in the path: that is the model that the caller may change. Blocks."""
        uploads, (model, upload) = self._taken(call), call.arguments
        if uploads.manifest(upload).model != model:
            raise ServeError(Kind.NOT_FOUND, f"model {quoted(model)} has no upload {quoted(upload)}")
        return uploads, upload

    async def begin(self, call: Call) -> Reply:
        """{"version"?, "files": {path: {"size", "sha256"}}} → {"upload", "version", "chunk", "received": {path: bytes}}.
        chunk: bytes that one may have."""
        uploads, model = self._taken(call), check_name(call.arguments[0])
        given = parse_object(call.body, self._limits)
        version = fields.text(given, "version", "the upload", 18, "")

        def begin() -> tuple[str, Progress]:
            chosen = version or releases.next_version(self._root, model)
            value = {"format": 1, "model": model, "version": chosen, "files": given.get("files")}
            return chosen, uploads.begin(manifests.of_json(value))

        chosen, progress = await _thread(begin)
        return answer({"version": chosen, "chunk": min(MAX_CHUNK, self._body), **vars(progress)})

    async def progress(self, call: Call) -> Reply:
        def look() -> Progress:
            uploads, upload = self._mine(call)
            return uploads.progress(upload)

        return answer(vars(await _thread(look)))

    async def write(self, call: Call) -> Reply:
        """A chunk, which is the body: ?file=&offset=&sha256=."""
        given = _query(call, "file", "offset", "sha256")
        offset = _offset(given)

        def write() -> int:
            uploads, upload = self._mine(call)
            return uploads.write(upload, given["file"], offset, memoryview(call.body), given["sha256"])

        return answer({"received": await _thread(write)})

    async def commit(self, call: Call) -> Reply:
        """{"signature"?: the text of manifest.sig, "settings"?: that of model.toml} → {"version", "sha256", "bytes"}."""
        given = parse_object(call.body, self._limits)
        texts = [given.get(name, "") for name in ("signature", "settings")]
        if not all(isinstance(t, str) for t in texts):
            raise ServeError(Kind.INVALID_ARGUMENT, "'signature' and 'settings' are texts, where they are given")
        signature, settings = (t.encode("utf-8", "replace") for t in texts)

        def commit() -> manifests.Manifest:
            model_toml.parse(settings)
            uploads, upload = self._mine(call)
            made = uploads.commit(upload, signature or None, by=_who(call))
            if settings:
                releases.set_settings(self._root, made.model, settings)
            return made

        made = await _thread(commit)
        return answer({"version": made.version, "sha256": made.digest, "bytes": made.size})

    async def abandon(self, call: Call) -> Reply:
        def abandon() -> None:
            uploads, upload = self._mine(call)
            uploads.abandon(upload)

        await _thread(abandon)
        return answer({})

    async def remove(self, call: Call) -> Reply:
        """?force=true: also one that is live. Loaded versions serve until the next load request or SIGHUP."""
        given = _query(call, "force")
        self._taken(call)
        model, version = call.arguments
        force = given["force"] == "true"
        await _thread(lambda: releases.remove(self._root, check_name(model), version, force=force, by=_who(call)))
        return answer({})


async def _thread(work: Callable[..., T], *args: Any) -> T:
    return await asyncio.to_thread(work, *args)


def _who(call: Call) -> str:
    name = call.scope["fastinfer.caller"].name
    return f"{quoted(name)[1:-1]} over HTTP" if name else "HTTP"


def _query(call: Call, *names: str) -> dict[str, str]:
    """What follows the path's "?", empty where it is not given. Raises ServeError for what has no meaning here."""
    text = call.scope.get("query_string", b"").decode("latin-1")
    try:
        given = parse_qs(text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=8)
    except ValueError:
        raise ServeError(Kind.INVALID_ARGUMENT, "what follows '?' is no list of name=value in UTF-8") from None
    if unknown := [n for n, values in given.items() if n not in names or len(values) > 1]:
        raise ServeError(Kind.INVALID_ARGUMENT, f"?{quoted(unknown[0])[1:-1]}=: needed: {', '.join(names)}, each once")
    return {name: given.get(name, [""])[0] for name in names}


def _offset(given: dict[str, str]) -> int:
    text = given["offset"] or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ServeError(Kind.INVALID_ARGUMENT, f"offset={quoted(text)}; needed: a number of bytes")
    return int(text)
