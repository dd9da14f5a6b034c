# SPDX-License-Identifier: Apache-2.0
"""Allocations of the pretended device, in host memory."""

from __future__ import annotations

import weakref
from typing import Any

import torch

from pretend.work import DEVICE, Capture, Queue

GUARD = 256  # bytes on either side, which nothing may write; also the alignment
GUARDED, POISON = 0xA5, 0xFF  # 0xFF: NaN as any float, -1 as an integer


class Use:
    """Bytes in use. limit: what the device has."""

    def __init__(self) -> None:
        self.limit, self.now, self.most = 1 << 30, 0, 0
        self.overruns: list[str] = []  # writes beyond an allocation


USE = Use()


class Memory:
    """An allocation, made on a stream (or for a graph). When the last tensor in it goes, it is overwritten: by the work
    that its stream runs next, which is when the allocator hands it out again."""

    def __init__(self, size: int) -> None:
        capture = DEVICE.capturing()
        if capture is None:
            DEVICE.host_allocates("memory is allocated")
        if USE.now + size > USE.limit:
            raise torch.cuda.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {size / 2**20:.2f} MiB. GPU 0 has a total capacity of "
                f"{USE.limit / 2**20:.2f} MiB of which {(USE.limit - USE.now) / 2**20:.2f} MiB is free."
            )
        room = torch.full((size + 3 * GUARD,), GUARDED, dtype=torch.uint8)
        at = GUARD + -room.data_ptr() % GUARD
        self.bytes = room[at : at + size]
        self.bytes.fill_(POISON)
        self.queue: Queue = DEVICE.current
        USE.now += size
        USE.most = max(USE.most, USE.now)
        weakref.finalize(self, _freed, room, at, size, self.queue, capture)

    def tensor(self, size: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
        whole = self.bytes[: len(self.bytes) // dtype.itemsize * dtype.itemsize].view(dtype)
        return whole.as_strided(tuple(size), tuple(stride))


def _freed(room: torch.Tensor, at: int, size: int, queue: Queue, own: Capture | None) -> None:
    def overwrite() -> None:
        ends = torch.cat([room[:at], room[at + size :]])
        if bool((ends != GUARDED).any()):
            USE.overruns.append(f"{int((ends != GUARDED).sum())} bytes next to an allocation of {size} were written")
        room[at : at + size] = POISON

    with DEVICE.lock:
        USE.now -= size
        if own is not None:  # a graph's memory is the graph's: only its own later launches get it
            if own in DEVICE.captures:
                own.launches.append(overwrite)
        elif queue.capture is not None:
            queue.capture.freed.append(overwrite)
        else:
            queue.work.append(overwrite)


PINNED: dict[int, int] = {}  # address → bytes


def pinned(size: Any, stride: Any, dtype: torch.dtype) -> torch.Tensor:
    """Page-locked memory, that is: memory known to be."""
    DEVICE.host_allocates("pinned memory is allocated")
    room = torch.empty_strided(tuple(size), tuple(stride), dtype=dtype)
    address = room.untyped_storage().data_ptr()
    PINNED[address] = room.untyped_storage().nbytes()
    weakref.finalize(room.untyped_storage(), PINNED.pop, address, None)
    return room


def is_pinned(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.untyped_storage().data_ptr() in PINNED
