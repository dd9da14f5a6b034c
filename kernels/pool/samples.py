# SPDX-License-Identifier: Apache-2.0
"""Shapes of pooling, for tests and benchmarks alike."""

from kernels.case import Case, T, last

_3X3 = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
_2X2 = {"kernel_shape": [2, 2], "strides": [2, 2]}

CASES = {
    "resnet_max_112": last("MaxPool", T((1, 112, 112, 64)), **_3X3),
    "unet_max_256": last("MaxPool", T((1, 256, 256, 32)), **_2X2),
    "yolo_max_20": last("MaxPool", T((1, 20, 20, 128)), kernel_shape=[5, 5], pads=[2, 2, 2, 2]),
    "average_56": last("AveragePool", T((1, 56, 56, 128)), **_2X2),
    "bf16_max_112": last("MaxPool", T((1, 112, 112, 64), "bfloat16"), **_3X3),
    "bf16_average_56": last("AveragePool", T((1, 56, 56, 128), "bfloat16"), **_2X2),
    "u8_max_112": last("MaxPool", T((1, 112, 112, 64), "uint8"), **_3X3),
    "s8_max_112": last("MaxPool", T((1, 112, 112, 64), "int8"), **_3X3),
    "global_average_7": last("GlobalAveragePool", T((1, 7, 7, 2048))),
    "global_max_7": last("GlobalMaxPool", T((1, 7, 7, 512))),
    "global_average_7_first": Case("GlobalAveragePool", (T((1, 2048, 7, 7)),)),
    "global_max_7_first": Case("GlobalMaxPool", (T((1, 512, 7, 7)),)),
}
