"""What IPAddresses take, and the conflicts that adopted ones bring."""

import pytest

from services.ipam import intervals
from services.ipam.intervals import point
from services.ipam.slots import Reservation, Use
from tests.support.ledger_world import ALL, ONE, SMALL, TWO, World, claim, holding

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
