# SPDX-License-Identifier: Apache-2.0
"""What the HTTP wire asks of system shared memory; fastinfer.serve.shm.Regions is it. Every method raises ServeError."""

from __future__ import annotations

from typing import Any, NoReturn, Protocol

from fastinfer.serve.errors import Kind, ServeError


class Regions(Protocol):
    def status(self, name: str = "") -> list[dict[str, Any]]:
        """[{"name", "key", "offset", "byte_size"}], of all regions if name is empty."""
        ...

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None: ...

    def unregister(self, name: str = "") -> None:
        """All regions if name is empty."""
        ...

    def read(self, name: str, offset: int, size: int) -> bytes: ...

    def write(self, name: str, offset: int, data: bytes | memoryview) -> None: ...


class NoRegions:
    """Shared memory that this server does not offer: there are no regions, so their list is empty and all of them can be
    unregistered (which clients do before they start); what needs a region is refused."""

    def __init__(self, what: str) -> None:
        self._what = what

    def status(self, name: str = "") -> list[dict[str, Any]]:
        return self._refuse() if name else []

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        self._refuse()

    def unregister(self, name: str = "") -> None:
        if name:
            self._refuse()

    def read(self, name: str, offset: int, size: int) -> bytes:
        return self._refuse()

    def write(self, name: str, offset: int, data: bytes | memoryview) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ServeError(Kind.UNSUPPORTED, self._what)


SYSTEM_OFF = NoRegions("system shared memory is switched off on this server")
CUDA_OFF = NoRegions("this server takes no CUDA shared memory")
