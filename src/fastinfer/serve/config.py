# SPDX-License-Identifier: Apache-2.0
"""How a server is set up: what the command line gives, and what cannot be is refused before anything starts."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastinfer.errors import InputError
from fastinfer.serve.access import SCOPES, Gate
from fastinfer.serve.access.keys import KeyFile
from fastinfer.serve.access.tokens import Issuer
from fastinfer.serve.errors import ServeError
from fastinfer.serve.grpc.server import Tls
from fastinfer.serve.messages import Limits
from fastinfer.serve.repository.directory import Directory
from fastinfer.serve.repository.programs import ProgramCache
from fastinfer.serve.repository.signing import Trust, load_trust

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass
class Config:
    """repository: the models' directory. models: which of them, None for all. http_port, grpc_port: 0 for any free one,
    grpc_port None for no gRPC. keys: files of API keys (access/keys.py); issuer, audience, jwks: of an OIDC provider;
    public: scopes of those who show no credentials. trusted: file of the keys whose signatures versions need
    (repository/signing.py); None for no signatures. certificate, key, client_ca: PEM files, for TLS and mTLS.
    shared_memory: whether regions of /dev/shm may be registered. drain: seconds between "not ready" and taking no more
    connections, for load balancers; grace: seconds that requests under way then have.
    spin: seconds that a worker stays awake after an answer where requests come that close (http/spin.py), 0 for never; only
    while there are more cores than workers.
    upload_quota: bytes of all models that are just being pushed over HTTP (with allow_files).
    """

    repository: Path
    models: Sequence[str] | None = None
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int | None = 8001
    workers: int = 1
    cache: Path | None = None
    trusted: Path | None = None
    allow_files: bool = False
    keys: Sequence[Path] = ()
    issuer: str = ""
    audience: str = ""
    jwks: Path | None = None
    public: Sequence[str] = ()
    insecure: bool = False
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    shared_memory: bool = False
    page: bool = True
    drain: float = 0.0
    grace: float = 30.0
    limits: Limits = field(default_factory=Limits)
    connections: int = 8192
    upload_quota: int = 64 << 30
    spin: float = 200e-6

    def check(self) -> None:
        """Raises InputError."""
        self._check_repository()
        for name, value, least in (
            ("workers", self.workers, 1),
            ("connections", self.connections, 1),
            ("upload_quota", self.upload_quota, 0),
            ("spin", self.spin, 0),
            ("drain", self.drain, 0),
            ("grace", self.grace, 0),
        ):
            if not value >= least:
                raise InputError(f"{name}={value}; needed: at least {least}")
        for port in (self.http_port, self.grpc_port or 0):
            if not 0 <= port < 1 << 16:
                raise InputError(f"port {port}; needed: 0 to 65535")
        if self.workers > 1 and (self.http_port == 0 or self.grpc_port == 0):
            raise InputError("several workers need fixed ports")
        if self.http_port and self.http_port == self.grpc_port:
            raise InputError(f"HTTP and gRPC are both given port {self.http_port}; each needs one of its own")
        if self.workers > 1 and self.shared_memory:
            raise InputError("shared memory is registered with one process: it needs workers=1")
        if self.limits.body < 1:
            raise InputError(f"requests of at most {self.limits.body} bytes; needed: at least 1")
        self._check_access()

    def _check_repository(self) -> None:
        repository = Path(self.repository)
        if not repository.is_dir():
            raise InputError(f"the repository '{repository}' is not a directory")
        if not os.access(repository, os.R_OK | os.X_OK):
            raise InputError(f"the repository '{repository}' cannot be read by this user")
        if self.models:
            there = Directory(repository).names()
            if absent := [m for m in self.models if m not in there]:
                raise InputError(
                    f"the repository has no model '{absent[0]}'; it has: {', '.join(there[:20]) or 'none'}"
                )
        if self.cache is not None and Path(self.cache).exists() and not Path(self.cache).is_dir():
            raise InputError(f"the cache '{self.cache}' is not a directory")
        if self.cache is not None:  # or each worker would find out, again and again
            try:
                ProgramCache(self.cache)
            except ServeError as e:
                raise InputError(f"the cache '{self.cache}': {e}") from None

    def _check_access(self) -> None:
        if unknown := sorted(set(self.public) - set(SCOPES)):
            raise InputError(f"no scope is called {unknown[0]!r}; known: {', '.join(SCOPES)}")
        if self.public and not self.keys and not self.issuer:
            raise InputError("public scopes are what callers without keys or tokens may do, and there are neither")
        if (self.certificate is None) != (self.key is None):
            raise InputError("TLS needs both a certificate and its key")
        if self.client_ca is not None and self.certificate is None:
            raise InputError("client certificates are checked over TLS only: a certificate and key are needed")
        if (self.issuer or self.audience or self.jwks) and not (self.issuer and self.audience and self.jwks):
            raise InputError("bearer tokens need an issuer, an audience and the provider's keys (JWKS)")
        if self.host not in LOOPBACK and self.open and not self.insecure:
            raise InputError(
                f"listening on {self.host} without keys, tokens or client certificates would let everyone in; "
                "say so with --insecure if that is meant"
            )

    @property
    def open(self) -> bool:
        """Whether nobody has to say who they are."""
        return not self.keys and not self.issuer and self.client_ca is None

    def trust(self) -> Trust | None:
        """Raises InputError."""
        if self.trusted is None:
            return None
        try:
            return load_trust(self.trusted)
        except ServeError as e:
            raise InputError(f"'{self.trusted}': {e}") from None

    def gate(self) -> Gate:
        issuers = [Issuer(self.issuer, self.audience, Path(self.jwks))] if self.issuer and self.jwks else []
        return Gate([KeyFile(k) for k in self.keys], issuers, frozenset(self.public))

    def ssl(self) -> ssl.SSLContext | None:
        """For HTTP. Raises InputError."""
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            # Without a password here OpenSSL would ask the terminal for an encrypted key's.
            context.load_cert_chain(self.certificate, self.key, password="")
            if self.client_ca is not None:
                context.load_verify_locations(self.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as e:
            raise InputError(self._tls_fault(e)) from None
        return context

    def _tls_fault(self, error: OSError) -> str:
        """Which of the files it is, in words: OpenSSL names none."""
        for what, path in (("certificate", self.certificate), ("key", self.key), ("client CA", self.client_ca)):
            if path is None:
                continue
            try:
                text = Path(path).read_bytes()
            except OSError as e:
                return f"the {what} '{path}' cannot be read: {e.strerror}"
            if b"-----BEGIN " not in text:
                return f"the {what} '{path}' is not in PEM form"
            if what == "key" and b"ENCRYPTED" in text:
                return f"the key '{path}' is encrypted; needed: one without a password"
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            return f"the key '{self.key}' is not that of the certificate '{self.certificate}'"
        return f"certificate '{self.certificate}', key '{self.key}' or client CA: {error}"

    def grpc_tls(self) -> Tls | None:
        if self.certificate is None or self.key is None:
            return None
        try:
            ca = self.client_ca.read_bytes() if self.client_ca is not None else None
            return Tls(self.certificate.read_bytes(), self.key.read_bytes(), ca)
        except OSError as e:
            raise InputError(f"certificate '{self.certificate}', key or client CA: {e.strerror}") from None


@contextlib.contextmanager
def taken(what: str, host: str, port: int) -> Iterator[None]:
    """An address that cannot be listened on, as InputError."""
    try:
        yield
    except OSError as e:
        reason = {errno.EADDRINUSE: "somebody else listens there", errno.EACCES: "this user may not use the port",
                  errno.EADDRNOTAVAIL: "it is no address of this machine"}  # fmt: skip
        text = "no such host is known" if isinstance(e, socket.gaierror) else reason.get(e.errno or 0, str(e))
        raise InputError(f"{what} cannot listen on {host}, port {port}: {text}") from None
