"""Interval arithmetic against plain sets of numbers and Python's `ipaddress`."""

import ipaddress
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.ipam import intervals
from services.ipam.intervals import FreeSet, Interval

POINTS = st.integers(0, 40)
INTERVALS = st.tuples(POINTS, POINTS).map(lambda ends: Interval(min(ends), max(ends)))
SETS = st.lists(INTERVALS, max_size=8)
ADDRESSES = st.ip_addresses(v=4) | st.ip_addresses(v=6).filter(lambda ip: ip.ipv4_mapped is None)


def points(items):
    return {at for first, last in items for at in range(first, last + 1)}


def canonical(items):
    return all(i.first <= i.last for i in items) and all(
        one.last + 1 < two.first for one, two in itertools.pairwise(items)
    )


@given(SETS)
def test_a_merge_is_the_union_in_the_fewest_intervals(items):
    merged = intervals.merge(items)
    assert points(merged) == points(items)
    assert canonical(merged)


@given(SETS, SETS)
def test_a_subtraction_leaves_what_no_hole_covers(items, holes):
    left = intervals.subtract(items, holes)
    assert points(left) == points(items) - points(holes)
    assert canonical(left)


@given(ADDRESSES)
def test_a_point_is_the_number_of_the_address_on_its_familys_stretch(ip):
    at = intervals.point(str(ip))
    assert at == int(ip) + (intervals.V6_BASE if ip.version == 6 else 0)
    assert intervals.is_v6(at) == (ip.version == 6)
    assert intervals.text(at) == str(ip)
    assert intervals.canonical(ip.exploded) == str(ip)
    assert intervals.text(intervals.family_last(at)) == str(type(ip)(2**ip.max_prefixlen - 1))


@given(ADDRESSES, st.data())
def test_a_network_is_what_ipaddress_says(ip, data):
    length = data.draw(st.integers(0, ip.max_prefixlen))
    network = ipaddress.ip_network((ip, length), strict=False)
    found = intervals.network_of(intervals.point(str(ip)), length)
    assert found.size == network.num_addresses
    assert intervals.text(found.first) == str(network[0])
    assert found == intervals.parse_block(f"{ip}/{length}")
    assert intervals.subnet(f"{ip}/{length}") == (intervals.point(str(ip)), length)


@given(ADDRESSES, ADDRESSES, st.sampled_from(["-", " - ", "- "]))
def test_a_range_is_read_or_refused_as_its_ends_say(one, two, dash):
    text = f"{one}{dash}{two}"
    if one.version == two.version and one <= two:
        assert intervals.parse_block(text) == (intervals.point(str(one)), intervals.point(str(two)))
    else:
        with pytest.raises(ValueError, match="mixes" if one.version != two.version else "ends before it starts"):
            intervals.parse_block(text)


@given(st.text("0123456789abcdef:./-% ", max_size=24))
def test_what_is_no_address_is_refused_with_a_value_error(text):
    try:
        at = intervals.point(text)
    except ValueError:
        return
    assert ipaddress.ip_address(intervals.text(at)) == ipaddress.ip_address(text)


class FreeSetMachine(RuleBasedStateMachine):
    """A FreeSet beside a set of numbers."""

    @initialize(items=SETS)
    def start(self, items):
        self.real = FreeSet(items)
        self.model = points(items)

    @rule(at=POINTS)
    def add(self, at):
        assert self.real.add(at) == (at not in self.model)
        self.model.add(at)

    @rule(at=POINTS)
    def remove(self, at):
        assert self.real.remove(at) == (at in self.model)
        self.model.discard(at)

    @rule()
    def take_the_lowest(self):
        assert self.real.lowest() == min(self.model, default=None)
        if self.model:
            assert self.real.remove(min(self.model))
            self.model.remove(min(self.model))

    @rule(seed=st.integers(0, 1000))
    def pick_at_random(self, seed):
        at = self.real.random(random.Random(seed))
        assert at in self.model if self.model else at is None

    @rule(at=POINTS)
    def look_up(self, at):
        assert (at in self.real) == (at in self.model)

    @invariant()
    def agree(self):
        items = list(self.real)
        assert points(items) == self.model
        assert canonical(items)
        assert self.real.count == len(self.model)


TestFreeSet = FreeSetMachine.TestCase
