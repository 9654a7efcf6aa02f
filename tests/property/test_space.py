"""What a pool gives, against enumeration of small specs without mistakes."""

import ipaddress

from hypothesis import given

from services.ipam import intervals
from services.ipam.space import PoolSpace
from tests.support import oracle
from tests.support.pool_specs import FOUR, SIX, pool_spec, specs


def ip(at):
    return ipaddress.ip_address(intervals.text(at))


def addresses(items):
    return [ip(at) for first, last in items for at in range(first, last + 1)]


@given(specs(FOUR, SIX))
def test_a_pool_gives_what_its_spec_says_and_nothing_else(keywords):
    space, model = PoolSpace(pool_spec(**keywords)), oracle.PoolModel(**keywords)
    assert [problem for problem in space.problems if not problem.field.startswith("spec.preAllocations")] == []
    assert [addresses(r.assignable.intervals) for r in space.ranges] == model.giving
    assert set(addresses(space.spans)) == model.covered
    assert {ip(at) for at in space.reserved} == model.reserved
    assert space.total == len(model.assignable)
    assert [r.prefix for r in space.ranges] == model.prefixes


@given(specs(FOUR, SIX))
def test_every_address_is_given_or_refused_with_the_right_word(keywords):
    space, model = PoolSpace(pool_spec(**keywords)), oracle.PoolModel(**keywords)
    for address in [*FOUR, *SIX]:
        at = intervals.point(str(address))
        assert space.is_assignable(at) == (address in model.assignable)
        assert space.place_of(at) == next((i for i, some in enumerate(model.giving) if address in some), None)
        why = space.why_not(at)
        if address in model.assignable:
            assert why is None
            assert space.range_of(at) is space.ranges[space.place_of(at)]
        elif address in model.covered:
            assert why[0] == "AddressExcluded"
        else:
            assert why[0] == "AddressOutsidePool"
            assert space.range_of(at) is None


@given(specs(FOUR, SIX))
def test_each_pre_allocation_is_kept_or_named_as_a_problem(keywords):
    space, model = PoolSpace(pool_spec(**keywords)), oracle.PoolModel(**keywords)
    assert {name: ip(at) for name, at in space.pre_allocations.items()} == model.pre
    assert {ip(at): name for at, name in space.kept_for.items()} == {v: k for k, v in model.pre.items()}
    assert space.bad_pre_allocations.keys() == keywords["pre"].keys() - model.pre.keys()
    assert set(space.bad_pre_allocations.values()) <= set(space.problems)
    assert len(space.problems) == len(space.bad_pre_allocations)


@given(specs(FOUR, SIX))
def test_a_gateway_goes_only_with_addresses_of_its_family_and_is_never_given(keywords):
    space = PoolSpace(pool_spec(**keywords))
    for item in space.ranges:
        own = keywords["entries"][item.index].get("gateway", "")
        fits = [g for g in (own, keywords["gateway"]) if g and (":" in g) == intervals.is_v6(item.span.first)]
        assert item.gateway == (fits[0] if fits else "")
    if not keywords["whole"]:
        for gateway in [keywords["gateway"], *(entry.get("gateway", "") for entry in keywords["entries"])]:
            assert not gateway or not space.is_assignable(intervals.point(gateway))
