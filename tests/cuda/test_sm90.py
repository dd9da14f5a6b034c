# SPDX-License-Identifier: Apache-2.0
"""The compiler for sm_90 that kernels' tests use says what it should."""

import pytest
from sm90 import SHARED, compile

KERNEL = "sm90_sample:product"


def _signature(dtype: str) -> dict[str, str]:
    return {"a": dtype, "b": dtype, "c": "*fp32", "n": "i32", "k": "i32"}


def test_tensor_cores_and_resources() -> None:
    c = compile(KERNEL, _signature("*bf16"), {"B": 64}, {"num_warps": 4, "num_stages": 3})
    assert c.wgmma and c.count(r"cp\.async") > 0
    assert c.spills == 0 and 0 < c.shared <= SHARED and 0 < c.n_regs < 255 and c.num_warps == 4


def test_spills_are_seen() -> None:
    c = compile(KERNEL, _signature("*bf16"), {"B": 256}, {"num_warps": 4, "num_stages": 1})
    assert c.spills > 0


def test_errors_are_told() -> None:
    with pytest.raises(RuntimeError, match="no type of n, k"):
        compile(KERNEL, {"a": "*bf16", "b": "*bf16", "c": "*fp32"}, {"B": 64})
