"""Pools of other providers serve machines as ours do."""

from __future__ import annotations

import asyncio
import re

import pytest
import yaml

from tests.integration.capv_integrator.conftest import ROOT
from tests.support.capv_provider import IN_CLUSTER_POOLS, Provider, definition
from tests.support.capv_services import Integrator
from tests.support.capv_world import NETWORK, USE, own_condition
from tests.support.kube import eventually, manifest

CLUSTER = "integrator.groundwork.dev/cluster"


@pytest.fixture(scope="module")
def with_in_cluster_pools(capv_cluster):
    capv_cluster.install_crds(definition(), definition("GlobalInClusterIPPool", "Cluster"))


async def in_cluster_pool(world, name, addresses, **metadata):
    """A pool of the in-cluster provider, with its counts."""
    spec = {"addresses": addresses, "prefix": 24, "gateway": "10.0.0.1"}
    obj = manifest(IN_CLUSTER_POOLS, name, world.namespace, spec, **metadata)
    await world.kube.create(IN_CLUSTER_POOLS, obj)
    counts = {"total": len(addresses), "used": 0, "free": len(addresses), "outOfRange": 0}
    await world.kube.set_status(IN_CLUSTER_POOLS, name, world.namespace, {"ipAddresses": counts})


async def test_pools_of_the_in_cluster_provider_are_chosen_by_name_label_and_free_addresses(
    start_world, with_in_cluster_pools
):
    world = await start_world()
    small, large = ["10.0.0.20"], ["10.0.0.30", "10.0.0.31"]
    provider = Provider(
        world.kube.client, world.namespaces, world.versions, "InClusterIPPool", {"small": small, "large": large}
    )
    async with provider.running():
        await in_cluster_pool(world, "small", small, labels={NETWORK: "Storage"})
        await in_cluster_pool(world, "large", large, labels={NETWORK: "Storage"})
        await world.cluster()
        await world.machine("m1", pools="InClusterIPPool/small")
        await world.machine("m2", {"networkName": "Storage"})
        assert await world.addressed("m1") == ["10.0.0.20"]
        assert await world.addressed("m2") == ["10.0.0.30"]
        assert (await world.devices("m2"))[0]["gateway4"] == "10.0.0.1"
        await world.delete("m1", "m2")
        await world.gone("m1", "m2")
        await world.nothing_left()
        assert provider.free == {"small": ["10.0.0.20"], "large": ["10.0.0.31", "10.0.0.30"]}
    assert provider.mistakes == []


async def test_a_provider_that_nobody_knows_serves_by_its_kind_and_group(world):
    provider = Provider(
        world.kube.client,
        world.namespaces,
        world.versions,
        "NetBoxPrefix",
        {"site-7": ["10.0.0.40"], "v6": ["2001:db8::7"]},
    )
    async with provider.running():
        await world.cluster()
        await world.machine("m1", pools="NetBoxPrefix.ipam.example.org/site-7, ipv6:NetBoxPrefix.ipam.example.org/v6")
        assert await world.addressed("m1") == ["10.0.0.40", "2001:db8::7"]
        for claim in await world.claims_of("m1"):
            assert claim["spec"]["poolRef"]["apiGroup"] == "ipam.example.org"
        await world.delete("m1")
        await world.gone("m1")
        await world.nothing_left()


async def test_with_the_rights_of_its_reference_page_alone_it_does_everything_and_counts_it(
    start_world, capv_cluster, tmp_path
):
    world = await start_world(integrators=0)
    text = (ROOT / "docs" / "reference" / "rbac.md").read_text()
    block = re.search(r"^# RBAC of the integrator\n.*?^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[1]
    rules = yaml.safe_load(block)["rules"]
    rules.append({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]})
    kubeconfig = await asyncio.to_thread(capv_cluster.service_account_kubeconfig, world.namespace, "integrator", rules)
    flags = [f"--watch-namespace={world.namespace}", "--orphan-grace-seconds=0"]
    flags += ["--leader-election", f"--lease-namespace={world.namespace}"]
    with Integrator.running(tmp_path, kubeconfig, *flags) as process:

        async def metric(name, **labels):
            return await asyncio.to_thread(process.metric, f"groundwork_capv_integrator_{name}", **labels)

        await world.pool("vlan-7", "10.0.0.10-10.0.0.11")
        await world.pool("vip", "10.0.9.9-10.0.9.9", labels={USE: "endpoints", CLUSTER: "prod"})
        await world.cluster(endpoint=None)
        for name in ("m1", "m2"):
            await world.machine(name, pools="vlan-7")
        await world.addressed("m1", "m2")
        await world.endpoint()
        assert await metric("write_seconds_count", kind="VSphereMachine") == 2
        assert await metric("write_seconds_count", kind="VSphereCluster") == 1
        assert await metric("waiting_machines") == 0
        await world.machine("m3", pools="vlan-7")
        await world.machine("m4", {"networkName": "Nowhere"})
        await world.refused("m3", "PoolExhausted")
        message = await world.refused("m4", "NoPoolMatches", "network Nowhere", "cluster prod", "/vlan-7", "/vip")
        assert await metric("waiting_machines") == 2
        assert await metric("not_served", kind="VSphereMachine", reason="PoolExhausted") == 1
        assert await metric("not_served", kind="VSphereMachine", reason="NoPoolMatches") == 1
        await world.delete("m1")
        await world.gone("m1")
        await world.addressed("m3")
        served = await eventually(
            lambda: world.vsphere_machine("m3"), lambda obj: own_condition(obj)["status"] == "True"
        )
        events = await eventually(
            lambda: world.kube.events(served), lambda events: {e["reason"] for e in events} >= {"AddressWritten"}
        )
        assert [e["type"] for e in events if e["reason"] == "AddressWritten"] == ["Normal"]
        assert own_condition(await world.vsphere_machine("m4"))["message"] == message
        assert await metric("waiting_machines") == 1
        await world.kube.delete(world.versions.clusters, "prod", world.namespace)
        await world.kube.gone(world.versions.clusters, "prod", world.namespace)
        await world.nothing_left()
        assert await metric("waiting_machines") == 0
        assert process.metric("rest_client_requests_total", code="403") == 0
