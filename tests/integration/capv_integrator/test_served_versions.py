"""Whatever versions the API server has, now or later, the result is the same; and clusters move between two of them."""

from __future__ import annotations

import asyncio
import json

import pytest

from services.ipam.api import GLOBAL_IP_POOLS
from services.ipam.kinds import CAPI
from tests.integration.capv_integrator.conftest import KINDS as KINDS_OF_CAPV
from tests.integration.capv_integrator.conftest import ROOT
from tests.support import capv_move
from tests.support.capv_parts import CLUSTER, INFRASTRUCTURE, IPAM, Versions
from tests.support.capv_world import USE
from tests.support.kube import eventually
from tools import capi
from tools.cluster import Cluster

BOTH = frozenset({"v1beta1", "v1beta2"})
OLD = frozenset({"v1beta1"})
NEW = frozenset({"v1beta2"})
GROUPS = {"infrastructure": INFRASTRUCTURE, "cluster": CLUSTER, "ipam": IPAM}
KINDS = KINDS_OF_CAPV | {"Cluster", "IPAddressClaim", "IPAddress"}
ENDPOINTS = {USE: "endpoints", "integrator.groundwork.dev/cluster": "prod"}


class Surface:
    """An API server whose definitions change.

    A version that is not served is not in the definition at all, as in another release: without CAPV's conversion the
    API server would drop, on writing, what the stored version does not know.
    """

    def __init__(self, cluster):
        self.cluster = cluster

    async def serve(self, *, infrastructure, cluster, ipam):
        """Begin anew with these versions of the three groups; none at all leaves a group out."""
        await asyncio.to_thread(self._remove_all)
        await self.install(infrastructure=infrastructure, cluster=cluster, ipam=ipam)

    async def install(self, **wanted):
        """Install or upgrade groups."""
        crds = [crd for group, versions in wanted.items() if versions for crd in _definitions(GROUPS[group], versions)]
        await asyncio.to_thread(self.cluster.install_crds, *crds)

    async def unserve(self, version, *groups):
        """Serve a version no longer that objects may be stored as."""
        crds = [crd for group in groups for crd in _definitions(GROUPS[group], BOTH)]
        for crd in crds:
            for row in crd["spec"]["versions"]:
                row["served"] = row["name"] in BOTH - {version}
        await asyncio.to_thread(self.cluster.install_crds, *crds)

    def _remove_all(self):
        names = [crd["metadata"]["name"] for group in GROUPS.values() for crd in _definitions(group, BOTH)]
        there = self.cluster.kubectl("get", "crd", "--output=name").splitlines()
        there = [name for name in names if f"customresourcedefinition.apiextensions.k8s.io/{name}" in there]
        if not there:
            return
        found = json.loads(self.cluster.kubectl("get", ",".join(there), "--all-namespaces", "--output=json"))
        for obj in found["items"]:
            # Those who would finalise it have been stopped.
            if obj["metadata"].get("finalizers"):
                where = (f"{obj['kind']}.{obj['apiVersion'].partition('/')[0]}", obj["metadata"]["name"])
                strip = ["--type=merge", '--patch={"metadata":{"finalizers":null}}']
                self.cluster.kubectl("patch", *where, f"--namespace={obj['metadata']['namespace']}", *strip)
        self.cluster.kubectl("delete", "crd", *there)


def _definitions(group, versions):
    crds = capi.crds(group, versions=versions)
    return [crd for crd in crds if crd["spec"]["names"]["kind"] in KINDS]


@pytest.fixture(scope="module")
def surface(control_plane):
    with Cluster.temporary() as running:
        running.install_crds(ROOT / "deploy" / "crds")
        yield Surface(running)


async def everything(world):
    """One of each: an endpoint, a control plane, a worker with two NICs and two families, a failure domain."""
    world.failure_domains["zone-a"] = {"networkConfigurations": [{"networkName": "A"}, {"networkName": "B"}]}
    await world.pool("vip", "10.0.9.9-10.0.9.9", labels=ENDPOINTS)
    await world.pool("v4", "10.0.0.10-10.0.0.10", gateway="10.0.0.1", dnsServers=["10.0.0.53"])
    await world.pool("more", "10.0.1.10-10.0.1.19")
    await world.pool("v6", "2001:db8::10-2001:db8::10", gateway="2001:db8::1")
    await world.pool("b", "10.0.2.10-10.0.2.10", labels={"integrator.groundwork.dev/network": "B"})
    await world.pool("a", "10.0.3.10-10.0.3.10", labels={"integrator.groundwork.dev/network": "A"})
    await world.cluster(endpoint=None)
    await world.template("md", {"networkName": "VM Network"}, {"networkName": "Management", "dhcp4": True})
    await world.machine("md-0", template="md", pools="v4, v6")
    await world.machine("zoned", failure_domain="zone-a")
    await world.machine("waits", pools="v4")
    await world.addressed("md-0", "zoned")
    await world.refused("waits", "PoolExhausted", "no free address")
    seen = {name: await world.devices(name) for name in ("md-0", "zoned", "waits")}
    seen["endpoint"] = await world.endpoint()
    await world.delete("md-0")
    await world.gone("md-0")
    seen["next"] = await world.addressed("waits")
    await world.kube.delete(world.versions.clusters, "prod", world.namespace)
    await world.kube.gone(world.versions.clusters, "prod", world.namespace)
    await world.nothing_left()
    return seen


RESULT = {
    "md-0": [
        {
            "networkName": "VM Network",
            "ipAddrs": ["10.0.0.10/24", "2001:db8::10/64"],
            "gateway4": "10.0.0.1",
            "gateway6": "2001:db8::1",
            "nameservers": ["10.0.0.53"],
        },
        {"networkName": "Management", "dhcp4": True},
    ],
    "zoned": [
        {"networkName": "VM Network", "ipAddrs": ["10.0.3.10/24"]},
        {"networkName": "B", "ipAddrs": ["10.0.2.10/24"]},
    ],
    "waits": [{"networkName": "VM Network"}],
    "endpoint": "10.0.9.9:6443",
    "next": ["10.0.0.10"],
}


async def test_with_both_versions_served(start_world):
    world = await start_world()
    assert await everything(world) == RESULT


async def test_with_v1beta1_alone(start_world, surface):
    await surface.serve(infrastructure=OLD, cluster=OLD, ipam=OLD)
    world = await start_world(within=surface.cluster, versions=Versions("v1beta1", "v1beta1", "v1beta1"))
    assert await everything(world) == RESULT


async def test_with_v1beta2_alone(start_world, surface):
    await surface.serve(infrastructure=NEW, cluster=NEW, ipam=NEW)
    world = await start_world(within=surface.cluster)
    assert await everything(world) == RESULT


async def test_with_metal3_s_claims_alone(start_world, surface):
    await surface.serve(infrastructure=NEW, cluster=NEW, ipam=())
    world = await start_world(within=surface.cluster, versions=Versions(ipam=""))
    assert await everything(world) == RESULT


async def test_an_integrator_that_is_there_first_waits_for_capv_to_be_installed(start_world, surface):
    await surface.serve(infrastructure=(), cluster=(), ipam=NEW)
    world = await start_world(within=surface.cluster, stand_ins=False)
    await surface.install(infrastructure=NEW, cluster=NEW)
    await world.start_stand_ins()
    assert await everything(world) == RESULT


async def test_an_upgrade_of_capv_while_it_runs_changes_nothing(start_world, surface):
    await surface.serve(infrastructure=OLD, cluster=OLD, ipam=NEW)
    world = await start_world(within=surface.cluster, versions=Versions("v1beta1", "v1beta1", "v1beta2"))
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19")
    await world.cluster()
    await world.machine("before", pools="vlan-7")
    assert await world.addressed("before") == ["10.0.0.10"]
    await surface.install(infrastructure=BOTH, cluster=BOTH)
    await world.start_stand_ins(Versions())
    await world.machine("between", pools="vlan-7")
    assert await world.addressed("between") == ["10.0.0.11"]
    await surface.unserve("v1beta1", "infrastructure", "cluster")
    await world.machine("after", pools="vlan-7")
    assert await world.addressed("after") == ["10.0.0.12"]
    await world.delete("before")
    await world.gone("before")
    await eventually(lambda: world.claims_of("before"), lambda claims: claims == [])
    assert len(await world.tenant.held()) == 2


async def test_claims_move_with_their_machines(start_world, surface):
    await surface.serve(infrastructure=BOTH, cluster=BOTH, ipam=BOTH)
    source = await start_world(gc=True)
    target = await start_world(within=surface.cluster, gc=True, names=tuple(source.namespaces), vcenter=source.vcenter)
    await source.pool("vip", "10.0.9.9-10.0.9.9", labels=ENDPOINTS)
    await source.pool("vlan-7", "10.0.0.10-10.0.0.19")
    await source.cluster(endpoint=None)
    names = [f"m{number}" for number in range(4)]
    for name in names:
        await source.machine(name, pools="vlan-7")
    given = dict(zip(names, await source.addressed(*names), strict=True))
    endpoint = await source.endpoint()
    claims = await source.claims()
    await capv_move.move(source, target)
    target.written = source.written
    source.written, source.vcenter = {}, type(source.vcenter)()
    moved = await eventually(target.claims, lambda found: all(map(capv_move.is_bound, found.values())))
    assert moved.keys() == claims.keys()
    assert await target.endpoint() == endpoint
    for name in names:
        assert await target.written_to(name) == given[name]
    assert len(target.vcenter.vms) == len(names), "nothing was cloned again"
    await source.nothing_left()
    await target.delete("m0")
    await target.gone("m0")
    await eventually(lambda: target.claims_of("m0"), lambda found: found == [])
    await target.machine("m4", pools="vlan-7")
    await target.addressed("m4")


async def test_claims_of_a_global_pool_move_with_their_addresses(start_world, surface):
    await surface.serve(infrastructure=BOTH, cluster=BOTH, ipam=BOTH)
    source = await start_world(gc=True)
    target = await start_world(within=surface.cluster, gc=True, names=tuple(source.namespaces), vcenter=source.vcenter)
    shared = source.namespace
    await source.tenant.pool(shared, "10.0.0.10-10.0.0.19", resource=GLOBAL_IP_POOLS)
    await source.cluster()
    # Of these the one with the lowest address goes before the move, so a claim that starts anew is given another.
    for name in ("m0", "m1", "m2"):
        await source.machine(name, pools=f"GlobalIPPool/{shared}")
        await source.addressed(name)
    await source.delete("m0")
    await source.gone("m0")
    await eventually(lambda: source.claims_of("m0"), lambda found: found == [])
    given = await source.addressed("m1", "m2")
    assert given == [["10.0.0.11"], ["10.0.0.12"]]
    await capv_move.move(source, target)
    target.written, source.written, source.vcenter = source.written, {}, type(source.vcenter)()
    await eventually(target.claims, lambda found: len(found) == 2 and all(map(capv_move.is_bound, found.values())))
    assert [await target.written_to(name) for name in ("m1", "m2")] == given
    assert {a["spec"]["address"] for a in await target.tenant.addresses(CAPI)} == {"10.0.0.11", "10.0.0.12"}
    await source.nothing_left()
