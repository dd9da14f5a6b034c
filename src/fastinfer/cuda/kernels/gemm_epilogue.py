# SPDX-License-Identifier: Apache-2.0
"""What happens to a sum of products before it is stored, in float32, as csrc's kernels/gemm/epilogue.h has it:

y = act(alpha·sum + bias + beta·residual)      RESIDUAL "before"
y = act(alpha·sum + bias) + beta·residual      RESIDUAL "after"
"""

from __future__ import annotations

import triton
import triton.language as tl

# The parameters (alpha, beta) that an activation takes where the node gives none: ONNX's.
ACTIVATIONS: dict[str, tuple[float, float]] = {
    "": (0, 0), "relu": (0, 0), "clip": (-float("inf"), float("inf")), "leaky_relu": (0.01, 0), "sigmoid": (0, 0),
    "tanh": (0, 0), "silu": (0, 0), "gelu": (0, 0), "gelu_tanh": (0, 0), "hard_swish": (0, 0), "hard_sigmoid": (0.2, 0.5),
    "elu": (1, 0), "softplus": (0, 0), "mish": (0, 0), "quick_gelu": (1.702, 0),
}  # fmt: skip


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh(x):
    """(1 − e)/(1 + e) with e = exp(−2|x|), which cancels near 0: there the series, whose next term is below 6e-8·x."""
    z = tl.abs(x)
    e = tl.exp(-2.0 * z)
    far = (1.0 - e) / (1.0 + e)
    s = x * x
    near = 1.0 + s * (-1.0 / 3 + s * (2.0 / 15 + s * (-17.0 / 315 + s * (62.0 / 2835))))
    return tl.where(z < 0.3, x * near, tl.where(x < 0, -far, far))


@triton.jit
def expm1(x):
    """x ≤ 0. 2t/(1 − t) with t = tanh(x/2), which is exact near 0."""
    t = tanh(0.5 * x)
    return 2.0 * t / (1.0 - t)


@triton.jit
def log1p(x):
    """x ≥ 0. log(u)·x/(u − 1) with u = 1 + x rounded: the roundings cancel (Kahan)."""
    u = 1.0 + x
    d = u - 1.0
    return tl.where(d == 0.0, x, tl.where(d < 1e30, tl.log(u) * (x / tl.where(d == 0.0, 1.0, d)), tl.log(u)))


@triton.jit
def softplus(x):
    return tl.maximum(x, 0.0) + log1p(tl.exp(-tl.abs(x)))


@triton.jit
def activate(x, alpha, beta, KIND: tl.constexpr):
    """x in float32; alpha and beta are the activation's. NaN stays NaN."""
    if KIND == "relu":
        x = tl.where(x <= 0.0, 0.0, x)
    elif KIND == "clip":
        x = tl.where(x < alpha, alpha, x)
        x = tl.where(x > beta, beta, x)
    elif KIND == "leaky_relu":
        x = tl.where(x >= 0.0, x, alpha * x)
    elif KIND == "sigmoid":
        x = sigmoid(x)
    elif KIND == "tanh":
        x = tanh(x)
    elif KIND == "silu":
        x = x * sigmoid(x)
    elif KIND == "gelu":
        x = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif KIND == "gelu_tanh":
        x = 0.5 * x * (1.0 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))
    elif KIND == "hard_swish":
        x = x * _limit(x * (1.0 / 6) + 0.5)
    elif KIND == "hard_sigmoid":
        x = _limit(alpha * x + beta)
    elif KIND == "elu":
        x = tl.where(x >= 0.0, x, alpha * expm1(tl.where(x > 0.0, 0.0, x)))  # min would lose NaN
    elif KIND == "softplus":
        x = softplus(x)
    elif KIND == "mish":
        x = x * tanh(softplus(x))
    elif KIND == "quick_gelu":
        x = x * sigmoid(alpha * x)
    return x


@triton.jit
def gelu_half(x):
    """For results of 16 bits: x·Φ(x) to 6e-5, in 14 instructions where erf takes 32. Φ(x) − 1/2 as x times a polynomial in x²
    (Lawson's weighted least squares on |x| ≤ 4.3, where Φ is 1 but for 9e-6)."""
    y = tl.minimum(x * x, 18.49)
    p = 5.16098102e-11 * y - 5.03617859e-09
    p = p * y + 2.16923993e-07
    p = p * y - 5.49214292e-06
    p = p * y + 9.22364779e-05
    p = p * y - 0.00110271247
    p = p * y + 0.00980080571
    p = p * y - 0.0663270876
    p = p * y + 0.398896635
    return x * _limit(x * p + 0.5)


@triton.jit
def _limit(x):
    x = tl.where(x < 0.0, 0.0, x)
    return tl.where(x > 1.0, 1.0, x)


@triton.jit
def finish(
    acc, c, bias, residual, a_scale, b_scale, z, rm, rn, m, n, residual_z, residual_m, residual_n,
    alpha, beta, act_alpha, act_beta,
    BIAS: tl.constexpr, RESIDUAL: tl.constexpr, SCALED: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    """Stores the tile acc of product z, rows rm and columns rn of [m, n]. bias: [n]; residual: strides residual_*; SCALED: acc
    counts a_scale[z·m + row] · b_scale[column]."""
    inside_n = rn < n
    inside = (rm < m)[:, None] & inside_n[None, :]
    y = acc.to(tl.float32)
    if SCALED:
        row = tl.cast(z, tl.int64) * m + rm
        y = y * tl.load(a_scale + row, mask=rm < m, other=0.0)[:, None]
        y = y * tl.load(b_scale + rn, mask=inside_n, other=0.0)[None, :]
    y = y * alpha
    if BIAS:
        y += tl.load(bias + rn, mask=inside_n, other=0.0).to(tl.float32)[None, :]
    row = tl.cast(rm, tl.int64)[:, None]
    if RESIDUAL != "":
        at = residual + tl.cast(z, tl.int64) * residual_z + row * residual_m + rn[None, :] * residual_n
        r = tl.load(at, mask=inside, other=0.0).to(tl.float32) * beta
    if RESIDUAL == "before":
        y += r
    if ACTIVATION == "gelu" and c.dtype.element_ty.primitive_bitwidth == 16:
        y = gelu_half(y)
    else:
        y = activate(y, act_alpha, act_beta, ACTIVATION)
    if RESIDUAL == "after":
        y += r
    tl.store(c + (tl.cast(z, tl.int64) * m + row) * n + rn[None, :], y.to(c.dtype.element_ty), mask=inside)


@triton.jit
def finish_parts(
    acc, c, bias, residual, a_scale, b_scale, z, rm, column, m, n, residual_z, residual_m, residual_n,
    alpha, beta, act_alpha, act_beta,
    BIAS: tl.constexpr, RESIDUAL: tl.constexpr, SCALED: tl.constexpr, ACTIVATION: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """finish() for columns from `column` on, PARTS (1, 2, 4) of the tile after one another: a tile of 128 numbers per thread
    leaves no registers to finish it in at once."""
    WIDTH: tl.constexpr = acc.shape[1] // (1 if PARTS == 1 else 2)
    rn = column + tl.arange(0, WIDTH)
    if PARTS == 1:
        finish(
            acc, c, bias, residual, a_scale, b_scale, z, rm, rn, m, n, residual_z, residual_m, residual_n,
            alpha, beta, act_alpha, act_beta, BIAS, RESIDUAL, SCALED, ACTIVATION,
        )  # fmt: skip
    else:
        left, right = tl.split(tl.permute(tl.reshape(acc, (acc.shape[0], 2, WIDTH)), (0, 2, 1)))
        finish_parts(
            left, c, bias, residual, a_scale, b_scale, z, rm, column, m, n, residual_z, residual_m, residual_n,
            alpha, beta, act_alpha, act_beta, BIAS, RESIDUAL, SCALED, ACTIVATION, PARTS // 2,
        )  # fmt: skip
        finish_parts(
            right, c, bias, residual, a_scale, b_scale, z, rm, column + WIDTH, m, n, residual_z, residual_m, residual_n,
            alpha, beta, act_alpha, act_beta, BIAS, RESIDUAL, SCALED, ACTIVATION, PARTS // 2,
        )  # fmt: skip
