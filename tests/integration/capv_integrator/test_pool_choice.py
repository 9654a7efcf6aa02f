"""Each way to say which pool, and which of several it is."""

from __future__ import annotations

import asyncio

import pytest

from services.ipam.api import GLOBAL_IP_POOLS, IP_POOLS
from tests.support.capv_world import NETWORK, POOLS, STATIC
from tests.support.kube import eventually

OLD_NAME = "cluster.x-k8s.io/ip-pool-name"
OLD_GROUP = "cluster.x-k8s.io/ip-pool-group"
OLD_NETWORK = "cluster.x-k8s.io/network-name"
OLD_NAMESPACE = "cluster.x-k8s.io/ip-pool-namespace"
CLUSTER = "integrator.groundwork.dev/cluster"
USE = "integrator.groundwork.dev/use"


async def test_each_way_to_name_a_pool_in_order_of_precedence(world):
    """A pool is named after the one address that it has, so that the address tells which it was."""
    await world.cluster()
    labels = {"by-label": {NETWORK: "VM-Network"}, "by-group": {OLD_GROUP: "dc1", OLD_NETWORK: "prod-net"}}
    names = ["by-machine", "by-template", "old-machine", "old-template", "by-group", "by-label"]
    networks = {}
    for number, name in enumerate(names):
        annotations = {NETWORK: "VM Network"} if name == "by-label" else {}
        await world.pool(name, f"10.0.{number}.10-10.0.{number}.19", labels=labels.get(name), annotations=annotations)
        networks[name] = f"10.0.{number}."
    group = {OLD_GROUP: "dc1", OLD_NETWORK: "prod-net"}
    await world.template("silent")
    await world.template("annotated", annotations={POOLS: "by-template"})
    await world.template("old", labels={OLD_NAME: "old-template"})
    await world.template("group", labels=group)
    await world.template("both", labels={OLD_NAME: "old-template"}, annotations={POOLS: "by-template"})
    cases = {
        "annotation-on-the-machine": ({"template": "both", "pools": "by-machine"}, "by-machine"),
        "annotation-on-the-template": ({"template": "annotated"}, "by-template"),
        "annotation-goes-before-old-labels": (
            {"template": "annotated", "labels": {OLD_NAME: "old-machine"}},
            "by-template",
        ),
        "old-label-on-the-machine": ({"template": "old", "labels": {OLD_NAME: "old-machine"}}, "old-machine"),
        "old-label-on-the-template": ({"template": "old"}, "old-template"),
        "old-group-and-network": ({"template": "group"}, "by-group"),
        "what-the-pool-says": ({"template": "silent"}, "by-label"),
    }
    for name, (how, _) in cases.items():
        await world.machine(name, **how)
    for name, (_, pool) in cases.items():
        (given,) = await world.addressed(name)
        assert given.startswith(networks[pool]), f"{name}: {given} is not of {pool}"


async def test_labels_of_pools_for_network_and_cluster_all_have_to_match(world):
    await world.cluster("prod")
    await world.cluster("test")
    await world.pool("prod-storage", "10.1.0.10-10.1.0.19", labels={NETWORK: "storage", CLUSTER: "prod"})
    await world.pool("test-any", "10.2.0.10-10.2.0.19", labels={CLUSTER: "test"})
    await world.pool("nobody", "10.3.0.10-10.3.0.19", labels={"environment": "prod"})
    await world.pool("endpoints", "10.4.0.10-10.4.0.19", labels={NETWORK: "storage", USE: "endpoints"})
    await world.machine("m1", {"networkName": "/dc1/network/storage"})
    await world.machine("m2", {"networkName": "storage"}, cluster="test")
    await world.machine("m3", {"networkName": "other"})
    assert await world.addressed("m1") == ["10.1.0.10"]
    assert await world.addressed("m2") == ["10.2.0.10"]
    message = await world.refused("m3", "NoPoolMatches", "network other", "cluster prod")
    for name in ("prod-storage", "test-any", "nobody", "endpoints"):
        assert f"IPPool {world.namespace}/{name}" in message, "it says what there is"


async def test_without_any_label_nothing_is_taken_from_any_pool(world):
    await world.pool("somebody-s", "10.0.0.10-10.0.0.19")
    await world.cluster()
    await world.machine("m1")
    await world.refused("m1", "NoPoolMatches", "network VM Network", f"IPPool {world.namespace}/somebody-s")
    await world.settled()
    assert await world.claims_of("m1") == []
    assert (await world.tenant.counts("somebody-s"))["used"] == 0


async def test_a_pool_of_another_namespace_serves_where_it_allows_that(start_world):
    world = await start_world(namespaces=2)
    here, there = world.tenants
    await there.pool("shared", "10.0.0.10-10.0.0.19", allowedNamespaces=[here.namespace])
    await there.pool("private", "10.1.0.10-10.1.0.19")
    await world.cluster()
    await world.machine("m1", pools=f"{there.namespace}/shared")
    assert await world.addressed("m1") == ["10.0.0.10"]
    (claim,) = await world.claims_of("m1")
    assert claim["kind"] == "IPClaim", "Cluster API's contract knows no other namespace"
    await world.machine("m2", pools=f"{there.namespace}/private")
    await world.refused("m2", "PoolNotAllowed", "private", "allowedNamespaces")
    # The old integrator's way to say the same.
    await world.cluster("old", annotations={OLD_NAMESPACE: there.namespace})
    await world.machine("m3", cluster="old", labels={OLD_NAME: "shared"})
    assert await world.addressed("m3") == ["10.0.0.11"]


async def test_a_pool_of_cluster_scope_serves_every_namespace(world):
    name = world.namespace
    await world.tenant.pool(name, "10.0.0.10-10.0.0.19", resource=GLOBAL_IP_POOLS)
    await world.cluster()
    await world.machine("m1", pools=f"GlobalIPPool/{name}")
    assert await world.addressed("m1") == ["10.0.0.10"]
    await world.machine("m2", pools=name)
    assert await world.addressed("m2") == ["10.0.0.11"]


async def test_of_several_pools_the_one_with_most_free_addresses_is_used_ties_by_name(world):
    await world.pool("small", "10.1.0.10-10.1.0.11")
    await world.pool("large-b", "10.2.0.10-10.2.0.13")
    await world.pool("large-a", "10.3.0.10-10.3.0.13")
    for name, free in (("small", 2), ("large-a", 4), ("large-b", 4)):
        await world.tenant.counts(name, free=free)
    await world.cluster()
    await world.machine("m1", pools="small, large-b, large-a")
    assert await world.addressed("m1") == ["10.3.0.10"]
    await world.tenant.counts("large-a", free=3)
    await world.machine("m2", pools="small, large-b, large-a")
    assert await world.addressed("m2") == ["10.2.0.10"]


async def test_machines_that_come_at_once_do_not_all_run_for_the_same_pool(world):
    names = [f"m{number}" for number in range(12)]
    await world.pool("a", "10.1.0.10-10.1.0.15")
    await world.pool("b", "10.2.0.10-10.2.0.15")
    for pool in ("a", "b"):
        await world.tenant.counts(pool, free=6)
    await world.cluster()
    await asyncio.gather(*(world.machine(name, pools="a, b") for name in names))
    given = [address for (address,) in await world.addressed(*names)]
    assert len(set(given)) == 12, "both pools are used up"


async def test_an_exhausted_pool_is_passed_over(world):
    await world.pool("full", "10.1.0.10-10.1.0.10")
    await world.pool("small", "10.2.0.10-10.2.0.10")
    await world.cluster()
    await world.machine("holder", pools="full")
    await world.addressed("holder")
    await world.machine("m1", pools="full, small")
    assert await world.addressed("m1") == ["10.2.0.10"]


async def test_a_machine_that_waits_moves_to_the_pool_that_has_an_address_first(world):
    await world.pool("a", "10.1.0.10-10.1.0.10")
    await world.pool("b", "10.2.0.10-10.2.0.10")
    await world.cluster()
    await world.machine("in-a", pools="a")
    await world.machine("in-b", pools="b")
    await world.addressed("in-a", "in-b")
    await world.machine("m1", pools="a, b")
    await world.refused("m1", "PoolExhausted", "has no free address")
    await world.delete("in-b")
    assert await world.addressed("m1") == ["10.2.0.10"]
    await eventually(lambda: world.claims_of("m1"), lambda claims: len(claims) == 1)
    await world.machine("m2", pools="a")
    await world.refused("m2", "PoolExhausted", "/a")
    await world.delete("in-a")
    assert await world.addressed("m2") == ["10.1.0.10"]


@pytest.mark.parametrize(
    ("annotation", "reason", "words"),
    [
        ("missing", "PoolNotFound", ("there is no pool missing", "vlan-7")),
        ("vlan-7, missing", "PoolNotFound", ("there is no pool missing",)),
        ("InClusterIPPool/vlan-7", "PoolNotFound", ("InClusterIPPool",)),
        ("vlan 7", "AnnotationInvalid", ("integrator.groundwork.dev/pools of VSphereMachine m1", "'vlan 7'")),
        ("NetBoxPrefix/vlan-7", "AnnotationInvalid", ("needs its API group",)),
    ],
)
async def test_what_is_named_and_does_not_exist_is_said_and_not_replaced(world, annotation, reason, words):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19", annotations={NETWORK: "VM Network"})
    await world.cluster()
    await world.machine("m1", pools=annotation)
    await world.refused("m1", reason, *words)
    await world.settled()
    assert await world.claims_of("m1") == []
    assert await world.devices("m1") == [STATIC]
    # A user mends it, and everything goes on.
    await world.kube.annotate(world.versions.vsphere_machines, "m1", world.namespace, **{POOLS: "vlan-7"})
    assert await world.addressed("m1") == ["10.0.0.10"]


async def test_a_pool_that_is_made_or_labelled_later_serves_those_who_wait(world):
    await world.cluster()
    await world.template("md")
    await world.machine("named", pools="late")
    await world.machine("labelled", {"networkName": "Storage"})
    await world.machine("templated", template="md")
    await world.refused("named", "PoolNotFound", "there is no pool late")
    await world.refused("labelled", "NoPoolMatches")
    await world.refused("templated", "NoPoolMatches")
    await world.pool("late", "10.0.0.10-10.0.0.19")
    assert await world.addressed("named") == ["10.0.0.10"]
    await world.kube.patch(IP_POOLS, "late", world.namespace, metadata={"labels": {NETWORK: "Storage"}})
    assert await world.addressed("labelled") == ["10.0.0.11"]
    await world.kube.annotate(world.versions.templates, "md", world.namespace, **{POOLS: "late"})
    assert await world.addressed("templated") == ["10.0.0.12"]


async def test_a_template_that_is_gone_leaves_the_other_ways(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19", annotations={NETWORK: "VM Network"})
    await world.cluster()
    await world.template("md", annotations={POOLS: "missing"})
    await world.machine("m1", template="md")
    await world.refused("m1", "PoolNotFound", "VSphereMachineTemplate md")
    await world.kube.delete(world.versions.templates, "md", world.namespace)
    assert await world.addressed("m1") == ["10.0.0.10"]
