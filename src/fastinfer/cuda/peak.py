# SPDX-License-Identifier: Apache-2.0
"""What a device gives, measured: the ceilings that reports and `fastinfer bench` and `profile` hold figures against."""

from __future__ import annotations

import contextlib
import functools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch

from fastinfer.cuda.device import Device
from fastinfer.cuda.precision import Precision
from fastinfer.errors import FastinferError

SIZE = 8192  # of the product: 3 · 8192² operands in bfloat16 are 400 MB, far more than any L2
COPIED = 1 << 30  # bytes
ROUNDS = 5


@functools.lru_cache(maxsize=16)
def measure_peak(device: Device, precision: Precision) -> dict[str, Any]:
    """gflops: of torch's product of two random 8192 x 8192 matrices, as the precision computes products; read_gbs: bytes read
    and written by a copy of 1 GB, in GB/s. Medians of 5; needs 3 GB. Raises FastinferError where
    these are not free."""
    size, copied = (SIZE, COPIED) if device.graphs else (32, 64)
    try:
        with torch.no_grad(), _tf32(precision.products == "tf32"):
            product = _median(_product(size, device.torch, precision), device)
            source, target = (torch.empty(copied, dtype=torch.uint8, device=device.torch) for _ in range(2))
            copy = _median(lambda: target.copy_(source), device)
    except torch.cuda.OutOfMemoryError:
        raise FastinferError("the device has not the 3 GB free that measuring its peak takes") from None
    return {
        "threads": 1, "gflops": 2e-9 * size**3 / product, "read_gbs": 2e-9 * copied / copy,
        "by": f"torch's product of {size} x {size} matrices in {precision.name}",
    }  # fmt: skip


def _product(n: int, device: torch.device, precision: Precision) -> Callable[[], object]:
    a, b = (torch.randn(n, n, device=device) for _ in range(2))
    if precision.products == "int8":
        i, j = (t.mul(32).clamp(-127, 127).to(torch.int8) for t in (a, b))
        return lambda: torch._int_mm(i, j.t())
    if precision.products == "fp8":
        e, f, one = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t(), torch.ones((), device=device)
        return lambda: torch._scaled_mm(e, f, one, one, out_dtype=torch.bfloat16)
    a, b = a.to(precision.storage), b.to(precision.storage)
    return lambda: a @ b


def _median(work: Callable[[], object], device: Device) -> float:
    """Seconds."""
    work()
    if not device.graphs:  # only so that what is written here has run somewhere
        return 1.0
    times = []
    for _ in range(ROUNDS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.device(device.torch):
            begin.record()
            work()
            end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e-3)
    return statistics.median(times)


@contextlib.contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """torch's own switch, put back afterwards."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
