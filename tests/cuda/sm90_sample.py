# SPDX-License-Identifier: Apache-2.0
"""A kernel for test_sm90.py."""

import triton
import triton.language as tl


@triton.jit
def product(a, b, c, n, k, B: tl.constexpr):
    r = tl.arange(0, B)
    acc = tl.zeros((B, B), tl.float32)
    for at in range(0, k, B):
        x = tl.load(a + r[:, None] * k + at + r[None, :])
        y = tl.load(b + (at + r)[:, None] * n + r[None, :])
        acc = tl.dot(x, y, acc)
    tl.store(c + r[:, None] * n + r[None, :], acc)
