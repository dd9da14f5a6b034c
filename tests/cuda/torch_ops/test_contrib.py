# SPDX-License-Identifier: Apache-2.0
"""com.microsoft's operators by torch against the CPU engine, one node each."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastinfer.cuda.host_node import HostNode
from fastinfer.cuda.torch_ops import Call, find

RNG = np.random.default_rng(7)


def f(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def u8(*shape):
    return RNG.integers(0, 256, shape).astype(np.uint8)


def s8(*shape):
    return RNG.integers(-128, 128, shape).astype(np.int8)


def one(value, dtype=np.float32):
    return np.array(value, dtype)


I32, S, Z = np.int32, one(0.05), one(120, np.uint8)
Q = [u8(3, 8), S, Z]
HEADS = {"num_heads": 2}
QKV = [f(2, 4, 8), f(2, 4, 8), f(2, 4, 8)]
CASES = {
    "Gelu": ("Gelu", [f(3, 5)], {}, 1),
    "BiasGelu": ("BiasGelu", [f(3, 5), f(5)], {}, 1),
    "FastGelu": ("FastGelu", [f(3, 5), f(5)], {}, 1),
    "QuickGelu": ("QuickGelu", [f(3, 5)], {"alpha": 1.5}, 1),
    "FusedMatMul": ("FusedMatMul", [f(2, 4, 3), f(2, 5, 4)], {"transA": 1, "transB": 1, "alpha": 0.5}, 1),
    "MatMulNBits": ("MatMulNBits", [f(3, 40), u8(5, 3, 8), f(15)], {"K": 40, "N": 5, "bits": 4, "block_size": 16}, 1),
    "MatMulNBits-zeros": (
        "MatMulNBits", [f(3, 32), u8(5, 2, 16), f(10), u8(5, 2)], {"K": 32, "N": 5, "bits": 8, "block_size": 16}, 1,
    ),
    "MatMulNBits-4-zeros": (
        "MatMulNBits", [f(3, 48), u8(5, 3, 8), f(15), u8(10)], {"K": 48, "N": 5, "bits": 4, "block_size": 16}, 1,
    ),
    "MatMulIntegerToFloat": (
        "MatMulIntegerToFloat", [u8(3, 8), s8(8, 4), S, abs(f(4)), Z, s8(4), f(4)], {}, 1,
    ),
    "DynamicQuantizeMatMul": ("DynamicQuantizeMatMul", [f(3, 8), s8(8, 4), abs(f(4)), s8(4), f(4)], {}, 1),
    "QLinearAdd": ("QLinearAdd", [*Q, u8(8), one(0.02), Z, one(0.1), Z], {}, 1),
    "QLinearMul": ("QLinearMul", [*Q, u8(3, 8), one(0.02), Z, one(0.1), Z], {}, 1),
    "QLinearSigmoid": ("QLinearSigmoid", [*Q, one(1 / 256), one(0, np.uint8)], {}, 1),
    "QLinearLeakyRelu": ("QLinearLeakyRelu", [*Q, one(0.04), Z], {"alpha": 0.1}, 1),
    "QLinearSoftmax": ("QLinearSoftmax", [*Q, one(1 / 256), one(0, np.uint8)], {"axis": 1, "opset": 13}, 1),
    "QLinearConcat": ("QLinearConcat", [one(0.1), Z, *Q, u8(3, 8), one(0.2), Z], {"axis": 0}, 1),
    "SkipLayerNormalization": ("SkipLayerNormalization", [f(2, 3, 8), f(2, 3, 8), f(8), f(8), f(8)], {"epsilon": 1e-5}, 1),
    "SkipSimplified": ("SkipSimplifiedLayerNormalization", [f(2, 3, 8), f(2, 3, 8), f(8), f(8)], {"epsilon": 1e-5}, 1),
    "EmbedLayerNormalization": (
        "EmbedLayerNormalization",
        [RNG.integers(0, 9, (2, 4)).astype(I32), RNG.integers(0, 2, (2, 4)).astype(I32), f(9, 8), f(6, 8), f(2, 8), f(8), f(8)],
        {"epsilon": 1e-5}, 1,
    ),
    "RotaryEmbedding": (
        "RotaryEmbedding", [f(2, 4, 8), np.arange(8).reshape(2, 4) % 4, f(6, 2), f(6, 2)], {"num_heads": 2}, 1,
    ),
    "RotaryEmbedding-offset": ("RotaryEmbedding", [f(2, 4, 8), np.array([1]), f(6, 2), f(6, 2)], {"interleaved": 1}, 1),
    "MultiHeadAttention": ("MultiHeadAttention", [*QKV, f(24), np.array([3, 4], I32)], HEADS, 1),
    "MultiHeadAttention-past": (
        "MultiHeadAttention", [*QKV, None, None, f(1, 2, 4, 6), f(2, 2, 2, 4), f(2, 2, 2, 4)],
        {**HEADS, "unidirectional": 1}, 3,
    ),
    "MultiHeadAttention-packed": ("MultiHeadAttention", [f(2, 4, 2, 3, 5)], {**HEADS, "scale": 0.3}, 1),
    "MultiHeadAttention-cross": ("MultiHeadAttention", [f(2, 4, 8), f(2, 2, 5, 4), f(2, 2, 5, 4)], HEADS, 1),
    "Attention": ("Attention", [f(2, 4, 6), f(6, 24), f(24), np.array([[1, 1, 0, 1], [1, 0, 0, 1]], I32)], HEADS, 1),
    "Attention-past": ("Attention", [f(2, 3, 6), f(6, 24), f(24), None, f(2, 2, 2, 2, 4)], {**HEADS, "unidirectional": 1}, 2),
    "Attention-ends": ("Attention", [f(2, 4, 6), f(6, 24), f(24), np.array([4, 3, 1, 0], I32)], HEADS, 1),
}  # fmt: skip
KINDS = {int: "i", float: "f", str: "s"}


@pytest.mark.parametrize("name", CASES)
def test_like_the_cpu(name):
    op, inputs, attributes, n_outputs = CASES[name]
    count = len(inputs)
    node = {
        "op": op, "domain": "com.microsoft", "name": name, "inputs": [-1 if a is None else i for i, a in enumerate(inputs)],
        "outputs": list(range(count, count + n_outputs)), "attrs": {k: [KINDS[type(v)], v] for k, v in attributes.items()},
    }  # fmt: skip
    weights = dict(enumerate(inputs[1:], 1)) if op == "MatMulNBits" else {}
    want = HostNode(node, attributes, weights)(inputs)
    run = find("com.microsoft", op)
    assert run is not None
    tensors = [None if a is None else torch.from_numpy(np.array(a)) for a in inputs]
    made = run(Call(node, tensors, [None] * count, attributes))
    got = [made] if isinstance(made, torch.Tensor) else list(made)
    for a, b in zip(got, want):
        assert a is not None and a.numpy().dtype == b.dtype and a.shape == b.shape
        # One step of a quantised result where the two round a tie differently.
        loose = {"atol": 1} if b.dtype.kind == "u" else {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(a.numpy().astype(np.float64), b.astype(np.float64), **loose)
