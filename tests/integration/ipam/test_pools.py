"""The life of a pool: what its status tells, what a mistake in its spec costs, and how it goes."""

from __future__ import annotations

import contextlib

import msgspec
import pytest

from services.ipam.api import GLOBAL_IP_POOLS, IP_POOLS, IP_RESERVATIONS, POOL_FINALIZER, POOL_NOT_READY
from tests.support.kube import eventually
from tests.support.tenant import CAPI, KINDS, METAL3, Tenant, condition


async def test_a_new_pool_shows_that_it_is_ready_and_what_it_has(tenant):
    await tenant.pool("pool", "10.0.0.0/24", preAllocations={"kept": "10.0.0.9"}, gateway="10.0.0.1")
    pool = await tenant.pool_shows(lambda pool: "status" in pool)
    status = pool["status"]
    assert pool["metadata"]["finalizers"] == [POOL_FINALIZER]
    assert status["ipAddresses"] == {"total": 253, "used": 0, "free": 252, "reserved": 1, "cooling": 0, "outOfRange": 0}
    assert status["observedGeneration"] == 1
    assert status["lastUpdated"]
    assert [(c["type"], c["status"], c["reason"]) for c in status["conditions"]] == [
        ("Ready", "True", "PoolReady"),
        ("AddressesAvailable", "True", "AddressesAvailable"),
        ("NoOverlap", "True", "NoOverlap"),
        ("NamespacesAllowed", "True", "NamespacesAllowed"),
    ]
    assert await tenant.kube.events(pool) == []


async def test_mistakes_in_a_spec_are_named_with_field_and_value_and_the_rest_is_served(tenant, kind):
    await tenant.pool(
        "pool",
        {"start": "10.0.0.9", "end": "10.0.0.1"},
        {"start": "10.0.0.20", "end": "2001:db8::1"},
        {"subnet": "10.0.1.0/30", "start": "10.0.9.1"},
        {"end": "10.0.2.9"},
        "10.0.3.1-10.0.3.9",
        preAllocations={"outside": "10.7.7.7", "good": "10.0.3.1", "twice": "10.0.3.1"},
    )
    ready = await tenant.pool_condition("Ready", "False")
    assert ready["reason"] == "InvalidSpec"
    for part in (
        "spec.pools[0].end: '10.0.0.1': an address not below start 10.0.0.9",
        "spec.pools[1]: '10.0.0.20 2001:db8::1': addresses of one family",
        "spec.pools[2].start: '10.0.9.1': an address of subnet 10.0.1.0/30",
        "spec.pools[3]: '10.0.2.9': start or subnet beside end",
        "and 1 more",
    ):
        assert part in ready["message"]
    assert await tenant.give("good", kind=kind) == "10.0.3.1"
    await tenant.claim("outside", kind=kind)
    message = await tenant.refused("outside", "AllocationFailed", kind)
    assert message.startswith("spec.preAllocations[outside]: '10.7.7.7': an address of the pool: 10.7.7.7 is outside")
    await tenant.claim("twice", kind=kind)
    message = await tenant.refused("twice", "AllocationFailed", kind)
    assert message == "spec.preAllocations[twice]: '10.0.3.1': an address not given to 'good' too"
    pool = await tenant.pool_object()
    events = await eventually(lambda: tenant.kube.events(pool))
    assert [(event["type"], event["reason"]) for event in events] == [("Warning", "InvalidSpec")]
    await tenant.change_pool(pools=[{"start": "10.0.3.1", "end": "10.0.3.9"}], preAllocations=None)
    await tenant.pool_condition("Ready", "True")
    assert (await tenant.bound("twice", kind)).ip.startswith("10.0.3.")


async def test_a_pool_without_a_usable_range_serves_its_claims_once_it_has_one(tenant, kind):
    await tenant.pool("pool")
    await tenant.claim("claim", kind=kind)
    message = await tenant.refused("claim", POOL_NOT_READY, kind)
    assert message.startswith(f"IPPool {tenant.namespace}/pool has no usable range: spec.pools: ''")
    await tenant.change_pool(pools=[{"subnet": "10.0.0.0/29"}])
    assert (await tenant.bound("claim", kind)).ip == "10.0.0.1"


@pytest.mark.parametrize("prefix", ["Bad_Prefix", "x" * 250], ids=["characters", "length"])
async def test_a_pool_whose_prefix_makes_no_valid_names_says_so_and_serves_cluster_api_all_the_same(tenant, prefix):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9", namePrefix=prefix)
    await tenant.claim("claim")
    message = await tenant.refused("claim", POOL_NOT_READY)
    name = f"{prefix}-10-0-0-1"
    assert message == (
        f"IPPool {tenant.namespace}/pool: spec.namePrefix would name the IPAddress {name!r}, which is not valid"
    )
    shown = await tenant.pool_condition("Ready", "False")
    assert shown["reason"] == "InvalidSpec"
    assert shown["message"].startswith("spec.namePrefix: ")
    assert await tenant.held() == []
    assert await tenant.give("claim", kind=CAPI) == "10.0.0.1"


async def test_a_prefix_length_that_does_not_exist_is_named_and_serves_metal3_all_the_same(tenant):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9", prefix=-1)
    ready = await tenant.pool_condition("Ready", "False")
    assert ready["message"] == "spec.prefix: '-1': a prefix length between 0 and 32"
    await tenant.claim("claim", kind=CAPI)
    await tenant.refused("claim", "AllocationFailed", CAPI, "has no prefix")
    assert await tenant.give("claim") == "10.0.0.1"


@pytest.mark.parametrize("resource", [IP_POOLS, GLOBAL_IP_POOLS], ids=["IPPool", "GlobalIPPool"])
async def test_a_deleted_pool_stays_for_its_last_address_and_gives_out_no_other(tenant, kind, resource):
    name = tenant.namespace
    await tenant.pool(name, "10.0.0.1-10.0.0.9", resource=resource, reuseDelaySeconds=3600)
    for claim in ("first", "second", "gone"):
        await tenant.give(claim, name, kind, pool_kind=resource.kind)
    await tenant.release("gone", kind)
    await tenant.counts(name, resource, used=2)
    await tenant.kube.delete(resource, name, tenant.namespace if resource.namespaced else "")
    await tenant.claim("late", name, kind, pool_kind=resource.kind)
    await tenant.refused("late", POOL_NOT_READY, kind, "is being deleted")
    ready = await tenant.pool_condition("Ready", "False", name, resource)
    assert ready["reason"] == "Deleting"
    assert "2" in ready["message"]
    await tenant.release("first", kind)
    await tenant.counts(name, resource, used=1)
    await tenant.release("second", kind)
    await tenant.kube.gone(resource, name, tenant.namespace if resource.namespaced else "")
    await tenant.refused("late", POOL_NOT_READY, kind, "does not exist")
    assert await tenant.reservations() == [], "what a pool remembers goes with it"


async def test_a_claim_whose_pool_was_removed_by_force_keeps_its_address_and_can_go(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.1")
    await tenant.give("claim", kind=kind)
    await tenant.kube.force_delete(IP_POOLS, "pool", tenant.namespace)
    await tenant.pool("overlapping", "10.0.0.1-10.0.0.1")
    await tenant.claim("other", "overlapping", kind)
    await tenant.refused("other", "PoolExhausted", kind)
    assert (await tenant.bound("claim", kind)).ip == "10.0.0.1"
    await tenant.release("claim", kind)
    assert (await tenant.bound("other", kind)).ip == "10.0.0.1"


async def test_what_a_pool_removed_by_force_remembered_goes_with_it(tenant):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.give("claim")
    await tenant.release("claim")
    await tenant.counts(used=0)
    assert len(await tenant.reservations()) == 1
    await tenant.kube.force_delete(IP_POOLS, "pool", tenant.namespace)
    await eventually(tenant.reservations, lambda left: left == [])


async def test_a_pool_made_again_takes_over_the_addresses_of_the_one_before(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.give("claim", kind=kind)
    await tenant.kube.force_delete(IP_POOLS, "pool", tenant.namespace)
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.counts(used=1, free=8)
    assert await tenant.give("next", kind=kind) == "10.0.0.2"
    await tenant.release("claim", kind)
    await tenant.release("next", kind)
    await tenant.kube.delete(IP_POOLS, "pool", tenant.namespace)
    await tenant.kube.gone(IP_POOLS, "pool", tenant.namespace)


async def test_indexes_show_the_address_of_each_claim_as_metal3_does(tenant):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    for name in ("a", "b"):
        await tenant.give(name)
    for kind in KINDS:
        await tenant.give("same", kind=kind)
    same = (await tenant.bound("same", METAL3)).ip
    await tenant.indexes({"a": "10.0.0.1", "b": "10.0.0.2", "same": same})


async def test_a_pool_that_runs_dry_and_recovers_tells_both_once(tenant):
    await tenant.pool("pool", "10.0.0.1-10.0.0.1")
    await tenant.counts(free=1)
    await tenant.give("a")
    dry = await tenant.pool_condition("AddressesAvailable", "False")
    assert dry["message"] == "1 of 1 addresses are held, none is free"
    await tenant.claim("b")
    await tenant.pool_shows(lambda p: condition(p, "AddressesAvailable")["message"].endswith("; 1 claims wait"))
    await tenant.release("b")
    await tenant.release("a")
    await tenant.pool_condition("AddressesAvailable", "True")
    pool = await tenant.pool_object()

    async def said():
        return [(event["type"], event["reason"]) for event in await tenant.kube.events(pool)]

    told = [("Warning", "PoolExhausted"), ("Normal", "AddressesAvailable")]
    await eventually(said, lambda seen: seen == told)


async def test_a_range_that_leaves_the_pool_takes_what_was_remembered_of_it_along(tenant):
    await tenant.pool("pool", "10.0.0.1-10.0.0.4")
    for name in ("a", "b"):
        await tenant.give(name)
    for name in ("a", "b"):
        await tenant.release(name)
    await tenant.change_pool(pools=[{"start": "10.0.0.2", "end": "10.0.0.4"}])
    await tenant.kube.gone(IP_RESERVATIONS, tenant.reservation_name("10.0.0.1"))
    assert [r["spec"]["address"] for r in await tenant.reservations()] == ["10.0.0.2"]


async def test_a_pool_that_holds_nothing_can_be_moved_to_another_domain(tenant, kind):
    other = Tenant(tenant.kube, tenant.namespace, f"{tenant.domain}-b")
    await other.reserve("10.0.0.1")
    await tenant.pool("pool", "10.0.0.1-10.0.0.2")
    assert await tenant.give("claim", kind=kind) == "10.0.0.1"
    await tenant.release("claim", kind)
    await tenant.counts(used=0)
    await tenant.change_pool(domain=other.domain)
    await tenant.counts(reserved=1, free=1)
    assert await other.give("claim", kind=kind) == "10.0.0.2"
    assert await tenant.held() == []


async def test_a_pool_is_protected_before_the_first_of_its_addresses_is_out(tenant, kube):
    pools = {}
    for number in range(20):
        await tenant.claim(f"claim-{number}", pool=f"pool-{number}")
        made = await tenant.pool(f"pool-{number}", f"10.0.{number}.1-10.0.{number}.9")
        pools[f"pool-{number}"] = made["metadata"]["resourceVersion"]
    for number, (name, version) in enumerate(pools.items()):
        held = await tenant.bound(f"claim-{number}")
        first = int(held.address["metadata"]["resourceVersion"])
        events = kube.client.watch(IP_POOLS, tenant.namespace, resource_version=version, timeout_seconds=5)
        async with contextlib.aclosing(events):
            async for event in events:
                seen = msgspec.json.decode(event.object)
                if seen["metadata"].get("name") == name and seen["metadata"].get("finalizers"):
                    assert int(seen["metadata"]["resourceVersion"]) < first
                    break
            else:
                raise AssertionError(f"{name} was never protected")
