"""What the ledger does no more than once, and whom it leaves alone."""

import pytest

from services.ipam.intervals import point
from services.ipam.slots import Reservation, Use
from tests.support.ledger_world import ONE, SMALL, TWO, World, claim, holding


def conflicts(world, pool):
    return dict(world.ledger.conflicts(pool))


def test_a_released_address_that_was_picked_in_vain_is_released_as_before():
    world = World(SMALL)
    world.now = 10.0
    world.release("10.0.0.2", "last", until=60.0)
    before = world.counts()
    world.pick("a", "10.0.0.2")
    assert world.counts() == (3, 1, 2, 0, 0, 0)
    world.ledger.settle("default", point("10.0.0.2"))
    assert world.counts() == before == (3, 0, 2, 0, 1, 0)
    assert world.choose("other", requested="10.0.0.2").token == "AddressCooling"


def test_an_ip_address_that_comes_again_takes_its_address_again():
    world = World(SMALL)
    for _ in range(2):
        world.ledger.set_holding(None, holding("10.0.0.1"))
        assert world.counts() == (3, 1, 2, 0, 0, 0)
        world.ledger.set_holding(holding("10.0.0.1"), None)
        assert world.counts() == (3, 0, 3, 0, 0, 0)


def test_nothing_is_remembered_of_a_pool_once_it_and_its_ip_addresses_are_gone():
    world = World(SMALL)
    world.ledger.set_holding(None, holding("10.0.0.1"))
    world.ledger.remove_pool(ONE)
    world.ledger.set_holding(holding("10.0.0.1"), None)
    assert (world.ledger._domain_of, world.ledger._holdings) == ({}, {})


def test_an_ip_address_goes_whose_pool_never_came():
    world = World()
    world.ledger.set_holding(None, holding("10.0.0.1"))
    world.ledger.set_holding(holding("10.0.0.1"), None)
    world.pool(ONE, SMALL)
    assert world.counts() == (3, 0, 3, 0, 0, 0)


def test_a_reservation_goes_that_was_never_seen():
    world = World(SMALL)
    world.free("10.0.0.1")
    assert world.counts() == (3, 0, 3, 0, 0, 0)


def test_what_was_held_before_its_pool_came_is_counted_once_it_does():
    world = World()
    world.hold("10.0.0.1", "10.0.0.8", "10.0.0.9")
    world.pool(ONE, SMALL)
    assert world.counts() == (3, 1, 2, 0, 0, 2)


def test_what_is_held_out_of_range_is_counted_until_it_is_released():
    world = World(SMALL)
    world.hold("10.0.0.8", "10.0.0.9", "10.0.0.1")
    assert world.counts() == (3, 1, 2, 0, 0, 2)
    world.release("10.0.0.9")
    assert world.counts() == (3, 1, 2, 0, 0, 1)
    world.free("10.0.0.8")
    world.free("10.0.0.1")
    assert world.counts() == (3, 0, 3, 0, 0, 0)


def test_a_conflict_ends_when_the_ip_address_goes_and_the_reservation_stays():
    world = World(SMALL)
    world.hold("10.0.0.1", name="a")
    world.ledger.set_holding(None, holding("10.0.0.1", owner="b"))
    assert len(conflicts(world, ONE)) == 1
    world.ledger.set_holding(holding("10.0.0.1", owner="b"), None)
    assert conflicts(world, ONE) == {}


def test_who_asks_an_exhausted_pool_is_told_which():
    world = World([{"start": "10.0.0.1", "end": "10.0.0.1"}])
    world.hold("10.0.0.1")
    assert world.choose().message == "Exhausted IP Pools: IPPool ns/one has no free address"


def test_a_pool_that_moves_to_another_domain_leaves_nothing_in_the_first():
    world = World(SMALL)
    world.pool(TWO, SMALL)
    world.hold("10.0.0.1")
    world.wait("a")
    world.told()
    world.touched.clear()
    moved = world.pool(ONE, SMALL, domain="site-b")
    assert (world.counts(), world.counts(TWO)) == ((3, 0, 3, 0, 0, 0), (3, 1, 2, 0, 0, 0))
    assert {ONE, TWO} <= set(world.touched)
    assert world.told() == ["a"]
    assert not moved.waiting, "it asks again, and gets one of the other domain"
    world.touched.clear()
    world.hold("10.0.0.2", pool=TWO)
    assert set(world.touched) == {TWO}


# Whom it leaves alone


def with_one_for_the_first_of_two():
    """A world in which `a` and `b` wait for the one address that is left; one is kept, one excluded."""
    spec = {"pre_allocations": {"kept": "10.0.0.2"}, "excluded_addresses": ("10.0.0.3",)}
    world = World([{"start": "10.0.0.1", "end": "10.0.0.4"}], **spec)
    world.hold("10.0.0.1")
    world.wait("a", 0)
    world.wait("b", 1)
    assert world.told() == ["a"]
    world.touched.clear()
    return world


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda world: world.wait("a", 0), id="it waits once more"),
        pytest.param(lambda world: world.ledger.stop_waiting(claim("b")), id="the one behind it leaves"),
        pytest.param(lambda world: world.admin("10.0.0.3"), id="an excluded address is taken"),
        pytest.param(lambda world: (world.admin("10.0.0.3"), world.free("10.0.0.3")), id="an excluded one comes free"),
        pytest.param(lambda world: (world.hold("10.0.0.2"), world.free("10.0.0.2")), id="a kept one comes free"),
    ],
)
def test_a_waiter_that_was_woken_is_not_woken_again_because(act):
    world = with_one_for_the_first_of_two()
    act(world)
    assert world.told() == []


def test_the_pool_of_a_waiter_is_told_when_it_begins_to_wait_and_when_it_leaves():
    world = with_one_for_the_first_of_two()
    world.wait("c", 2)
    assert world.touched == [ONE]
    world.wait("c", 2)
    assert world.touched == [ONE]
    world.ledger.stop_waiting(claim("c"))
    assert world.touched == [ONE, ONE]


def test_no_pool_is_told_of_an_ip_address_that_changes_no_number():
    world = World(SMALL)
    world.pool(TWO, SMALL)
    world.ledger.set_holding(None, holding("10.0.0.1", "one"))
    world.touched.clear()
    world.ledger.set_holding(None, holding("10.0.0.1", "again"))
    assert world.touched == []


def test_a_reservation_that_only_changes_its_name_tells_nobody():
    world = World(SMALL)
    world.hold("10.0.0.1", name="a")
    world.touched.clear()
    world.ledger.set_reservation("default", point("10.0.0.1"), Reservation("renamed", Use.HELD, claim("a"), ONE))
    assert world.touched == []
