# SPDX-License-Identifier: Apache-2.0
"""Ed25519 signatures over manifests, and whom a server trusts.

``manifest.sig`` holds ``{"key": ID, "signature": base64}``; what is signed is PREFIX and the bytes of manifest.json. A key's
ID is the first 16 hex digits of the sha256 of its 32 public bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.repository.settings import tomllib, wrong

PREFIX = b"fastinfer manifest 1\n"  # a signature of anything else is none of these
MAX_BYTES = 1 << 20


def key_id(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()[:16]


@dataclass(frozen=True)
class Trust:
    """keys: ID → 32 public bytes. revoked_keys: IDs. revoked: digests (sha256 of manifest.json), or "name/version".
    required: whether an unsigned version is refused."""

    keys: dict[str, bytes] = field(default_factory=dict)
    revoked_keys: frozenset[str] = frozenset()
    revoked: frozenset[str] = frozenset()
    required: bool = True

    def check(self, model: str, version: str, manifest: bytes | None, signature: bytes | None) -> None:
        """Raises ServeError unless a trusted key signed this manifest and neither is revoked. With `required` off, an
        unsigned version passes; a signature that is there must still be right."""
        digest = hashlib.sha256(manifest).hexdigest() if manifest else ""
        if f"{model}/{version}" in self.revoked or digest in self.revoked:
            raise _refused("it has been revoked")
        if signature is None or manifest is None:
            if self.required:
                raise _refused("it is not signed, and this server only loads what is")
            return
        key, value = _parse(signature)
        if key in self.revoked_keys:
            raise _refused(f"it is signed by the key {key}, which has been revoked")
        if key not in self.keys:
            raise _refused(f"it is signed by the key {key}, which is not trusted here")
        if not _verify(self.keys[key], value, PREFIX + manifest):
            raise _refused(f"its signature is not one of the key {key} for this manifest")


def _refused(why: str) -> ServeError:
    return ServeError(Kind.FORBIDDEN, f"the version is refused: {why}")


def _parse(signature: bytes) -> tuple[str, bytes]:
    try:
        value = json.loads(signature[:4096])
        return str(value["key"])[:16], base64.b64decode(value["signature"], validate=True)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _refused("its signature cannot be read") from None


def _verify(public: bytes, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def load_trust(path: str | os.PathLike) -> Trust:
    """Reads a TOML file: ``required`` (default true), ``keys = ["base64 of 32 bytes", …]``, ``revoked_keys = [ID, …]``,
    ``revoked = [digest or "name/version", …]``. Raises ServeError."""
    try:
        with open(path, "rb") as f:
            value = tomllib.loads(f.read(MAX_BYTES).decode())
    except (OSError, ValueError) as e:
        raise ServeError(Kind.INVALID_ARGUMENT, f"the file of trusted keys cannot be read: {str(e)[:200]}") from None
    if unknown := value.keys() - {"required", "keys", "revoked_keys", "revoked"}:
        raise ServeError(Kind.INVALID_ARGUMENT, f"the file of trusted keys has the unknown key '{min(unknown)}'")
    required = value.get("required", True)
    if not isinstance(required, bool):
        raise wrong("required", required, "true or false")
    keys = [_public(text) for text in _list(value, "keys")]
    return Trust(
        {key_id(k): k for k in keys},
        frozenset(_list(value, "revoked_keys")),
        frozenset(_list(value, "revoked")),
        required,
    )


def _list(value: dict[str, Any], key: str) -> list[str]:
    listed = value.get(key, [])
    if not isinstance(listed, list) or not all(isinstance(x, str) for x in listed):
        raise wrong(key, listed, "a list of texts")
    return listed


def _public(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise wrong("keys", text, "base64 of an Ed25519 public key (32 bytes)")
    return raw


class Signer:
    """A private key in a PEM file (PKCS#8, not encrypted), readable by its owner only."""

    def __init__(self, path: str | os.PathLike) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            if os.stat(path).st_mode & 0o077:
                raise ServeError(Kind.INVALID_ARGUMENT, "the private key may be read by others: chmod 600 it")
            key = load_pem_private_key(Path(path).read_bytes(), None)
        except (OSError, ValueError, TypeError) as e:
            raise ServeError(Kind.INVALID_ARGUMENT, f"the private key cannot be read: {str(e)[:200]}") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ServeError(Kind.INVALID_ARGUMENT, "the private key is not of Ed25519")
        self._key = key
        self.public = key.public_key().public_bytes_raw()

    def sign(self, manifest: bytes) -> bytes:
        """The contents of manifest.sig."""
        signature = base64.b64encode(self._key.sign(PREFIX + manifest)).decode()
        return json.dumps({"key": key_id(self.public), "signature": signature}).encode()


def new_key(path: str | os.PathLike) -> str:
    """Writes a new private key (mode 600); returns its public half in base64, as ``keys`` lists it. Raises ServeError
    when the file exists."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
            f.write(pem)
    except OSError as e:
        raise ServeError(Kind.INVALID_ARGUMENT, f"the private key cannot be written: {e.strerror}") from None
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()
