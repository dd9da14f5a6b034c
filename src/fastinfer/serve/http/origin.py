# SPDX-License-Identifier: Apache-2.0
"""Pages of other sites in the browser of someone who runs a server without keys: they can send requests to it, as nothing
but the address is needed. What a browser says of the page (Origin) tells them apart; other clients say nothing."""

from __future__ import annotations

import ipaddress

from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.http.body import Fields, Scope


def check(origin: bytes, fields: Fields, scope: Scope) -> None:
    """Raises ServeError (FORBIDDEN) unless the page came from this server itself. On a loopback address its name must be
    an address or localhost too: any other name may be a stranger's that was pointed here (DNS rebinding)."""
    site = origin.partition(b"://")[2].lower()
    own = site == fields.get(b"host", b"").lower() and site != b""
    if not own or (_loopback((scope.get("server") or ("",))[0]) and not _local(site.decode("latin-1"))):
        raise ServeError(Kind.FORBIDDEN, "pages of other sites may not use a server that asks for no keys")


def _local(site: str) -> bool:
    name = site.rpartition("]")[0][1:] if site.startswith("[") else site.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:  # a Unix socket, or an ASGI server that does not say
        return False
