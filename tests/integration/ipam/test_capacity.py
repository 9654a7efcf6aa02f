"""Pools that run out and recover: who waits, who is served first, what counts say, and who gets an address back."""

from __future__ import annotations

import asyncio

from services.ipam.api import ALLOCATION_FAILED, POOL_EXHAUSTED
from tests.support.kube import eventually
from tests.support.tenant import CAPI, KINDS, METAL3, condition

# What other modules left must not become due while a test counts how often the allocator looks again.
ALLOCATOR_FLAGS = ("--orphan-grace-seconds=86400",)


async def reasons(tenant, name, kind):
    """Reasons of the Events about a claim."""
    obj = await tenant.claim_object(name, kind)
    return [(event["type"], event["reason"]) for event in await tenant.kube.events(obj)]


async def test_a_claim_of_an_exhausted_pool_says_so_once_and_takes_it_back_when_served(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.1")
    await tenant.give("holder", kind=kind)
    await tenant.claim("waits", kind=kind)
    message = await tenant.refused("waits", POOL_EXHAUSTED, kind)
    assert message == f"Exhausted IP Pools: IPPool {tenant.namespace}/pool has no free address"
    exhausted = await tenant.pool_condition("AddressesAvailable", "False")
    assert exhausted["reason"] == POOL_EXHAUSTED
    warned = [("Warning", POOL_EXHAUSTED)]
    await eventually(lambda: reasons(tenant, "waits", kind), lambda seen: seen == warned)
    await tenant.kube.annotate(tenant.api(kind).claims, "waits", tenant.namespace, touched="yes")
    await tenant.settled()
    assert await reasons(tenant, "waits", kind) == warned, "the same news is no news"
    since = condition(await tenant.claim_object("waits", kind))["lastTransitionTime"]
    await tenant.release("holder", kind)
    held = await tenant.bound("waits", kind)
    assert held.ip == "10.0.0.1"
    assert "errorMessage" not in held.claim["status"]
    assert [c["type"] for c in held.claim["status"]["conditions"]] == ["Ready"]
    assert condition(held.claim)["lastTransitionTime"] >= since
    served = [*warned, ("Normal", "AddressAllocated")]
    await eventually(lambda: reasons(tenant, "waits", kind), lambda seen: seen == served)
    await tenant.release("waits", kind)
    await tenant.pool_condition("AddressesAvailable", "True")


async def test_a_claim_that_is_served_at_once_needs_no_event(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.give("claim", kind=kind)
    await tenant.settled()
    assert await reasons(tenant, "claim", kind) == []


async def test_the_claim_that_waited_longest_is_served_first_and_without_polling(tenant, allocator):
    await tenant.pool("pool", "10.0.0.1-10.0.0.2")
    for name in ("one", "two"):
        await tenant.give(name)
    waiting = [("c", METAL3), ("b", CAPI), ("a", METAL3), ("d", CAPI)]
    for name, kind in waiting:
        await tenant.claim(name, kind=kind)
        await tenant.refused(name, POOL_EXHAUSTED, kind)

    def timers():
        return allocator.metric("controller_runtime_reconcile_total", controller="ipam-claim", result="requeue_after")

    before = timers()
    for leaving, served in zip([("one", METAL3), ("two", METAL3), *waiting], waiting, strict=False):
        await tenant.release(*leaving)
        await tenant.bound(*served)
        behind = waiting[waiting.index(served) + 1 :]
        for name, kind in behind:
            await tenant.refused(name, POOL_EXHAUSTED, kind)
    assert timers() == before, "nobody looks again after a while: the watch tells"


async def test_a_newcomer_does_not_overtake_those_who_wait(tenant):
    await tenant.pool("pool", "10.0.0.1-10.0.0.3")
    for name in ("one", "two", "three"):
        await tenant.give(name)
    first = [f"first-{i}" for i in range(3)]
    for name in first:
        await tenant.claim(name)
        await tenant.refused(name, POOL_EXHAUSTED)
    late = [f"late-{i}" for i in range(10)]
    await asyncio.gather(
        *(tenant.claim(name, kind=kind) for name in late for kind in KINDS),
        *(tenant.delete_claim(name) for name in ("one", "two", "three")),
    )
    assert {(await tenant.bound(name)).ip for name in first} == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
    for name in late:
        for kind in KINDS:
            await tenant.refused(name, POOL_EXHAUSTED, kind)


async def test_a_waiting_claim_gets_what_a_claim_of_an_overlapping_pool_returns(tenant, kind):
    await tenant.pool("one", "10.0.0.1-10.0.0.1")
    await tenant.pool("two", "10.0.0.1-10.0.0.1")
    await tenant.give("holder", "two", kind)
    await tenant.claim("waits", "one", kind)
    await tenant.refused("waits", POOL_EXHAUSTED, kind)
    await tenant.release("holder", kind)
    assert (await tenant.bound("waits", kind)).ip == "10.0.0.1"


async def test_waiting_claims_wake_when_the_pool_grows(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.1")
    await tenant.give("holder", kind=kind)
    for name in ("a", "b"):
        await tenant.claim(name, kind=kind)
        await tenant.refused(name, POOL_EXHAUSTED, kind)
    await tenant.change_pool(pools=[{"start": "10.0.0.1", "end": "10.0.0.3"}])
    assert {(await tenant.bound(name, kind)).ip for name in ("a", "b")} == {"10.0.0.2", "10.0.0.3"}


async def test_a_pool_shrunk_below_its_use_never_counts_below_zero_and_wakes_its_waiters(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.5")
    for name in "abcd":
        await tenant.give(name, kind=kind)
    await tenant.change_pool(pools=[{"start": "10.0.0.1", "end": "10.0.0.2"}])
    wanted = {"total": 2, "used": 2, "free": 0, "reserved": 0, "cooling": 0, "outOfRange": 2}
    assert await tenant.counts(**wanted) == wanted
    await tenant.claim("waits", kind=kind)
    await tenant.refused("waits", POOL_EXHAUSTED, kind)
    await tenant.release("d", kind)
    await tenant.counts(**{**wanted, "outOfRange": 1})
    await tenant.refused("waits", POOL_EXHAUSTED, kind)
    assert (await tenant.bound("c", kind)).ip == "10.0.0.3", "a claim keeps an address that left the pool"
    await tenant.release("b", kind)
    assert (await tenant.bound("waits", kind)).ip == "10.0.0.2"
    await tenant.change_pool(pools=[{"start": "10.0.0.1", "end": "10.0.0.9"}])
    await tenant.counts(total=9, used=3, free=6, outOfRange=0)


async def test_counts_add_up_over_every_use_of_an_address(tenant):
    await tenant.reserve("10.0.0.9")
    await tenant.pool(
        "pool",
        "10.0.0.1-10.0.0.10",
        preAllocations={"kept": "10.0.0.8", "kept-too": "10.0.0.7"},
        reuseDelaySeconds=3600,
        gateway="10.0.0.10",
    )
    for name in ("kept", "a", "b"):
        await tenant.give(name)
    await tenant.release("b")
    wanted = {"total": 9, "used": 2, "free": 4, "reserved": 2, "cooling": 1, "outOfRange": 0}
    assert await tenant.counts(**wanted) == wanted


async def test_a_claim_that_comes_back_gets_the_address_it_had_although_others_were_free(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    assert [await tenant.give(name, kind=kind) for name in "abc"] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    for name in "ab":
        await tenant.release(name, kind)
    assert await tenant.give("d", kind=kind) == "10.0.0.4", "what b may come back for is left while others are free"
    assert await tenant.give("b", kind=kind) == "10.0.0.2"
    await tenant.counts(used=3, free=6, cooling=0)


async def test_an_address_somebody_may_come_back_for_is_given_before_anyone_goes_without(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.1")
    await tenant.give("a", kind=kind)
    await tenant.release("a", kind)
    assert await tenant.give("b", kind=kind) == "10.0.0.1"
    await tenant.claim("a", kind=kind)
    await tenant.refused("a", POOL_EXHAUSTED, kind)


async def test_a_released_address_cools_until_nothing_else_is_left(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.4", reuseDelaySeconds=3600)
    for name in ("a", "b"):
        await tenant.give(name, kind=kind)
    for name in ("a", "b"):
        await tenant.release(name, kind)
    await tenant.counts(total=4, cooling=2, free=2, used=0)
    await tenant.claim("wants", kind=kind, annotations={"ipAddress": "10.0.0.2"})
    message = await tenant.refused("wants", ALLOCATION_FAILED, kind)
    assert message == f"10.0.0.2 was released by {kind} {tenant.namespace}/b and is kept for its reuse delay"
    assert [await tenant.give(name, kind=kind) for name in ("c", "d")] == ["10.0.0.3", "10.0.0.4"]
    assert await tenant.give("e", kind=kind) == "10.0.0.1", "cut short when the pool is dry, the longest cooled first"


async def test_a_claim_that_comes_back_does_not_wait_for_its_own_address_to_cool(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9", reuseDelaySeconds=3600)
    assert await tenant.give("a", kind=kind) == "10.0.0.1"
    await tenant.release("a", kind)
    await tenant.counts(cooling=1)
    assert await tenant.give("a", kind=kind) == "10.0.0.1"
    await tenant.counts(cooling=0, used=1)


async def test_a_cooled_address_is_given_when_its_delay_is_over(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.3", reuseDelaySeconds=1)
    await tenant.give("a", kind=kind)
    await tenant.release("a", kind)
    await tenant.claim("wants", kind=kind, annotations={"ipAddress": "10.0.0.1"})
    assert (await tenant.bound("wants", kind)).ip == "10.0.0.1"
