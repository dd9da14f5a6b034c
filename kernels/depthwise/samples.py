# SPDX-License-Identifier: Apache-2.0
"""Shapes of depthwise convolutions, for tests and benchmarks alike."""

import numpy as np

from kernels.case import Case, T, const, conv


def _bytes(size: int, channels: int, stride: int, constant: bool = True) -> Case:
    """QLinearConv as MobileNet has it: u8 activations, s8 weights, a scale per channel."""
    one, zero = const(np.float32(0.02), "float32"), const(np.uint8(128), "uint8")
    weights, scales = T((channels, 1, 3, 3), "int8", constant), const(np.full(channels, 0.01), "float32")
    zeros = const(np.zeros(channels), "int8")
    window = {"kernel_shape": [3, 3], "strides": [stride] * 2, "pads": [1] * 4, "group": channels}
    inputs = (T((1, channels, size, size), "uint8"), one, zero, weights, scales, zeros, one, zero)
    return Case("QLinearConv", inputs, window)


_BF16 = {"dtype": "bfloat16", "precision": "bf16", "output_dtype": "bf16"}

CASES = {
    "mobilenet_112_s1": conv(112, 32, 32, group=32),
    "mobilenet_112_s2": conv(112, 96, 96, 3, 2, group=96),
    "mobilenet_28_s1": conv(28, 192, 192, group=192),
    "mobilenet_7_s1": conv(7, 960, 960, group=960),
    "efficientnet_28_5x5": conv(28, 240, 240, 5, group=240),
    "efficientnet_28_5x5_s2": conv(28, 240, 240, 5, 2, group=240),
    "convnext_56_7x7": conv(56, 96, 96, 7, group=96),
    "convnext_14_7x7": conv(14, 384, 384, 7, group=384),
    "dilated_28": conv(28, 96, 96, group=96, dilations=[2, 2]),
    "bf16_mobilenet_112_s1": conv(112, 32, 32, group=32, **_BF16),
    "bf16_mobilenet_112_s2": conv(112, 96, 96, 3, 2, group=96, **_BF16),
    "bf16_efficientnet_28_5x5": conv(28, 240, 240, 5, group=240, **_BF16),
    "bf16_efficientnet_28_5x5_s2": conv(28, 240, 240, 5, 2, group=240, **_BF16),
    "bf16_convnext_56_7x7": conv(56, 96, 96, 7, group=96, **_BF16),
    "bf16_dilated_28": conv(28, 96, 96, group=96, dilations=[2, 2], **_BF16),
    "bytes_mobilenet_28": _bytes(28, 192, 1),
    "bytes_mobilenet_112_s2": _bytes(112, 96, 2),
    "bytes_weights_at_run_time": _bytes(28, 192, 1, constant=False),
}
