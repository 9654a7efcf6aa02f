"""Who may use which pool: namespaces, global pools, and pools that are another provider's."""

from __future__ import annotations

import asyncio

import pytest

from services.ipam.api import ALLOCATION_FAILED, CAPI_GROUP, GLOBAL_IP_POOLS, IP_CLAIMS, METAL3_GROUP, POOL_NOT_READY
from tests.support.kube import manifest
from tests.support.tenant import CAPI, KINDS, METAL3


async def test_a_global_pool_serves_both_kinds_from_any_namespace_even_under_one_claim_name(tenant):
    other = await tenant.neighbour()
    name = tenant.namespace
    await tenant.pool(name, "10.0.0.1-10.0.0.9", resource=GLOBAL_IP_POOLS)
    for one in (tenant, other):
        for kind in KINDS:
            await one.claim("same", name, kind, pool_kind=GLOBAL_IP_POOLS.kind)
    held = [await one.bound("same", kind) for one in (tenant, other) for kind in KINDS]
    assert {h.ip for h in held} == {"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}
    pool = await tenant.pool_shows(
        lambda pool: len(pool.get("status", {}).get("indexes", {})) == len((tenant, other)), name, GLOBAL_IP_POOLS
    )
    assert set(pool["status"]["indexes"]) == {f"{tenant.namespace}/same", f"{other.namespace}/same"}
    assert pool["metadata"]["finalizers"] == ["globalippool.ipam.groundwork.dev/protect"]
    for one in held:
        owners = {(o["kind"], o["uid"]) for o in one.address["metadata"]["ownerReferences"]}
        assert ("GlobalIPPool", pool["metadata"]["uid"]) in owners


async def test_a_global_pool_can_be_kept_for_some_namespaces(tenant, kind):
    other = await tenant.neighbour()
    name = tenant.namespace
    await tenant.pool(name, "10.0.0.1-10.0.0.9", resource=GLOBAL_IP_POOLS, allowedNamespaces=[other.namespace])
    for one in (tenant, other):
        await one.claim("claim", name, kind, pool_kind=GLOBAL_IP_POOLS.kind)
    await other.bound("claim", kind)
    message = await tenant.refused("claim", ALLOCATION_FAILED, kind)
    assert message == f"GlobalIPPool {name} does not serve namespace {tenant.namespace} (spec.allowedNamespaces)"
    await tenant.change_pool(name, GLOBAL_IP_POOLS, allowedNamespaces=["*"])
    await tenant.bound("claim", kind)


async def test_a_global_pool_and_one_of_the_namespace_with_the_same_name_are_two_pools(tenant, kind):
    name = tenant.namespace
    await tenant.pool(name, "10.0.0.1-10.0.0.9", resource=GLOBAL_IP_POOLS)
    await tenant.pool(name, "10.0.1.1-10.0.1.9")
    assert await tenant.give("own", name, kind) == "10.0.1.1"
    assert await tenant.give("global", name, kind, pool_kind=GLOBAL_IP_POOLS.kind) == "10.0.0.1"
    await tenant.counts(name, used=1)
    await tenant.counts(name, GLOBAL_IP_POOLS, used=1)


async def test_pools_of_one_name_in_two_namespaces_are_two_pools(tenant, kind):
    other = await tenant.neighbour()
    await tenant.pool("pool", "10.0.0.1-10.0.0.2")
    await other.pool("pool", "10.0.1.1-10.0.1.2")
    assert await tenant.give("claim", kind=kind) == "10.0.0.1"
    assert await other.give("claim", kind=kind) == "10.0.1.1"
    for one, ip in ((tenant, "10.0.0.1"), (other, "10.0.1.1")):
        shown = await one.indexes({"claim": ip})
        assert shown["status"]["ipAddresses"]["used"] == 1


async def test_a_pool_serves_other_namespaces_only_when_it_allows_them(tenant):
    other = await tenant.neighbour()
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    pool = {"name": "pool", "namespace": tenant.namespace}
    await other.claim("claim", spec={"pool": pool})
    message = await other.refused("claim", ALLOCATION_FAILED)
    assert (
        message == f"IPPool {tenant.namespace}/pool does not serve namespace {other.namespace} (spec.allowedNamespaces)"
    )
    await tenant.give("own")
    await tenant.change_pool(allowedNamespaces=[other.namespace])
    held = await other.bound("claim")
    assert held.address["metadata"]["namespace"] == other.namespace
    assert held.address["spec"]["pool"] == pool
    owners = [o["kind"] for o in held.address["metadata"]["ownerReferences"]]
    assert owners == ["IPClaim"], (
        "an owner in another namespace is none: the garbage collector would delete the address"
    )
    await tenant.change_pool(allowedNamespaces=[])
    assert (await other.bound("claim")).ip == held.ip, "what was given is not taken away"
    await other.release("claim")
    await tenant.counts(used=1)


@pytest.mark.parametrize(
    ("kind", "ref"),
    [
        (CAPI, {"apiGroup": CAPI_GROUP, "kind": "InClusterIPPool", "name": "pool"}),
        (CAPI, {"apiGroup": CAPI_GROUP, "kind": "IPPool", "name": "pool"}),
        (CAPI, {"apiGroup": METAL3_GROUP, "kind": "GlobalIPPool", "name": "pool"}),
        (CAPI, {"apiGroup": METAL3_GROUP, "kind": "InClusterIPPool", "name": "pool"}),
        (METAL3, {"apiVersion": f"{CAPI_GROUP}/v1alpha2", "kind": "InClusterIPPool", "name": "pool"}),
        (METAL3, {"apiVersion": "example.com/v1", "kind": "IPPool", "name": "pool"}),
    ],
)
async def test_a_claim_for_another_provider_s_pool_of_the_same_name_is_left_alone(tenant, kind, ref):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    field = "pool" if kind == METAL3 else "poolRef"
    claims = tenant.api(kind).claims
    made = await tenant.kube.create(claims, manifest(claims, "foreign", tenant.namespace, {field: ref}))
    await tenant.settled()
    assert await tenant.claim_object("foreign", kind) == made
    await tenant.delete_claim("foreign", kind)
    await tenant.claim_gone("foreign", kind)
    await tenant.counts(used=0)


async def test_a_claim_that_names_kind_and_group_of_its_pool_is_served_too(tenant):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    ref = {"apiVersion": f"{METAL3_GROUP}/v1alpha1", "kind": "IPPool", "name": "pool", "namespace": tenant.namespace}
    await tenant.kube.create(IP_CLAIMS, manifest(IP_CLAIMS, "claim", tenant.namespace, {"pool": ref}))
    assert (await tenant.bound("claim")).ip == "10.0.0.1"


@pytest.mark.parametrize("resource", [None, GLOBAL_IP_POOLS])
async def test_a_claim_waits_for_a_pool_that_does_not_exist_yet(tenant, kind, resource):
    name = tenant.namespace if resource else "pool"
    pool_kind = resource.kind if resource else "IPPool"
    await tenant.claim("claim", name, kind, pool_kind=pool_kind)
    message = await tenant.refused("claim", POOL_NOT_READY, kind)
    shown = f"GlobalIPPool {name}" if resource else f"IPPool {tenant.namespace}/pool"
    assert message == f"{shown} does not exist"
    await tenant.pool(name, "10.0.0.1-10.0.0.9", **({"resource": resource} if resource else {}))
    assert (await tenant.bound("claim", kind)).ip == "10.0.0.1"


async def test_one_bad_pool_and_one_bad_claim_delay_nobody_else(tenant):
    await tenant.pool("bad", {"start": "10.0.0.9", "end": "10.0.0.1"})
    await tenant.pool("empty", "10.0.3.1-10.0.3.1", excludedAddresses=["10.0.3.1"])
    await tenant.pool("pool", "10.0.1.1-10.0.1.250")
    await asyncio.gather(
        *(tenant.claim(f"bad-{i}", "bad", kind) for i in range(5) for kind in KINDS),
        *(tenant.claim(f"empty-{i}", "empty", kind) for i in range(5) for kind in KINDS),
        *(tenant.claim(f"missing-{i}", "missing", kind) for i in range(5) for kind in KINDS),
        *(tenant.claim(f"malformed-{i}", annotations={"ipAddress": "x"}) for i in range(5)),
    )
    for kind in KINDS:
        assert (await tenant.give("good", kind=kind)).startswith("10.0.1.")
        for i in range(5):
            await tenant.refused(f"bad-{i}", POOL_NOT_READY, kind, "has no usable range")
            await tenant.refused(f"empty-{i}", "PoolExhausted", kind)
            await tenant.refused(f"missing-{i}", POOL_NOT_READY, kind, "does not exist")
    for i in range(5):
        await tenant.refused(f"malformed-{i}", ALLOCATION_FAILED, METAL3)
