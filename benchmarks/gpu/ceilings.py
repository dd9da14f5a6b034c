# SPDX-License-Identifier: Apache-2.0
"""What this device can do, measured in this very run: bytes per second of a large copy, operations per second of a large
product on random data."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gpu.timing import DEVICE, SMALL, race


@dataclass(frozen=True)
class Ceilings:
    """bytes, and operations of bfloat16, float32 (ieee), float8 and int8, per second; 0: not there."""

    bytes: float
    bf16: float
    fp32: float
    fp8: float
    int8: float

    def floor(self, operations: float, kind: str, moved: float) -> float:
        """Seconds that so many operations of a kind, or moving so many bytes, take at least; 0 where the kind is not there."""
        rate = getattr(self, kind)
        return max(operations / rate, moved / self.bytes) if rate else 0.0


def measure() -> Ceilings:
    size = (1 << 20) if SMALL else (4 << 30)
    source, target = (torch.empty(size, dtype=torch.uint8, device=DEVICE) for _ in range(2))
    copied = race({"copy": lambda: target.copy_(source)})["copy"]
    n = 64 if SMALL else 8192
    a, b = (torch.randn(n, n, device=DEVICE) for _ in range(2))
    half = a.bfloat16(), b.bfloat16()
    one = torch.ones((), device=DEVICE)
    small = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t().contiguous().t()
    torch.backends.cuda.matmul.allow_tf32 = False
    tiny = (a * 40).to(torch.int8), (b * 40).to(torch.int8).t().contiguous().t()
    times = race({
        "bf16": lambda: half[0] @ half[1], "fp32": lambda: a @ b,
        "fp8": lambda: torch._scaled_mm(*small, one, one, out_dtype=torch.bfloat16, use_fast_accum=True),
        "int8": lambda: torch._int_mm(*tiny),
    })  # fmt: skip
    rate = lambda name: 2 * n**3 / times[name] if name in times else 0.0  # noqa: E731
    return Ceilings(2 * size / copied, rate("bf16"), rate("fp32"), rate("fp8"), rate("int8"))
