"""The order in which keys of several groups are handed out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.fair import FairQueue


def drain(queue):
    return [queue.popleft() for _ in range(len(queue))]


def test_a_flood_in_one_group_delays_a_key_of_another_by_one_key_only():
    queue = FairQueue(lambda key: key[0])
    for number in range(1000):
        queue.append(("flooded", number))
    queue.append(("calm", 0))
    assert drain(queue)[:3] == [("flooded", 0), ("calm", 0), ("flooded", 1)]


def test_without_groups_it_is_first_in_first_out():
    queue = FairQueue()
    for key in (3, 1, 2):
        queue.append(key)
    assert drain(queue) == [3, 1, 2]


def test_an_empty_queue_has_nothing_to_give():
    with pytest.raises(IndexError, match="no key"):
        FairQueue().popleft()


def test_clear_leaves_nothing():
    queue = FairQueue(len)
    queue.append("a")
    queue.clear()
    assert len(queue) == 0
    queue.append("bb")
    assert drain(queue) == ["bb"]


@given(st.lists(st.one_of(st.tuples(st.integers(0, 3), st.integers()), st.none()), max_size=60))
def test_order_within_a_group_is_kept_and_who_waits_comes_before_who_was_served(operations):
    queue = FairQueue(lambda key: key[0])
    waiting = []  # naive model: every key that is in, in order of arrival
    owed = {}  # group -> groups that waited when it was served, and so come before it
    for operation in operations:
        if operation is not None:
            queue.append(operation)
            waiting.append(operation)
        elif waiting:
            key = queue.popleft()
            assert key == next(k for k in waiting if k[0] == key[0])
            assert not owed.get(key[0])
            waiting.remove(key)
            for others in owed.values():
                others.discard(key[0])
            owed[key[0]] = {k[0] for k in waiting} - {key[0]}
        assert len(queue) == len(waiting)
