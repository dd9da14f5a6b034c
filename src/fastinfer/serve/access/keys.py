# SPDX-License-Identifier: Apache-2.0
"""API keys: a TOML file of digests. The keys themselves are 32 random bytes, so one SHA-256 is as good as a slow hash:
there is nothing to guess. ::

    [[key]]
    name = "phone-app"
    sha256 = "9f86d0..."            # of the key's text
    scopes = ["infer", "read"]
    models = ["ocr-*"]              # all, if left out
    rate = 50                       # requests per second
    expires = 2027-01-01            # a date or a date with a time and a zone
"""

from __future__ import annotations

import datetime
import hashlib
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastinfer.errors import InputError
from fastinfer.serve.access.caller import Caller

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_KNOWN = {"name", "sha256", "scopes", "models", "rate", "burst", "expires"}
PREFIX = "fi_"  # so that scanners for leaked secrets can tell one


def new_key() -> tuple[str, str]:
    """(key, sha256 for the file). The key is shown once and kept nowhere."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, digest_of(key)


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True)
class _Key:
    caller: Caller
    expires: float | None  # seconds since 1970


class KeyFile:
    """The keys of one file. Read again when the file has changed: a file that is then wrong leaves the keys as they were."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises InputError for a file that cannot be read, others may write, or that is wrong."""
        self.path = Path(path)
        self._stamp = self._stat()
        self._keys = _read(self.path)

    def _stat(self) -> tuple[int, int, int]:
        try:
            s = self.path.stat()
        except OSError as e:
            raise InputError(f"key file '{self.path}': {e.strerror}") from None
        if s.st_mode & 0o022:
            raise InputError(f"key file '{self.path}': others than its owner may write it (mode {s.st_mode & 0o777:o})")
        return s.st_mtime_ns, s.st_size, s.st_ino

    def reload(self) -> bool:
        """Whether the file had changed and was read. Raises InputError (the old keys stay)."""
        stamp = self._stat()
        if stamp == self._stamp:
            return False
        self._keys, self._stamp = _read(self.path), stamp
        return True

    def find(self, key: str, now: float) -> Caller | None:
        """The caller with this key. What is looked up is the digest, so the time it takes tells nothing of the key."""
        found = self._keys.get(digest_of(key))
        return None if found is None or (found.expires is not None and now >= found.expires) else found.caller


def _read(path: Path) -> dict[str, _Key]:
    try:
        table = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise InputError(f"key file '{path}': {e}") from None
    rows = table.get("key", [])
    if set(table) - {"key"} or not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
        raise InputError(f"key file '{path}': needed: tables [[key]] and nothing else")
    keys: dict[str, _Key] = {}
    for i, row in enumerate(rows):
        digest, key = _row(f"key file '{path}', key {i + 1}", row)
        if digest in keys:
            raise InputError(f"key file '{path}': '{key.caller.name}' and '{keys[digest].caller.name}' share a key")
        keys[digest] = key
    return keys


def _row(where: str, row: dict[str, Any]) -> tuple[str, _Key]:
    if unknown := sorted(set(row) - _KNOWN):
        raise InputError(f"{where}: '{unknown[0]}' is unknown; known: {', '.join(sorted(_KNOWN))}")
    name, digest, scopes, models = row.get("name"), row.get("sha256"), row.get("scopes"), row.get("models", ["*"])
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}: a name is needed")
    if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise InputError(f"{where} ('{name}'): sha256 needs 64 hexadecimal digits in lower case")
    for field, value in (("scopes", scopes), ("models", models)):
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            raise InputError(f"{where} ('{name}'): {field} needs a list of strings")
    numbers = [row.get("rate", 0), row.get("burst", 0)]
    if not all(type(n) in (int, float) for n in numbers):
        raise InputError(f"{where} ('{name}'): rate and burst need numbers")
    return digest, _Key(
        Caller.of(name, scopes or (), models, *numbers), _expiry(f"{where} ('{name}')", row.get("expires"))
    )


def _expiry(where: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            raise InputError(f"{where}: expires={value} has no time zone; write 2027-01-01T00:00:00Z")
        return value.timestamp()
    if isinstance(value, datetime.date):
        return datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.timezone.utc).timestamp()
    raise InputError(f"{where}: expires={value!r}; needed: a date")
