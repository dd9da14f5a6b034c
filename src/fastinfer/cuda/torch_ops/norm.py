# SPDX-License-Identifier: Apache-2.0
"""Normalisations and the Softmax family, in float32 at least."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastinfer.cuda.torch_ops.call import Call, TorchOp
from fastinfer.errors import UnsupportedError


def _axes_from(x: Tensor, axis: int) -> list[int]:
    return list(range(axis % x.ndim, x.ndim))


def layer_norm(
    x: Tensor, scale: Tensor, bias: Tensor | None, axis: int, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """y, mean, 1/√(variance + epsilon) over the axes from `axis`."""
    axes = _axes_from(x, axis)
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    inverse = torch.rsqrt((centred * centred).mean(axes, keepdim=True) + epsilon)
    y = centred * inverse * scale
    return y if bias is None else y + bias, mean, inverse


def rms_norm(x: Tensor, scale: Tensor, axis: int, epsilon: float) -> tuple[Tensor, Tensor]:
    inverse = torch.rsqrt((x * x).mean(_axes_from(x, axis), keepdim=True) + epsilon)
    return x * inverse * scale, inverse


def _layer_norm(call: Call) -> list[Tensor | None]:
    x, scale, bias = call.wide(0), call.wide(1), call.maybe_wide(2)
    y, mean, inverse = layer_norm(x, scale, bias, call.attr("axis", -1), call.attr("epsilon", 1e-5))
    return [y.to(call.x(0).dtype), mean, inverse]


def _rms_norm(call: Call) -> Tensor:
    return rms_norm(call.wide(0), call.wide(1), call.attr("axis", -1), call.attr("epsilon", 1e-5))[0]


def _simplified(call: Call) -> list[Tensor | None]:
    y, inverse = rms_norm(call.wide(0), call.wide(1), call.attr("axis", -1), call.attr("epsilon", 1e-5))
    return [y.to(call.x(0).dtype), inverse]


def _per_channel(v: Tensor, x: Tensor) -> Tensor:
    return v.reshape(-1, *[1] * (x.ndim - 2))


def _normalized(x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(axes, keepdim=True) + epsilon)


def _instance_norm(call: Call) -> Tensor:
    x = call.wide(0)
    y = _normalized(x, list(range(2, x.ndim)), call.attr("epsilon", 1e-5))
    return y * _per_channel(call.wide(1), x) + _per_channel(call.wide(2), x)


def _group_norm(call: Call) -> Tensor:
    x = call.wide(0)
    split = x.reshape(x.shape[0], call.attr("num_groups"), -1)
    y = _normalized(split, [2], call.attr("epsilon", 1e-5)).reshape(x.shape)
    return y * _per_channel(call.wide(1), x) + _per_channel(call.wide(2), x)


def _batch_norm(call: Call) -> list[Tensor | None]:
    x, epsilon = call.wide(0), call.attr("epsilon", 1e-5)
    scale, bias, mean, var = (call.wide(i).to(x.dtype) for i in range(1, 5))
    rest: list[Tensor | None] = []
    if call.attr("training_mode", 0):
        axes, keep = [a for a in range(x.ndim) if a != 1], call.attr("momentum", 0.9)
        now, spread = x.mean(axes), x.var(axes, correction=0)
        rest = [mean * keep + now * (1 - keep), var * keep + spread * (1 - keep)]
        mean, var = now, spread
    factor = scale * torch.rsqrt(var + epsilon)
    y = (x - _per_channel(mean, x)) * _per_channel(factor, x) + _per_channel(bias, x)
    return [y.to(call.x(0).dtype), *rest]


def _mean_variance(call: Call) -> Tensor:
    x, axes = call.wide(0), call.attr("axes") or [0, 2, 3]
    mean = x.mean(axes, keepdim=True)
    spread = (x * x).mean(axes, keepdim=True) - mean * mean
    return (x - mean) / (spread.sqrt() + 1e-9)


def _lp_norm(call: Call) -> Tensor:
    x, axis = call.wide(0), call.attr("axis", -1)
    norm = x.abs().sum(axis, keepdim=True) if call.attr("p", 2) == 1 else (x * x).sum(axis, keepdim=True).sqrt()
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


def _softmax(call: Call) -> Tensor:
    return F.softmax(call.wide(0), call.attr("axis", -1))


def _log_softmax(call: Call) -> Tensor:
    return F.log_softmax(call.wide(0), call.attr("axis", -1))


def _hardmax(call: Call) -> Tensor:
    x, axis = call.x(0), call.attr("axis", -1)
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)


def skip_norm(call: Call, simplified: bool) -> list[Tensor | None]:
    """com.microsoft's: gamma, then beta unless simplified, then a bias; outputs y, mean, inverse, x + skip + bias."""
    x, skip, gamma = (call.wide(i) for i in range(3))
    beta, bias = (None, call.maybe_wide(3)) if simplified else (call.maybe_wide(3), call.maybe_wide(4))
    total = x + skip if bias is None else x + skip + bias
    epsilon, kept = call.attr("epsilon", 1e-12 if not simplified else 1e-5), call.x(0).dtype
    if simplified:
        y, inverse = rms_norm(total, gamma, -1, epsilon)
        return [y.to(kept), None, inverse, total.to(kept)]
    y, mean, inverse = layer_norm(total, gamma, beta, -1, epsilon)
    return [y.to(kept), mean, inverse, total.to(kept)]


def _embed_layer_norm(call: Call) -> list[Tensor | None]:
    """word[ids] + position[0..S) + segment[ids], normalised; mask_index: ones of the mask per row."""
    ids, positions = call.x(0).to(torch.int64), call.x(8).to(torch.int64) if call.has(8) else None
    words, places = call.wide(2)[ids], call.wide(3)
    total = words + (places[: ids.shape[1]] if positions is None else places[positions])
    if call.has(1) and call.has(4):
        total = total + call.wide(4)[call.x(1).to(torch.int64)]
    y = layer_norm(total, call.wide(5), call.wide(6), -1, call.attr("epsilon", 1e-12))[0]
    kept = call.x(2).dtype
    if call.has(7):
        index = call.x(7).to(torch.int32).sum(1, dtype=torch.int32)
    else:
        index = torch.zeros(ids.shape[0], dtype=torch.int32, device=ids.device)
    return [y.to(kept), index, total.to(kept)]


def _dropout(call: Call) -> list[Tensor | None]:
    """Inference: the identity, with a mask of true."""
    ratio = float(call.host(1).reshape(())) if call.has(1) else 0.5
    if call.has(2) and bool(call.host(2).reshape(())) and ratio > 0:
        raise UnsupportedError("Dropout in training mode draws random numbers")
    x = call.x(0)
    return [x, torch.ones_like(x, dtype=torch.bool)]


ROUNDED: dict[str, TorchOp] = {
    "RMSNormalization": _rms_norm, "InstanceNormalization": _instance_norm, "GroupNormalization": _group_norm,
    "MeanVarianceNormalization": _mean_variance, "LpNormalization": _lp_norm, "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
}  # fmt: skip
EXACT: dict[str, TorchOp] = {
    "LayerNormalization": _layer_norm, "BatchNormalization": _batch_norm, "Hardmax": _hardmax, "Dropout": _dropout,
    "SimplifiedLayerNormalization": _simplified,
}  # fmt: skip
MICROSOFT: dict[str, TorchOp] = {
    "SimplifiedLayerNormalization": _simplified,
    "SkipLayerNormalization": lambda call: skip_norm(call, False),
    "SkipSimplifiedLayerNormalization": lambda call: skip_norm(call, True),
    "EmbedLayerNormalization": _embed_layer_norm,
}
