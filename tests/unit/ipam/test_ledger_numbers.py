"""What the numbers of a pool say, which pools share addresses, and what size costs."""

import pytest

from services.ipam import intervals
from services.ipam.api import PoolKey
from services.ipam.intervals import point
from services.ipam.poolstate import MAX_INT64
from services.ipam.slots import Reservation, Use
from tests.support.ledger_world import ALL, ONE, SMALL, TWO, World, claim

# The numbers of status

RANGE = {"start": "192.168.0.10", "end": "192.168.0.20"}


@pytest.mark.parametrize(
    ("entries", "spec", "total"),
    [
        ([RANGE], {"prefix": 24}, 11),
        ([RANGE], {"prefix": 24, "gateway": "192.168.0.14"}, 10),
        ([RANGE], {"prefix": 24, "gateway": "192.168.0.1"}, 11),
        ([{"start": "192.168.0.0", "end": "192.168.0.1"}], {"prefix": 24}, 1),
        ([{"start": "192.168.0.254", "end": "192.168.0.255"}], {"prefix": 24}, 1),
        ([{"start": "192.168.0.0", "end": "192.168.0.255"}], {"prefix": 24, "allocate_reserved_addresses": True}, 256),
        ([{"start": "fd00::ffff", "end": "fd00::ffff"}], {"prefix": 112}, 1),
        ([{"start": "fd00::", "end": "fd00::1"}], {"prefix": 112}, 1),
    ],
)
def test_the_total_counts_what_the_pool_may_give(entries, spec, total):
    world = World(entries, **spec)
    assert world.counts() == (total, 0, total, 0, 0, 0)
    world.hold(world.choose())
    assert world.counts() == (total, 1, total - 1, 0, 0, 0)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.168.0.10", (11, 1, 10, 0, 0, 0)),
        ("192.168.0.20", (11, 1, 10, 0, 0, 0)),
        ("192.168.0.9", (11, 0, 11, 0, 0, 1)),
        ("192.168.0.21", (11, 0, 11, 0, 0, 1)),
        ("192.168.0.1", (11, 0, 11, 0, 0, 1)),
        ("192.168.0.255", (11, 0, 11, 0, 0, 1)),
        ("10.0.0.1", (11, 0, 11, 0, 0, 1)),
        ("::c0a8:a", (11, 0, 11, 0, 0, 1)),
    ],
)
def test_what_is_held_out_of_range_is_counted_apart(address, expected):
    world = World([RANGE], prefix=24)
    world.hold(address)
    assert world.counts() == expected
    world.free(address)
    assert world.counts() == (11, 0, 11, 0, 0, 0)


def test_more_is_held_out_of_range_than_the_pool_has_and_no_number_is_negative():
    world = World([{"subnet": "10.0.0.0/24"}])
    world.hold(*(f"10.0.0.{n}" for n in range(1, 255)))
    world.pool(ONE, [{"start": "10.0.0.1", "end": "10.0.0.2"}])
    assert world.counts() == (2, 2, 0, 0, 0, 252)
    world.pool(ONE, [{"start": "10.0.0.1", "end": "10.0.0.2"}], excluded_addresses=("10.0.0.0/24",))
    assert world.counts() == (0, 0, 0, 0, 0, 254)


def test_each_address_is_in_one_column():
    world = World([{"subnet": "10.0.0.0/28"}], pre_allocations={"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3"})
    assert world.counts() == (14, 0, 11, 3, 0, 0)
    world.hold("10.0.0.1", name="a")  # pre-allocated and held: used
    world.admin("10.0.0.2")  # pre-allocated and an administrator's: reserved once
    world.release("10.0.0.3", "c", until=50)  # pre-allocated and released: still reserved, never cooling
    assert world.counts() == (14, 1, 11, 2, 0, 0)
    world.admin("10.0.0.4")
    world.release("10.0.0.5", until=50)
    world.release("10.0.0.6", until=100)
    world.hold("10.0.0.7")
    assert world.counts() == (14, 2, 7, 3, 2, 0)
    world.now = 50
    assert world.counts() == (14, 2, 8, 3, 1, 0)
    world.now = 1000
    assert world.counts() == (14, 2, 9, 3, 0, 0)
    world.pool(ONE, [{"subnet": "10.0.0.0/28"}])
    assert world.counts() == (14, 2, 10, 2, 0, 0)


def test_numbers_beyond_63_bits_are_shown_as_the_greatest():
    world = World([{"subnet": "2001:db8::/64"}])
    world.hold("2001:db8::1")
    counts = world.ledger.pools[ONE].counts(0.0)
    assert (counts.total, counts.used, counts.free) == (MAX_INT64, 1, MAX_INT64)
    assert world.ledger.pools[ONE].available == 2**64 - 2


# Pools that overlap, and domains


def test_pools_of_one_domain_never_give_the_same_address():
    world = World(SMALL)
    world.pool(TWO, [{"start": "10.0.0.2", "end": "10.0.0.4"}])
    world.hold(world.choose(pool=TWO), pool=TWO)
    world.hold("10.0.0.1")
    assert world.choose() == "10.0.0.3"
    world.hold("10.0.0.3")
    assert world.choose(pool=TWO) == "10.0.0.4"
    assert world.choose().token == "PoolExhausted"
    assert world.counts() == (3, 3, 0, 0, 0, 0)
    assert world.counts(TWO) == (3, 2, 1, 0, 0, 0)
    assert {intervals.text(at) for at in world.ledger.pools[TWO].held} == {"10.0.0.2"}
    assert world.choose(pool=TWO, requested="10.0.0.3").message == "10.0.0.3 is held by IPClaim ns/holder"


def test_different_domains_are_free_of_each_other():
    world = World(SMALL)
    world.pool(TWO, SMALL, domain="site-b")
    world.hold("10.0.0.1")
    assert (world.choose(), world.choose(pool=TWO)) == ("10.0.0.2", "10.0.0.1")
    assert world.ledger.domains["default"].overlaps_of(ONE) == set()
    assert world.ledger.slot("site-b", point("10.0.0.1")) is None
    assert world.ledger.slot("nowhere", point("10.0.0.1")) is None


def test_pools_that_share_addresses_know_of_each_other():
    world = World([{"start": "10.0.0.1", "end": "10.0.0.9"}])
    world.touched.clear()
    world.pool(TWO, [{"start": "10.0.0.9", "end": "10.0.0.20"}])
    world.pool(ALL, [{"start": "10.0.0.10", "end": "10.0.0.30"}])
    assert set(world.touched) == {ONE, TWO, ALL}
    domain = world.ledger.domain("default")
    assert [domain.overlaps_of(key) for key in (ONE, TWO, ALL)] == [{TWO}, {ONE, ALL}, {TWO}]
    world.touched.clear()
    world.pool(TWO, [{"start": "10.0.0.20", "end": "10.0.0.20"}])
    assert set(world.touched) == {ONE, TWO, ALL}
    assert [domain.overlaps_of(key) for key in (ONE, TWO, ALL)] == [set(), {ALL}, {TWO}]
    world.touched.clear()
    world.ledger.remove_pool(ALL)
    assert world.touched == [TWO]
    assert domain.overlaps_of(TWO) == domain.overlaps_of(ALL) == set()


def test_a_change_touches_every_pool_whose_numbers_it_changes():
    world = World(SMALL)
    world.pool(TWO, [{"start": "10.0.0.3", "end": "10.0.0.5"}])
    for act, touched in (
        (lambda: world.hold("10.0.0.3"), {ONE, TWO}),
        (lambda: world.hold("10.0.0.3"), set()),
        (lambda: world.hold("10.0.0.3", pool=TWO), {ONE, TWO}),
        (lambda: world.hold("10.0.0.9", pool=TWO), {TWO}),
        (lambda: world.hold("10.0.0.9", pool=ALL), {TWO}),
        (lambda: world.free("10.0.0.3"), {ONE, TWO}),
        (lambda: world.hold("10.0.0.1"), {ONE}),
    ):
        world.touched.clear()
        act()
        assert set(world.touched) == touched


# Size


def test_a_subnet_of_2_to_64_with_100000_addresses_used_keeps_few_intervals_and_gives_far_addresses():
    world = World([{"subnet": "2001:db8::/64"}])
    pool = world.ledger.pools[ONE]
    first = point("2001:db8::1")
    for at in range(first, first + 100_000):
        world.ledger.set_reservation("default", at, Reservation("", Use.HELD, claim("x"), ONE))
    assert [len(list(free)) for free in pool.free] == [1]
    assert world.choose() == intervals.text(first + 100_000)
    far = "2001:db8:0:0:8000::"
    assert world.choose(requested=far) == far
    world.hold(far)
    assert world.choose(requested=far).token == "AddressTaken"
    assert [len(list(free)) for free in pool.free] == [2]
    assert pool.used == 100_001
    world.pool(ONE, [{"subnet": "2001:db8::/64"}], excluded_addresses=("2001:db8::/112",))
    smaller = world.ledger.pools[ONE]
    assert (smaller.used, smaller.out_of_range) == (100_001 - 65_535, 65_535)


def test_a_small_pool_among_many_addresses_is_registered_by_its_own_size():
    world = World([{"subnet": "10.0.0.0/8"}])
    for at in range(point("10.0.0.1"), point("10.0.40.0")):
        world.ledger.set_reservation("default", at, Reservation("", Use.HELD, claim("x"), ONE))
    domain = world.ledger.domain("default")
    small = world.pool(TWO, [{"start": "10.0.39.250", "end": "10.0.40.5"}])
    assert len(list(domain.slots_in(small.space))) == 6
    assert world.counts(TWO) == (12, 6, 6, 0, 0, 0)
    assert len(list(domain.slots_in(world.ledger.pools[ONE].space))) == len(domain.slots)


def test_many_pools_in_a_row_leave_a_map_that_is_as_small_as_they_are():
    world = World()
    for n in range(200):
        world.pool(PoolKey("IPPool", "ns", str(n)), [{"subnet": f"10.0.{n}.0/23", "end": f"10.0.{n | 1}.254"}])
    domain = world.ledger.domain("default")
    assert len(domain._edges) <= 400
    for n in range(200):
        world.ledger.remove_pool(PoolKey("IPPool", "ns", str(n)))
    assert (domain._edges, domain._cover) == ([], [])
