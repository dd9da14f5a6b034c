# SPDX-License-Identifier: Apache-2.0
"""Matrix products: square ones and those of real models, half, int8, fp8, and weights of 4 and 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import NodeProto, helper

from gpu.ceilings import Ceilings
from gpu.layers import model_of, step_of
from gpu.timing import CUDA, DEVICE, SMALL, Job, Work, race, relative

SQUARE = [(4096, 4096, 4096), (8192, 8192, 8192)]
# (m, n, k): rows of BERT-base, ViT-B/16, Swin-T and MiniLM at batch 1 and 32, and a ResNet-50 head.
REAL = [
    (128, 768, 768), (128, 3072, 768), (128, 768, 3072), (4096, 768, 768), (4096, 3072, 768), (4096, 768, 3072),
    (6304, 2304, 768), (1024, 1536, 384), (32, 384, 384), (32, 1000, 2048),
]  # fmt: skip
DECODE = [(m, n, n) for n in (4096, 8192) for m in (1, 4, 16)]
TINY = [(16, 32, 64), (3, 48, 32)]


def jobs(roof: Ceilings, tune: bool) -> Iterator[Job]:
    for shape in TINY if SMALL else SQUARE + REAL:
        yield f"bf16 product {shape}", lambda s=shape: _half(*s, roof, tune)
    for shape in TINY[:1] if SMALL else REAL:
        for kind in ("int8", "fp8"):
            yield f"{kind} product {shape}", lambda s=shape, p=kind: _quantized(*s, p, roof, tune)
    for shape in [(1, 64, 64)] if SMALL else DECODE:
        for bits in (4, 8):
            yield f"W{bits}A16 {shape}", lambda s=shape, b=bits: _few_bits(*s, b, roof, tune)


@dataclass(frozen=True)
class Layer:
    """A product as a model: nodes from x and constants to y."""

    nodes: list[NodeProto]
    x: np.ndarray
    constants: dict[str, np.ndarray]
    precision: str


def layers(real: bool = not SMALL) -> Iterator[Layer]:
    """All that run() times, or the small ones."""
    for shape in SQUARE + REAL if real else TINY:
        yield half_layer(*shape)
    for shape in REAL if real else TINY[:1]:
        yield from (eight_layer(*shape, precision) for precision in ("int8", "fp8"))
    for shape in DECODE if real else [(1, 64, 64)]:
        yield from (few_bits_layer(*shape, bits) for bits in (4, 8))


def half_layer(m: int, n: int, k: int) -> Layer:
    x, w, b = _operands(m, n, k)
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    return Layer(nodes, x, {"w": w, "b": b}, "bf16")


def eight_layer(m: int, n: int, k: int, precision: str) -> Layer:
    x, w, _ = _operands(m, n, k)
    return Layer([helper.make_node("MatMul", ["x", "w"], ["y"])], x, {"w": w}, precision)


def few_bits_layer(m: int, n: int, k: int, bits: int) -> Layer:
    """Groups of 128 (32 in the small run)."""
    rng, block = np.random.default_rng(0), 128 if k >= 128 else 32
    x = rng.standard_normal((m, k), np.float32)
    packed = rng.integers(0, 256, (n, k // block, block * bits // 8), dtype=np.uint8)
    scales = (rng.random((n, k // block), np.float32) + 0.5) / 2 ** (bits + 2)
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=k, N=n, bits=bits, block_size=block
    )
    return Layer([node], x, {"w": packed, "s": scales}, "bf16")


def _operands(m: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(m * 7 + n * 3 + k)
    x = rng.standard_normal((m, k), np.float32)
    return x, (rng.standard_normal((k, n), np.float32) / k**0.5), rng.standard_normal(n, np.float32)


def _step(layer: Layer, op: str, tune: bool) -> tuple[Work, str, torch.Tensor]:
    return step_of(model_of(layer.nodes, layer.x.shape, layer.constants, layer.precision, tune), layer.x, op)


def _row(what: str, shape: tuple[int, ...], kernel: str, times: dict[str, float], ours: torch.Tensor, exact: torch.Tensor,
         ceiling: float) -> dict[str, Any]:  # fmt: skip
    """ceiling: seconds that the device needs at least."""
    peers = {k: v for k, v in times.items() if k != "ours"}
    row = {"what": what, "shape": shape, "kernel": kernel, "error": relative(ours, exact), "times": times}
    if "ours" in times:
        row["share of ceiling"] = ceiling / times["ours"]
        if peers:
            row["peer / ours"] = min(peers.values()) / times["ours"]
    print(row, flush=True)
    return row


def _half(m: int, n: int, k: int, ceilings: Ceilings, tune: bool) -> dict[str, Any]:
    """bfloat16 with bias and ReLU: cuBLASLt with its own epilogue, and with a separate one."""
    layer = half_layer(m, n, k)
    x, w, b = layer.x, layer.constants["w"], layer.constants["b"]
    ours, kernel, result = _step(layer, "MatMul", tune)
    a, bt, bias = (torch.from_numpy(t).to(DEVICE).bfloat16() for t in (x, w, b))
    contenders = {"ours": ours, "addmm + relu": lambda: torch.addmm(bias, a, bt).relu_()}
    if CUDA:
        contenders["cublasLt epilogue"] = lambda: torch._addmm_activation(bias, a, bt)
    floor = ceilings.floor(2.0 * m * n * k, "bf16", 2.0 * (m * k + k * n + m * n))
    exact = (torch.from_numpy(x).double() @ torch.from_numpy(w).double() + torch.from_numpy(b).double()).relu()
    return _row("bf16 product + bias + relu", (m, n, k), kernel, race(contenders), result, exact, floor)


def _quantized(m: int, n: int, k: int, precision: str, ceilings: Ceilings, tune: bool) -> dict[str, Any]:
    """Against torch's bare product of operands that are quantised already: ours quantises the activations too."""
    layer = eight_layer(m, n, k, precision)
    x, w = layer.x, layer.constants["w"]
    ours, kernel, result = _step(layer, "MatMul", tune)
    a, b = torch.from_numpy(x).to(DEVICE), torch.from_numpy(w).to(DEVICE)
    contenders = {"ours": ours}
    if precision == "int8":
        small = (a * 40).to(torch.int8), (b.t().contiguous() * 40).to(torch.int8).t()
        if m > 16:
            contenders["_int_mm"] = lambda: torch._int_mm(*small)
    else:
        tiny = a.to(torch.float8_e4m3fn), b.t().contiguous().to(torch.float8_e4m3fn).t()
        one = torch.ones((), device=DEVICE)
        for name, fast in (("_scaled_mm", False), ("_scaled_mm, fast sums", True)):
            contenders[name] = lambda fast=fast: torch._scaled_mm(
                *tiny, one, one, out_dtype=torch.bfloat16, use_fast_accum=fast
            )
    exact = torch.from_numpy(x).double() @ torch.from_numpy(w).double()
    floor = ceilings.floor(2.0 * m * n * k, precision, 2.0 * m * k + k * n + 2.0 * m * n)
    return _row(f"{precision} product", (m, n, k), kernel, race(contenders), result, exact, floor)


def _few_bits(m: int, n: int, k: int, bits: int, ceilings: Ceilings, tune: bool) -> dict[str, Any]:
    """W4A16, W8A16: the floor is reading the weights once."""
    layer = few_bits_layer(m, n, k, bits)
    x, packed, scales = layer.x, layer.constants["w"], layer.constants["s"]
    block = 8 // bits * packed.shape[-1]
    ours, kernel, result = _step(layer, "MatMulNBits", tune)
    fields = np.stack([packed & 15, packed >> 4], -1) if bits == 4 else packed
    digits = fields.reshape(n, k // block, block).astype(np.float64) - 2 ** (bits - 1)
    dense = torch.from_numpy((digits * scales[..., None]).reshape(n, k))
    a, w = torch.from_numpy(x).to(DEVICE).bfloat16(), dense.to(DEVICE, torch.bfloat16).t()
    contenders = {"ours": ours, "bf16 weights, torch": lambda: a @ w}
    exact = torch.from_numpy(x).double() @ dense.t()
    floor = (n * k * bits / 8 + 4 * n * k / block + 2 * m * (n + k)) / ceilings.bytes
    return _row(f"W{bits}A16", (m, n, k), kernel, race(contenders), result, exact, floor)
