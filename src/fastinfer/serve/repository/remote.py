# SPDX-License-Identifier: Apache-2.0
"""The repository of a running server, over HTTP (http/uploads.py): the same methods as a directory's (local.py)."""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.repository import releases
from fastinfer.serve.repository.log import Entry, Live
from fastinfer.serve.repository.manifest import File, Manifest
from fastinfer.serve.repository.names import check_file, check_name, check_version, quoted
from fastinfer.serve.repository.releases import CHUNK, Listed, Report
from fastinfer.serve.repository.signing import Signer

LOOPBACK = ("127.0.0.1", "::1", "localhost")
TIMEOUT = 600.0  # seconds without a byte; checking the sums of many gigabytes takes a while
TRIES = 5  # in a row that may fail before a transfer is given up; what has arrived stays for the next push
MAX_ANSWER = 64 << 20  # bytes
_KINDS = {k.status: k for k in reversed(Kind)}  # of kinds with the same status the first


class Remote:
    """url: of the server, with the path under which it is mounted. token: an API key or bearer token."""

    def __init__(self, url: str, token: str = "") -> None:
        """Raises ServeError for a URL that is none, and for a token that would travel unencrypted."""
        host: str | None = None
        with suppress(ValueError):  # of the port, of brackets
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        if not host or parts.scheme not in ("http", "https") or parts.username or parts.query:
            raise ServeError(Kind.INVALID_ARGUMENT, f"{quoted(url)} is no URL of a server: https://HOST[:PORT][/PATH]")
        if token and parts.scheme == "http" and host not in LOOPBACK:
            raise ServeError(
                Kind.INVALID_ARGUMENT, "a token goes over https only: over http everyone on the way reads it"
            )
        self._path = parts.path.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()  # SSL_CERT_FILE names other authorities
            self._connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)

    # ----------------------------------------------------------------------------------------------------- what it does

    def listing(self, model: str = "") -> list[Listed]:
        rows = self._json("GET", "models", query={"model": model})
        if model and not rows:
            raise ServeError(Kind.NOT_FOUND, f"no model is called '{model}'")
        return [Listed(**row) for row in rows]

    def push(
        self, model: str, source: Path, *, version: str, signer: Signer | None, settings: bytes, by: str, report: Report
    ) -> Manifest:
        files = releases.sources(source)
        listed = releases.digests(files)
        rows = {path: vars(f) for path, f in listed.items()}
        at = f"models/{check_name(model)}/uploads"
        begun = self._json("POST", at, {"files": rows, **({"version": check_version(version)} if version else {})})
        manifest = Manifest(model, check_version(begun["version"]), listed)
        upload = _Upload(self, f"{at}/{quote(begun['upload'], safe='')}", begun, manifest.size, report)
        for name, path in files.items():
            upload.send(name, path, listed[name].size)
        signature = signer.sign(manifest.encode()).decode() if signer else ""
        self._json("POST", f"{upload.at}/commit", {"signature": signature, "settings": settings.decode()})
        return manifest

    def load(self, model: str) -> None:
        """The server takes up what has changed in the model's folder."""
        self._json("POST", f"/v2/repository/models/{check_name(model)}/load", {})

    def pull(self, model: str, version: str, target: Path) -> tuple[str, int]:
        held = self._json("GET", f"models/{check_name(model)}/files", query={"version": version})
        chosen = check_version(held["version"])
        files = {check_file(path): File(**entry) for path, entry in held["files"].items()}
        at = f"models/{model}/versions/{chosen}/file"
        releases.bring(model, chosen, files, lambda name, to: self._fetch(at, name, files[name], to), target)
        return chosen, len(files)

    def change(
        self, model: str, action: str, version: str, *, percent: float = 0, alias: str = "", by: str = ""
    ) -> Live:
        given: dict[str, Any] = {"version": version}
        given |= {"percent": percent} if action in ("canary", "shadow") else {"alias": alias} if alias else {}
        return Live.of_json(self._json("POST", f"models/{check_name(model)}/{action}", given))

    def rollback(self, model: str, *, by: str = "") -> Live:
        return Live.of_json(self._json("POST", f"models/{check_name(model)}/rollback", {}))

    def remove(self, model: str, version: str, *, force: bool = False, by: str = "") -> None:
        at = f"models/{check_name(model)}/versions/{check_version(version)}"
        self._json("DELETE", at, query={"force": str(force).lower()})
        try:
            self.load(model)
        except ServeError as e:
            if e.kind is not Kind.NOT_FOUND:
                raise
            self._json("POST", f"/v2/repository/models/{model}/unload", {})  # that was its last version

    def log(self, model: str = "", *, check: bool = False) -> list[Entry]:
        at = f"models/{check_name(model)}/log" if model else "log"
        rows = self._json("GET", at, query={"check": str(check).lower()})
        return [Entry(**row | {"live": Live.of_json(row["live"]) if row["live"] else None}) for row in rows]

    def _fetch(self, at: str, name: str, declared: File, to: Path) -> None:
        sha, size = hashlib.sha256(), 0
        with open(to, "wb") as f:
            while size < declared.size:
                part = self._again("GET", at, query={"file": name, "offset": str(size)})
                if not part or size + len(part) > declared.size:
                    break
                f.write(part)
                sha.update(part)
                size += len(part)
        if File(size, sha.hexdigest()) != declared:
            raise ServeError(
                Kind.CONFLICT, f"{quoted(name)} arrived otherwise than the server said: it was changed meanwhile"
            )

    # --------------------------------------------------------------------------------------------------------- the wire

    def _json(self, method: str, at: str, body: Any = None, query: Mapping[str, str] = {}) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        return json.loads(self.call(method, at, data, query) or b"null")

    def _again(self, method: str, at: str, query: Mapping[str, str]) -> bytes:
        for rest in reversed(range(TRIES)):
            try:
                return self.call(method, at, b"", query)
            except ServeError as e:
                wait(e, rest)
        raise AssertionError

    def call(self, method: str, at: str, body: bytes | memoryview, query: Mapping[str, str]) -> bytes:
        """The answer's body. at: below /fastinfer/v1/, or from the server's root with a slash in front. Raises ServeError:
        what the server says, UNAVAILABLE when it cannot be reached."""
        path = self._path + (at if at.startswith("/") else f"/fastinfer/v1/{at}")
        given = urlencode({k: v for k, v in query.items() if v})
        try:
            self._connection.request(method, f"{path}?{given}" if given else path, body, self._headers)
            response = self._connection.getresponse()
            data = response.read(MAX_ANSWER)
        except (OSError, http.client.HTTPException) as e:
            self._connection.close()
            where = f"{self._connection.host}:{self._connection.port}"
            raise ServeError(Kind.UNAVAILABLE, f"{where} cannot be asked: {e or type(e).__name__}") from e
        if response.status != 200:
            after = response.getheader("Retry-After", "")
            raise _failure(response.status, data, float(after) if after.isdecimal() else None)
        return data


class _Upload:
    """Sends files in chunks, each from where the server says that it has the file so far."""

    def __init__(self, remote: Remote, at: str, begun: dict[str, Any], total: int, report: Report) -> None:
        self._remote, self.at, self._received = remote, at, begun["received"]
        self._chunk = max(1, min(CHUNK, int(begun["chunk"])))
        self._total, self._report = max(1, total), report

    def send(self, name: str, path: Path, size: int) -> None:
        rest = TRIES
        with open(path, "rb") as f:
            while (offset := self._received[name]) < size:
                f.seek(offset)
                chunk = f.read(self._chunk)
                query = {"file": name, "offset": str(offset), "sha256": hashlib.sha256(chunk).hexdigest()}
                try:
                    answer = json.loads(self._remote.call("PUT", self.at, chunk, query))
                    self._received[name] = int(answer["received"])
                    rest = TRIES
                except ServeError as e:
                    wait(e, rest := rest - 1)
                    self._received = json.loads(self._remote.call("GET", self.at, b"", {}))["received"]
                self._report(sum(self._received.values()) / self._total)


def wait(error: ServeError, rest: int) -> None:
    """Until it may be tried again. Raises the error when it will not help, or `rest` tries are none."""
    if rest <= 0 or error.kind not in (Kind.UNAVAILABLE, Kind.CONFLICT, Kind.RATE):
        raise error
    time.sleep(min(error.retry_after or 1.0, 60.0))


def _failure(status: int, body: bytes, retry_after: float | None) -> ServeError:
    try:
        text = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        text = f"the server answered {status}, and not as a server of models does"
    kind = _KINDS.get(status, Kind.INTERNAL if status >= 500 else Kind.INVALID_ARGUMENT)
    return ServeError(kind, "".join(c if c.isprintable() else " " for c in text)[:1000], retry_after)
