# SPDX-License-Identifier: Apache-2.0
"""Shapes of attention, for tests and benchmarks alike."""

from kernels.case import Case, T

# name → (batch, heads, key heads, query positions, key positions, head size, causal)
MODELS = {
    "minilm_32": (1, 12, 12, 32, 32, 32, False),
    "bert_128": (1, 12, 12, 128, 128, 64, False),
    "vit_197": (1, 12, 12, 197, 197, 64, False),
    "gpt2_64": (1, 12, 12, 64, 64, 64, True),
    "swin_49": (64, 3, 3, 49, 49, 32, False),
    "sd_1024": (1, 8, 8, 1024, 1024, 80, False),
    "decode_1024": (1, 12, 12, 1, 1024, 64, False),
    "llama_decode_1024": (1, 32, 8, 1, 1024, 128, False),
}

# The same, for tests: a single row, the row form and the block form, rows and keys around every block size, odd head
# sizes, groups, no keys, no rows.
EDGES = [
    (1, 1, 1, 1, 1, 1, False),
    (2, 3, 3, 1, 7, 5, False),
    (1, 2, 2, 3, 130, 33, False),
    (2, 4, 2, 2, 128, 64, True),
    (1, 2, 2, 5, 9, 17, True),
    (2, 2, 1, 16, 129, 16, False),
    (1, 1, 1, 63, 65, 31, True),
    (1, 2, 2, 64, 127, 80, False),
    (1, 2, 2, 65, 300, 96, True),
    (1, 3, 1, 37, 40, 130, False),
    (1, 1, 1, 197, 197, 64, False),
    (1, 2, 2, 100, 257, 47, True),
    (1, 1, 1, 20, 3, 8, False),
    (2, 2, 2, 7, 0, 8, False),
    (2, 2, 2, 1, 0, 8, False),
    (2, 2, 2, 0, 8, 8, False),
    (0, 2, 2, 4, 8, 8, False),
]


def _attention(
    batch: int, heads: int, key_heads: int, rows: int, keys: int, size: int, causal: bool, **attributes: object
) -> Case:
    q, kv = T((batch, rows, heads, size)), T((batch, keys, key_heads, size))
    layouts = {f"{x}_layout": "BSNH" for x in "qkvo"}
    return Case(
        "Attention", (q, kv, kv), {**layouts, "scale": size**-0.5, "causal": int(causal), **attributes}, "fastinfer"
    )


def _rotary(batch: int, heads: int, positions: int, size: int) -> Case:
    cache = T((batch, positions, size // 2))
    return Case("RotaryEmbedding", (T((batch, heads, positions, size)), cache, cache))


# What benchmarks/kernels.py times.
CASES = {
    **{name: _attention(*shape) for name, shape in MODELS.items()},
    **{f"bf16_{name}": _attention(*shape, precision="bf16") for name, shape in MODELS.items()},
    "rotary_llama_128": _rotary(1, 32, 128, 128),
}
