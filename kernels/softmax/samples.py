# SPDX-License-Identifier: Apache-2.0
"""Shapes of softmax, for tests and benchmarks alike."""

from kernels.case import Case, T

CASES = {
    "bert_128": Case("Softmax", (T((1, 12, 128, 128)),)),
    "classes_1000": Case("Softmax", (T((1, 1000)),)),
    "vocabulary": Case("LogSoftmax", (T((1, 50257)),)),
    "channels_axis_1": Case("Softmax", (T((1, 21, 128, 128)),), {"axis": 1}),
}
