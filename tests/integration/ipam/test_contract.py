"""The exact shape of what others read: metal3's consumers, Cluster API's, and people with kubectl."""

from __future__ import annotations

from services.ipam.api import CAPI_GROUP, CLUSTER_NAME_LABEL, GLOBAL_IP_POOLS, IP_POOLS, METAL3_GROUP
from tests.support.tenant import CAPI, CLUSTERS, KINDS, METAL3, condition

LABELS = {"rack": "a7", "metal3.io/uuid": "x"}


def owner(obj, **more):
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"],
        **more,
    }


async def test_a_metal3_claim_is_answered_in_metal3_s_shape(tenant):
    pool = await tenant.pool(
        "pool", "10.0.0.10-10.0.0.20", namePrefix="prefix", gateway="10.0.0.1", dnsServers=["10.0.0.2", "10.0.0.3"]
    )
    await tenant.claim("claim", labels=LABELS)
    claim, address = (await tenant.bound("claim"))[1:]
    assert claim["metadata"]["finalizers"] == ["ipclaim.ipam.metal3.io"]
    assert claim["status"]["address"] == {"name": "prefix-10-0-0-10", "namespace": tenant.namespace}
    assert set(claim["status"]) == {"address", "conditions"}
    meta = address["metadata"]
    assert address["apiVersion"] == "ipam.metal3.io/v1alpha1"
    assert (meta["name"], meta["namespace"]) == ("prefix-10-0-0-10", tenant.namespace)
    assert meta["finalizers"] == ["ipaddress.ipam.metal3.io"]
    assert meta["labels"] == LABELS
    assert meta["ownerReferences"] == [owner(claim), owner(pool)], "without controller or blockOwnerDeletion"
    assert address["spec"] == {
        "address": "10.0.0.10",
        "prefix": 24,
        "gateway": "10.0.0.1",
        "dnsServers": ["10.0.0.2", "10.0.0.3"],
        "claim": {"name": "claim", "namespace": tenant.namespace},
        "pool": {"name": "pool", "namespace": tenant.namespace},
    }
    shown = await tenant.indexes({"claim": "10.0.0.10"})
    assert shown["metadata"]["finalizers"] == ["ippool.ipam.metal3.io"]


async def test_a_name_prefix_may_have_dots(tenant):
    await tenant.pool("pool", "10.0.0.7-10.0.0.7", namePrefix="site.example")
    await tenant.claim("claim")
    assert (await tenant.bound("claim")).address["metadata"]["name"] == "site.example-10-0-0-7"


async def test_ipv6_addresses_are_named_as_metal3_names_them(tenant):
    await tenant.pool(
        "pool", "fd00:5::1-fd00:5::1", "fd00:6::-fd00:6::", namePrefix="p", allocateReservedAddresses=True
    )
    names = []
    for claim in ("a", "b"):
        await tenant.claim(claim)
        names.append((await tenant.bound(claim)).address["metadata"]["name"])
    assert names == ["p-fd00-5--1", "p-fd00-6"]


async def test_a_cluster_api_claim_is_answered_as_the_contract_says(tenant):
    pool = await tenant.pool("pool", "10.0.0.10-10.0.0.20", namePrefix="prefix", gateway="10.0.0.1")
    await tenant.cluster("cluster")
    await tenant.claim("claim", kind=CAPI, labels=LABELS, spec={"clusterName": "cluster"})
    claim, address = (await tenant.bound("claim", CAPI))[1:]
    assert claim["metadata"]["finalizers"] == ["ipam.metal3.io/ipaddressclaim"]
    assert set(claim["status"]) == {"addressRef", "conditions"}
    assert claim["status"]["addressRef"] == {"name": "claim"}
    meta = address["metadata"]
    assert (address["apiVersion"], meta["name"], meta["namespace"]) == (
        f"{CAPI_GROUP}/v1beta2",
        "claim",
        tenant.namespace,
    )
    assert meta["finalizers"] == ["ipam.metal3.io/ipaddress"]
    assert meta["labels"] == {**LABELS, CLUSTER_NAME_LABEL: "cluster"}
    assert meta["ownerReferences"] == [
        owner(claim, controller=True, blockOwnerDeletion=True),
        owner(pool, controller=False, blockOwnerDeletion=True),
    ]
    assert address["spec"] == {
        "address": "10.0.0.10",
        "prefix": 24,
        "gateway": "10.0.0.1",
        "claimRef": {"name": "claim"},
        "poolRef": {"apiGroup": METAL3_GROUP, "kind": "IPPool", "name": "pool"},
    }


async def test_the_address_of_a_global_pool_names_its_group_and_kind(tenant):
    name = tenant.namespace
    await tenant.pool(name, "10.0.0.10-10.0.0.20", resource=GLOBAL_IP_POOLS)
    specs = {}
    for kind in KINDS:
        await tenant.claim("claim", name, kind, pool_kind="GlobalIPPool")
        specs[kind] = (await tenant.bound("claim", kind)).address["spec"]
    assert specs[METAL3]["pool"] == {"apiVersion": "ipam.groundwork.dev/v1alpha1", "kind": "GlobalIPPool", "name": name}
    assert specs[CAPI]["poolRef"] == {"apiGroup": "ipam.groundwork.dev", "kind": "GlobalIPPool", "name": name}


async def test_ready_is_a_condition_that_cluster_api_s_schema_accepts(tenant, kind):
    await tenant.pool("pool", "10.0.0.10-10.0.0.10")
    await tenant.claim("claim", kind=kind)
    await tenant.claim("waits", kind=kind)
    held = await tenant.bound("claim", kind)
    await tenant.refused("waits", "PoolExhausted", kind)
    for name, status, reason in (("claim", "True", "AddressAllocated"), ("waits", "False", "PoolExhausted")):
        found = condition(await tenant.claim_object(name, kind))
        assert (found["type"], found["status"], found["reason"]) == ("Ready", status, reason)
        assert found["observedGeneration"] == 1
        assert found["lastTransitionTime"]
    assert condition(held.claim)["message"] == f"10.0.0.10 from IPPool {tenant.namespace}/pool"


async def test_both_served_versions_of_cluster_api_show_the_same_answer(tenant):
    await tenant.pool("pool", "10.0.0.10-10.0.0.20")
    await tenant.claim("claim", kind=CAPI)
    held = await tenant.bound("claim", CAPI)
    path = f"/apis/{CAPI_GROUP}/v1beta1/namespaces/{tenant.namespace}"
    for plural, obj in (("ipaddressclaims", held.claim), ("ipaddresses", held.address)):
        body = await tenant.kube.client.raw("GET", f"{path}/{plural}/claim")
        assert obj["metadata"]["uid"].encode() in body


async def test_kubectl_get_shows_what_people_look_for(tenant, cluster):
    await tenant.pool("pool", "10.0.0.1-10.0.0.1", gateway="10.0.0.9", clusterName="cluster")
    await tenant.cluster("cluster")
    await tenant.reserve("10.0.0.77", description="printer")
    await tenant.claim("claim")
    await tenant.bound("claim")
    await tenant.claim("waits")
    await tenant.refused("waits", "PoolExhausted")
    await tenant.pool_shows(lambda pool: pool["metadata"].get("labels"))
    await tenant.counts(used=1)

    def rows(*what):
        return [line.split() for line in cluster.kubectl("get", *what, f"--namespace={tenant.namespace}").splitlines()]

    head, row = rows("ippools")
    assert head == ["NAME", "CLUSTER", "TOTAL", "USED", "FREE", "READY", "REASON", "AGE"]
    assert row[:-1] == ["pool", "cluster", "1", "1", "0", "True", "PoolReady"]
    head, *claims = rows("ipclaims")
    assert head == ["NAME", "POOL", "ADDRESS", "READY", "REASON", "AGE"]
    assert [row[:-1] for row in claims] == [
        ["claim", "pool", "pool-10-0-0-1", "True", "AddressAllocated"],
        ["waits", "pool", "False", "PoolExhausted"],
    ]
    head, row = rows("ipaddresses.ipam.metal3.io")
    assert head == ["NAME", "ADDRESS", "PREFIX", "GATEWAY", "POOL", "CLAIM", "AGE"]
    assert row[:-1] == ["pool-10-0-0-1", "10.0.0.1", "24", "10.0.0.9", "pool", "claim"]
    head, *reservations = rows("ipreservations", "--sort-by=.metadata.name")
    assert head == ["NAME", "ADDRESS", "DOMAIN", "KIND", "NAMESPACE", "CLAIM", "RELEASED", "DESCRIPTION", "AGE"]
    mine = [row[:-1] for row in reservations if row[0].startswith(f"{tenant.domain}.")]
    assert mine == [
        [tenant.reservation_name("10.0.0.1"), "10.0.0.1", tenant.domain, "IPClaim", tenant.namespace, "claim"],
        [tenant.reservation_name("10.0.0.77"), "10.0.0.77", tenant.domain, "printer"],
    ]
    for short in ("ipp", "m3ipp", "metal3ippool", "ipc", "m3ipc", "metal3ipclaims", "m3ipa", "metal3ipaddresses"):
        assert len(rows(short)) > 1


async def test_kubectl_wait_returns_when_pools_and_claims_are_ready(tenant, cluster):
    name = tenant.namespace
    await tenant.pool("pool", "10.0.0.1-10.0.0.9")
    await tenant.pool(name, "10.0.1.1-10.0.1.9", resource=GLOBAL_IP_POOLS)
    for kind in KINDS:
        await tenant.claim("claim", kind=kind)
    for what in ("ippool/pool", "ipclaim/claim", "ipaddressclaim/claim", f"globalippool/{name}"):
        said = cluster.kubectl("wait", "--for=condition=Ready", "--timeout=60s", what, f"--namespace={name}")
        assert said.rstrip().endswith("condition met")


async def test_a_cluster_deleted_with_everything_in_it_leaves_nothing(tenant, kind):
    await tenant.cluster("cluster")
    await tenant.pool("pool", "10.0.0.1-10.0.0.9", clusterName="cluster")
    spec = {"clusterName": "cluster"} if kind == CAPI else None
    await tenant.claim("claim", kind=kind, labels={CLUSTER_NAME_LABEL: "cluster"}, spec=spec)
    await tenant.bound("claim", kind)
    # What the garbage collector does to the dependents of a Cluster, in the order that it likes.
    await tenant.kube.delete(IP_POOLS, "pool", tenant.namespace)
    await tenant.kube.delete(CLUSTERS, "cluster", tenant.namespace)
    await tenant.delete_claim("claim", kind)
    await tenant.claim_gone("claim", kind)
    await tenant.kube.gone(IP_POOLS, "pool", tenant.namespace)
    assert await tenant.addresses(kind) == []
    assert await tenant.reservations() == []
