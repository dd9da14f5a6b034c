# SPDX-License-Identifier: Apache-2.0
"""Where tensors are and kernels run: a CUDA device, or, with FASTINFER_CUDA=interpret, the CPU with interpreted kernels."""

from __future__ import annotations

import functools
import os
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from fastinfer.errors import UnsupportedError

# Tests run every kernel without a GPU so: Triton's interpreter on CPU tensors, no graphs, no streams.
ON_CPU = os.environ.get("FASTINFER_CUDA") == "interpret"
if ON_CPU:
    os.environ["TRITON_INTERPRET"] = "1"  # triton reads it when kernels are decorated
INTERPRET = os.environ.get("TRITON_INTERPRET", "0") == "1"  # on whichever device

# One capture at a time in a process, and no wait for the whole device during one: CUDA forbids both.
CAPTURES = threading.RLock()


@dataclass(frozen=True)
class Device:
    """name: as the driver says it; capability: 90 for Hopper; shared: bytes of shared memory that a block may ask for; l2:
    bytes; memory: bytes."""

    torch: torch.device
    name: str
    capability: int
    multiprocessors: int
    shared: int
    l2: int
    memory: int

    @property
    def graphs(self) -> bool:
        return self.torch.type == "cuda"

    def here(self) -> AbstractContextManager[Any]:
        """Within, it is the current device: triton launches there, whatever its operands say."""
        return torch.cuda.device(self.torch) if self.graphs else nullcontext()


# What kernels are compiled and configured for where there is no device: an H200.
H200 = ("NVIDIA H200", 90, 132, 227 << 10, 60 << 20, 141 << 30)


def give_back() -> None:
    """What torch keeps of freed memory, pinned memory of the host too, goes back to the driver, for other processes."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
        getattr(torch._C, "_host_emptyCache", lambda: None)()


@functools.lru_cache(maxsize=16)
def open_device(name: str) -> Device:
    """name: "cuda" or "cuda:1". Raises UnsupportedError saying what is missing."""
    if ON_CPU:
        return Device(torch.device("cpu"), "Triton's interpreter", *H200[1:])
    if not torch.cuda.is_available():
        why = "this torch was built without CUDA" if torch.version.cuda is None else "torch sees no CUDA device"
        raise UnsupportedError(f"device='{name}': {why}; needed: an NVIDIA GPU, its driver, and a CUDA build of torch")
    try:
        device = torch.device(name)
        properties = torch.cuda.get_device_properties(device)
    except (RuntimeError, AssertionError, ValueError) as e:
        raise UnsupportedError(
            f"device='{name}': {e}; this machine has cuda:0 to cuda:{torch.cuda.device_count() - 1}"
        ) from None
    capability = 10 * properties.major + properties.minor
    if capability < 80:
        raise UnsupportedError(
            f"device='{name}' is a {properties.name} of compute capability {capability / 10}; needed: 8.0"
        )
    index = torch.cuda.current_device() if device.index is None else device.index
    shared = getattr(properties, "shared_memory_per_block_optin", 99 << 10)
    return Device(
        torch.device("cuda", index), properties.name, capability, properties.multi_processor_count, shared,
        getattr(properties, "L2_cache_size", 0), properties.total_memory,
    )  # fmt: skip
