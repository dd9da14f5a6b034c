# SPDX-License-Identifier: Apache-2.0
"""Products. Half-precision operands stay so (torch adds up in float32); integers are exact in float64, which every device
multiplies."""

from __future__ import annotations

import torch
from torch import Tensor

from fastinfer.cuda.torch_ops.call import HALF, Call, TorchOp


def matched(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Operands of one type: the half one where just one is (inside fused operators, whose sums are float32)."""
    if a.dtype == b.dtype:
        return a, b
    if a.dtype in HALF or b.dtype in HALF:
        half = a.dtype if a.dtype in HALF else b.dtype
        return a.to(half), b.to(half)
    both = torch.promote_types(a.dtype, b.dtype)
    return a.to(both), b.to(both)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    a, b = matched(a, b)
    if a.dtype.is_floating_point:
        return torch.matmul(a, b)
    if a.device.type == "cpu":
        return torch.matmul(a.to(torch.int64), b.to(torch.int64)).to(a.dtype)
    return torch.matmul(a.double(), b.double()).to(torch.int64).to(a.dtype)


def _matmul(call: Call) -> Tensor:
    return matmul(call.x(0), call.x(1))


def _gemm(call: Call) -> Tensor:
    a = call.x(0).T if call.attr("transA", 0) else call.x(0)
    b = call.x(1).T if call.attr("transB", 0) else call.x(1)
    alpha, beta = call.attr("alpha", 1.0), call.attr("beta", 1.0)
    y = matmul(a, b)
    wide = y.float() if y.dtype in HALF else y
    if alpha != 1.0:
        wide = (wide * alpha).to(wide.dtype)
    if (c := call.maybe_wide(2)) is not None:
        wide = wide + (c if beta == 1.0 else (c * beta).to(c.dtype))
    return wide


def centred(x: Tensor, zero: Tensor | None, rows: bool) -> Tensor:
    """x − zero in float64; a vector of zero points holds one per row (of the left factor) or per column."""
    if zero is None:
        return x.double()
    if zero.ndim == 1 and rows and zero.numel() > 1:
        zero = zero[:, None]
    return x.double() - zero.double()


def _matmul_integer(call: Call) -> Tensor:
    y = torch.matmul(centred(call.x(0), call.maybe(2), True), centred(call.x(1), call.maybe(3), False))
    return y.to(torch.int64).to(torch.int32)


def requantized(exact: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """An integer sum (in float64) in units of `scale`, rounded to even, saturated."""
    limits = torch.iinfo(zero.dtype)
    y = torch.round((exact * scale).float().double()) + zero.double()
    return y.clamp(limits.min, limits.max).to(zero.dtype)


def _qlinear_matmul(call: Call) -> Tensor:
    a_scale, b_scale = call.wide(1).double(), call.wide(4).double()
    if a_scale.ndim == 1 and a_scale.numel() > 1:
        a_scale = a_scale[:, None]
    y = torch.matmul(centred(call.x(0), call.x(2), True), centred(call.x(3), call.x(5), False))
    return requantized(y, a_scale * b_scale / call.wide(6).double(), call.x(7))


def _einsum(call: Call) -> Tensor:
    xs = [call.x(i) for i in range(call.n_inputs)]
    equation = call.attr("equation").replace(" ", "")
    if all(x.is_floating_point() for x in xs):
        return torch.einsum(equation, *xs)
    return torch.einsum(equation, *[x.double() for x in xs]).to(xs[0].dtype)


def _det(call: Call) -> Tensor:
    return torch.linalg.det(call.wide(0))


ROUNDED: dict[str, TorchOp] = {"MatMul": _matmul, "Gemm": _gemm, "Einsum": _einsum, "Det": _det}
EXACT: dict[str, TorchOp] = {"MatMulInteger": _matmul_integer, "QLinearMatMul": _qlinear_matmul}
