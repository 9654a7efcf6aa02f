"""Who gets which address, who waits, and what the numbers say."""

import random

import pytest

from services.ipam import intervals
from services.ipam.api import ClaimKey, PoolKey, PoolRange, PoolSpec
from services.ipam.intervals import point
from services.ipam.ledger import Ledger, Refusal
from services.ipam.poolstate import MAX_INT64
from services.ipam.slots import Holding, Reservation, Use
from services.ipam.space import PoolSpace

ONE, TWO, ALL = PoolKey("IPPool", "ns", "one"), PoolKey("IPPool", "ns", "two"), PoolKey("GlobalIPPool", "", "all")
SMALL = [{"start": "10.0.0.1", "end": "10.0.0.3"}]


def claim(name, kind="IPClaim"):
    return ClaimKey(kind, "ns", name)


class World:
    """A ledger that remembers what it told, with short words for what happens to it."""

    def __init__(self, entries=None, **spec):
        self.woken, self.touched = [], []
        self.ledger = Ledger(wake=lambda key: self.woken.append(key.name), touched=self.touched.append)
        self.now = 0.0
        if entries is not None:
            self.pool(ONE, entries, **spec)

    def pool(self, key, entries, *, domain="default", random_order=False, **spec):
        ranges = tuple(PoolRange(**entry) for entry in entries)
        return self.ledger.set_pool(key, domain, PoolSpace(PoolSpec(pools=ranges, **spec)), random_order=random_order)

    def choose(self, name="x", pool=ONE, *, requested=None, age=0, seed=1):
        """An address as text, or the refusal."""
        state = self.ledger.pools[pool]
        at = None if requested is None else point(requested)
        found = self.ledger.choose(state, claim(name), ("", age), at, self.now, random.Random(seed))
        return found if isinstance(found, Refusal) else intervals.text(found)

    def hold(self, *addresses, name="holder", pool=ONE, domain="default"):
        for address in addresses:
            self.ledger.set_reservation(domain, point(address), Reservation(address, Use.HELD, claim(name), pool))

    def admin(self, address, domain="default"):
        self.ledger.set_reservation(domain, point(address), Reservation(address, Use.ADMIN, None, None))

    def release(self, address, name="holder", *, until=0.0, pool=ONE):
        reservation = Reservation(address, Use.RELEASED, claim(name), pool, until)
        self.ledger.set_reservation("default", point(address), reservation)

    def free(self, address, domain="default"):
        self.ledger.set_reservation(domain, point(address), None)

    def wait(self, name, age=0, pool=ONE):
        self.ledger.wait(self.ledger.pools[pool], claim(name), ("", age))

    def pick(self, name, address, pool=ONE):
        self.ledger.begin(self.ledger.pools[pool], point(address), claim(name))

    def told(self):
        """Names of the claims woken since the last call."""
        names, self.woken[:] = list(self.woken), []
        return names

    def counts(self, pool=ONE):
        """(total, used, free, reserved, cooling, out of range)."""
        found = self.ledger.pools[pool].counts(self.now)
        assert found.total == found.used + found.free + found.reserved + found.cooling
        return tuple(getattr(found, name) for name in found.__struct_fields__)


def holding(address, name="adopted", pool=ONE, *, owner="adopter", kind="IPClaim"):
    return Holding(kind, "ns", name, claim(owner, kind), pool, point(address))


# What a claim gets: the cases that metal3's allocator is tested with

TWO_POOLS = [
    {"start": "192.168.0.10", "end": "192.168.0.15"},
    {"start": "192.168.0.20", "end": "192.168.0.25"},
]


@pytest.mark.parametrize(
    ("entries", "spec", "used", "requested", "expected"),
    [
        pytest.param([], {}, [], None, "PoolExhausted", id="no ranges"),
        pytest.param(
            [{"start": "192.168.0.10"}],
            {},
            ["192.168.0.10", "192.168.0.11", "192.168.0.12"],
            None,
            "192.168.0.13",
            id="lowest",
        ),
        pytest.param([{"start": "192.168.0.11"}], {}, ["192.168.0.12"], "192.168.0.16", "192.168.0.16", id="requested"),
        pytest.param(
            [{"start": "192.168.0.11"}], {}, ["192.168.0.16"], "192.168.0.16", "AddressTaken", id="requested, taken"
        ),
        pytest.param(
            [{"start": "192.168.0.11"}],
            {"pre_allocations": {"other": "192.168.0.16"}},
            [],
            "192.168.0.16",
            "AddressReserved",
            id="requested, kept for another",
        ),
        pytest.param(
            [{"start": "192.168.0.11"}],
            {"pre_allocations": {"me": "192.168.0.16"}},
            [],
            "192.168.0.16",
            "192.168.0.16",
            id="requested what is kept for it",
        ),
        pytest.param(
            [{"start": "192.168.0.11"}],
            {"pre_allocations": {"other": "192.168.0.12"}},
            ["192.168.0.11"],
            None,
            "192.168.0.13",
            id="steps over what is kept for another",
        ),
        pytest.param(
            [{"subnet": "192.168.0.10/24", "prefix": 24}],
            {},
            ["192.168.0.11"],
            None,
            "192.168.0.12",
            id="subnet, host bits kept",
        ),
        pytest.param(
            [{"subnet": "192.168.1.10/24"}, {"subnet": "192.168.2.10/24"}],
            {},
            ["192.168.1.11"],
            None,
            "192.168.1.12",
            id="two",
        ),
        pytest.param(
            [{"subnet": "192.168.1.0/30"}, {"subnet": "192.168.2.10/24"}],
            {},
            ["192.168.1.1", "192.168.1.2"],
            None,
            "192.168.2.11",
            id="second range when the first is full",
        ),
        pytest.param(
            [{"start": "192.168.0.9", "end": "192.168.0.9"}, {"start": "192.168.0.2", "end": "192.168.0.3"}],
            {},
            [],
            None,
            "192.168.0.9",
            id="ranges in the order given, not by address",
        ),
        pytest.param(
            [{"start": "192.168.0.10", "end": "192.168.0.11"}],
            {},
            ["192.168.0.10", "192.168.0.11"],
            None,
            "PoolExhausted",
            id="exhausted range",
        ),
        pytest.param(
            [{"subnet": "192.168.0.0/30"}],
            {},
            ["192.168.0.1", "192.168.0.2"],
            None,
            "PoolExhausted",
            id="exhausted subnet: its broadcast address is not given",
        ),
        pytest.param(
            [{"subnet": "192.168.0.0/30"}],
            {"allocate_reserved_addresses": True},
            ["192.168.0.0", "192.168.0.1", "192.168.0.2"],
            None,
            "192.168.0.3",
            id="unless reserved addresses are allowed",
        ),
        pytest.param(
            [{"subnet": "192.168.0.0/29"}],
            {"gateway": "192.168.0.1"},
            [],
            None,
            "192.168.0.2",
            id="steps over the gateway",
        ),
        pytest.param([{"subnet": "192.168.0.0/24"}], {}, [], "10.0.0.1", "AddressOutsidePool", id="requested, outside"),
        pytest.param(
            [{"subnet": "192.168.0.0/24"}],
            {},
            [],
            "2001:db8::1",
            "AddressOutsidePool",
            id="requested, the other family",
        ),
        pytest.param(
            [{"subnet": "192.168.0.0/24"}],
            {"gateway": "192.168.0.1"},
            [],
            "192.168.0.1",
            "AddressExcluded",
            id="the gateway",
        ),
        pytest.param(
            [{"subnet": "192.168.0.0/24"}], {}, [], "192.168.0.255", "AddressExcluded", id="the broadcast address"
        ),
        pytest.param(
            [{"subnet": "192.168.0.0/24"}],
            {"excluded_addresses": ("192.168.0.7",)},
            [],
            "192.168.0.7",
            "AddressExcluded",
            id="an excluded one",
        ),
    ],
)
def test_a_claim_gets_the_address_that_the_rules_give(entries, spec, used, requested, expected):
    world = World(entries, **spec)
    world.hold(*used)
    found = world.choose("me", requested=requested)
    assert (found.token if isinstance(found, Refusal) else found) == expected


@pytest.mark.parametrize(
    ("entries", "spec", "written", "settings"),
    [
        (TWO_POOLS, {"prefix": 24, "gateway": "192.168.0.1"}, "192.168.0.21", (24, "192.168.0.1", ())),
        ([{"subnet": "2001:db8::/64"}], {"gateway": "2001:db8::1"}, "2001:db8::0005", (64, "2001:db8::1", ())),
        (
            [
                TWO_POOLS[0],
                {**TWO_POOLS[1], "prefix": 26, "gateway": "192.168.0.2", "dns_servers": ("8.8.4.4",)},
            ],
            {"prefix": 24, "gateway": "192.168.0.1", "dns_servers": ("8.8.8.8",)},
            "192.168.0.21",
            (26, "192.168.0.2", ("8.8.4.4",)),
        ),
    ],
)
def test_a_pre_allocated_address_goes_to_its_claim_alone_with_its_ranges_settings(entries, spec, written, settings):
    world = World(entries, pre_allocations={"me": written}, **spec)
    space = world.ledger.pools[ONE].space
    at = space.pre_allocations["me"]
    assert world.choose("me", requested=written) == intervals.text(at)
    assert world.choose("other", requested=written).token == "AddressReserved"
    assert (space.range_of(at).prefix, space.range_of(at).gateway, space.range_of(at).dns_servers) == settings


def test_a_pre_allocation_out_of_bounds_keeps_nothing_and_is_named():
    space = World(TWO_POOLS, pre_allocations={"me": "192.168.1.21"}).ledger.pools[ONE].space
    assert space.pre_allocations == {}
    assert space.bad_pre_allocations["me"].value == "192.168.1.21"


# The in-cluster provider's search for a free address


@pytest.mark.parametrize(
    ("entries", "used", "expected"),
    [
        ([{"start": "10.0.0.1", "end": "10.0.0.5"}], [], "10.0.0.1"),
        ([{"start": "10.0.0.1", "end": "10.0.0.5"}], ["10.0.0.1", "10.0.0.2", "10.0.0.4"], "10.0.0.3"),
        ([{"start": "10.0.0.1", "end": "10.0.0.5"}], ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"], "10.0.0.5"),
        ([{"start": "10.0.0.1", "end": "10.0.0.2"}], ["10.0.0.1", "10.0.0.2"], None),
        ([{"start": "10.0.0.1", "end": "10.0.0.1"}], [], "10.0.0.1"),
        ([{"start": "10.0.0.1", "end": "10.0.0.1"}], ["10.0.0.1"], None),
        ([{"start": "10.0.0.1", "end": "10.0.0.1"}, {"start": "10.0.1.1"}], ["10.0.0.1"], "10.0.1.1"),
        (
            [{"start": "10.0.0.1", "end": "10.0.0.1"}, {"start": "10.0.1.1", "end": "10.0.1.2"}],
            ["10.0.0.1", "10.0.1.1"],
            "10.0.1.2",
        ),
        (
            [{"start": "10.0.0.1", "end": "10.0.0.1"}, {"start": "10.0.1.1", "end": "10.0.1.1"}],
            ["10.0.0.1", "10.0.1.1"],
            None,
        ),
        ([{"start": "2001:db8::1", "end": "2001:db8::2"}], ["2001:db8::1"], "2001:db8::2"),
    ],
)
@pytest.mark.parametrize("random_order", [False, True])
def test_the_lowest_or_any_free_address_of_the_first_range_that_has_one_is_chosen(
    entries, used, expected, random_order
):
    world = World()
    pool = world.pool(ONE, entries, random_order=random_order)
    world.hold(*used)
    for seed in range(20):
        found = world.choose(seed=seed)
        if expected is None:
            assert found.token == "PoolExhausted"
        elif random_order:
            assert point(found) in pool.free[pool.space.place_of(point(expected))]
        else:
            assert found == expected


def test_at_random_every_free_address_may_come_but_none_that_is_kept_or_taken():
    world = World()
    world.pool(
        ONE, [{"subnet": "10.0.0.0/28"}], random_order=True, pre_allocations={"other": "10.0.0.5"}, gateway="10.0.0.1"
    )
    world.hold("10.0.0.2", "10.0.0.3")
    found = {world.choose(seed=seed) for seed in range(400)}
    assert found == {f"10.0.0.{n}" for n in range(4, 15)} - {"10.0.0.5"}


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


# Released addresses


def test_addresses_never_used_come_before_released_ones_and_those_by_the_soonest_end_of_their_delay():
    world = World([{"start": "10.0.0.1", "end": "10.0.0.4"}])
    world.now = 100
    world.release("10.0.0.1", until=50)
    world.release("10.0.0.2", until=200)
    world.release("10.0.0.3", until=20)
    order = []
    for _ in range(4):
        order.append(world.choose())
        world.hold(order[-1])
    assert order == ["10.0.0.4", "10.0.0.3", "10.0.0.1", "10.0.0.2"]
    assert world.choose().token == "PoolExhausted"


def test_a_cooling_address_is_kept_from_others_but_not_from_its_last_claim():
    world = World([{"start": "10.0.0.1", "end": "10.0.0.4"}])
    world.release("10.0.0.1", "last", until=60)
    refusal = world.choose("other", requested="10.0.0.1")
    assert refusal == Refusal(
        "AddressCooling",
        "10.0.0.1 was released by IPClaim ns/last and is kept for its reuse delay",
        address=point("10.0.0.1"),
        until=60,
    )
    assert world.choose("last", requested="10.0.0.1") == "10.0.0.1"
    world.now = 60
    assert world.choose("other", requested="10.0.0.1") == "10.0.0.1"


def test_the_delay_is_cut_short_when_nothing_else_is_left():
    world = World([{"start": "10.0.0.1", "end": "10.0.0.2"}])
    world.release("10.0.0.1", "last", until=60)
    assert world.choose("other", requested="10.0.0.1").token == "AddressCooling"
    world.hold("10.0.0.2")
    assert world.choose("other", requested="10.0.0.1") == "10.0.0.1"
    assert world.choose("other") == "10.0.0.1"


def test_a_pre_allocated_address_cools_too_and_is_nobody_elses_pressure():
    world = World([{"start": "10.0.0.1", "end": "10.0.0.2"}], pre_allocations={"same": "10.0.0.1"})
    last = Reservation("10.0.0.1", Use.RELEASED, claim("same", "IPAddressClaim"), ONE, 60.0)
    world.ledger.set_reservation("default", point("10.0.0.1"), last)
    assert world.choose("same", requested="10.0.0.1").token == "AddressCooling"
    assert world.choose() == "10.0.0.2"
    world.hold("10.0.0.2")
    assert world.choose().token == "PoolExhausted"
    assert world.choose("same", requested="10.0.0.1") == "10.0.0.1"


def test_a_new_delay_replaces_the_old_one():
    world = World([{"start": "10.0.0.1", "end": "10.0.0.2"}])
    world.release("10.0.0.1", until=10)
    world.release("10.0.0.2", until=20)
    world.release("10.0.0.1", until=30)
    assert world.choose() == "10.0.0.2"
    assert world.counts() == (2, 0, 0, 0, 2, 0)


# Why a requested address is refused


def test_a_taken_address_says_by_whom():
    world = World([{"subnet": "10.0.0.0/24"}])
    world.hold("10.0.0.1", name="a")
    world.ledger.set_holding(None, holding("10.0.0.2", owner="b", kind="IPAddressClaim"))
    world.pick("c", "10.0.0.3")
    world.admin("10.0.0.4")
    world.ledger.set_holding(None, holding("10.0.0.1", owner="d"))
    said = [world.choose(requested=f"10.0.0.{n}") for n in (1, 2, 3, 4)]
    assert [(r.token, r.message.split(" is ")[1]) for r in said] == [
        ("AddressTaken", "held by IPClaim ns/a and IPClaim ns/d"),
        ("AddressTaken", "held by IPAddressClaim ns/b"),
        ("AddressTaken", "held by IPClaim ns/c"),
        ("AddressReserved", "kept by IPReservation 10.0.0.4"),
    ]
    assert [r.address for r in said] == [point(f"10.0.0.{n}") for n in (1, 2, 3, 4)]
    assert not any(r.exhausted for r in said)


def test_what_no_release_can_cure_names_no_address_to_wait_for():
    world = World([{"subnet": "10.0.0.0/24"}], gateway="10.0.0.1", pre_allocations={"a": "10.0.0.2"})
    refusals = [world.choose("x", requested=address) for address in ("10.1.0.0", "10.0.0.1", "10.0.0.2")]
    assert [(r.token, r.address, r.until) for r in refusals] == [
        ("AddressOutsidePool", None, None),
        ("AddressExcluded", None, None),
        ("AddressReserved", None, None),
    ]
    assert refusals[2].message == "10.0.0.2 is kept for 'a' by the pool's preAllocations"


def test_a_claim_that_asked_for_an_address_is_woken_when_it_comes_free():
    world = World(SMALL)
    world.hold("10.0.0.1", "10.0.0.2")
    for name in ("a", "b"):
        world.ledger.wait_for("default", point("10.0.0.1"), claim(name))
    world.free("10.0.0.2")
    world.hold("10.0.0.1", name="another")
    world.admin("10.0.0.1")
    assert world.told() == []
    world.release("10.0.0.1", until=60)
    assert world.told() == ["a", "b"]
    world.free("10.0.0.1")
    assert world.told() == ["a", "b"]
    world.ledger.stop_waiting(claim("a"))
    world.hold("10.0.0.1")
    world.free("10.0.0.1")
    assert world.told() == ["b"]
    world.ledger.stop_waiting(claim("b"))
    assert world.ledger.domains["default"].address_waiters == {}


def test_who_begins_to_wait_for_an_address_that_is_free_by_then_is_woken_at_once():
    world = World(SMALL)
    world.ledger.wait_for("default", point("10.0.0.1"), claim("a"))
    assert world.told() == ["a"]
    world.hold("10.0.0.1")
    world.ledger.wait_for("default", point("10.0.0.1"), claim("a"))
    assert world.told() == []


# Who waits


def full(*waiters, addresses=3):
    """A world whose pool is full, with waiting claims, oldest first."""
    world = World([{"start": "10.0.0.1", "end": f"10.0.0.{addresses}"}])
    world.hold(*(f"10.0.0.{n}" for n in range(1, addresses + 1)))
    for age, name in enumerate(waiters):
        world.wait(name, age)
    return world


def test_each_unit_of_capacity_wakes_the_waiter_that_it_serves_and_no_other():
    world = full("a", "b", "c", "d")
    assert world.told() == []
    world.free("10.0.0.2")
    assert world.told() == ["a"]
    world.release("10.0.0.1", until=60)
    assert world.told() == ["b"]
    world.free("10.0.0.1")  # released before, so nothing was gained
    assert world.told() == []
    world.free("10.0.0.3")
    assert world.told() == ["c"]
    assert world.ledger.pools[ONE].counts(0.0).free == 3


def test_nobody_overtakes_an_older_waiter():
    world = full("a", "b")
    world.free("10.0.0.1")
    assert world.choose("b", age=1).token == "PoolExhausted"
    assert world.choose("new", age=9).token == "PoolExhausted"
    assert world.choose("a", age=0) == "10.0.0.1"
    world.free("10.0.0.2")
    assert world.choose("b", age=1) == "10.0.0.1"
    assert world.choose("new", age=9).token == "PoolExhausted"
    world.free("10.0.0.3")
    assert world.choose("new", age=9) == "10.0.0.1"


def test_age_counts_and_not_the_order_in_which_claims_began_to_wait():
    world = full()
    for name, age in (("young", 3), ("old", 1), ("middle", 2)):
        world.wait(name, age)
    world.free("10.0.0.1")
    world.free("10.0.0.2")
    assert world.told() == ["old", "middle"]
    assert [world.choose(n, age=a) for n, a in (("old", 1), ("middle", 2))] == ["10.0.0.1", "10.0.0.1"]
    assert world.choose("young", age=3).token == "PoolExhausted"


def test_who_picks_an_address_leaves_the_queue_and_takes_nothing_from_those_behind():
    world = full("a", "b", "c")
    world.free("10.0.0.1")
    world.free("10.0.0.2")
    world.told()
    world.pick("a", world.choose("a", age=0))
    assert world.told() == []
    assert world.choose("b", age=1) == "10.0.0.2"
    assert world.choose("c", age=2).token == "PoolExhausted"
    assert [entry[2].name for entry in world.ledger.pools[ONE].waiting] == ["b", "c"]


def test_a_pick_that_comes_to_nothing_serves_the_next():
    world = full("a", "b")
    world.free("10.0.0.1")
    world.pick("a", "10.0.0.1")
    world.told()
    world.ledger.settle("default", point("10.0.0.1"))
    assert world.told() == ["b"]
    world.ledger.settle("default", point("10.0.0.1"))
    assert world.told() == []


def test_a_waiter_that_leaves_lets_the_next_one_go():
    world = full("a", "b", "c")
    world.free("10.0.0.1")
    assert world.told() == ["a"]
    world.ledger.stop_waiting(claim("c"))
    assert world.told() == []
    world.ledger.stop_waiting(claim("a"))
    assert world.told() == ["b"]
    world.ledger.stop_waiting(claim("nobody"))
    assert world.told() == []


def test_a_waiter_that_gets_an_address_from_elsewhere_lets_the_next_one_go():
    world = full("a", "b")
    world.pool(TWO, [{"start": "10.0.1.1", "end": "10.0.1.1"}])
    world.free("10.0.0.1")
    world.told()
    world.pick("a", "10.0.1.1", pool=TWO)
    assert world.told() == ["b"]


def test_a_waiter_is_queued_once_and_only_in_the_pool_it_asked_last():
    world = full("a", "b")
    world.wait("a", 0)
    world.pool(TWO, [{"start": "10.0.1.1", "end": "10.0.1.1"}])
    world.hold("10.0.1.1", pool=TWO)
    world.wait("a", 0, pool=TWO)
    assert [entry[2].name for entry in world.ledger.pools[ONE].waiting] == ["b"]
    assert [entry[2].name for entry in world.ledger.pools[TWO].waiting] == ["a"]
    world.ledger.wait_for("default", point("10.0.0.1"), claim("a"))
    assert not world.ledger.pools[TWO].waiting


def test_a_claim_made_anew_under_its_name_loses_the_place_of_the_old_one():
    world = full("a", "b")
    world.wait("a", 5)
    assert [entry[2].name for entry in world.ledger.pools[ONE].waiting] == ["b", "a"]


def test_who_begins_to_wait_though_capacity_came_meanwhile_is_woken_at_once():
    world = full()
    world.free("10.0.0.1")
    world.wait("a", 0)
    assert world.told() == ["a"]
    world.wait("b", 1)
    assert world.told() == []


def test_who_waits_for_a_pool_that_went_meanwhile_is_woken_at_once():
    world = full()
    state = world.ledger.pools[ONE]
    world.ledger.remove_pool(ONE)
    world.ledger.wait(state, claim("a"), ("", 0))
    assert world.told() == ["a"]
    assert len(state.waiting) == 0


def test_a_pool_that_goes_wakes_who_waits_for_it():
    world = full("a", "b")
    world.ledger.remove_pool(ONE)
    assert world.told() == ["a", "b"]
    world.ledger.stop_waiting(claim("a"))
    world.ledger.remove_pool(ONE)
    assert world.told() == []


def test_capacity_in_a_pool_that_overlaps_wakes_the_waiters_of_both():
    world = full("a")
    world.pool(TWO, [{"start": "10.0.0.1", "end": "10.0.0.1"}])
    world.wait("b", 1, pool=TWO)
    world.free("10.0.0.1")
    assert sorted(world.told()) == ["a", "b"]


@pytest.mark.parametrize("address", ["10.0.0.1", "10.0.0.2", "10.0.0.9"])
def test_what_is_excluded_kept_or_outside_is_no_capacity(address):
    world = World([{"subnet": "10.0.0.0/29"}], gateway="10.0.0.1", pre_allocations={"other": "10.0.0.2"})
    world.hold(*(f"10.0.0.{n}" for n in (1, 2, 3, 4, 5, 6, 9)))
    world.wait("a")
    world.free(address)
    assert world.told() == []


# A pool's spec changes


def test_a_pool_that_grows_wakes_as_many_as_it_can_serve():
    world = full("a", "b", "c")
    world.pool(ONE, [{"start": "10.0.0.1", "end": "10.0.0.5"}])
    assert world.told() == ["a", "b"]
    assert world.choose("a", age=0) == "10.0.0.4"


def test_a_pool_that_shrinks_keeps_its_addresses_and_its_queue():
    world = full("a")
    world.pool(ONE, [{"start": "10.0.0.1", "end": "10.0.0.1"}])
    assert world.counts() == (1, 1, 0, 0, 0, 2)
    world.free("10.0.0.2")
    assert world.told() == []
    assert world.counts() == (1, 1, 0, 0, 0, 1)
    world.free("10.0.0.1")
    assert world.told() == ["a"]
    world.pool(ONE, [{"start": "10.0.0.1", "end": "10.0.0.3"}])
    assert world.counts() == (3, 1, 2, 0, 0, 0)


def test_an_address_that_becomes_excluded_stays_held_and_is_not_given_again():
    world = World(SMALL)
    world.hold("10.0.0.1")
    world.pool(ONE, SMALL, excluded_addresses=("10.0.0.1", "10.0.0.2"))
    assert world.counts() == (1, 0, 1, 0, 0, 1)
    world.free("10.0.0.1")
    assert world.counts() == (1, 0, 1, 0, 0, 0)
    assert world.choose() == "10.0.0.3"


def test_a_pool_that_goes_and_comes_back_finds_everything_as_it_was():
    world = World(SMALL)
    world.hold("10.0.0.1")
    world.ledger.set_holding(None, holding("10.0.0.2"))
    world.release("10.0.0.3", until=60)
    before = world.counts()
    world.ledger.remove_pool(ONE)
    world.pool(TWO, SMALL)
    assert world.choose(pool=TWO) == "10.0.0.3"
    world.ledger.remove_pool(TWO)
    world.pool(ONE, SMALL)
    assert world.counts() == before == (3, 2, 0, 0, 1, 0)
    assert {intervals.text(at) for at in world.ledger.pools[ONE].held} == {"10.0.0.1", "10.0.0.2"}


def test_a_pool_whose_order_changes_keeps_everything_else():
    world = full("a")
    world.pool(ONE, SMALL, random_order=True)
    assert world.ledger.pools[ONE].random_order
    assert [entry[2].name for entry in world.ledger.pools[ONE].waiting] == ["a"]


# IPAddresses


def test_an_ip_address_takes_its_address_until_it_goes():
    world = World(SMALL)
    world.ledger.set_holding(None, holding("10.0.0.1"))
    assert world.choose() == "10.0.0.2"
    assert world.counts() == (3, 1, 2, 0, 0, 0)
    world.ledger.set_holding(holding("10.0.0.1"), holding("10.0.0.2"))
    assert world.choose() == "10.0.0.1"
    world.ledger.set_holding(holding("10.0.0.2"), holding("10.0.0.2"))
    world.ledger.set_holding(None, holding("10.0.0.2"))  # told twice
    world.ledger.set_holding(holding("10.0.0.2"), None)
    world.ledger.set_holding(holding("10.0.0.2"), None)
    assert world.counts() == (3, 0, 3, 0, 0, 0)
    assert world.ledger.domains["default"].slots == {}


def test_an_ip_address_that_comes_before_its_pool_takes_its_address_once_the_pool_is_there():
    world = World()
    world.pool(TWO, SMALL)
    world.ledger.set_holding(None, holding("10.0.0.1"))
    world.ledger.set_holding(None, holding("10.0.0.2", "second"))
    world.ledger.set_holding(holding("10.0.0.2", "second"), None)
    assert world.choose(pool=TWO) == "10.0.0.1"
    world.pool(ONE, SMALL)
    assert world.choose(pool=TWO) == "10.0.0.2"
    assert world.counts() == world.counts(TWO) == (3, 1, 2, 0, 0, 0)


def test_an_ip_address_whose_pool_went_first_frees_its_address_all_the_same():
    world = World(SMALL)
    world.pool(TWO, SMALL)
    world.ledger.set_holding(None, holding("10.0.0.1"))
    world.ledger.remove_pool(ONE)
    assert world.choose(pool=TWO) == "10.0.0.2"
    world.ledger.set_holding(holding("10.0.0.1"), None)
    assert world.choose(pool=TWO) == "10.0.0.1"
    assert world.ledger.domains["default"].held.keys() == {TWO}


def test_a_pool_that_comes_back_in_another_domain_takes_its_ip_addresses_along():
    world = full("a")
    world.ledger.set_holding(None, holding("10.0.0.1"))
    world.free("10.0.0.1")
    world.pool(TWO, SMALL)
    world.told()
    world.pool(ONE, SMALL, domain="site-b")
    assert "a" in world.told()
    assert world.choose(pool=TWO) == "10.0.0.1"
    assert world.counts() == (3, 1, 2, 0, 0, 0)
    assert world.choose() == "10.0.0.2"
    world.ledger.set_holding(holding("10.0.0.1"), None)
    assert world.choose() == "10.0.0.1"


def test_a_reservation_in_another_domain_is_not_counted_as_held_through_the_pool():
    world = World(SMALL)
    world.hold("10.0.0.1", "10.0.0.9", domain="site-b")
    assert world.counts() == (3, 0, 3, 0, 0, 0)
    assert world.ledger.pools[ONE].held == set()


def test_a_pick_that_succeeds_changes_nothing_once_it_is_recorded():
    world = World(SMALL)
    world.pick("a", "10.0.0.1")
    world.touched.clear()
    world.hold("10.0.0.1", name="a")
    world.ledger.settle("default", point("10.0.0.1"))
    assert world.touched == []
    assert world.counts() == (3, 1, 2, 0, 0, 0)
    world.free("10.0.0.1")
    assert world.counts() == (3, 0, 3, 0, 0, 0)


# Conflicts that adopted objects bring


def conflicts(world, pool):
    return {intervals.text(at): {key.name for key in who} for at, who in world.ledger.conflicts(pool)}


def test_an_address_held_by_two_claims_is_shown_by_both_pools_until_one_lets_go():
    world = World(SMALL)
    world.pool(TWO, SMALL)
    one, two = holding("10.0.0.1", "one", ONE, owner="a"), holding("10.0.0.1", "two", TWO, owner="b")
    world.ledger.set_holding(None, one)
    assert conflicts(world, ONE) == {}
    world.touched.clear()
    world.ledger.set_holding(None, two)
    assert conflicts(world, ONE) == conflicts(world, TWO) == {"10.0.0.1": {"a", "b"}}
    assert {ONE, TWO} <= set(world.touched)
    assert world.ledger.domains["default"].conflicts == {point("10.0.0.1"): {claim("a"), claim("b")}}
    world.touched.clear()
    world.ledger.set_holding(two, None)
    assert {ONE, TWO} <= set(world.touched)
    assert conflicts(world, ONE) == conflicts(world, TWO) == world.ledger.domains["default"].conflicts == {}


def test_an_ip_address_and_a_reservation_of_different_claims_are_a_conflict():
    world = World(SMALL)
    world.pool(TWO, [{"start": "10.0.9.1"}])
    world.hold("10.0.0.1", name="a")
    world.ledger.set_holding(None, holding("10.0.0.1", pool=TWO, owner="b"))
    assert conflicts(world, ONE) == conflicts(world, TWO) == {"10.0.0.1": {"a", "b"}}
    world.touched.clear()
    world.release("10.0.0.1", "a")
    assert conflicts(world, ONE) == conflicts(world, TWO) == {}
    assert {ONE, TWO} <= set(world.touched)


@pytest.mark.parametrize("use", [Use.HELD, Use.RELEASED, Use.ADMIN])
def test_an_ip_address_and_a_reservation_of_one_claim_are_none(use):
    world = World(SMALL)
    owner = None if use is Use.ADMIN else claim("adopter")
    world.ledger.set_reservation("default", point("10.0.0.1"), Reservation("r", use, owner, ONE))
    world.ledger.set_holding(None, holding("10.0.0.1"))
    assert conflicts(world, ONE) == {}
    assert world.counts() == (3, 1, 2, 0, 0, 0)


def test_the_same_name_of_both_kinds_is_two_claims():
    world = World(SMALL)
    world.ledger.set_holding(None, holding("10.0.0.1", "m", owner="same", kind="IPClaim"))
    world.ledger.set_holding(None, holding("10.0.0.1", "c", owner="same", kind="IPAddressClaim"))
    (((_, claims),)) = world.ledger.conflicts(ONE)
    assert {key.kind for key in claims} == {"IPClaim", "IPAddressClaim"}


def test_a_third_claim_and_a_third_pool_are_told_too():
    world = World(SMALL)
    world.pool(TWO, SMALL)
    world.pool(ALL, [{"start": "10.0.9.1"}])
    world.ledger.set_holding(None, holding("10.0.0.1", "one", ONE, owner="a"))
    world.ledger.set_holding(None, holding("10.0.0.1", "two", TWO, owner="b"))
    world.touched.clear()
    world.ledger.set_holding(None, holding("10.0.0.1", "all", ALL, owner="c"))
    assert set(world.touched) == {ONE, TWO, ALL}
    assert conflicts(world, ALL) == {"10.0.0.1": {"a", "b", "c"}}
    world.touched.clear()
    world.ledger.set_holding(None, holding("10.0.0.1", "again", ALL, owner="c"))
    assert world.touched == []  # nothing new
    world.ledger.remove_pool(ALL)
    assert conflicts(world, ALL) == {}
    assert conflicts(world, ONE) == {"10.0.0.1": {"a", "b", "c"}}


def test_a_pool_that_joins_a_known_conflict_is_told():
    world = World(SMALL)
    world.pool(ALL, [{"start": "10.0.9.1"}])
    world.ledger.set_holding(None, holding("10.0.0.1", "one", ONE, owner="a"))
    world.ledger.set_holding(None, holding("10.0.0.1", "two", ONE, owner="b"))
    world.touched.clear()
    world.ledger.set_holding(None, holding("10.0.0.1", "all", ALL, owner="b"))
    assert ALL in world.touched
    assert conflicts(world, ALL) == {"10.0.0.1": {"a", "b"}}


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
