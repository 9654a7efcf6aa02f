"""Letting go: an address is returned when nobody uses it any more, not earlier and not never."""

from __future__ import annotations

import pytest

from services.ipam.api import ALLOCATION_FAILED, POOL_EXHAUSTED
from services.runtime.kube.errors import Forbidden
from tests.support.kube import NAMESPACES, eventually

CAPV = "vspherevm.infrastructure.cluster.x-k8s.io/ip-claim-protection"


async def give_address(tenant, kind):
    """Name of the IPAddress of a new claim called claim."""
    await tenant.claim("claim", kind=kind)
    return (await tenant.bound("claim", kind)).address["metadata"]["name"]


async def test_a_deleted_claim_returns_everything_that_was_made_for_it(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.give("claim", kind=kind)
    await tenant.release("claim", kind)
    assert await tenant.addresses(kind) == []
    assert await tenant.held() == []
    await tenant.counts(used=0, free=9)
    assert (await tenant.pool_object())["status"]["indexes"] == {}


async def test_an_address_stays_taken_while_somebody_else_s_finalizer_says_so(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.1")
    await tenant.claim("machine", kind=kind, finalizers=[CAPV])
    held = await tenant.bound("machine", kind)
    await tenant.claim("next", kind=kind)
    await tenant.refused("next", POOL_EXHAUSTED, kind)
    await tenant.delete_claim("machine", kind)
    await tenant.settled()
    assert (await tenant.bound("machine", kind)).address["metadata"]["uid"] == held.address["metadata"]["uid"]
    await tenant.refused("next", POOL_EXHAUSTED, kind)
    own = [f for f in held.claim["metadata"]["finalizers"] if f != CAPV]
    await tenant.kube.set_finalizers(tenant.api(kind).claims, "machine", tenant.namespace, *own)
    await tenant.claim_gone("machine", kind)
    assert (await tenant.bound("next", kind)).ip == "10.0.0.1"


async def test_a_deleted_claim_with_a_foreign_finalizer_is_given_no_address_any_more(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.1")
    await tenant.give("holder", kind=kind)
    await tenant.claim("waits", kind=kind, finalizers=[CAPV])
    await tenant.refused("waits", POOL_EXHAUSTED, kind)
    await tenant.delete_claim("waits", kind)
    await tenant.release("holder", kind)
    await tenant.settled()
    assert await tenant.held() == []
    assert (await tenant.claim_object("waits", kind))["metadata"]["finalizers"] == [CAPV]


@pytest.mark.parametrize(("propagation", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")])
async def test_cascading_deletion_does_not_wait_for_itself(tenant, kind, propagation, finalizer):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    address = await give_address(tenant, kind)
    await tenant.delete_claim("claim", kind, propagation=propagation)
    await tenant.kube.gone(tenant.api(kind).addresses, address, tenant.namespace)
    left = await eventually(
        lambda: tenant.claim_object("claim", kind), lambda claim: claim["metadata"]["finalizers"] == [finalizer]
    )
    assert "deletionTimestamp" in left["metadata"]
    # What the garbage collector does once the dependents are gone; none runs here.
    await tenant.kube.set_finalizers(tenant.api(kind).claims, "claim", tenant.namespace)
    await tenant.claim_gone("claim", kind)
    await tenant.nothing_held()


async def test_claims_deleted_while_they_wait_leave_nothing_and_hold_nobody_up(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.1")
    await tenant.give("holder", kind=kind)
    for name in ("first", "second"):
        await tenant.claim(name, kind=kind)
        await tenant.refused(name, POOL_EXHAUSTED, kind)
    await tenant.release("first", kind)
    await tenant.release("holder", kind)
    assert (await tenant.bound("second", kind)).ip == "10.0.0.1"


async def test_a_foreign_finalizer_on_the_address_keeps_it_and_the_claim(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.1")
    name = await give_address(tenant, kind)
    addresses = tenant.api(kind).addresses
    own = (await tenant.kube.get(addresses, name, tenant.namespace))["metadata"]["finalizers"]
    await tenant.kube.set_finalizers(addresses, name, tenant.namespace, *own, "example.com/in-use")
    await tenant.delete_claim("claim", kind)
    left = await eventually(
        lambda: tenant.kube.get(addresses, name, tenant.namespace),
        lambda address: address["metadata"]["finalizers"] == ["example.com/in-use"],
    )
    assert left["metadata"]["deletionTimestamp"]
    await tenant.settled()
    assert await tenant.held() == ["10.0.0.1"]
    await tenant.kube.set_finalizers(addresses, name, tenant.namespace)
    await tenant.claim_gone("claim", kind)
    await tenant.nothing_held()


async def test_in_a_namespace_that_terminates_claims_let_go_and_new_addresses_are_not_hammered_for(
    tenant, allocator, kind
):
    await tenant.pool("pool", "10.0.0.1-10.0.0.1")
    await tenant.give("holder", kind=kind)
    await tenant.claim("waits", kind=kind)
    await tenant.refused("waits", POOL_EXHAUSTED, kind)
    await tenant.kube.delete(NAMESPACES, tenant.namespace)
    with pytest.raises(Forbidden):
        await tenant.claim("late", kind=kind)

    async def tries():
        return allocator.metric("rest_client_requests_total", code="403", method="POST")

    before = await tries()
    await tenant.release("holder", kind)
    await eventually(tries, lambda count: count > before)
    await tenant.settled()
    assert await tries() - before < 10, "tried again at once, over and over"
    # The claim stays for as long as its own holder likes; the address does not wait for that.
    await tenant.nothing_held()
    assert "is being deleted" in await tenant.refused("waits", ALLOCATION_FAILED, kind)
    await tenant.release("waits", kind)
    await tenant.nothing_held()
