# SPDX-License-Identifier: Apache-2.0
"""Shapes of 3x3 stride-1 convolutions, for tests and benchmarks alike."""

from kernels.case import conv

# The layers of ResNet, U-Net, YOLO and a VGG16 U-Net.
CASES = {
    f"{size}x{size}_{channels}": conv(size, channels, channels)
    for size, channels in [
        (56, 64),
        (28, 128),
        (14, 256),
        (256, 32),
        (128, 64),
        (64, 128),
        (32, 256),
        (80, 64),
        (40, 128),
        (40, 512),
    ]
} | {"20x20_512_1024_dilated_6": conv(20, 512, 1024, dilations=[6, 6])}
