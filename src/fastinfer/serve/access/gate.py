# SPDX-License-Identifier: Apache-2.0
"""The gate in front of everything: credentials in, a Caller out. It says who it is; each route and call then says which
scope it needs (Caller.check), and has no way not to."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence

import jwt

from fastinfer.errors import InputError
from fastinfer.serve.access.caller import ANYONE, Caller
from fastinfer.serve.access.keys import KeyFile
from fastinfer.serve.access.rates import Rates
from fastinfer.serve.access.tokens import MAX_TOKEN, Issuer
from fastinfer.serve.errors import Kind, ServeError

log = logging.getLogger("fastinfer.serve.access")

# Tokens are checked once and remembered for this long at most: a signature takes 50-100 µs.
REMEMBER = 60.0
REMEMBERED = 4096


class Gate:
    """keys and issuers: where callers come from; with neither, everyone is ANYONE. public: scopes of those who show nothing
    (health checks need none)."""

    def __init__(
        self,
        keys: Sequence[KeyFile] = (),
        issuers: Sequence[Issuer] = (),
        public: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = list(keys)
        self._issuers = list(issuers)
        self._public = Caller("", public) if public else None
        self._clock = clock
        self._rates = Rates()
        self._seen: dict[bytes, tuple[float, Caller]] = {}  # by the token's digest

    @property
    def open(self) -> bool:
        """Whether everyone may do everything."""
        return not self._keys and not self._issuers

    def admit(self, authorization: Sequence[str] = (), api_key: Sequence[str] = ()) -> Caller:
        """authorization, api_key: all values of these headers. Raises ServeError: UNAUTHENTICATED, RATE."""
        if self.open:
            return ANYONE
        if not authorization and not api_key:
            if self._public is None:
                raise ServeError(Kind.UNAUTHENTICATED, "credentials are needed: Authorization: Bearer, or X-API-Key")
            return self._public
        if len(authorization) + len(api_key) > 1:
            raise ServeError(Kind.UNAUTHENTICATED, "credentials were given more than once")
        caller = self._key(api_key[0]) if api_key else self._bearer(authorization[0])
        if caller is None:
            raise ServeError(Kind.UNAUTHENTICATED, "the credentials are not valid")
        self._rates.check(caller, time.monotonic())
        return caller

    def _key(self, key: str) -> Caller | None:
        now = self._clock()
        return next((c for k in self._keys if (c := k.find(key, now)) is not None), None)

    def _bearer(self, value: str) -> Caller | None:
        scheme, _, token = value.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN:
            return None
        return self._key(token) or self._token(token)

    def _token(self, token: str) -> Caller | None:
        now = self._clock()
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        until, caller = self._seen.get(digest, (0.0, None))
        if caller is not None and now < until:
            return caller
        for issuer in self._issuers:
            try:
                caller, expires = issuer.caller(token)
            except (jwt.PyJWTError, InputError, ValueError, TypeError, KeyError) as e:
                log.info("a token was refused for issuer %r: %s", issuer.issuer, type(e).__name__)
                continue
            if len(self._seen) >= REMEMBERED:
                self._seen.clear()
            self._seen[digest] = min(now + REMEMBER, expires), caller
            return caller
        return None

    def reload(self) -> list[str]:
        """Reads changed files again; what is wrong with those that could not be read (their old content stays)."""
        wrong = []
        sources: list[KeyFile | Issuer] = [*self._keys, *self._issuers]
        for source in sources:
            try:
                if source.reload():
                    self._seen.clear()
            except InputError as e:
                wrong.append(str(e))
        return wrong
