"""No address is given twice, whatever comes at once, overlaps or shares a name; and nothing is left behind."""

from __future__ import annotations

import asyncio

from services.ipam.api import GLOBAL_IP_POOLS
from tests.support.kube import PATIENCE_SECONDS, eventually
from tests.support.tenant import CAPI, KINDS, METAL3, Tenant


async def claim_all(tenant, names, kinds, pool="pool"):
    await asyncio.gather(*(tenant.claim(name, pool, kind) for name in names for kind in kinds))


async def nothing_left(tenant):
    """Wait until neither claims nor anything that was made for them is there.

    The API server may carry a DELETE through although a finalizer was written meanwhile. What such a claim was told of
    its address is returned after the grace for orphans, hence twice the usual patience.
    """

    async def look():
        claims = [await tenant.kube.list(tenant.api(kind).claims, tenant.namespace) for kind in KINDS]
        return claims, [await tenant.addresses(kind) for kind in KINDS], await tenant.held()

    await eventually(look, lambda seen: seen == ([[], []], [[], []], []), within=2 * PATIENCE_SECONDS)


async def test_a_hundred_claims_of_each_kind_at_once_all_get_an_address_of_their_own(tenant):
    await tenant.pool("pool", "10.0.0.1-10.0.0.200", prefix=16)
    await claim_all(tenant, [f"claim-{i}" for i in range(100)], KINDS)
    ips = await tenant.all_bound(*KINDS)
    assert set(ips) == {f"10.0.0.{i}" for i in range(1, 201)}
    await tenant.counts(total=200, used=200, free=0)


async def test_a_burst_of_random_choices_makes_one_address_for_each_claim_and_leaves_none(tenant):
    await tenant.pool("pool", "10.0.0.0/24", allocationStrategy="random")
    names = [f"claim-{i}" for i in range(75)]
    await claim_all(tenant, names, KINDS)
    ips = await tenant.all_bound(*KINDS)
    assert len(ips) == 150
    assert sorted(ips) != sorted(f"10.0.0.{i}" for i in range(1, 151))
    await asyncio.gather(*(tenant.delete_claim(name, kind) for name in names for kind in KINDS))
    await nothing_left(tenant)
    await tenant.counts(used=0, free=254)


async def test_claims_deleted_as_soon_as_they_are_made_leak_nothing(tenant):
    await tenant.pool("pool", "10.0.0.1-10.0.0.250")

    async def come_and_go(name, kind):
        await tenant.claim(name, kind=kind)
        await tenant.delete_claim(name, kind)

    await asyncio.gather(*(come_and_go(f"claim-{i}", kind) for i in range(30) for kind in KINDS))
    await tenant.settled()
    await nothing_left(tenant)
    await tenant.counts(used=0, free=250)


async def test_claims_of_both_kinds_with_one_name_each_have_an_address_that_exists(tenant):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    for kind in KINDS:
        await tenant.claim("same", kind=kind)
    metal3, capi = await tenant.bound("same", METAL3), await tenant.bound("same", CAPI)
    assert metal3.ip != capi.ip
    assert capi.claim["status"]["addressRef"] == {"name": "same"}
    assert metal3.claim["status"]["address"] == {
        "name": f"pool-{metal3.ip.replace('.', '-')}",
        "namespace": tenant.namespace,
    }
    await tenant.release("same", METAL3)
    assert (await tenant.bound("same", CAPI)).ip == capi.ip
    assert await tenant.held() == [capi.ip]


async def test_overlapping_pools_share_their_addresses_and_name_each_other(tenant):
    await tenant.pool("one", "10.0.0.1-10.0.0.20")
    await tenant.pool("two", "10.0.0.11-10.0.0.30")
    await asyncio.gather(
        claim_all(tenant, [f"one-{i}" for i in range(10)], KINDS[:1], "one"),
        claim_all(tenant, [f"two-{i}" for i in range(10)], KINDS, "two"),
    )
    assert len(await tenant.all_bound(*KINDS)) == 30
    for name, other in (("one", "two"), ("two", "one")):
        overlap = await tenant.pool_condition("NoOverlap", "False", name)
        assert overlap["reason"] == "PoolsOverlap"
        assert overlap["message"] == f"Shares addresses with IPPool {tenant.namespace}/{other}"
        await tenant.counts(name, total=20, used=20, free=0)
    await tenant.change_pool("two", pools=[{"start": "10.0.0.21", "end": "10.0.0.30"}])
    for name in ("one", "two"):
        await tenant.pool_condition("NoOverlap", "True", name)


async def test_a_global_pool_and_a_pool_of_a_namespace_that_overlap_never_give_one_address_twice(tenant):
    name = tenant.namespace
    await tenant.pool(name, "10.0.0.1-10.0.0.9", resource=GLOBAL_IP_POOLS)
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await asyncio.gather(
        *(tenant.claim(f"global-{i}", name, pool_kind=GLOBAL_IP_POOLS.kind) for i in range(4)),
        *(tenant.claim(f"own-{i}") for i in range(5)),
    )
    assert len(await tenant.all_bound(METAL3)) == 9
    overlap = await tenant.pool_condition("NoOverlap", "False", name, GLOBAL_IP_POOLS)
    assert overlap["message"] == f"Shares addresses with IPPool {name}/pool"


async def test_different_domains_are_free_of_each_other_even_with_one_name_prefix(tenant):
    elsewhere = Tenant(tenant.kube, tenant.namespace, f"{tenant.domain}-b")
    await tenant.pool("here", "10.0.0.7-10.0.0.7", namePrefix="same")
    await elsewhere.pool("there", "10.0.0.7-10.0.0.7", namePrefix="same")
    await tenant.claim("here", "here")
    await elsewhere.claim("there", "there")
    here, there = await tenant.bound("here"), await elsewhere.bound("there")
    assert here.ip == there.ip == "10.0.0.7"
    names = {here.address["metadata"]["name"], there.address["metadata"]["name"]}
    assert len(names) == 2
    assert "same-10-0-0-7" in names
    for name in ("here", "there"):
        await tenant.pool_condition("NoOverlap", "True", name)
