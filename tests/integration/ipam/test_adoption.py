"""Objects that are there before the allocator sees them: from metal3, from the in-cluster provider, from a backup."""

from __future__ import annotations

import asyncio

import pytest

from services.ipam.api import CAPI_GROUP, IP_POOLS, IP_RESERVATIONS
from tests.support.kube import manifest
from tests.support.tenant import CAPI, KINDS, METAL3, condition

STALE = "11111111-2222-3333-4444-555555555555"


def stale_owners(tenant, kind, claim):
    """Owners as they were in the cluster that a backup was made of."""
    group = tenant.api(kind).claims.api_version
    return [
        {"apiVersion": group, "kind": kind, "name": claim, "uid": STALE, "controller": True},
        {"apiVersion": IP_POOLS.api_version, "kind": "IPPool", "name": "pool", "uid": STALE.replace("1", "9")},
        {"apiVersion": "example.com/v1", "kind": "Site", "name": "somewhere", "uid": STALE.replace("1", "7")},
    ]


ADOPTED = {
    "metal3's name": (METAL3, "pool-10-0-0-7", []),
    "any other name": (METAL3, "renamed-by-hand", ["ipaddress.ipam.metal3.io"]),
    "metal3's name for Cluster API": (CAPI, "pool-10-0-0-7", ["ipam.metal3.io/ipaddress"]),
    "in-cluster's name": (CAPI, "claim", ["ipam.cluster.x-k8s.io/ProtectAddress"]),
    "no finalizer": (CAPI, "claim", []),
}


@pytest.mark.parametrize("case", ADOPTED)
async def test_an_address_made_earlier_is_taken_over_with_its_name_and_spec(tenant, case):
    kind, name, finalizers = ADOPTED[case]
    addresses = tenant.api(kind).addresses
    before = await tenant.kube.create(
        addresses,
        tenant.address_manifest(
            name,
            "claim",
            "10.0.0.7",
            kind=kind,
            finalizers=finalizers,
            ownerReferences=stale_owners(tenant, kind, "claim"),
        ),
    )
    await tenant.settled()
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.counts(used=1)
    own = ["ipam.cluster.x-k8s.io/ReleaseAddress"] if finalizers == ["ipam.cluster.x-k8s.io/ProtectAddress"] else []
    await tenant.claim("claim", kind=kind, finalizers=own)
    held = await tenant.bound("claim", kind)
    assert held.ip == "10.0.0.7"
    assert held.address["spec"] == before["spec"]
    assert held.address["metadata"]["uid"] == before["metadata"]["uid"]
    assert len(held.address["metadata"]["finalizers"]) == 1
    assert held.address["metadata"]["finalizers"] == finalizers or not finalizers
    pool = await tenant.pool_object()
    owners = {(o["kind"], o["uid"]) for o in held.address["metadata"]["ownerReferences"]}
    assert owners == {
        (kind, held.claim["metadata"]["uid"]),
        ("IPPool", pool["metadata"]["uid"]),
        ("Site", STALE.replace("1", "7")),
    }
    assert await tenant.addresses(kind) == [held.address], "there is no second one"
    await tenant.release("claim", kind)
    assert await tenant.addresses(kind) == []
    await tenant.nothing_held()


async def test_an_address_that_has_another_controller_is_taken_over_and_keeps_it(tenant):
    other = {"apiVersion": "example.com/v1", "kind": "Site", "name": "there", "uid": STALE, "controller": True}
    addresses = tenant.api(CAPI).addresses
    made = tenant.address_manifest("claim", "claim", "10.0.0.7", kind=CAPI, ownerReferences=[other])
    await tenant.kube.create(addresses, made)
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    assert await tenant.give("claim", kind=CAPI) == "10.0.0.7"
    (address,) = await tenant.addresses(CAPI)
    controllers = {o["kind"]: o.get("controller") for o in address["metadata"]["ownerReferences"]}
    assert controllers == {"Site": True, "IPAddressClaim": False, "IPPool": False}


async def test_an_address_made_earlier_blocks_others_even_before_its_claim_comes(tenant, kind):
    addresses = tenant.api(kind).addresses
    await tenant.kube.create(addresses, tenant.address_manifest("claim", "claim", "10.0.0.1", kind=kind))
    await tenant.settled()
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.counts(used=1)
    assert await tenant.give("other", kind=kind) == "10.0.0.2"
    assert await tenant.give("claim", kind=kind) == "10.0.0.1"


async def test_an_address_outside_the_pool_is_taken_over_too(tenant, kind):
    addresses = tenant.api(kind).addresses
    await tenant.kube.create(addresses, tenant.address_manifest("claim", "claim", "10.9.9.9", kind=kind))
    await tenant.settled()
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    assert await tenant.give("claim", kind=kind) == "10.9.9.9"
    await tenant.counts(used=0, outOfRange=1, free=9)
    await tenant.release("claim", kind)
    await tenant.counts(outOfRange=0)


async def test_one_address_adopted_by_two_claims_is_a_conflict_until_one_of_them_goes(tenant):
    await tenant.kube.create(
        tenant.api(METAL3).addresses, tenant.address_manifest("one-10-0-0-5", "first", "10.0.0.5", "one")
    )
    await tenant.kube.create(
        tenant.api(CAPI).addresses, tenant.address_manifest("second", "second", "10.0.0.5", "two", CAPI)
    )
    await tenant.settled()
    await tenant.pool("one", "10.0.0.1-10.0.0.9")
    await tenant.pool("two", "10.0.0.5-10.0.0.9")
    await tenant.claim("first", "one")
    await tenant.claim("second", "two", CAPI)
    claims = f"IPAddressClaim {tenant.namespace}/second and IPClaim {tenant.namespace}/first"
    for name in ("one", "two"):
        pool = await tenant.pool_shows(
            lambda pool: (condition(pool, "NoOverlap") or {}).get("reason") == "AddressConflict", name
        )
        assert condition(pool, "NoOverlap")["message"] == f"Held twice: 10.0.0.5 by {claims}"
    await tenant.settled()
    assert [a["spec"]["address"] for kind in KINDS for a in await tenant.addresses(kind)] == ["10.0.0.5", "10.0.0.5"]
    assert await tenant.held() == ["10.0.0.5"]
    for name, kind in (("first", METAL3), ("second", CAPI)):
        claim = await tenant.claim_object(name, kind)
        assert tenant.named_address(claim) is not None, "nothing is taken away"
    await tenant.release("first")
    assert (await tenant.bound("second", CAPI)).ip == "10.0.0.5"
    for name in ("one", "two"):
        await tenant.pool_shows(lambda pool: "AddressConflict" not in str(pool["status"]), name)
    assert await tenant.give("third", "two") == "10.0.0.6"
    await tenant.release("second", CAPI)
    await tenant.counts("two", used=1)


async def test_an_address_object_of_another_provider_under_the_name_is_neither_touched_nor_silently_waited_for(tenant):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    addresses = tenant.api(CAPI).addresses
    spec = {
        "address": "10.0.0.1",
        "prefix": 24,
        "claimRef": {"name": "claim"},
        "poolRef": {"apiGroup": CAPI_GROUP, "kind": "InClusterIPPool", "name": "pool"},
    }
    foreign = await tenant.kube.create(addresses, manifest(addresses, "claim", tenant.namespace, spec))
    await tenant.settled()
    await tenant.claim("claim", kind=CAPI)
    message = await tenant.refused("claim", "AllocationFailed", CAPI)
    assert message == f"IPAddress {tenant.namespace}/claim exists and was not made for this claim: remove it"
    assert await tenant.held() == []
    assert await tenant.kube.get(addresses, "claim", tenant.namespace) == foreign
    await tenant.kube.delete(addresses, "claim", tenant.namespace)
    assert (await tenant.bound("claim", CAPI)).ip == "10.0.0.1"


async def test_an_address_object_of_another_claim_under_the_name_is_waited_for(tenant):
    addresses = tenant.api(CAPI).addresses
    await tenant.kube.create(addresses, tenant.address_manifest("second", "first", "10.0.0.5", kind=CAPI))
    await tenant.settled()
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    assert await tenant.give("first", kind=CAPI) == "10.0.0.5"
    await tenant.claim("second", kind=CAPI)
    await tenant.refused("second", "AllocationFailed", CAPI, "was not made for this claim")
    await tenant.release("first", CAPI)
    await tenant.bound("second", CAPI)


async def test_an_address_object_under_metal3_s_name_that_is_another_claim_s_is_left_and_another_name_used(tenant):
    await tenant.kube.create(
        tenant.api(METAL3).addresses, tenant.address_manifest("pool-10-0-0-1", "first", "10.0.0.5")
    )
    await tenant.settled()
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    assert await tenant.give("first") == "10.0.0.5"
    await tenant.claim("second")
    held = await tenant.bound("second")
    assert held.ip == "10.0.0.1"
    assert held.address["metadata"]["name"].startswith("pool-10-0-0-1-")


async def test_a_restored_namespace_gets_exactly_the_addresses_it_had(tenant, allocator):
    await tenant.pool("pool", "10.0.0.1-10.0.0.200", allocationStrategy="random")
    names = [f"claim-{i}" for i in range(20)]
    await asyncio.gather(*(tenant.claim(name, kind=kind) for name in names for kind in KINDS))
    await tenant.all_bound(*KINDS)
    had = {}
    backup = []
    for kind in KINDS:
        for address in await tenant.addresses(kind):
            spec = address["spec"]
            had[kind, (spec.get("claim") or spec["claimRef"])["name"]] = spec["address"]
            kept = {key: address["metadata"][key] for key in ("finalizers", "ownerReferences")}
            backup.append((kind, address["metadata"]["name"], spec, kept))
    pool = (await tenant.pool_object())["spec"]
    # The disaster: everything is gone, and nobody of the allocator's was asked.
    allocator.stop()
    for kind in KINDS:
        for resource in (tenant.api(kind).claims, tenant.api(kind).addresses):
            found = [obj["metadata"]["name"] for obj in await tenant.kube.list(resource, tenant.namespace)]
            await asyncio.gather(*(tenant.kube.force_delete(resource, name, tenant.namespace) for name in found))
    await tenant.kube.force_delete(IP_POOLS, "pool", tenant.namespace)
    for reservation in await tenant.reservations():
        await tenant.kube.delete(IP_RESERVATIONS, reservation["metadata"]["name"])
    allocator.start()
    await tenant.settled()
    for kind, name, spec, meta in backup:
        await tenant.kube.create(
            tenant.api(kind).addresses, manifest(tenant.api(kind).addresses, name, tenant.namespace, spec, **meta)
        )
    await tenant.settled()
    await tenant.kube.create(IP_POOLS, manifest(IP_POOLS, "pool", tenant.namespace, pool))
    await asyncio.gather(*(tenant.claim(name, kind=kind) for name in reversed(names) for kind in KINDS))
    await tenant.all_bound(*KINDS)
    for (kind, name), ip in had.items():
        assert (await tenant.bound(name, kind)).ip == ip
