"""Machines that Cluster API puts into a failure domain: placed there, with addresses for the networks of the zone."""

from __future__ import annotations

import pytest

from services.machine_controller import api
from tests.support.kube import manifest
from tests.support.machine_site import NETWORK, VERSIONS, unique

NETWORK_LABEL = "integrator.groundwork.dev/network"
DOMAINS, ZONES = api.VSPHERE_FAILURE_DOMAINS, api.VSPHERE_DEPLOYMENT_ZONES


@pytest.fixture
async def zoned(site):
    """Makes a zone with its failure domain; both are deleted in the end."""
    made = []

    async def make(name, **topology):
        region = {"name": "eu", "type": "Datacenter", "tagCategory": "region"}
        zone = {"name": name, "type": "ComputeCluster", "tagCategory": "zone"}
        spec = {"region": region, "zone": zone, "topology": {"datacenter": "DC0", **topology}}
        await site.kube.create(DOMAINS, manifest(DOMAINS, name, spec=spec))
        made.append((DOMAINS, name))
        constraint = {"resourcePool": "DC0_C0_RP1"}
        spec = {"server": str(site.sim.server), "failureDomain": name, "placementConstraint": constraint}
        await site.kube.create(ZONES, manifest(ZONES, name, spec=spec))
        made.append((ZONES, name))

    yield make
    for resource, name in reversed(made):
        if await site.kube.find(resource, name) is not None:
            await site.kube.force_delete(resource, name)


async def test_a_machine_is_placed_in_its_zone_and_gets_an_address_for_its_network(site, zoned):
    zone = unique("zone")
    await site.tenant.pool(
        "zone-net", "10.7.0.10-10.7.0.19", gateway="10.7.0.1", metadata={"labels": {NETWORK_LABEL: NETWORK}}
    )
    await site.machine("m1", {"networkName": "to be replaced"}, pools=None, failure_domain=zone)
    await site.says("m1", "DeploymentZoneNotFound", zone)
    assert site.own_vms() == {}
    await zoned(zone, networks=[NETWORK], datastore="LocalDS_0", computeCluster="DC0_C0")
    machine = await site.provisioned("m1")
    vm = site.vm("m1")
    assert (vm["pool"], vm["datastores"], [nic["network"] for nic in vm["nics"]]) == (
        "DC0_C0_RP1",
        ["LocalDS_0"],
        [NETWORK],
    )
    assert machine["spec"]["network"]["devices"][0]["ipAddrs"] == ["10.7.0.10/24"]
    assert machine["spec"]["network"]["devices"][0]["networkName"] == "to be replaced"  # the spec is the user's
    await site.delete("m1")
    await site.gone("m1")
    await site.empty()


async def test_a_vm_stays_where_it_is_when_its_machine_is_told_another_zone(site, zoned):
    one, other = unique("zone"), unique("zone")
    await zoned(one, networks=[NETWORK])
    await site.machine("m1", failure_domain=one)
    await site.provisioned("m1")
    await site.kube.patch(VERSIONS.machines, "m1", site.namespace, spec={"failureDomain": other})
    await site.provisioned("m1")
    await site.delete("m1")
    await site.gone("m1")
    await site.empty()
