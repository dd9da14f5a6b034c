# SPDX-License-Identifier: Apache-2.0
import pytest

from fastinfer import InputError, _core

SETS = ["baseline", "avx2", "avx512"]


def test_peak_has_plausible_figures():
    peak = _core.measure_peak(1)
    assert 1 < peak["gflops"] < 5000 and 0.5 < peak["read_gbs"] < 2000
    assert peak["threads"] == 1 and peak["kernel"].startswith("peak_f32x")


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
