# SPDX-License-Identifier: Apache-2.0
"""The cost table alone: made-up calls in, limits and predictions out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastinfer.batching.costs import AGAIN, TRUSTED, Costs


def fed(seconds, sizes=(1, 2, 4, 8, 16), times=TRUSTED):
    costs = Costs()
    for n in sizes:
        for _ in range(times):
            costs.record("g", n, seconds(n))
    return costs


def test_work_that_gets_no_cheaper_in_company_goes_alone():
    assert fed(lambda n: n * 1e-3).limit("g") == 1


def test_the_limit_is_where_the_curve_turns_linear():
    assert fed(lambda n: max(n, 4) * 1e-3).limit("g") == 4  # flat until 4 rows


def test_no_limit_while_the_largest_size_is_the_best():
    assert fed(lambda n: 1e-3).limit("g") is None
    assert fed(lambda n: n * 1e-3, sizes=(1,)).limit("g") is None


def test_nothing_is_concluded_from_few_calls():
    assert fed(lambda n: n * 1e-3, times=TRUSTED - 1).limit("g") is None
    assert Costs().limit("g") is None and Costs().predict("g", 1) is None


def test_the_first_call_of_a_size_does_not_count():
    costs = Costs()
    costs.record("g", 3, 9.0)  # plans
    assert costs.predict("g", 3) is None
    costs.record("g", 3, 1.0)
    assert costs.predict("g", 3) == costs.predict("g", 4) == 1.0
    assert costs.predict("g", 5) is None and costs.predict("h", 3) is None


def test_a_machine_that_changes_is_followed():
    costs = fed(lambda n: n * 1e-3)
    for _ in range(AGAIN):
        costs.record("g", 1, 1e-3)
    assert costs.limit("g") is None  # larger sizes may be tried again
    for n in (2, 4):
        for _ in range(20):
            costs.record("g", n, 1e-3)  # now company is free
    assert costs.limit("g") != 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5000), st.floats(0, 10)), max_size=300))
def test_any_calls(calls):
    costs = Costs()
    for group, work, seconds in calls:
        costs.record(group, work, seconds)
        assert (limit := costs.limit(group)) is None or limit >= 1
        assert (predicted := costs.predict(group, work)) is None or 0 <= predicted <= 10
    assert sum(s["calls"] for sizes in costs.table().values() for s in sizes) == len(calls)


def test_an_interrupted_call_counts_little_and_a_slower_machine_is_followed():
    costs = Costs()
    for _ in range(10):
        costs.record("g", 1, 1e-5)
    costs.record("g", 1, 1.0)
    assert costs.predict("g", 1) < 2e-5
    for _ in range(30):
        costs.record("g", 1, 1e-3)
    assert costs.predict("g", 1) == pytest.approx(1e-3, rel=0.1)
