"""Who waits, who is woken, and what a change of a pool's spec does."""

import pytest

from services.ipam import intervals
from services.ipam.intervals import point
from tests.support.ledger_world import ONE, SMALL, TWO, World, claim, holding

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
