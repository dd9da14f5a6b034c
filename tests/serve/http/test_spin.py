# SPDX-License-Identifier: Apache-2.0
"""When the loop stays awake. The clock is the test's own."""

import pytest

from fastinfer.serve.http import spin


class Loop:
    def __init__(self):
        self.soon = []

    def call_soon(self, call):
        self.soon.append(call)

    def turn(self):
        calls, self.soon = self.soon, []
        for call in calls:
            call()


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1.0

    monkeypatch.setattr(spin.time, "perf_counter", lambda: Clock.now)
    return Clock


def exchange(spinner, clock, gap, count):
    for _ in range(count):
        clock.now += gap
        spinner.asked()
        clock.now += 50e-6
        spinner.answered()


def test_close_requests_keep_it_awake_for_one_window(clock):
    loop = Loop()
    spinner = spin.Spinner(loop, 200e-6, lambda: ())
    exchange(spinner, clock, 100e-6, 60)
    for _ in range(3):
        assert len(loop.soon) == 1  # one turn at a time, however many answers there were
        loop.turn()
    clock.now += 201e-6
    loop.turn()
    assert not loop.soon
    exchange(spinner, clock, 100e-6, 1)
    assert len(loop.soon) == 1


def test_sparse_requests_let_it_sleep(clock):
    loop = Loop()
    spinner = spin.Spinner(loop, 200e-6, lambda: ())
    exchange(spinner, clock, 5e-3, 100)
    assert not loop.soon
    exchange(spinner, clock, 100e-6, 60)
    assert loop.soon
    clock.now += 1
    loop.turn()
    exchange(spinner, clock, 1.0, 10)
    assert not loop.soon


def test_a_request_that_is_under_way_elsewhere_has_the_processor(clock):
    loop, tasks = Loop(), set()
    spinner = spin.Spinner(loop, 200e-6, lambda: tasks)
    exchange(spinner, clock, 100e-6, 60)
    tasks.add("in a thread")
    loop.turn()
    assert not loop.soon
