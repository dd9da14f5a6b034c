# SPDX-License-Identifier: Apache-2.0
"""Shapes of convolutions that are neither 1x1, depthwise nor Winograd, for tests and benchmarks alike."""

from kernels.case import conv

CASES = {
    "stem_7x7": conv(224, 3, 64, 7, 2),
    "stem_3x3": conv(224, 3, 32, 3, 2),
    "stem_yolo": conv(640, 3, 16, 3, 2, activation="silu"),
    "narrow_yolo": conv(320, 16, 32, 3, 2, activation="silu"),
    "resnet_3x3_s2": conv(56, 64, 128, 3, 2),
    "resnet_1x1_s2": conv(56, 256, 512, 1, 2),
    "resnet_3x3_7": conv(7, 512, 512),
    "resnext_groups": conv(28, 256, 256, group=32),
    "dilated": conv(28, 128, 128, dilations=[2, 2]),
    "bf16_resnet_3x3_s2": conv(56, 64, 128, 3, 2, precision="bf16"),
    "bf16_resnet_3x3_14": conv(14, 256, 256, precision="bf16"),
}
