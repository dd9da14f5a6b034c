# SPDX-License-Identifier: Apache-2.0
"""What `precision=` means on the GPU: how float values are stored between steps, and how products are computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fastinfer.errors import UnsupportedError


@dataclass(frozen=True)
class Precision:
    """storage: dtype of what the graph types float32 (float16, bfloat16 and float64 stay what they are). products: "ieee"
    float32, "tf32" (10 bits of mantissa), "half" (storage's own, float32 sums), "int8" and "fp8" (both operands quantised,
    weights per output channel, activations per row as they come; layers whose weights are not constant as "half")."""

    name: str
    storage: torch.dtype
    products: str


PRECISIONS = {
    p.name: p
    for p in (
        Precision("fp32", torch.float32, "ieee"),
        Precision("tf32", torch.float32, "tf32"),
        Precision("bf16", torch.bfloat16, "half"),
        Precision("f16", torch.float16, "half"),
        Precision("int8", torch.bfloat16, "int8"),
        Precision("fp8", torch.bfloat16, "fp8"),
    )
}


def precision_of(name: str) -> Precision:
    if name not in PRECISIONS:
        raise UnsupportedError(f"precision='{name}'; device 'cuda' computes in {', '.join(map(repr, PRECISIONS))}")
    return PRECISIONS[name]
