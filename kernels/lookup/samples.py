# SPDX-License-Identifier: Apache-2.0
"""Functions of one byte, for tests and benchmarks alike."""

import numpy as np

from kernels.case import Case, T, const


def _silu(*shape: int) -> Case:
    """sigmoid(dequantize(x)), quantized again, as QDQ models have it."""
    scale, zero = const(np.float32(0.05), "float32"), const(np.float32(120), "float32")
    attributes = {
        "ops": ["sub", "mul", "silu", "quantize"],
        "args": [0, 2, -1, 3, 1, -1, 4, -1, -1, 5, 1, 2],
        "outputs": [3],
        "output_type": 2,
    }
    return Case("Pointwise", (T(shape, "uint8"), scale, zero), attributes, "fastinfer")


CASES = {"silu_80x80x64": _silu(1, 80, 80, 64), "silu_odd": _silu(3, 5, 7)}
