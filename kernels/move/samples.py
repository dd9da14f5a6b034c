# SPDX-License-Identifier: Apache-2.0
"""Shapes of copies, for tests and benchmarks alike."""

from kernels.case import Case, T, const

CASES = {
    "to_channels_last": Case("Transpose", (T((1, 3, 224, 224)),), {"perm": [0, 2, 3, 1]}),
    "to_channels_first": Case("Transpose", (T((1, 56, 56, 256)),), {"perm": [0, 3, 1, 2]}),
    "heads": Case("Transpose", (T((1, 128, 12, 64)),), {"perm": [0, 2, 1, 3]}),
    "concat_channels": Case("Concat", (T((1, 64, 64, 128)), T((1, 64, 64, 128))), {"axis": 3}),
    "slice_rows": Case("Slice", (T((1, 197, 768)), const([1]), const([197]), const([1]))),
    "slice_stride": Case("Slice", (T((1, 56, 56, 96)), const([0, 0]), const([56, 56]), const([1, 2]), const([2, 2]))),
    "slice_every_other": Case("Slice", (T((1024, 1024)), const([0]), const([1024]), const([1]), const([2]))),
    "expand": Case("Expand", (T((1, 1, 768)), const([8, 128, 768]))),
    "fill": Case("Expand", (T((1, 1)), const([1024, 768]))),
    "expand_last": Case("Expand", (T((4096, 1)), const([4096, 256]))),
    "gather_rows": Case("Gather", (T((30522, 384), constant=True), T((128,), "int64", below=30522))),
}
