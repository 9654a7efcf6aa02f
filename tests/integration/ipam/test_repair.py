"""What users do by force, and what status says that is not so: everything is put right, and no address moves."""

from __future__ import annotations

import asyncio

import pytest

from services.ipam.api import IP_POOLS, IP_RESERVATIONS
from tests.support.kube import eventually
from tests.support.tenant import CAPI, CLUSTERS, METAL3, condition

ALLOCATOR_FLAGS = ("--orphan-grace-seconds=1", "--sticky-seconds=2")


async def give(tenant, kind, name="claim"):
    await tenant.claim(name, kind=kind)
    return await tenant.bound(name, kind)


def essence(address):
    """What of an IPAddress its users rely on."""
    meta = address["metadata"]
    return meta["name"], address["spec"], meta["finalizers"], meta["ownerReferences"], meta.get("labels")


async def test_an_address_deleted_while_it_is_claimed_stays_until_the_claim_goes(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.1")
    held = await give(tenant, kind)
    name = held.address["metadata"]["name"]
    await tenant.kube.delete(tenant.api(kind).addresses, name, tenant.namespace)
    await tenant.settled()
    left = await tenant.bound("claim", kind)
    assert "deletionTimestamp" in left.address["metadata"]
    assert essence(left.address) == essence(held.address)
    await tenant.claim("next", kind=kind)
    await tenant.refused("next", "PoolExhausted", kind)
    await tenant.release("claim", kind)
    assert (await tenant.bound("next", kind)).ip == "10.0.0.1"


async def test_an_address_removed_by_force_is_made_again_exactly_as_it_was(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9", gateway="10.0.0.9")
    await tenant.claim("claim", kind=kind, labels={"rack": "a7"})
    held = await tenant.bound("claim", kind)
    name = held.address["metadata"]["name"]
    addresses = tenant.api(kind).addresses
    await tenant.kube.delete(addresses, name, tenant.namespace)
    await tenant.kube.set_finalizers(addresses, name, tenant.namespace)
    made = await eventually(
        lambda: tenant.kube.get(addresses, name, tenant.namespace),
        lambda obj: obj is not None and obj["metadata"]["uid"] != held.address["metadata"]["uid"],
    )
    assert essence(made) == essence(held.address)
    assert (await tenant.bound("claim", kind)).claim["status"] == held.claim["status"]


async def test_a_reservation_deleted_by_hand_is_made_again_and_the_address_never_given_away(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.1")
    await give(tenant, kind)
    await tenant.claim("next", kind=kind)
    await tenant.refused("next", "PoolExhausted", kind)
    await tenant.kube.delete(IP_RESERVATIONS, tenant.reservation_name("10.0.0.1"))
    await eventually(tenant.held, lambda held: held == ["10.0.0.1"])
    assert (await tenant.bound("claim", kind)).ip == "10.0.0.1"
    await tenant.refused("next", "PoolExhausted", kind)


def held_by(tenant, kind, name):
    """Fields of an IPReservation that a claim holds."""
    return {
        "claim": {"kind": kind, "namespace": tenant.namespace, "name": name, "uid": "1234"},
        "pool": {"kind": "IPPool", "namespace": tenant.namespace, "name": "pool"},
    }


async def test_a_reservation_that_a_crash_left_is_what_its_claim_gets(tenant, kind, allocator):
    allocator.stop()
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.claim("claim", kind=kind)
    await tenant.reserve("10.0.0.7", **held_by(tenant, kind, "claim"))
    allocator.start()
    assert (await tenant.bound("claim", kind)).ip == "10.0.0.7"
    assert await tenant.held() == ["10.0.0.7"]


async def test_a_reservation_whose_claim_does_not_exist_is_returned_after_the_grace(tenant, kind):
    await tenant.reserve("10.0.0.1", **held_by(tenant, kind, "never-made"))
    await tenant.pool("pool", "10.0.0.1-10.0.0.1")
    await tenant.claim("waits", kind=kind)
    assert (await tenant.bound("waits", kind)).ip == "10.0.0.1"


async def test_of_two_addresses_made_for_one_claim_one_stays_and_one_is_returned(tenant, kind, allocator):
    allocator.stop()
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    for name, ip in (("a", "10.0.0.7"), ("b", "10.0.0.8")):
        await tenant.kube.create(tenant.api(kind).addresses, tenant.address_manifest(name, "claim", ip, kind=kind))
    await tenant.claim("claim", kind=kind)
    allocator.start()
    held = await tenant.bound("claim", kind)
    assert held.ip in {"10.0.0.7", "10.0.0.8"}
    await eventually(lambda: tenant.addresses(kind), lambda left: left == [held.address])
    await eventually(tenant.held, lambda left: left == [held.ip])
    await tenant.counts(used=1, free=8)


async def test_an_address_to_be_returned_stays_taken_while_somebody_elses_finalizer_says_so(tenant, kind, allocator):
    allocator.stop()
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.claim("claim", kind=kind)
    for name, ip in (("a", "10.0.0.7"), ("b", "10.0.0.8")):
        made = tenant.address_manifest(name, "claim", ip, kind=kind, finalizers=["example.org/in-use"])
        await tenant.kube.create(tenant.api(kind).addresses, made)
        await tenant.reserve(ip, **held_by(tenant, kind, "claim"))
    allocator.start()
    held = await tenant.bound("claim", kind)

    def going(address):
        return "deletionTimestamp" in address["metadata"]

    found = await eventually(lambda: tenant.addresses(kind), lambda found: any(map(going, found)))
    await tenant.settled()
    assert await tenant.held() == ["10.0.0.7", "10.0.0.8"]
    (surplus,) = filter(going, found)
    await tenant.kube.set_finalizers(tenant.api(kind).addresses, surplus["metadata"]["name"], tenant.namespace)
    await eventually(tenant.held, lambda left: left == [held.ip])


async def test_of_two_address_objects_of_one_address_one_stays_and_the_address_stays_taken(tenant, kind, allocator):
    allocator.stop()
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.claim("claim", kind=kind)
    for name in ("a", "b"):
        made = tenant.address_manifest(name, "claim", "10.0.0.7", kind=kind)
        await tenant.kube.create(tenant.api(kind).addresses, made)
    made = await tenant.reserve("10.0.0.7", **held_by(tenant, kind, "claim"))
    allocator.start()
    await tenant.bound("claim", kind)
    await eventually(lambda: tenant.addresses(kind), lambda left: len(left) == 1)
    await tenant.settled()
    (left,) = await tenant.reservations()
    assert left["metadata"]["uid"] == made["metadata"]["uid"], "not for a moment was it free"


async def test_what_a_claim_removed_by_force_held_is_returned_after_the_grace(tenant, kind, allocator):
    await tenant.pool("pool", "10.0.0.1-10.0.0.1")
    held = await give(tenant, kind)
    await tenant.claim("next", kind=kind)
    await tenant.refused("next", "PoolExhausted", kind)
    allocator.stop()
    await tenant.kube.force_delete(tenant.api(kind).claims, "claim", tenant.namespace)
    allocator.start()
    assert (await tenant.bound("next", kind)).ip == "10.0.0.1"
    left = [address["metadata"]["uid"] for address in await tenant.addresses(kind)]
    assert held.address["metadata"]["uid"] not in left
    assert allocator.metric("groundwork_ipam_repairs_total", what="claim gone") == 1


async def test_an_address_object_of_a_backup_whose_claim_never_comes_is_left_alone(tenant, kind, allocator):
    addresses = tenant.api(kind).addresses
    made = await tenant.kube.create(addresses, tenant.address_manifest("claim", "claim", "10.0.0.1", kind=kind))
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.counts(used=1)
    await tenant.claim("other", kind=kind)
    await tenant.bound("other", kind)
    allocator.stop()
    await tenant.kube.force_delete(tenant.api(kind).claims, "other", tenant.namespace)
    allocator.start()
    await eventually(lambda: tenant.addresses(kind), lambda left: left == [made])


async def test_a_claim_made_again_within_the_grace_keeps_its_address(tenant, kind, allocator):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    held = await give(tenant, kind)
    allocator.stop()
    await tenant.kube.force_delete(tenant.api(kind).claims, "claim", tenant.namespace)
    await tenant.claim("claim", kind=kind)
    allocator.start()
    again = await tenant.bound("claim", kind)
    assert again.address["metadata"]["uid"] == held.address["metadata"]["uid"]
    assert again.claim["metadata"]["uid"] != held.claim["metadata"]["uid"]
    assert again.claim["metadata"]["uid"] in [o["uid"] for o in again.address["metadata"]["ownerReferences"]]
    assert held.claim["metadata"]["uid"] not in [o["uid"] for o in again.address["metadata"]["ownerReferences"]]


async def test_a_claim_that_a_backup_brings_back_with_its_status_owns_its_address_again(tenant, kind, allocator):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    held = await give(tenant, kind)
    meta = held.claim["metadata"]
    allocator.stop()
    await tenant.kube.force_delete(tenant.api(kind).claims, "claim", tenant.namespace)
    await tenant.claim("claim", kind=kind, finalizers=meta["finalizers"])
    await tenant.kube.set_status(tenant.api(kind).claims, "claim", tenant.namespace, held.claim["status"])
    allocator.start()
    again = await tenant.bound("claim", kind)
    assert again.address["metadata"]["uid"] == held.address["metadata"]["uid"]
    assert meta["uid"] not in [o["uid"] for o in again.address["metadata"]["ownerReferences"]]


async def test_a_claim_made_again_for_another_pool_gets_an_address_of_that(tenant, kind, allocator):
    await tenant.pool("one", "10.0.0.1-10.0.0.2")
    await tenant.pool("two", "10.0.0.3-10.0.0.4")
    await tenant.claim("claim", "one", kind)
    held = await tenant.bound("claim", kind)
    await tenant.reserve("10.0.0.2", **{**held_by(tenant, kind, "half"), "pool": {"kind": "IPPool", "name": "one"}})
    allocator.stop()
    await tenant.kube.force_delete(tenant.api(kind).claims, "claim", tenant.namespace)
    await asyncio.gather(*(tenant.claim(name, "two", kind) for name in ("claim", "half")))
    allocator.start()
    assert {(await tenant.bound(name, kind)).ip for name in ("claim", "half")} == {"10.0.0.3", "10.0.0.4"}
    left = [address["metadata"]["uid"] for address in await tenant.addresses(kind)]
    assert held.address["metadata"]["uid"] not in left
    assert await tenant.held() == ["10.0.0.3", "10.0.0.4"]


async def test_a_finalizer_taken_off_a_bound_claim_is_put_back(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    held = await give(tenant, kind)
    await tenant.kube.set_finalizers(tenant.api(kind).claims, "claim", tenant.namespace)
    assert (await tenant.bound("claim", kind)).address == held.address


async def test_a_finalizer_taken_off_an_address_is_put_back(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    held = await give(tenant, kind)
    addresses = tenant.api(kind).addresses
    await tenant.kube.set_finalizers(addresses, held.address["metadata"]["name"], tenant.namespace)
    assert essence((await tenant.bound("claim", kind)).address) == essence(held.address)


async def test_what_a_pool_remembers_is_forgotten_when_nobody_comes_back(tenant, kind):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await give(tenant, kind)
    await tenant.release("claim", kind)
    await eventually(tenant.reservations, lambda left: left == [])
    await tenant.counts(used=0, free=9)


async def test_what_a_pool_remembered_that_was_removed_while_nobody_saw_it_is_forgotten(tenant, kind, allocator):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await give(tenant, kind)
    await tenant.release("claim", kind)
    allocator.stop()
    await tenant.kube.force_delete(IP_POOLS, "pool", tenant.namespace)
    allocator.start()
    await eventually(tenant.reservations, lambda left: left == [])


LIES = {
    "wiped": {METAL3: None, CAPI: None},
    "another address": {
        METAL3: {"address": {"name": "somebody-else-s", "namespace": "elsewhere"}},
        CAPI: {"addressRef": {"name": "somebody-else-s"}},
    },
    "not ready": dict.fromkeys((METAL3, CAPI), "not ready"),
}


def lie(what, kind, status):
    """A status that is not so."""
    if LIES[what][kind] != "not ready":
        return LIES[what][kind]
    bad = {**condition({"status": status}), "status": "False", "reason": "AllocationFailed", "message": "invented"}
    return {**status, "conditions": [bad], **({"errorMessage": "invented"} if kind == METAL3 else {})}


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "while it is down"])
@pytest.mark.parametrize("what", LIES)
async def test_a_false_status_of_a_bound_claim_is_put_right_and_its_address_stays(
    tenant, kind, allocator, what, running
):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    held = await give(tenant, kind)
    if not running:
        allocator.stop()
    await tenant.kube.set_status(
        tenant.api(kind).claims, "claim", tenant.namespace, lie(what, kind, held.claim["status"])
    )
    if not running:
        allocator.start()
    again = await tenant.bound("claim", kind)
    assert again.address == held.address
    assert tenant.named_address(again.claim) == held.address["metadata"]["name"]
    assert "errorMessage" not in again.claim["status"]
    assert await tenant.addresses(kind) == [held.address]


async def test_a_claim_without_address_that_claims_to_be_ready_is_served_or_refused_all_the_same(tenant, kind):
    forged = {
        METAL3: {"address": {"name": "invented", "namespace": tenant.namespace}},
        CAPI: {"addressRef": {"name": "invented"}},
    }[kind]
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "AddressAllocated",
        "message": "invented",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    await tenant.claim("claim", "late", kind)
    await tenant.refused("claim", "PoolNotReady", kind)
    await tenant.kube.set_status(tenant.api(kind).claims, "claim", tenant.namespace, {**forged, "conditions": [ready]})
    await tenant.refused("claim", "PoolNotReady", kind)
    await tenant.pool("late", "10.0.0.1-10.0.0.9")
    assert (await tenant.bound("claim", kind)).ip == "10.0.0.1"


async def test_a_wiped_status_does_not_cost_the_address_of_a_claim_whose_pool_is_gone(tenant, kind, allocator):
    await tenant.pool("pool", "10.0.0.1-10.0.0.1")
    held = await give(tenant, kind)
    await tenant.kube.force_delete(IP_POOLS, "pool", tenant.namespace)
    await tenant.settled()
    await tenant.kube.set_status(tenant.api(kind).claims, "claim", tenant.namespace, None)
    await tenant.settled()
    allocator.restart()
    await tenant.pool("overlapping", "10.0.0.1-10.0.0.1")
    await tenant.claim("other", "overlapping", kind)
    await tenant.refused("other", "PoolExhausted", kind)
    assert [address["metadata"]["uid"] for address in await tenant.addresses(kind)] == [held.address["metadata"]["uid"]]
    await tenant.pool("pool", "10.0.0.1-10.0.0.1")
    assert (await tenant.bound("claim", kind)).ip == "10.0.0.1"


@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "while it is down"])
@pytest.mark.parametrize("wipe", [True, False], ids=["wiped", "forged"])
async def test_a_false_status_of_a_pool_is_put_right(tenant, allocator, wipe, running):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await give(tenant, METAL3)
    status = (await tenant.indexes({"claim": "10.0.0.1"}))["status"]
    lies = {
        "ipAddresses": {"total": 7, "used": 7, "free": 0, "reserved": 7, "cooling": 7, "outOfRange": 7},
        "indexes": {"somebody": "10.0.0.2"},
        "conditions": [{**condition({"status": status}), "status": "False", "reason": "Invented"}],
        "observedGeneration": 99,
    }
    if not running:
        allocator.stop()
    await tenant.kube.set_status(IP_POOLS, "pool", tenant.namespace, None if wipe else lies)
    if not running:
        allocator.start()
    true = {key: status[key] for key in ("ipAddresses", "indexes", "observedGeneration")}
    pool = await tenant.pool_shows(lambda pool: true.items() <= pool.get("status", {}).items())
    said = [(c["type"], c["status"], c["reason"]) for c in pool["status"]["conditions"]]
    assert sorted(said) == sorted((c["type"], c["status"], c["reason"]) for c in status["conditions"])
    assert await tenant.give("next") == "10.0.0.2"


async def test_a_restart_moves_no_address_and_forgets_nobody_who_waits(tenant, allocator):
    await tenant.pool("pool", "10.0.0.1-10.0.0.2", reuseDelaySeconds=3600)
    before = [await give(tenant, kind, f"{kind.lower()}-claim") for kind in (METAL3, CAPI)]
    await tenant.claim("waits")
    await tenant.refused("waits", "PoolExhausted")
    allocator.restart()
    await tenant.settled()
    after = [await tenant.bound(f"{kind.lower()}-claim", kind) for kind in (METAL3, CAPI)]
    assert [(h.claim, h.address) for h in after] == [(h.claim, h.address) for h in before], "not even written to"
    allocator.stop()
    await tenant.delete_claim(f"{METAL3.lower()}-claim")
    allocator.start()
    await tenant.claim_gone(f"{METAL3.lower()}-claim")
    assert (await tenant.bound("waits")).ip == before[0].ip


async def remove(tenant, resource, name):
    """Remove an object whatever holds it."""
    namespace = tenant.namespace if resource.namespaced else ""
    await tenant.kube.delete(resource, name, namespace)
    if await tenant.kube.find(resource, name, namespace) is not None:
        await tenant.kube.set_finalizers(resource, name, namespace)
    await tenant.kube.gone(resource, name, namespace)


async def test_what_a_claim_was_told_of_is_kept_for_it_although_address_and_range_went(tenant, kind):
    await tenant.pool("pool", "10.0.0.10-10.0.0.10")
    held = await give(tenant, kind)
    name = held.address["metadata"]["name"]
    await tenant.change_pool(pools=[{"start": "10.0.0.30", "end": "10.0.0.39"}])
    await tenant.counts(outOfRange=1)
    await remove(tenant, tenant.api(kind).addresses, name)
    await tenant.settled()
    assert await tenant.held() == ["10.0.0.10"]
    assert tenant.named_address(await tenant.claim_object("claim", kind)) == name
    await tenant.change_pool(pools=[{"start": "10.0.0.10", "end": "10.0.0.39"}])
    assert (await tenant.bound("claim", kind)).ip == "10.0.0.10"


async def test_the_address_of_a_claim_that_went_under_a_paused_cluster_is_returned_once_it_goes_on(tenant, kind):
    await tenant.cluster("prod", paused=True)
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    labels = {"cluster.x-k8s.io/cluster-name": "prod"}
    await tenant.kube.patch(CLUSTERS, "prod", tenant.namespace, spec={"paused": False})
    await tenant.claim("claim", kind=kind, labels=labels)
    await tenant.bound("claim", kind)
    await tenant.kube.patch(CLUSTERS, "prod", tenant.namespace, spec={"paused": True})
    await tenant.settled()
    await remove(tenant, tenant.api(kind).claims, "claim")
    await tenant.settled()
    assert await tenant.held() != []
    await tenant.kube.patch(CLUSTERS, "prod", tenant.namespace, spec={"paused": False})
    await tenant.nothing_held()


async def test_a_pool_that_comes_last_or_comes_back_makes_whole_what_its_claims_have(tenant, kind):
    """As after a restore in any order, or after a pool was removed by force together with an IPAddress."""
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    held = await give(tenant, kind)
    pool = await tenant.pool_object()
    await remove(tenant, IP_POOLS, "pool")
    await remove(tenant, tenant.api(kind).addresses, held.address["metadata"]["name"])
    await tenant.settled()
    again = {key: pool["metadata"][key] for key in ("name", "namespace")}
    await tenant.kube.create(IP_POOLS, {**{k: pool[k] for k in ("apiVersion", "kind", "spec")}, "metadata": again})
    assert (await tenant.bound("claim", kind)).ip == held.ip


async def test_an_address_that_an_administrator_had_reserved_is_its_claims_once_that_goes(tenant, kind):
    await tenant.reserve("10.0.0.5", description="the old load balancer")
    await tenant.claim("claim", kind=kind)
    await tenant.kube.create(
        tenant.api(kind).addresses, tenant.address_manifest("claim", "claim", "10.0.0.5", kind=kind)
    )
    await tenant.pool("pool", "10.0.0.5-10.0.0.9")
    await eventually(lambda: tenant.claim_object("claim", kind), tenant.named_address)
    await tenant.settled()
    await tenant.kube.delete(IP_RESERVATIONS, tenant.reservation_name("10.0.0.5"))
    assert (await tenant.bound("claim", kind)).ip == "10.0.0.5"


async def test_what_was_remembered_in_another_domain_is_forgotten_with_it(tenant):
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await give(tenant, METAL3)
    await tenant.release("claim", METAL3)
    await eventually(tenant.reservations, lambda found: len(found) == 1)
    await tenant.counts(used=0)
    await tenant.change_pool(domain=f"{tenant.domain}-b")
    await eventually(tenant.reservations, lambda found: found == [])
