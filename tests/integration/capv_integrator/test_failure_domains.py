"""Where a failure domain changes the network, the address is for the network that the VM will have."""

from __future__ import annotations

from tests.support.capv_world import NETWORK
from tests.support.kube import eventually

TEMPLATE = {"networkName": "Template Network"}
DOMAIN_KEY = "integrator.groundwork.dev/failure-domain"


async def test_the_pool_is_that_of_the_domain_s_network(world):
    world.failure_domains["zone-a"] = {"networks": ["Network A"]}
    await world.pool("template", "10.0.0.10-10.0.0.19", labels={NETWORK: "template-network"})
    await world.pool("zone-a", "10.1.0.10-10.1.0.19", annotations={NETWORK: "Network A"}, gateway="10.1.0.1")
    await world.cluster()
    await world.machine("m1", TEMPLATE, failure_domain="zone-a")
    assert await world.addressed("m1") == ["10.1.0.10"]
    # The VSphereMachine goes on to say what its template said.
    assert await world.devices("m1") == [{**TEMPLATE, "ipAddrs": ["10.1.0.10/24"], "gateway4": "10.1.0.1"}]
    (vm,) = world.vcenter.vms
    assert vm.devices == [{"networkName": "Network A", "ipAddrs": ["10.1.0.10/24"], "gateway4": "10.1.0.1"}]


async def test_nothing_is_claimed_before_capv_has_overlaid_the_network(world):
    world.failure_domains["zone-a"] = {"networkConfigurations": [{"networkName": "Network A", "dhcp4": True}]}
    await world.pool("template", "10.0.0.10-10.0.0.19", annotations={NETWORK: "Template Network, Network A"})
    await world.cluster()
    await world.machine("m1", TEMPLATE, failure_domain="zone-a", bootstrap=False)
    await world.settled()
    assert await world.claims_of("m1") == [], "without a VSphereVM the network is not known yet"
    await world.bootstrap("m1")
    assert await world.addressed("m1") == []
    await world.settled()
    assert await world.claims_of("m1") == [], "the domain has DHCP"


async def test_a_domain_with_more_networks_grows_the_devices_at_the_same_index(world):
    world.failure_domains["zone-a"] = {
        "networkConfigurations": [
            {"networkName": "Management", "dhcp4": True},
            {"networkName": "Storage", "nameservers": ["10.1.0.53"]},
            {"networkName": "Backup", "dhcp6": True},
            {"networkName": "Replication"},
        ]
    }
    await world.pool("storage", "10.1.0.10-10.1.0.19", annotations={NETWORK: "Storage"}, dnsServers=["10.9.9.9"])
    await world.pool("replication", "10.2.0.10-10.2.0.19", labels={NETWORK: "Replication"})
    await world.cluster()
    await world.machine("m1", TEMPLATE, failure_domain="zone-a")
    assert await world.addressed("m1") == ["10.1.0.10", "10.2.0.10"]
    assert await world.devices("m1") == [
        TEMPLATE,
        {"networkName": "Storage", "nameservers": ["10.1.0.53"], "ipAddrs": ["10.1.0.10/24"]},
        {"networkName": "Backup", "dhcp6": True},
        {"networkName": "Replication", "ipAddrs": ["10.2.0.10/24"]},
    ]
    (vm,) = world.vcenter.vms
    assert [device["networkName"] for device in vm.devices] == ["Management", "Storage", "Backup", "Replication"]


async def test_pools_of_a_domain_serve_the_machines_in_it(world):
    for zone, network in (("zone-a", "10.1.0"), ("zone-b", "10.2.0")):
        world.failure_domains[zone] = {"networks": ["VM Network"]}
        labels = {DOMAIN_KEY: zone, NETWORK: "VM_Network"}
        await world.pool(zone, f"{network}.10-{network}.19", labels={DOMAIN_KEY: zone})
        await world.pool(f"{zone}-other", f"{network}.20-{network}.29", labels=labels)
    await world.cluster()
    await world.machine("a", failure_domain="zone-a")
    await world.machine("b", failure_domain="zone-b")
    await world.machine("c")
    assert await world.addressed("a") == ["10.1.0.10"]
    assert await world.addressed("b") == ["10.2.0.10"]
    await world.refused("c", "NoPoolMatches", "network VM Network", "cluster prod")


async def test_a_domain_that_names_pools_leaves_the_claim_to_capv(world):
    pool = {"apiGroup": "ipam.metal3.io", "kind": "IPPool", "name": "zone-a"}
    configuration = {"networkName": "Network A", "addressesFromPools": [pool]}
    world.failure_domains["zone-a"] = {"networkConfigurations": [configuration]}
    await world.pool("zone-a", "10.1.0.10-10.1.0.19", annotations={NETWORK: "Network A, Template Network"})
    await world.cluster()
    await world.machine("m1", TEMPLATE, failure_domain="zone-a")
    assert await world.addressed("m1") == ["10.1.0.10"]
    await eventually(world.claims, lambda claims: list(claims) == ["m1-0-0"])
    assert await world.devices("m1") == [TEMPLATE]
