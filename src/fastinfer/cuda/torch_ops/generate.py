# SPDX-License-Identifier: Apache-2.0
"""Tensors from shapes and numbers: ConstantOfShape, Range, EyeLike, windows, random numbers."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fastinfer.cuda.dtypes import DTYPES, dtype_of_code, to_torch
from fastinfer.cuda.torch_ops.call import Call, TorchOp
from fastinfer.errors import UnsupportedError


def _constant_of_shape(call: Call) -> Tensor:
    value = call.attr("value")
    one = torch.zeros(1) if value is None else to_torch(np.asarray(value)).reshape(1)
    number = one.item()
    return torch.full(call.ints(0), number, dtype=one.dtype, device=call.device)


def _range(call: Call) -> Tensor:
    start, limit, delta = (call.host(i).reshape(()) for i in range(3))
    name = start.dtype.name
    if name not in DTYPES:
        raise UnsupportedError(f"Range of {name}")
    if start.dtype.kind in "iu":
        a, b, d = int(start), int(limit), int(delta)
        count = len(range(a, b, d))
        return torch.arange(a, a + count * d, d, dtype=torch.int64, device=call.device).to(DTYPES[name])
    real = [float(v) for v in (start, limit, delta)]
    count = max(math.ceil((real[1] - real[0]) / real[2]), 0)
    wide = torch.float64 if name == "float64" else torch.float32
    return (real[0] + torch.arange(count, device=call.device).to(wide) * real[2]).to(DTYPES[name])


def _eye_like(call: Call) -> Tensor:
    x, code, k = call.x(0), call.attr("dtype", 0), call.attr("k", 0)
    rows, columns = x.shape
    at = torch.arange(rows, device=x.device)[:, None] + k == torch.arange(columns, device=x.device)
    return at.to(dtype_of_code(code) if code else x.dtype)


def _cosine_window(*coefficients: float) -> TorchOp:
    """Σ (−1)^i · coefficient_i · cos(2πi·n/N), in float32; N is one less for a symmetric window."""

    def run(call: Call) -> Tensor:
        size = call.int_(0)
        period = size if call.attr("periodic", 1) else max(size - 1, 1)
        angle = torch.arange(size, device=call.device, dtype=torch.float64) * (2 * math.pi / period)
        terms = [(-1) ** i * c * torch.cos(i * angle) for i, c in enumerate(coefficients)]
        return torch.stack(terms).sum(0).to(dtype_of_code(call.attr("output_datatype", 1)))

    return run


def _generator(call: Call) -> torch.Generator | None:
    seed = call.attr("seed")
    if seed is None:
        return None
    generator = torch.Generator(call.device)
    generator.manual_seed(int(np.float32(seed).view(np.uint32)))
    return generator


def _random(normal: bool, like: bool) -> TorchOp:
    def run(call: Call) -> Tensor:
        shape = list(call.x(0).shape) if like else call.attr("shape")
        code = call.attr("dtype", 0 if like else 1)
        dtype = dtype_of_code(code) if code else call.x(0).dtype
        draw = torch.randn if normal else torch.rand
        y = draw(shape, device=call.device, generator=_generator(call))
        if normal:
            return (y * call.attr("scale", 1.0) + call.attr("mean", 0.0)).to(dtype)
        low, high = call.attr("low", 0.0), call.attr("high", 1.0)
        return (low + y * (high - low)).to(dtype)

    return run


def _bernoulli(call: Call) -> Tensor:
    x, code = call.wide(0), call.attr("dtype", 0)
    y = torch.rand(x.shape, device=x.device, generator=_generator(call)) < x
    return y.to(dtype_of_code(code) if code else call.x(0).dtype)


EXACT: dict[str, TorchOp] = {
    "ConstantOfShape": _constant_of_shape, "Range": _range, "EyeLike": _eye_like, "Bernoulli": _bernoulli,
    "HannWindow": _cosine_window(0.5, 0.5), "HammingWindow": _cosine_window(25 / 46, 21 / 46),
    "BlackmanWindow": _cosine_window(0.42, 0.5, 0.08),
    "RandomNormal": _random(True, False), "RandomNormalLike": _random(True, True),
    "RandomUniform": _random(False, False), "RandomUniformLike": _random(False, True),
}  # fmt: skip
