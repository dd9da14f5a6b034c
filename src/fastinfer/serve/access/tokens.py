# SPDX-License-Identifier: Apache-2.0
"""Bearer tokens of an OpenID Connect provider (RFC 7519, 9068): signature, issuer, audience, expiry, then scopes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt

from fastinfer.errors import InputError
from fastinfer.serve.access.caller import SCOPES, Caller

# Signatures with a public key only: with HS256 whoever can check a token can make one, and "none" is no signature.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY = 30  # seconds that clocks may differ
MAX_TOKEN = 16 << 10  # bytes


@dataclass
class Issuer:
    """One provider. keys: its JWKS document as a file; it is read again when a token names a key that is not in it, so
    keys may be rotated. prefix: stands before our scopes in the token's (``fastinfer:infer``)."""

    issuer: str
    audience: str
    keys: Path
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    prefix: str = ""
    _loaded: dict[str, Any] = field(default_factory=dict, repr=False)
    _stamp: tuple[int, int] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.issuer or not self.audience:
            raise InputError("an issuer of tokens needs both `issuer` and `audience`")
        if unknown := set(self.algorithms) - set(ALGORITHMS):
            raise InputError(f"algorithm {sorted(unknown)[0]!r} is not accepted; possible: {', '.join(ALGORITHMS)}")
        self.reload()

    def reload(self) -> bool:
        """Whether the key document had changed and was read. Raises InputError (the old keys stay)."""
        try:
            stat = os.stat(self.keys)
            if (stamp := (stat.st_mtime_ns, stat.st_size)) == self._stamp:
                return False
            document = json.loads(Path(self.keys).read_bytes())
            loaded = {k.key_id: k for k in jwt.PyJWKSet.from_dict(document).keys if k.key_id}
        except (OSError, ValueError, AttributeError, TypeError, jwt.PyJWTError) as e:
            raise InputError(f"key document '{self.keys}' of issuer '{self.issuer}': {e}") from None
        self._loaded, self._stamp = loaded, stamp
        return True

    def caller(self, token: str) -> tuple[Caller, float]:
        """The caller that a token speaks for, and until when (seconds since 1970). Raises jwt.PyJWTError with the reason,
        which is not for the client."""
        header = jwt.get_unverified_header(token)
        key = self._loaded.get(header.get("kid", ""))
        if key is None and self.reload():
            key = self._loaded.get(header.get("kid", ""))
        if key is None:
            raise jwt.InvalidKeyError("the token names no known key")
        if header.get("alg") not in self.algorithms:
            raise jwt.InvalidAlgorithmError("the token's algorithm is not accepted")
        claims = jwt.decode(
            token, key.key, algorithms=[header["alg"]], audience=self.audience, issuer=self.issuer, leeway=LEEWAY,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )  # fmt: skip
        return Caller.of(f"{claims['sub']}"[:128], self._scopes(claims), _models(claims)), float(claims["exp"])

    def _scopes(self, claims: Mapping[str, Any]) -> Iterable[str]:
        given = claims.get("scope", claims.get("scp", ""))
        words = given.split() if isinstance(given, str) else [w for w in given if isinstance(w, str)]
        return [s for s in SCOPES if self.prefix + s in words]


def _models(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """The claim ``fastinfer_models`` narrows the models; a wrong one allows none."""
    given = claims.get("fastinfer_models", ["*"])
    return tuple(given) if isinstance(given, list) and all(isinstance(m, str) for m in given) else ()
