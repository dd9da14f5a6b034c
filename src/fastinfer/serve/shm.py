# SPDX-License-Identifier: Apache-2.0
"""Regions of POSIX shared memory (/dev/shm) that clients register to hand over tensors by name. Off unless asked for.

Nothing is mapped: tensors are copied out and in with pread and pwrite, so a client that shrinks its object meanwhile makes
its own request fail, where touching a mapping would be SIGBUS for the server; and what was checked is what is used.
Reading costs 0.7 µs for 4 KiB, 33 µs for an FP32 image of 3x224x224 and 64 µs for 1 MiB; copies out of a mapping 0.2, 8
and 21 µs. Writing costs a quarter more than reading, and 1.1 µs for the check that the object still is as long as it was.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Any

from fastinfer.serve.errors import Kind, ServeError

DIRECTORY = "/dev/shm"
# Objects of ours (workers' weights), and other programs' semaphores, which are files of this directory too.
INTERNAL = ("fastinfer", "sem.")
MAX_REGIONS = 1024  # each holds a file descriptor
MAX_NAME = 256  # characters of a region's name
MAX_READ = 128 << 20  # bytes of one tensor: a sparse object of terabytes costs its owner nothing


class _Object:
    """An open shared memory object. It is closed when the last region and the last request that use it are gone."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """At once: of an object that nobody got to see."""
        os.close(self.fd)
        self.fd = -1

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


@dataclass(frozen=True, slots=True)
class Region:
    """`byte_size` bytes from `offset` of an object. A request that holds it can use it after it was unregistered."""

    name: str
    key: str
    offset: int
    byte_size: int
    _object: _Object

    def _check(self, offset: int, size: int) -> None:
        if not (_is_size(offset) and _is_size(size) and offset + size <= self.byte_size):
            raise ServeError(
                Kind.INVALID_ARGUMENT,
                f"shared memory region {self.name!r} has {self.byte_size} bytes; "
                f"{_show(size)} at offset {_show(offset)} were asked for",
            )

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes, a copy. Raises ServeError past the end of the region, or of an object that was shrunk."""
        self._check(offset, size)
        if size > MAX_READ:
            raise ServeError(
                Kind.TOO_LARGE,
                f"{size} bytes of shared memory region {self.name!r} were asked for; at most {MAX_READ} are read",
            )
        try:
            data = os.pread(self._object.fd, size, self.offset + offset)
        except OSError as e:
            raise self._failed("read", e) from None
        if len(data) != size:
            raise self._shrunk()
        return data

    def check(self, offset: int, size: int) -> None:
        """Raises ServeError where :meth:`write` would; before work is put into what could not be written."""
        self._check(offset, size)
        # Writing past its end would make the object grow.
        if os.fstat(self._object.fd).st_size < self.offset + offset + size:
            raise self._shrunk()

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Raises ServeError past the end of the region, of an object that was shrunk, or of the memory there is."""
        left = memoryview(data).cast("B")
        self.check(offset, len(left))
        at = self.offset + offset
        while left:
            try:
                done = os.pwrite(self._object.fd, left, at)
            except OSError as e:
                raise self._failed("written", e) from None
            at += done
            left = left[done:]

    def _shrunk(self) -> ServeError:
        return ServeError(
            Kind.INVALID_ARGUMENT,
            f"the object of shared memory region {self.name!r} has become shorter than what was registered",
        )

    def _failed(self, what: str, error: OSError) -> ServeError:
        return ServeError(
            Kind.INTERNAL, f"shared memory region {self.name!r} could not be {what}: {os.strerror(error.errno or 0)}"
        )


class Regions:
    """The regions of one server, by name. prefix: what the keys of objects that clients may register begin with.

    Whoever may register can read and write, by way of a model, every object under that prefix that the server may.
    Safe to call from several threads; nothing here waits for a disk.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Names `byte_size` bytes from `offset` of the object `key` ("/name", as shm_open has it). Raises ServeError."""
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
            raise ServeError(
                Kind.INVALID_ARGUMENT, f"a shared memory region needs a name of 1 to {MAX_NAME} characters"
            )
        if not (_is_size(offset) and _is_size(byte_size) and byte_size > 0 and offset + byte_size < 1 << 63):
            raise ServeError(
                Kind.INVALID_ARGUMENT,
                f"shared memory region {name!r}: {_show(byte_size)} bytes at offset {_show(offset)} cannot be",
            )
        if len(self._regions) >= MAX_REGIONS:
            raise ServeError(Kind.UNAVAILABLE, f"{MAX_REGIONS} shared memory regions are registered; no more may be")
        shared = self._open(key)
        if shared is None:  # one text for all reasons: which other objects there are is not the client's business
            raise ServeError(
                Kind.INVALID_ARGUMENT,
                f"shared memory region {name!r}: there is no object under the given key that this server may use",
            )
        size = os.fstat(shared.fd).st_size
        if offset + byte_size > size:
            shared.close()
            raise ServeError(
                Kind.INVALID_ARGUMENT,
                f"shared memory region {name!r}: {byte_size} bytes at offset {offset} were given; the object has {size}",
            )
        region = Region(name, key, offset, byte_size, shared)
        if self._regions.setdefault(name, region) is not region:
            shared.close()
            raise ServeError(Kind.ALREADY_EXISTS, f"a shared memory region {name!r} is registered already")

    def _open(self, key: Any) -> _Object | None:
        file = key[1:] if isinstance(key, str) and key.startswith("/") else key
        if not self._allows(file):
            return None
        try:
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            shared = _Object(os.open(os.path.join(DIRECTORY, file), flags))
        except (OSError, ValueError):  # ValueError: text that no file name can hold
            return None
        status = os.fstat(shared.fd)
        # A second link may be to anybody's file.
        return shared if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 else None

    def _allows(self, file: Any) -> bool:
        return (
            isinstance(file, str) and file not in ("", ".", "..") and "/" not in file and "\0" not in file
            and not file.startswith(INTERNAL) and file.startswith(self._prefix)
        )  # fmt: skip

    def unregister(self, name: str = "") -> None:
        """Forgets a region, or all; one that is not there is no error, as clients unregister to be sure. Requests under
        way keep what they use."""
        if name:
            self._regions.pop(name, None)
        else:
            self._regions.clear()

    def status(self, name: str = "") -> list[dict[str, Any]]:
        """[{"name", "key", "offset", "byte_size"}] of one region or all. Raises ServeError for one that is not there."""
        regions = [self.get(name)] if name else list(self._regions.values())
        return [{"name": r.name, "key": r.key, "offset": r.offset, "byte_size": r.byte_size} for r in regions]

    def get(self, name: str) -> Region:
        """Raises ServeError."""
        region = self._regions.get(name)
        if region is None:
            raise ServeError(Kind.NOT_FOUND, f"no shared memory region is registered as {_show(name)}")
        return region

    def read(self, name: str, offset: int, size: int) -> bytes:
        return self.get(name).read(offset, size)

    def write(self, name: str, offset: int, data: bytes | memoryview) -> None:
        self.get(name).write(offset, data)


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0


def _show(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 128:  # Python refuses to print the longest
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}…"
