# SPDX-License-Identifier: Apache-2.0
"""The policy: order, company, bounds. Times are plain numbers."""

import random

import pytest

from fastinfer import QueueFull
from fastinfer.batching.queue import HEAD_START, Queue, Request


def filled(queue, *requests):
    for at, request in requests:
        queue.add(request, at)
    return queue


def names(batch):
    return [r.feed for r in batch]


def test_takes_what_is_there_up_to_the_rows():
    queue = filled(Queue(4), *((i, Request(i, "g", 1 + (i == 2))) for i in range(5)))
    assert names(queue.take(9)) == [0, 1, 2]
    assert names(queue.take(9)) == [3, 4]
    assert queue.take(9) == [] and len(queue) == 0


def test_groups_are_never_mixed_and_none_goes_alone():
    queue = filled(Queue(8), *((i, Request(i, g)) for i, g in enumerate(["a", "b", None, "a", None, "b"])))
    assert [names(queue.take(9)) for _ in range(5)] == [[0, 3], [1, 5], [2], [4], []]


def test_a_request_larger_than_a_call_goes_alone():
    queue = filled(Queue(4), (0, Request(0, "g", 9)), (1, Request(1, "g", 1)))
    assert [names(queue.take(2)) for _ in range(2)] == [[0], [1]]


def test_small_ones_do_not_pass_a_large_one_by():
    queue = filled(Queue(4), *((i, Request(i, "g", n)) for i, n in enumerate([3, 4, 1])))
    assert [names(queue.take(9)) for _ in range(3)] == [[0], [1], [2]]


def test_priority_goes_first_but_nothing_starves():
    queue = Queue(1)
    queue.add(Request("low", "g", priority=0), 0.0)
    taken, now = [], 0.0
    while "low" not in taken:
        queue.add(Request("high", "g", priority=2), now)
        taken += names(queue.take(now))
        now += 0.01
        assert now < 1
    assert taken[0] == "high"
    assert 2 * HEAD_START - 0.02 < now < 2 * HEAD_START + 0.04


def test_waits_for_company_no_longer_than_asked():
    queue = filled(Queue(3, max_delay=1.0), (0.0, Request(0, "g")), (0.5, Request(1, "g")))
    assert queue.take(0.9) == [] and queue.next_event(waits=True) == 1.0
    assert queue.next_event(waits=False) is None
    assert names(queue.take(1.0)) == [0, 1]


def test_a_full_call_does_not_wait():
    queue = filled(Queue(2, max_delay=1.0), (0.0, Request(0, "g")), (0.1, Request(1, "h")), (0.1, Request(2, "h")))
    assert names(queue.take(0.2)) == [1, 2]
    queue.add(Request(3, None), 0.3)
    assert names(queue.take(0.3)) == [3], "no company can come for it"
    assert queue.take(0.3) == []


def test_bounded():
    queue = filled(Queue(4, max_queue=2), (0, Request(0)), (0, last := Request(1)))
    with pytest.raises(QueueFull, match="2 requests are waiting"):
        queue.add(Request(2), 0)
    assert queue.remove(last) and not queue.remove(last)
    queue.add(Request(3), 0)
    assert names(queue.drop()) == [0, 3] and len(queue) == 0


def test_expires_in_time():
    queue = filled(Queue(4), *((0, Request(i, "g", deadline=d)) for i, d in enumerate([3.0, 1.0, None, 2.0])))
    assert queue.next_event(waits=False) == 1.0
    assert names(queue.expire(2.0)) == [1, 3]
    assert queue.next_event(waits=False) == 3.0
    assert names(queue.take(2.5)) == [0, 2]
    assert queue.next_event(waits=False) is None


def test_what_has_left_is_forgotten():
    queue = Queue(1, max_queue=10**6)
    queue.add(Request("first", "g", priority=-9), 0)
    for i in range(5000):
        queue.add(request := Request(i, i % 7, deadline=i + 99.0), i)
        queue.remove(request)
    held = len(queue._order) + len(queue._arrivals) + len(queue._deadlines)
    held += sum(len(g.heap) for g in queue._groups.values())
    assert held < 400 and len(queue) == 1


@pytest.mark.parametrize("seed", range(20))
def test_every_request_leaves_once(seed):
    """A random history: each request is taken, expired or removed exactly once, calls keep to one group and the rows."""
    r = random.Random(seed)
    queue = Queue(r.randint(1, 6), r.choice([0.0, 0.5]), 40)
    now, there, gone = 0.0, [], []

    def leave(requests):
        for request in requests:
            there.remove(request)
            gone.append(request)

    for step in range(400):
        now += r.random() * 0.2
        kind = r.random()
        if kind < 0.5 and len(there) < 40:
            request = Request(step, r.choice(["a", "b", None]), r.randint(1, 4), r.randint(0, 3))
            request.deadline = now + r.random() if r.random() < 0.5 else None
            queue.add(request, now)
            there.append(request)
        elif kind < 0.6 and there:
            request = r.choice(there)
            assert queue.remove(request)
            leave([request])
        elif kind < 0.75:
            due = queue.expire(now)
            assert all(request.deadline <= now for request in due)
            leave(due)
            assert all(request.deadline is None or request.deadline > now for request in there)
        else:
            batch = queue.take(now)
            assert len(batch) <= 1 or (len({q.group for q in batch}) == 1 and batch[0].group is not None)
            assert len(batch) <= 1 or sum(q.rows for q in batch) <= queue.max_batch
            if there and queue.max_delay == 0:
                assert batch and batch[0].rank == min(q.rank for q in there)
            leave(batch)
        assert len(queue) == len(there)
