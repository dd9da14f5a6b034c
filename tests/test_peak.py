# SPDX-License-Identifier: Apache-2.0
import pytest

from fastinfer import InputError, _core

SETS = ["baseline", "avx2", "avx512"]


def test_peak_has_plausible_figures():
    peak = _core.measure_peak(1)
    assert 1 < peak["gflops"] < 5000 and 0.5 < peak["read_gbs"] < 2000
    assert peak["threads"] == 1 and peak["kernel"].startswith("peak_f32x")


def test_narrow_types_where_the_cpu_has_them():
    peak, best = _core.measure_peak(1), _core.detected_isa()
    assert ("bf16_gflops" in peak) == best.endswith("bf16")
    assert ("int8_gops" in peak) == best.endswith(("vnni", "bf16"))
    # Ice Lake and later multiply bfloat16 at least as fast as float32, bytes at twice the rate.
    assert peak.get("bf16_gflops", 1e9) > 0.8 * peak["gflops"] and peak.get("int8_gops", 1e9) > 1.6 * peak["gflops"]


def test_a_cache_reads_faster_than_memory():
    small, large = (_core.measure_read(size, 1) for size in (16 << 10, 64 << 20))
    assert small > large > 0.5e9
    assert _core.measure_read(0, 1) > 0
    with pytest.raises(InputError, match="bytes"):
        _core.measure_read(1 << 40, 1)


def test_a_wider_set_is_not_slower():
    before, figures = _core.active_isa(), {}
    try:
        for isa in SETS[: SETS.index(_core.detected_isa().removesuffix("vnni").removesuffix("bf16")) + 1]:
            _core.force_isa(isa)
            figures[isa] = _core.measure_peak(1)["gflops"]
    finally:
        _core.force_isa(before)
    ordered = list(figures.values())
    # Other load on the machine may cost some; a variant compiled without its vectors loses half.
    assert all(b > 0.75 * a for a, b in zip(ordered, ordered[1:]))


@pytest.mark.parametrize("threads", [0, -1, 5000])
def test_thread_counts_are_checked(threads):
    with pytest.raises(InputError, match="threads"):
        _core.measure_peak(threads)
