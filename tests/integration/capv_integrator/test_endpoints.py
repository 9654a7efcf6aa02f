"""Control-plane endpoints: an address out of the right pool, once, for the life of the cluster."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.capv_outside import ips
from tests.support.capv_world import POOLS, USE
from tests.support.kube import eventually

CLUSTER = "integrator.groundwork.dev/cluster"
OLD_NAME = "cluster.x-k8s.io/ip-pool-name"
VIP = {USE: "endpoints", CLUSTER: "prod"}


async def test_a_cluster_without_an_endpoint_gets_one_and_its_machines_come_up(world):
    await world.pool("nodes", "10.0.0.10-10.0.0.19", annotations={CLUSTER: "prod"})
    await world.pool("vip", "10.0.0.100-10.0.0.109", labels=VIP)
    await world.cluster(endpoint=None)
    assert await world.endpoint() == "10.0.0.100:6443"
    await world.machine("cp-0", control_plane=True)
    assert await world.addressed("cp-0") == ["10.0.0.10"]
    (vm,) = world.vcenter.vms
    assert vm.addresses == ["10.0.0.10"], "endpoints have a pool of their own"


async def test_each_way_to_name_the_pool_of_an_endpoint(world):
    for number, name in enumerate(("annotated", "old", "labelled", "v6")):
        block = f"10.0.{number}.1-10.0.{number}.9" if name != "v6" else "2001:db8::1-2001:db8::9"
        await world.pool(name, block, labels={USE: "endpoints", CLUSTER: "c3"} if name == "labelled" else {})
    cases = {
        "c1": ({"annotations": {POOLS: "annotated"}}, "10.0.0.1"),
        "c2": ({"labels": {OLD_NAME: "old"}}, "10.0.1.1"),
        "c3": ({}, "10.0.2.1"),
        "c4": ({"annotations": {POOLS: "v6"}}, "2001:db8::1"),
    }
    for name, (how, _) in cases.items():
        await world.cluster(name, infra=False)
        await world.vsphere_cluster(name, **how)
    for name, (_, host) in cases.items():
        assert await world.endpoint(name) == f"{host}:6443"


async def test_a_port_that_is_set_is_kept(world):
    await world.pool("vip", "10.0.0.100-10.0.0.109", labels=VIP)
    await world.cluster(endpoint={"port": 7443})
    assert await world.endpoint() == "10.0.0.100:7443"


async def test_an_endpoint_that_a_user_set_is_left_alone(world):
    await world.pool("vip", "10.0.0.100-10.0.0.109", labels=VIP)
    await world.cluster(endpoint="vip.example.org")
    assert await world.endpoint() == "vip.example.org:6443"
    await world.settled()
    assert await world.claims_of("prod") == []
    await world.nothing_left()


async def test_an_endpoint_that_the_cluster_has_already_is_not_given_another(world):
    await world.pool("vip", "10.0.0.100-10.0.0.109", labels=VIP)
    await world.cluster(infra=False)
    endpoint = {"host": "192.168.0.1", "port": 6443}
    await world.kube.patch(world.versions.clusters, "prod", world.namespace, spec={"controlPlaneEndpoint": endpoint})
    await world.vsphere_cluster("prod")
    await world.settled()
    assert await world.claims_of("prod") == []


async def test_an_infrastructure_without_an_owner_waits_for_it(world):
    await world.pool("vip", "10.0.0.100-10.0.0.109", labels=VIP)
    await world.vsphere_cluster("prod")
    await world.settled()
    assert await world.claims_of("prod") == []
    await world.cluster(infra=False)
    assert await world.endpoint() == "10.0.0.100:6443"


async def test_no_pool_for_endpoints_is_said_on_the_cluster_and_mended_by_making_one(world):
    await world.pool("nodes", "10.0.0.10-10.0.0.19", annotations={CLUSTER: "prod"})
    await world.cluster(endpoint=None)
    resource = world.versions.vsphere_clusters
    await world.refused("prod", "NoPoolMatches", "prod", "endpoints", "/nodes", resource=resource)
    await world.pool("vip", "10.0.0.100-10.0.0.109", labels=VIP)
    assert await world.endpoint() == "10.0.0.100:6443"


@pytest.mark.parametrize("gc", [False, True], ids=["no-gc", "gc"])
async def test_an_endpoint_is_returned_after_its_cluster_is_gone_and_not_before_its_machines_are(start_world, gc):
    world = await start_world(gc=gc)
    await world.pool("nodes", "10.0.0.10-10.0.0.19", annotations={CLUSTER: "prod"})
    await world.pool("vip", "10.0.0.100-10.0.0.109", labels=VIP)
    await world.cluster(endpoint=None)
    await world.machine("cp-0", control_plane=True)
    await world.addressed("cp-0")
    world.vcenter.hold()
    await world.kube.delete(world.versions.clusters, "prod", world.namespace)
    await eventually(
        lambda: world.kube.get(world.versions.vsphere_machines, "cp-0", world.namespace),
        lambda obj: "deletionTimestamp" in obj["metadata"],
    )
    await world.integrator.restart()
    await world.settled()
    assert {"10.0.0.10", "10.0.0.100"} <= set(await world.tenant.held())
    world.vcenter.let_go()
    await world.kube.gone(world.versions.clusters, "prod", world.namespace)
    await world.nothing_left()


async def test_a_cluster_deleted_before_it_had_its_endpoint_leaves_nothing(world):
    await world.allocator.stop()
    await world.pool("vip", "10.0.0.100-10.0.0.109", labels=VIP)
    await world.cluster(endpoint=None)
    await eventually(lambda: world.claims_of("prod"), lambda claims: len(claims) == 1)
    await world.kube.delete(world.versions.clusters, "prod", world.namespace)
    await world.kube.gone(world.versions.clusters, "prod", world.namespace)
    await world.allocator.start()
    await world.nothing_left()


async def test_clusters_that_come_at_once_get_endpoints_of_their_own(world):
    names = [f"c{number}" for number in range(8)]
    await world.pool("vip", "10.0.0.100-10.0.0.109", labels={USE: "endpoints"}, annotations={CLUSTER: "*"})
    await asyncio.gather(*(world.cluster(name, endpoint=None) for name in names))
    given = [await world.endpoint(name) for name in names]
    assert len(set(given)) == len(names)
    hosts = [ips(obj) for obj in await world.kube.list(world.versions.vsphere_clusters, world.namespace)]
    assert sorted(f"{host}:6443" for (host,) in hosts) == sorted(given)
