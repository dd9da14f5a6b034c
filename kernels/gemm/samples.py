# SPDX-License-Identifier: Apache-2.0
"""Shapes of matrix products, for tests and benchmarks alike."""

from kernels.case import Case, T, W

# name → (m, k, n): the layers that real models spend their time in.
MODELS = {
    "bert_qkv": (128, 768, 768),
    "bert_up": (128, 768, 3072),
    "bert_down": (128, 3072, 768),
    "vit_qkv": (196, 768, 768),
    "resnet50_expand": (3136, 64, 256),
    "resnet50_reduce": (3136, 256, 64),
    "mobilenet_expand": (12544, 16, 96),
    "mobilenet_project": (12544, 32, 16),
    "minilm_up": (32, 384, 1536),
    "decode_up": (1, 768, 3072),
    "decode_large": (1, 4096, 4096),
    "mlp_784": (1, 784, 128),
}

# (m, k, n): row tails of every register tile, column tails of every vector and panel width, empty and single extents,
# K beyond the depth at which the driver cuts it.
EDGES = [
    (1, 1, 1),
    (2, 3, 5),
    (3, 7, 15),
    (4, 9, 16),
    (5, 8, 17),
    (6, 33, 31),
    (7, 12, 47),
    (11, 5, 63),
    (12, 16, 64),
    (13, 21, 65),
    (23, 40, 100),
    (25, 17, 129),
    (30, 64, 200),
    (241, 20, 33),
    (0, 4, 5),
    (4, 0, 5),
    (4, 5, 0),
    (14, 2100, 70),
]


def _matmul(m: int, k: int, n: int, **attributes: object) -> Case:
    return Case("MatMul", (T((m, k)), W(k, n)), attributes, "fastinfer")


def _integer(m: int, k: int, n: int) -> Case:
    return Case("MatMulInteger", (T((m, k), "uint8"), W(k, n, dtype="int8")))


# What benchmarks/kernels.py times.
CASES = {
    **{f"f32_{name}": _matmul(*shape) for name, shape in MODELS.items()},
    **{f"bf16_{name}": _matmul(*shape, precision="bf16") for name, shape in MODELS.items()},
    **{f"u8s8_{name}": _integer(*shape) for name, shape in MODELS.items()},
    "f64_bert_qkv": Case("MatMul", (T((128, 768), "float64"), W(768, 768, dtype="float64"))),
}
