# SPDX-License-Identifier: Apache-2.0
"""Operands of a matrix product, and what it should be in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fastinfer.cuda.device import open_device
from fastinfer.cuda.kernels import gemm
from fastinfer.cuda.kernels.quantize import quantize_weight

ERF = np.vectorize(math.erf, otypes=[float])


def _softplus(x):
    return np.logaddexp(0, x)


def _sigmoid(x):
    return np.exp(-np.logaddexp(0, -x))


ACTIVATIONS = {
    "": lambda x, a, b: x,
    "relu": lambda x, a, b: np.maximum(x, 0),
    "clip": lambda x, a, b: np.clip(x, a, b),
    "leaky_relu": lambda x, a, b: np.where(x >= 0, x, a * x),
    "sigmoid": lambda x, a, b: _sigmoid(x),
    "tanh": lambda x, a, b: np.tanh(x),
    "silu": lambda x, a, b: x * _sigmoid(x),
    "gelu": lambda x, a, b: x / 2 * (1 + ERF(x / math.sqrt(2))),
    "gelu_tanh": lambda x, a, b: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "hard_swish": lambda x, a, b: x * np.clip(x / 6 + 0.5, 0, 1),
    "hard_sigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "elu": lambda x, a, b: np.where(x >= 0, x, a * np.expm1(np.minimum(x, 0))),
    "softplus": lambda x, a, b: _softplus(x),
    "mish": lambda x, a, b: x * np.tanh(_softplus(x)),
    "quick_gelu": lambda x, a, b: x * _sigmoid(a * x),
}
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}
OPERANDS = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


@dataclass
class Case:
    """problem and its tensors in run()'s order, without c and work; expected: float64 [z, m, n]."""

    problem: gemm.Problem
    tensors: dict[str, torch.Tensor | None]
    scalars: dict[str, float]
    expected: np.ndarray
    extra: dict[str, Any] = field(default_factory=dict)

    def run(self, config: gemm.Config) -> np.ndarray:
        """What the kernel leaves in an output of NaNs, as float64 [z, m, n]."""
        p, device = self.problem, open_device("cuda").torch
        c = torch.full((p.batches, p.m, p.n), float("nan"), dtype=p.out, device=device)
        work = torch.full((gemm.workspace(p, config) // 4,), float("nan"), device=device)
        work = work.view(torch.int32) if p.products == "int8" else work
        tensors = {k: t if t is None else t.to(device) for k, t in self.tensors.items()}
        gemm.run(c=c, work=work, problem=p, config=config, **tensors, **self.scalars)
        return c.double().cpu().numpy()

    def check(self, config: gemm.Config) -> None:
        error = np.abs(self.run(config) - self.expected)
        largest = max(float(np.abs(self.expected).max(initial=0)), 1e-30)
        assert error.max(initial=0) / largest < TOLERANCE[self.problem.out], f"{config} of {self.problem}"


def make(
    m: int, n: int, k: int, dtype: torch.dtype = torch.float32, products: str = "ieee", out: torch.dtype | None = None,
    trans_a: bool = False, trans_b: bool = True, batch: tuple[int, ...] = (), same_b: bool = False, rows: int | None = None,
    bias: bool = False, residual: str = "", activation: str = "", alpha: float = 1.0, beta: float = 1.0,
    act: tuple[float, float] = (0.0, 0.0), strides: tuple[int, int] | None = None, seed: int = 0,
) -> Case:  # fmt: skip
    """Random operands. batch: extents; same_b: one b for all of the last batch axis."""
    g = torch.Generator().manual_seed(seed)
    out = out or dtype
    z = math.prod(batch)

    def rand(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=g).to(dtype)

    a = rand(z, *((k, m) if trans_a else (m, k)))
    zb = z // (batch[-1] if same_b else 1)
    b = rand(zb, *((n, k) if trans_b else (k, n)))
    axes, a_stride, b_stride = [], m * k, n * k
    for d, extent in reversed(list(enumerate(batch))):
        shared = same_b and d == len(batch) - 1
        axes.append((extent, a_stride, 0 if shared else b_stride))
        a_stride, b_stride = a_stride * extent, b_stride * (1 if shared else extent)
    r_m, r_n = strides or (n, 1)
    problem = gemm.Problem(
        m, n, k, OPERANDS.get(products, dtype), out, products, m if trans_a else k, k if trans_b else n,
        m if rows is None else rows, trans_a, trans_b, tuple(reversed(axes)), activation, bias, residual,
        (m * n if strides is None else 0, r_m, r_n) if residual else (0, 0, 0),
    )  # fmt: skip
    tensors: dict[str, torch.Tensor | None] = {"a": a, "b": b, "bias": rand(n) if bias else None, "residual": None}
    x, w = a.double(), b.double()
    if problem.quantized:
        a8, tensors["a_scale"] = quantize_weight(a[0], problem.dtype)
        b8, tensors["b_scale"] = quantize_weight(b[0], problem.dtype)
        tensors["a"], tensors["b"] = a8, b8
        x = (a8.double() * tensors["a_scale"].double()[:, None])[None]
        w = (b8.double() * tensors["b_scale"].double()[:, None])[None]
    x = x.mT if trans_a else x
    w = w.mT if trans_b else w
    w = w.repeat_interleave(batch[-1], 0) if same_b else w
    y = alpha * np.matmul(x.numpy(), w.numpy())
    r: np.ndarray | float = 0.0
    if residual:
        size = (m if r_m else 1, n if r_n else 1) if strides is not None else (z, m, n)
        tensors["residual"] = rand(*size)
        r = beta * tensors["residual"].double().numpy()
    if bias:
        y = y + tensors["bias"].double().numpy()  # type: ignore[union-attr]
    y = y + r if residual == "before" else y
    y = ACTIVATIONS[activation](y, *act)
    y = y + r if residual == "after" else y
    scalars = {"alpha": alpha, "beta": beta, "act_alpha": act[0], "act_beta": act[1]}
    return Case(problem, tensors, scalars, y)
