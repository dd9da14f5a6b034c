# SPDX-License-Identifier: Apache-2.0
"""Triton's interpreter cuts bits off where it makes bfloat16 of float32, and its rounding to nearest does not carry into the
exponent. A GPU rounds to nearest even, and to the largest number of 8 bits: torch's conversions do so here."""

import numpy as np
import torch

BITS = {
    "fp16": (np.int16, torch.float16), "bf16": (np.int16, torch.bfloat16), "fp32": (np.int32, torch.float32),
    "fp64": (np.int64, torch.float64), "fp8e4nv": (np.int8, torch.float8_e4m3fn), "fp8e5": (np.int8, torch.float8_e5m2),
}  # fmt: skip


def install():
    from triton.runtime import interpreter

    cut = interpreter._convert_float
    if getattr(cut, "rounds", False):
        return

    def convert(data, source, target, mode):
        toward_zero = mode == interpreter._ir.ROUNDING_MODE.RTZ
        if toward_zero or source.name not in BITS or target.name not in BITS:
            return cut(data, source, target, mode)
        given, dtype = BITS[source.name]
        bits, made = BITS[target.name]
        x = torch.from_numpy(np.array(data, order="C").reshape(-1).view(given)).view(dtype)
        if made.itemsize == 1:
            x = x.float().clamp(torch.finfo(made).min, torch.finfo(made).max)
        return (
            x.to(made)
            .view(torch.from_numpy(np.empty(0, bits)).dtype)
            .numpy()
            .view(f"u{bits().itemsize}")
            .reshape(data.shape)
        )

    convert.rounds = True
    interpreter._convert_float = convert
