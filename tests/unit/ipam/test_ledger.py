"""Who gets which address, and why another one is refused."""

import pytest

from services.ipam import intervals
from services.ipam.intervals import point
from services.ipam.ledger import Refusal
from services.ipam.slots import Reservation, Use
from tests.support.ledger_world import ONE, SMALL, World, claim, holding

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
