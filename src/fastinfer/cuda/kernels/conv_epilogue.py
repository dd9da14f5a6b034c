# SPDX-License-Identifier: Apache-2.0
"""The end of a convolution, act(y + bias + residual) or act(y + bias) + residual, in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl

from fastinfer.cuda.kernels.gemm_epilogue import ACTIVATIONS, activate


@dataclass(frozen=True)
class Epilogue:
    """residual: "" (none), "before" the activation or "after" it."""

    bias: bool = False
    residual: str = ""
    activation: str = ""
    alpha: float = 0.0
    beta: float = 0.0


def epilogue_of(attr: Callable[[str, Any], Any], bias: bool, residual: bool) -> Epilogue:
    """From a fused node's attributes. Raises KeyError for an activation that is not in the table."""
    name = attr("activation", "")
    alpha, beta = ACTIVATIONS[name]
    where = ("after" if attr("residual_after", 0) else "before") if residual else ""
    return Epilogue(bias, where, name, float(attr("activation_alpha", alpha)), float(attr("activation_beta", beta)))


@triton.jit
def finish(acc, b_ptr, r_ptr, columns, offsets, mask, alpha, beta, BIAS: tl.constexpr, RES: tl.constexpr, ACT: tl.constexpr):  # fmt: skip
    """acc: float32 [rows, columns]; columns: indices into the bias (in range wherever mask holds in some row); offsets, mask:
    of the residual's elements."""
    if BIAS:
        acc += tl.load(b_ptr + columns).to(tl.float32)[None, :]
    if RES == "before":
        acc += tl.load(r_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    acc = activate(acc, alpha, beta, ACT)
    if RES == "after":
        acc += tl.load(r_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    return acc
