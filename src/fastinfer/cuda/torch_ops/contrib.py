# SPDX-License-Identifier: Apache-2.0
"""Operators of com.microsoft: activations, products with integer or packed weights, QLinear arithmetic. Attention: ms_attention.py."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastinfer.cuda.torch_ops.call import HALF, Call, TorchOp
from fastinfer.cuda.torch_ops.matmul import centred, matched, matmul
from fastinfer.cuda.torch_ops.quantize import dequantize, dynamic, quantize
from fastinfer.errors import UnsupportedError


def _biased(call: Call) -> Tensor:
    x = call.wide(0)
    return x + call.wide(1) if call.has(1) else x


def _rounded(fn: Callable[[Call], Tensor]) -> TorchOp:
    return lambda call: fn(call).to(call.x(0).dtype)


def _quick_gelu(call: Call) -> Tensor:
    x = call.wide(0)
    return x * torch.sigmoid(call.attr("alpha", 1.702) * x)


def _fused_matmul(call: Call) -> Tensor:
    if call.attr("transBatchA", 0) or call.attr("transBatchB", 0):
        raise UnsupportedError("transBatchA or transBatchB")
    a, b = call.x(0), call.x(1)
    a = a.transpose(-1, -2) if call.attr("transA", 0) and a.ndim > 1 else a
    b = b.transpose(-1, -2) if call.attr("transB", 0) and b.ndim > 1 else b
    y = matmul(a, b)
    return (y.float() if y.dtype in HALF else y) * call.attr("alpha", 1.0)


def matmul_nbits(call: Call) -> Tensor:
    """A [.., K] · dequantised B: uint8 [N, blocks, block·bits/8], low bits first; scales [N, blocks]; zero points packed the
    same way or as floats (default 2^(bits−1))."""
    if call.has(4):
        raise UnsupportedError("g_idx")
    a, k, n, block, bits = call.x(0), call.attr("K"), call.attr("N"), call.attr("block_size"), call.attr("bits", 4)
    if bits not in (4, 8):
        raise UnsupportedError(f"weights of {bits} bits")
    blocks = -(-k // block)

    def unpacked(packed: Tensor, count: int) -> Tensor:
        rows = packed.reshape(n, -1)
        if bits == 4:
            rows = torch.stack([rows & 15, rows >> 4], -1).reshape(n, -1)
        return rows[:, :count].float()

    zero: Tensor | float = float(1 << (bits - 1))
    if call.has(3):
        zeros = call.x(3)
        zero = unpacked(zeros, blocks) if zeros.dtype == torch.uint8 else zeros.float().reshape(n, blocks)
        zero = zero.unsqueeze(-1)
    whole = unpacked(call.x(1), blocks * block).reshape(n, blocks, block)
    w = ((whole - zero) * call.wide(2).float().reshape(n, blocks, 1)).reshape(n, -1)[:, :k]
    x, w = matched(a, w)
    y = torch.matmul(x, w.T)
    return y if not call.has(5) else (y.float() if y.dtype in HALF else y) + call.wide(5)


def _scaled(product: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    y = (product * scale.double()).float()
    return y if bias is None else y + bias


def _integer_to_float(call: Call) -> Tensor:
    """A, B, A_scale, B_scale, A_zero, B_zero, bias"""
    a_scale, b_scale = call.wide(2), call.wide(3)
    if a_scale.ndim == 1 and a_scale.numel() > 1:
        a_scale = a_scale[:, None]
    product = torch.matmul(centred(call.x(0), call.maybe(4), True), centred(call.x(1), call.maybe(5), False))
    return _scaled(product, a_scale * b_scale, call.maybe_wide(6)).to(call.x(2).dtype)


def _dynamic_quantize_matmul(call: Call) -> Tensor:
    """A float, B, B_scale, B_zero, bias: A is quantised as it comes."""
    q, scale, zero = dynamic(call.wide(0))
    product = torch.matmul(centred(q, zero, True), centred(call.x(1), call.maybe(3), False))
    return _scaled(product, scale * call.wide(2), call.maybe_wide(4))


def _real(call: Call, at: int) -> Tensor:
    """Operand x, scale, zero point from input `at` on, in float32."""
    return dequantize(call.x(at), call.wide(at + 1), call.maybe(at + 2))


def _back(call: Call, y: Tensor, at: int) -> Tensor:
    """Scale and zero point of the result from input `at` on."""
    return quantize(y, call.wide(at), call.maybe(at + 1), call.x(0).dtype)


def _qlinear_pair(fn: Callable[[Tensor, Tensor], Tensor]) -> TorchOp:
    return lambda call: _back(call, fn(_real(call, 0), _real(call, 3)), 6)


def _qlinear_unary(fn: Callable[[Call, Tensor], Tensor]) -> TorchOp:
    return lambda call: _back(call, fn(call, _real(call, 0)), 3)


def _leaky(call: Call, x: Tensor) -> Tensor:
    return torch.where(x < 0, call.attr("alpha", 0.01) * x, x)


def _softmax(call: Call, x: Tensor) -> Tensor:
    axis = call.attr("axis", -1) % x.ndim
    if call.attr("opset", 13) >= 13:
        return F.softmax(x, axis)
    return F.softmax(x.flatten(axis), axis).reshape(x.shape)


def _qlinear_concat(call: Call) -> Tensor:
    scale, zero = call.wide(0), call.x(1)
    parts = [quantize(_real(call, at), scale, zero, zero.dtype) for at in range(2, call.n_inputs, 3)]
    return torch.cat(parts, call.attr("axis"))


MICROSOFT: dict[str, TorchOp] = {
    "Gelu": _rounded(lambda c: F.gelu(c.wide(0))), "BiasGelu": _rounded(lambda c: F.gelu(_biased(c))),
    "FastGelu": _rounded(lambda c: F.gelu(_biased(c), approximate="tanh")), "QuickGelu": _rounded(_quick_gelu),
    "FusedMatMul": _rounded(_fused_matmul), "MatMulNBits": _rounded(matmul_nbits),
    "MatMulIntegerToFloat": _integer_to_float, "DynamicQuantizeMatMul": _rounded(_dynamic_quantize_matmul),
    "QLinearAdd": _qlinear_pair(torch.add), "QLinearMul": _qlinear_pair(torch.mul),
    "QLinearSigmoid": _qlinear_unary(lambda call, x: torch.sigmoid(x)), "QLinearLeakyRelu": _qlinear_unary(_leaky),
    "QLinearSoftmax": _qlinear_unary(_softmax), "QLinearConcat": _qlinear_concat,
}  # fmt: skip
