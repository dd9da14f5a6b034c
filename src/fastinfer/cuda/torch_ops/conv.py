# SPDX-License-Identifier: Apache-2.0
"""Convolutions of 1 to 3 spatial axes. Asymmetric padding is written out; float32 is never TF32."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastinfer.cuda.torch_ops.call import HALF, Call, TorchOp
from fastinfer.cuda.torch_ops.matmul import matched, requantized
from fastinfer.errors import UnsupportedError

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def same_pads(
    auto_pad: str, extents: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[int], list[int]]:
    """SAME_UPPER or SAME_LOWER: outputs of ceil(extent / stride)."""
    begin, end = [], []
    for n, k, s, d in zip(extents, kernel, strides, dilations, strict=True):
        total = max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0)
        low = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
        begin.append(low)
        end.append(total - low)
    return begin, end


def window(call: Call, extents: Sequence[int], kernel: Sequence[int]) -> tuple[list[int], ...]:
    """strides, dilations, padding before and after of a sliding window."""
    n = len(kernel)
    strides, dilations = call.attr("strides") or [1] * n, call.attr("dilations") or [1] * n
    auto = call.attr("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        return strides, dilations, *same_pads(auto, extents, kernel, strides, dilations)
    pads = (call.attr("pads") or [0] * (2 * n)) if auto != "VALID" else [0] * (2 * n)
    return strides, dilations, pads[:n], pads[n:]


def padded(x: Tensor, begin: Sequence[int], end: Sequence[int], value: float = 0.0) -> Tensor:
    if not any(begin) and not any(end):
        return x
    pads = [p for pair in zip(reversed(begin), reversed(end)) for p in pair]
    return F.pad(x, pads, value=value)


def conv(call: Call, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    """Attributes from the call. Inputs of one type, NCHW."""
    spatial = w.ndim - 2
    if spatial not in _CONV:
        raise UnsupportedError(f"a convolution over {spatial} axes")
    strides, dilations, begin, end = window(call, x.shape[2:], w.shape[2:])
    if begin != end:
        x, begin = padded(x, begin, end), [0] * spatial
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return _CONV[spatial](x, w, bias, strides, begin, dilations, call.attr("group", 1))


def _conv(call: Call) -> Tensor:
    x, w = matched(call.x(0), call.x(1))
    bias = call.maybe(2)
    return conv(call, x, w, None if bias is None else bias.to(x.dtype))


def _transpose_geometry(
    call: Call, extents: Sequence[int], kernel: Sequence[int]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """strides, dilations, elements cut off at the start, extents of the output."""
    n = len(kernel)
    strides, dilations = call.attr("strides") or [1] * n, call.attr("dilations") or [1] * n
    extra = call.attr("output_padding") or [0] * n
    full = [(e - 1) * s + (k - 1) * d + 1 + o for e, s, k, d, o in zip(extents, strides, kernel, dilations, extra)]
    auto, wanted = call.attr("auto_pad", "NOTSET"), call.attr("output_shape")
    if wanted is not None:
        wanted = wanted[-n:]
    elif auto.startswith("SAME"):
        wanted = [e * s for e, s in zip(extents, strides)]
    if wanted is not None:
        total = [max(f - o, 0) for f, o in zip(full, wanted)]
        begin = [t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in total]
        return strides, dilations, begin, list(wanted)
    pads = (call.attr("pads") or [0] * (2 * n)) if auto != "VALID" else [0] * (2 * n)
    return strides, dilations, pads[:n], [f - b - e for f, b, e in zip(full, pads[:n], pads[n:])]


def _conv_transpose(call: Call) -> Tensor:
    """The whole product, cut to the output; beyond it (output_padding) there is the bias alone."""
    x, w = matched(call.x(0), call.x(1))
    spatial, bias = w.ndim - 2, call.maybe(2)
    if spatial not in _TRANSPOSED:
        raise UnsupportedError(f"a convolution over {spatial} axes")
    strides, dilations, begin, out = _transpose_geometry(call, x.shape[2:], w.shape[2:])
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        y = _TRANSPOSED[spatial](x, w, None, strides, 0, 0, call.attr("group", 1), dilations)
    end = [o + b - e for o, b, e in zip(out, begin, y.shape[2:])]
    y = padded(y, [-b for b in begin], end)
    if bias is None:
        return y
    return (y.float() if y.dtype in HALF else y) + bias.to(y.dtype).reshape(-1, *[1] * spatial)


def exact_conv(call: Call, x: Tensor, x_zero: Tensor | None, w: Tensor, w_zero: Tensor | None) -> Tensor:
    """Σ (x − x_zero)·(w − w_zero) in float64; a vector of zero points holds one per output channel."""
    left = x.double() if x_zero is None else x.double() - x_zero.double()
    right = w.double()
    if w_zero is not None:
        right = right - w_zero.double().reshape(-1, *[1] * (w.ndim - 1))
    return conv(call, left, right, None)


def _conv_integer(call: Call) -> Tensor:
    y = exact_conv(call, call.x(0), call.maybe(2), call.x(1), call.maybe(3))
    return y.to(torch.int64).to(torch.int32)


def _qlinear_conv(call: Call) -> Tensor:
    y = exact_conv(call, call.x(0), call.x(2), call.x(3), call.x(5))
    per_channel = [-1, *[1] * (y.ndim - 2)]
    if (bias := call.maybe(8)) is not None:
        y = y + bias.double().reshape(per_channel)
    scale = call.wide(1).double() * call.wide(4).double() / call.wide(6).double()
    return requantized(y, scale.reshape(per_channel) if scale.numel() > 1 else scale.reshape(()), call.x(7))


ROUNDED: dict[str, TorchOp] = {"Conv": _conv, "ConvTranspose": _conv_transpose}
EXACT: dict[str, TorchOp] = {"ConvInteger": _conv_integer, "QLinearConv": _qlinear_conv}
