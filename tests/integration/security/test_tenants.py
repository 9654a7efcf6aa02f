"""A tenant of one namespace who means harm to the addresses of another."""

from __future__ import annotations

import contextlib

import pytest

from services.ipam.api import (
    ALLOCATION_FAILED,
    GLOBAL_IP_POOLS,
    IP_ADDRESSES,
    IP_CLAIMS,
    IP_POOLS,
    IP_RESERVATIONS,
    POOL_EXHAUSTED,
    REQUESTED_ADDRESS_ANNOTATION,
)
from services.podpreset.api import CLUSTER_POD_PRESETS
from services.runtime.kube.errors import Forbidden, Invalid, NotFound
from tests.integration.security.pages import objects
from tests.support.kube import Kube, eventually, manifest
from tests.support.tenant import CAPI, CAPI_ADDRESSES, METAL3, Tenant

OWN_GROUPS = [
    {"apiGroups": ["ipam.metal3.io", "ipam.cluster.x-k8s.io"], "resources": ["*"], "verbs": ["*"]},
    {"apiGroups": ["cluster.x-k8s.io"], "resources": ["*"], "verbs": ["*"]},
]
"""More than a tenant should have: everything about addresses that is namespaced."""


@contextlib.asynccontextmanager
async def acting(cluster, tenant, rules):
    """The tenant with these rights in its own namespace instead of an administrator's."""
    path = cluster.service_account_kubeconfig(tenant.namespace, "tenant", rules, namespaced=True)
    async with Kube.connect(path) as kube:
        other = Tenant(kube, tenant.namespace, tenant.domain)
        yield other


def tenant_rules():
    """The rules of the documented roles, view and edit together."""
    return [rule for role in objects("concepts/tenancy.md", "ClusterRole") for rule in role["rules"]]


async def intact(victim, name, ip, kind=METAL3):
    """The victim's claim has its address still, in every respect."""
    assert (await victim.bound(name, kind)).ip == ip


async def told(tenant, name):
    """Events about a claim."""
    return await tenant.kube.events(await tenant.claim_object(name))


# -- rights --------------------------------------------------------------------------------------------------------


async def test_with_the_documented_roles_a_tenant_claims_and_sees_its_own_and_nothing_else(
    cluster, victim, mallory, kind
):
    await victim.pool("pool", "10.0.0.1-10.0.0.9")
    await mallory.pool("own", "10.0.1.1-10.0.1.9")
    taken = await victim.give("claim", kind=kind)
    async with acting(cluster, mallory, tenant_rules()) as tenant:
        claims, addresses = tenant.api(kind)
        await tenant.claim("mine", "own", kind)
        held = await mallory.bound("mine", kind)
        assert (await tenant.kube.get(addresses, held.address["metadata"]["name"], tenant.namespace))["spec"]
        reservation = victim.reservation_name(taken)
        forged = tenant.address_manifest("forged", "mine", "10.0.1.5", "own", kind)
        pool = manifest(IP_POOLS, "p", tenant.namespace, {"namePrefix": "p", "pools": [{"subnet": "10.0.0.0/24"}]})
        wide = manifest(GLOBAL_IP_POOLS, "p", "", pool["spec"])
        name = held.address["metadata"]["name"]
        attempts = {
            "make an address": lambda: tenant.kube.create(addresses, forged),
            "change its address": lambda: tenant.kube.patch(
                addresses, name, tenant.namespace, metadata={"finalizers": None}
            ),
            "delete its address": lambda: tenant.kube.delete(addresses, name, tenant.namespace),
            "say what it was given": lambda: tenant.kube.set_status(claims, "mine", tenant.namespace, {}),
            "make a pool": lambda: tenant.kube.create(IP_POOLS, pool),
            "make a pool for all": lambda: tenant.kube.create(GLOBAL_IP_POOLS, wide),
            "open a pool": lambda: tenant.kube.patch(
                IP_POOLS, "pool", victim.namespace, spec={"allowedNamespaces": ["*"]}
            ),
            "see who has what": lambda: tenant.kube.list(IP_RESERVATIONS),
            "see who has one address": lambda: tenant.kube.get(IP_RESERVATIONS, reservation),
            "free another's address": lambda: tenant.kube.delete(IP_RESERVATIONS, reservation),
            "see all claims": lambda: tenant.kube.list(claims),
            "see another's claims": lambda: tenant.kube.list(claims, victim.namespace),
            "see another's addresses": lambda: tenant.kube.list(addresses, victim.namespace),
            "delete another's claim": lambda: tenant.kube.delete(claims, "claim", victim.namespace),
            "change all pods": lambda: tenant.kube.create(
                CLUSTER_POD_PRESETS, manifest(CLUSTER_POD_PRESETS, "p", "", {})
            ),
        }
        allowed = []
        for what, attempt in attempts.items():
            try:
                await attempt()
            except Forbidden:
                continue
            allowed.append(what)
        assert allowed == []
    await intact(victim, "claim", taken, kind)


# -- names and references ------------------------------------------------------------------------------------------


async def test_a_claim_cannot_take_from_a_pool_of_another_namespace_whatever_it_asks_for(victim, mallory):
    await victim.pool("pool", "10.0.0.1-10.0.0.9", preAllocations={"kept": "10.0.0.5"})
    taken = await victim.give("claim")
    there = {"pool": {"name": "pool", "namespace": victim.namespace}}
    for name, asked in {
        "claim": {},
        "kept": {},
        "free": {REQUESTED_ADDRESS_ANNOTATION: "10.0.0.9"},
        "held": {REQUESTED_ADDRESS_ANNOTATION: taken},
    }.items():
        await mallory.claim(name, spec=there, annotations=asked)
        message = await mallory.refused(name, ALLOCATION_FAILED)
        assert message.endswith(f"does not serve namespace {mallory.namespace} (spec.allowedNamespaces)")
    await victim.counts(used=1, reserved=1)
    await intact(victim, "claim", taken)


async def test_a_claim_named_like_another_namespace_s_does_not_get_what_is_kept_for_that(victim, mallory, kind):
    name = victim.namespace
    kept = {f"{victim.namespace}/vip": "10.0.0.5", "anybody": "10.0.0.6"}
    await victim.pool(name, "10.0.0.1-10.0.0.9", resource=GLOBAL_IP_POOLS, preAllocations=kept)
    ready = await victim.pool_condition("Ready", "False", name, GLOBAL_IP_POOLS)
    assert "spec.preAllocations[anybody]: '10.0.0.6': namespace/name as the key" in ready["message"]
    of = {"pool": name, "kind": kind, "pool_kind": GLOBAL_IP_POOLS.kind}
    assert await mallory.give("vip", **of) == "10.0.0.1"
    assert await mallory.give("anybody", **of) == "10.0.0.2"
    for number, wanted in enumerate(kept.values()):
        annotations = {REQUESTED_ADDRESS_ANNOTATION: wanted}
        await mallory.claim(f"asks-{number}", **of, annotations=annotations)
        await mallory.refused(f"asks-{number}", ALLOCATION_FAILED, kind, "by the pool's preAllocations")
    assert await victim.give("vip", **of) == "10.0.0.5"


async def test_a_namespace_that_a_pool_serves_no_more_keeps_what_it_has_and_gets_nothing_new(victim, mallory):
    pool = {"name": "pool", "namespace": victim.namespace}
    await victim.pool("pool", "10.0.0.1-10.0.0.9", allowedNamespaces=[mallory.namespace])
    for name in ("one", "two"):
        await mallory.claim(name, spec={"pool": pool})
        await mallory.bound(name)
    await victim.pool_condition("NamespacesAllowed", "True")
    await victim.change_pool(allowedNamespaces=["nobody"])
    said = await victim.pool_condition("NamespacesAllowed", "False")
    assert (said["reason"], said["message"]) == (
        "HeldFromOtherNamespaces",
        f"Claims of namespaces that spec.allowedNamespaces does not have keep their addresses: {mallory.namespace} (2)",
    )
    await mallory.claim("three", spec={"pool": pool})
    refusal = await mallory.refused("three", ALLOCATION_FAILED)
    events = await eventually(lambda: told(mallory, "three"))
    assert [(e["type"], e["reason"], e["note"]) for e in events] == [("Warning", "NamespaceNotAllowed", refusal)]
    await mallory.release("one")
    said = await victim.pool_shows(lambda obj: f"{mallory.namespace} (1)" in str(obj["status"]["conditions"]))
    await mallory.claim("one", spec={"pool": pool})
    await mallory.refused("one", ALLOCATION_FAILED)
    assert (await mallory.bound("two")).ip
    await mallory.release("two")
    await victim.pool_condition("NamespacesAllowed", "True")


# -- objects made by hand ------------------------------------------------------------------------------------------


async def test_an_address_made_by_hand_opens_no_pool_and_takes_nobody_s_address(cluster, victim, mallory):
    await victim.pool("pool", "10.0.0.1-10.0.0.9")
    taken = await victim.give("claim")
    async with acting(cluster, mallory, OWN_GROUPS) as tenant:
        there = {"name": "pool", "namespace": victim.namespace}
        for name, ip in {"free": "10.0.0.9", "taken": taken}.items():
            forged = tenant.address_manifest(f"pool-{name}", name, ip)
            forged["spec"]["pool"] = there
            await tenant.kube.create(IP_ADDRESSES, forged)
            await tenant.claim(name, spec={"pool": there})
            named = {"address": {"name": f"pool-{name}", "namespace": tenant.namespace}, "conditions": []}
            await tenant.kube.set_status(IP_CLAIMS, name, tenant.namespace, named)
            await tenant.refused(name, ALLOCATION_FAILED, METAL3, "does not serve namespace")
    assert await victim.held() == [taken]
    await intact(victim, "claim", taken)


async def test_an_address_made_by_hand_is_never_about_a_claim_of_another_namespace(cluster, victim, mallory):
    await victim.pool("pool", "10.0.0.1-10.0.0.9")
    taken = await victim.give("claim")
    async with acting(cluster, mallory, OWN_GROUPS) as tenant:
        forged = tenant.address_manifest("forged", "claim", "10.0.0.7")
        forged["spec"]["claim"]["namespace"] = victim.namespace
        forged["spec"]["pool"]["namespace"] = victim.namespace
        owner = {
            "apiVersion": IP_CLAIMS.api_version,
            "kind": IP_CLAIMS.kind,
            "name": "claim",
            "uid": (await victim.claim_object("claim"))["metadata"]["uid"],
        }
        forged["metadata"]["ownerReferences"] = [owner]
        await tenant.kube.create(IP_ADDRESSES, forged)
        await victim.settled()
        await intact(victim, "claim", taken)
        await tenant.kube.delete(IP_ADDRESSES, "forged", tenant.namespace)
    await victim.release("claim")
    await victim.nothing_held()


async def test_a_status_written_by_its_tenant_gives_a_claim_nothing(cluster, victim, mallory):
    await victim.pool("pool", "10.0.0.1-10.0.0.1")
    taken = await victim.give("claim")
    address = (await victim.bound("claim")).address["metadata"]
    there = {"name": "pool", "namespace": victim.namespace}
    async with acting(cluster, mallory, OWN_GROUPS) as tenant:
        await tenant.claim("forged", spec={"pool": there})
        ready = {"type": "Ready", "status": "True", "reason": "AddressAllocated", "message": taken}
        ready["lastTransitionTime"] = "2026-01-01T00:00:00Z"
        named = {"address": {"name": address["name"], "namespace": victim.namespace}, "conditions": [ready]}
        await tenant.kube.set_status(IP_CLAIMS, "forged", tenant.namespace, named)
        await tenant.refused("forged", ALLOCATION_FAILED)
        await tenant.release("forged")
    assert await victim.held() == [taken]
    await intact(victim, "claim", taken)


async def test_stripping_finalizers_frees_the_tenant_s_own_address_alone(cluster, victim, mallory, kind):
    name = victim.namespace
    await victim.pool(name, "10.0.0.1-10.0.0.9", resource=GLOBAL_IP_POOLS)
    of = {"pool": name, "kind": kind, "pool_kind": GLOBAL_IP_POOLS.kind}
    taken = await victim.give("claim", **of)
    await mallory.give("claim", **of)
    async with acting(cluster, mallory, OWN_GROUPS) as tenant:
        claims, addresses = tenant.api(kind)
        for resource in (claims, addresses):
            for found in await tenant.kube.list(resource, tenant.namespace):
                with contextlib.suppress(NotFound):  # the allocator was faster
                    await tenant.kube.force_delete(resource, found["metadata"]["name"], tenant.namespace)
    await eventually(victim.held, lambda held: held == [taken])
    await intact(victim, "claim", taken, kind)


async def test_a_pool_over_another_namespace_s_range_gives_nothing_that_is_held(victim, mallory, kind):
    await victim.pool("pool", "10.0.0.1-10.0.0.2")
    taken = [await victim.give(f"claim-{n}", kind=kind) for n in range(2)]
    await mallory.pool("pool", "10.0.0.1-10.0.0.2")
    await mallory.claim("claim-0", kind=kind)
    await mallory.refused("claim-0", POOL_EXHAUSTED, kind)
    await mallory.claim("asks", kind=kind, annotations={REQUESTED_ADDRESS_ANNOTATION: taken[0]})
    await mallory.refused("asks", ALLOCATION_FAILED, kind, "is held by")
    for name in ("claim-0", "asks"):
        await mallory.release(name, kind)
    await mallory.kube.delete(IP_POOLS, "pool", mallory.namespace)
    await mallory.kube.gone(IP_POOLS, "pool", mallory.namespace)
    assert await victim.held() == taken
    for n, ip in enumerate(taken):
        await intact(victim, f"claim-{n}", ip, kind)


# -- sizes ---------------------------------------------------------------------------------------------------------


async def test_a_claim_as_large_as_the_api_server_takes_is_answered_and_delays_nobody(victim, mallory, kind):
    name = victim.namespace
    await victim.pool(name, "10.0.0.1-10.0.0.9", resource=GLOBAL_IP_POOLS)
    of = {"pool": name, "kind": kind, "pool_kind": GLOBAL_IP_POOLS.kind}
    labels = {f"{'l' * 50}-{number}": "v" * 63 for number in range(500)}
    await mallory.claim("n" * 253, **of, labels=labels)
    await mallory.claim("asks", **of, annotations={REQUESTED_ADDRESS_ANNOTATION: "1" * 250_000})
    message = await mallory.refused("asks", ALLOCATION_FAILED, kind, "annotation ipAddress: '1111")
    assert len(message) == 1024
    await mallory.bound("n" * 253, kind)
    assert await victim.give("claim", **of)
    await mallory.release("n" * 253, kind)


async def test_a_pool_of_every_size_is_read_and_delays_nobody(victim, mallory):
    ranges = [
        {"start": f"10.{n // 256}.{n % 256}.0", "end": f"10.{n // 256}.{n % 256}.255", "prefix": 30}
        for n in range(1500)
    ]
    await mallory.pool("many", *ranges)
    await mallory.pool("wide", {"start": "::", "prefix": 127}, {"start": "0.0.0.0", "prefix": 30})
    await mallory.pool_shows(lambda pool: "status" in pool, "many")
    await victim.pool("pool", "10.250.0.1-10.250.0.9")
    assert await victim.give("claim") == "10.250.0.1"
    for name in ("many", "wide"):
        await mallory.kube.delete(IP_POOLS, name, mallory.namespace)
        await mallory.kube.gone(IP_POOLS, name, mallory.namespace)


# -- the documented policy -----------------------------------------------------------------------------------------


async def test_with_the_documented_policy_addresses_are_written_by_who_may_write_the_ledger(cluster, victim, mallory):
    policy, binding = objects("concepts/tenancy.md", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    # The other tests of the session must not meet it.
    only = {"matchLabels": {"kubernetes.io/metadata.name": mallory.namespace}}
    binding["spec"]["matchResources"] = {"namespaceSelector": only}
    ledger = {"apiGroups": ["ipam.groundwork.dev"], "resources": ["ipreservations"], "verbs": ["update"]}
    allocator = cluster.service_account_kubeconfig("policy", "allocator", [*OWN_GROUPS, ledger])
    cluster.apply(policy, binding)
    try:
        await mallory.pool("own", "10.0.1.1-10.0.1.9")
        async with acting(cluster, mallory, OWN_GROUPS) as tenant, Kube.connect(allocator) as writer:
            foreign = tenant.address_manifest("theirs", "theirs", "10.9.9.9", "pool", CAPI)
            foreign["spec"]["poolRef"]["apiGroup"] = "ipam.example.com"

            async def refused():
                try:
                    await tenant.kube.create(IP_ADDRESSES, tenant.address_manifest("forged", "mine", "10.0.1.5", "own"))
                except Invalid as error:
                    return str(error)
                await tenant.kube.delete(IP_ADDRESSES, "forged", tenant.namespace)
                return ""

            # The API server goes by a new policy a moment later.
            assert "IPAddresses are written by who may write IPReservations" in await eventually(refused)
            for resource, kind in ((IP_ADDRESSES, METAL3), (CAPI_ADDRESSES, CAPI)):
                obj = tenant.address_manifest("made", "mine", "10.0.1.5", "own", kind)
                with pytest.raises(Invalid, match="written by who may write IPReservations"):
                    await tenant.kube.create(resource, obj)
                await writer.create(resource, obj)
                with pytest.raises(Invalid, match="written by who may write IPReservations"):
                    await tenant.kube.annotate(resource, "made", tenant.namespace, a="b")
                await writer.annotate(resource, "made", tenant.namespace, a="b")
                await tenant.kube.delete(resource, "made", tenant.namespace)
            await tenant.kube.create(CAPI_ADDRESSES, foreign)
    finally:
        for obj in (binding, policy):
            cluster.kubectl("delete", obj["kind"].lower(), obj["metadata"]["name"])
