# SPDX-License-Identifier: Apache-2.0
"""benchmarks/roofline.py: what it takes for the roof of a step."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
try:
    roofline = pytest.importorskip("roofline", reason="the benchmark suite needs torch", exc_type=ImportError)
finally:
    sys.path.pop(0)

PEAK = {"gflops": 100.0, "bf16_gflops": 200.0}
STEP = {"kernel": "gemm_f32_6x64_avx512", "flops": 1000.0, "bytes": 300, "weight_bytes": 200, "label": "node 'a' (MatMul)",
        "shape": [1, 4]}  # fmt: skip


@pytest.fixture(autouse=True)
def rates(monkeypatch):
    """10 bytes a nanosecond from memory, 50 from caches."""
    monkeypatch.setattr(roofline, "bandwidth", lambda size, threads: 10.0 if size > 1 << 20 else 50.0)


def test_the_longer_time_binds():
    assert roofline.roof_of(STEP, PEAK, 1 << 25, 2) == (200 / 10 + 100 / 50, "bytes")
    assert roofline.roof_of({**STEP, "flops": 5000.0}, PEAK, 1 << 25, 2) == (50, "operations")
    assert roofline.roof_of({**STEP, "flops": 5000.0}, PEAK, 1 << 16, 2)[0] == 50  # weights that stay in a cache
    assert roofline.roof_of({**STEP, "flops": 8000.0, "kernel": "gemm_bf16_6x64_x"}, PEAK, 1 << 25, 2)[0] == 40


def test_tables():
    group = roofline.Group(STEP, ["a", "b"], ns=100, roof=44, bound="bytes")
    text = roofline.by_layer([group], PEAK, 200)
    assert text.splitlines()[1].count("---:") == 7 and "| MatMul ×2 | 1x4 |" in text and "| 44% | bytes |" in text
    assert "| 2 | 0.000 | 50.0% | 44% |" in roofline.by_kernel([group], 200)
