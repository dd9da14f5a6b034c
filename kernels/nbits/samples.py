# SPDX-License-Identifier: Apache-2.0
"""Weights of 4 and 8 bits, for tests and benchmarks alike."""

from kernels.case import Case, T, W


def _nbits(m: int, k: int, n: int, level: int = 0, bits: int = 4) -> Case:
    blocks = -(-k // 32)
    packed = T((n, blocks, 4 * bits), "uint8", constant=True)
    attributes = {"K": k, "N": n, "bits": bits, "block_size": 32, "accuracy_level": level}
    return Case("MatMulNBits", (T((m, k)), packed, W(n * blocks, scale=0.1)), attributes, "com.microsoft")


CASES = {
    f"{name}_{form}": _nbits(*shape, level)
    for name, shape in {"decode": (1, 2048, 2048), "decode_up": (1, 768, 3072), "bert_up": (128, 768, 3072)}.items()
    for form, level in {"f32": 0, "s8": 4}.items()
} | {
    "odd_f32": _nbits(3, 77, 37),
    "odd_s8": _nbits(3, 77, 37, 4),
    "bytes_s8": _nbits(9, 96, 130, 4, 8),
}
