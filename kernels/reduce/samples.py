# SPDX-License-Identifier: Apache-2.0
"""Shapes of reductions, for tests and benchmarks alike."""

from kernels.case import Case, T, const

CASES = {
    "mean_space_last": Case("ReduceMean", (T((1, 7, 7, 2048)), const([1, 2]))),
    "mean_space_first": Case("ReduceMean", (T((1, 2048, 7, 7)), const([2, 3]))),
    "mean_tokens": Case("ReduceMean", (T((1, 128, 768)), const([1]))),
    "sum_rows": Case("ReduceSum", (T((1024, 1024)), const([1]))),
    "max_all": Case("ReduceMax", (T((1 << 20,)), const([0]))),
    "norm_rows": Case("ReduceL2", (T((1000, 384)), const([1]))),
}
