"""What others wrote before or beside the allocator: it is finished for them, or left to them."""

from __future__ import annotations

import pytest

from services.ipam.api import CAPI_GROUP, CLAIM_FINALIZERS, IP_RESERVATIONS
from tests.support.kube import manifest
from tests.support.tenant import CAPI

METAL3_FINALIZER = "ipam.metal3.io/ipaddressclaim"
IN_CLUSTER_FINALIZER = "ipam.cluster.x-k8s.io/ReleaseAddress"
FOREIGN_POOL = {"poolRef": {"apiGroup": CAPI_GROUP, "kind": "InClusterIPPool", "name": "pool"}}


async def test_a_claim_that_metal3_took_for_another_providers_pool_is_let_go(tenant):
    claims = tenant.api(CAPI).claims
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    stray = manifest(claims, "stray", tenant.namespace, FOREIGN_POOL, finalizers=[METAL3_FINALIZER])
    await tenant.kube.create(claims, stray)
    await tenant.delete_claim("stray", CAPI)
    await tenant.claim_gone("stray", CAPI)


async def test_the_in_cluster_providers_finalizer_on_its_own_claim_is_left_to_it(tenant):
    claims = tenant.api(CAPI).claims
    both = [METAL3_FINALIZER, IN_CLUSTER_FINALIZER]
    await tenant.kube.create(claims, manifest(claims, "theirs", tenant.namespace, FOREIGN_POOL, finalizers=both))
    await tenant.delete_claim("theirs", CAPI)
    await tenant.settled()
    assert (await tenant.claim_object("theirs", CAPI))["metadata"]["finalizers"] == [IN_CLUSTER_FINALIZER]
    await tenant.kube.set_finalizers(claims, "theirs", tenant.namespace)


async def test_a_description_on_a_held_reservation_keeps_the_address_when_the_claim_goes(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.2")
    assert await tenant.give("one", kind=kind) == "10.0.0.1"
    name = tenant.reservation_name("10.0.0.1")
    await tenant.kube.patch(IP_RESERVATIONS, name, spec={"description": "now the address of a load balancer"})
    await tenant.release("one", kind)
    await tenant.counts(reserved=1, used=0)
    spec = (await tenant.kube.get(IP_RESERVATIONS, name))["spec"]
    assert spec["description"] == "now the address of a load balancer"
    assert "claim" not in spec
    assert await tenant.give("one", kind=kind) == "10.0.0.2"


async def test_a_description_on_a_released_reservation_makes_it_an_administrators(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.2", reuseDelaySeconds=3600)
    await tenant.give("one", kind=kind)
    await tenant.release("one", kind)
    await tenant.counts(cooling=1)
    name = tenant.reservation_name("10.0.0.1")
    await tenant.kube.patch(IP_RESERVATIONS, name, spec={"description": "a printer answers there"})
    await tenant.counts(cooling=0, reserved=1)
    assert await tenant.give("one", kind=kind) == "10.0.0.2"
    await tenant.kube.delete(IP_RESERVATIONS, name)


async def test_a_claim_that_a_backup_brings_back_before_its_address_gets_that_address(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.claim("back", kind=kind, finalizers=[CLAIM_FINALIZERS[kind][0]])
    addresses = tenant.api(kind).addresses
    await tenant.kube.create(addresses, tenant.address_manifest("back", "back", "10.0.0.7", kind=kind))
    held = await tenant.bound("back", kind)
    assert (held.ip, held.address["metadata"]["name"]) == ("10.0.0.7", "back")


WRITTEN_BY_HAND = {
    "for what is no claim": {"claim": {"kind": "Machine", "namespace": "somewhere", "name": "else"}},
    "for nobody": {"claim": {}},
    "released in the year 0": {"releasedAt": "0000-01-01T00:00:00Z"},
    "released after the last year": {"releasedAt": "9999-12-31T23:59:59-14:00"},
    "released at a time in small letters": {"releasedAt": "2026-01-01t00:00:00z"},
}


@pytest.mark.parametrize("written", WRITTEN_BY_HAND.values(), ids=WRITTEN_BY_HAND.keys())
async def test_a_reservation_that_no_allocator_would_write_keeps_its_address_and_stops_nobody(tenant, written):
    await tenant.reserve("10.0.0.1", **written)
    await tenant.pool("pool", "10.0.0.1-10.0.0.2")
    assert await tenant.give("claim") == "10.0.0.2"
    await tenant.counts(reserved=1, used=1)


async def test_a_claim_whose_reservation_came_to_name_no_pool_can_go(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.2")
    await tenant.give("claim", kind=kind)
    name = tenant.reservation_name("10.0.0.1")
    await tenant.kube.patch(IP_RESERVATIONS, name, spec={"pool": {"kind": "Pool"}})
    await tenant.release("claim", kind)
    await tenant.nothing_held()
