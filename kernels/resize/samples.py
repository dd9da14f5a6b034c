# SPDX-License-Identifier: Apache-2.0
"""Shapes of resizing, for tests and benchmarks alike."""

from kernels.case import T, const, last

CASES = {
    "unet_linear_x2": last("Resize", T((1, 64, 64, 64)), None, const([1, 1, 2, 2], "float32"), mode="linear"),
    "cubic_x2": last("Resize", T((1, 64, 64, 32)), None, const([1, 1, 2, 2], "float32"), mode="cubic"),
    "linear_down": last("Resize", T((1, 224, 224, 3)), None, None, const([1, 3, 96, 96]), mode="linear"),
    "yolo_nearest_x2": last("Resize", T((1, 40, 40, 256)), None, const([1, 1, 2, 2], "float32"), mode="nearest"),
}
