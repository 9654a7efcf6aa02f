"""Machines of every shape go from waiting to a VM that was made with the right addresses."""

from __future__ import annotations

import ipaddress

import pytest

from tests.support import capv_conditions
from tests.support.capv_world import ENDPOINT, POOLS
from tests.support.kube import eventually

STATIC = {"networkName": "VM Network"}
STORAGE = {"networkName": "Storage"}
DHCP = {"networkName": "Management", "dhcp4": True}


async def test_a_machine_that_waits_is_addressed_with_all_that_its_pool_gives(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19", gateway="10.0.0.1", dnsServers=["10.0.0.53", "10.0.1.53"])
    await world.cluster()
    await world.machine("m1", pools="vlan-7")
    assert await world.addressed("m1") == ["10.0.0.10"]
    assert await world.devices("m1") == [
        {
            **STATIC,
            "ipAddrs": ["10.0.0.10/24"],
            "gateway4": "10.0.0.1",
            "nameservers": ["10.0.0.53", "10.0.1.53"],
        }
    ]


@pytest.mark.parametrize("control_planes", [1, 3])
async def test_a_cluster_of_control_planes_and_workers_comes_up(world, control_planes):
    await world.pool("masters", "10.0.0.10-10.0.0.19", gateway="10.0.0.1")
    await world.pool("workers", "10.0.0.100-10.0.0.199", gateway="10.0.0.1")
    await world.cluster()
    await world.template("cp", annotations={POOLS: "masters"})
    await world.template("md", annotations={POOLS: "workers"})
    masters = [f"prod-cp-{number}" for number in range(control_planes)]
    workers = [f"prod-md-{number}" for number in range(4)]
    for name in masters:
        await world.machine(name, template="cp", control_plane=True)
    for name in workers:
        await world.machine(name, template="md")
    for names, low, high in ((masters, "10.0.0.10", "10.0.0.19"), (workers, "10.0.0.100", "10.0.0.199")):
        for name in names:
            (given,) = await world.addressed(name)
            assert ipaddress.ip_address(low) <= ipaddress.ip_address(given) <= ipaddress.ip_address(high)
    assert len(world.vcenter.vms) == control_planes + 4


async def test_beside_a_nic_that_does_not_wait_the_other_one_is_served(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19")
    await world.cluster()
    cases = {}
    for exemption in ("dhcp4", "dhcp6", "skipIPAllocation"):
        idle = {"networkName": "Other", exemption: True}
        cases |= {f"{exemption}-first".lower(): [idle, STATIC], f"{exemption}-second".lower(): [STATIC, idle]}
    for name, devices in cases.items():
        await world.machine(name, *devices, pools="vlan-7")
    assert len({address for (address,) in await world.addressed(*cases)}) == len(cases)
    for name, devices in cases.items():
        after = await world.devices(name)
        at = devices.index(STATIC)
        assert after[1 - at] == devices[1 - at]
        assert after[at].keys() == {"networkName", "ipAddrs"}


async def test_a_machine_without_a_waiting_nic_makes_no_claim(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19")
    await world.cluster()
    own = {**STORAGE, "ipAddrs": ["10.9.0.1/24"]}
    await world.machine("m1", DHCP, own, {**STORAGE, "skipIPAllocation": True}, pools="vlan-7")
    assert await world.addressed("m1") == ["10.9.0.1"]
    await world.settled()
    assert await world.claims_of("m1") == []


async def test_two_static_nics_are_served_each_out_of_its_pool(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19", gateway="10.0.0.1")
    await world.pool("vlan-8", "10.8.0.10-10.8.0.19")
    await world.cluster()
    await world.machine("m1", STATIC, STORAGE, pools="0=vlan-7; Storage=vlan-8")
    assert await world.addressed("m1") == ["10.0.0.10", "10.8.0.10"]
    first, second = await world.devices("m1")
    assert first["gateway4"] == "10.0.0.1"
    assert second == {**STORAGE, "ipAddrs": ["10.8.0.10/24"]}, "a pool without a gateway is fine"


async def test_two_nics_of_one_pool_get_two_addresses(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.11")
    await world.cluster()
    await world.machine("m1", STATIC, STATIC, pools="vlan-7")
    assert sorted(await world.addressed("m1")) == ["10.0.0.10", "10.0.0.11"]


async def test_ipv6_is_written_with_its_own_gateway(world):
    await world.pool("v6", "2001:db8:7::10-2001:db8:7::19", gateway="2001:db8:7::1", dnsServers=["2001:db8::53"])
    await world.cluster()
    await world.machine("m1", pools="v6")
    assert await world.addressed("m1") == ["2001:db8:7::10"]
    assert await world.devices("m1") == [
        {
            **STATIC,
            "ipAddrs": ["2001:db8:7::10/64"],
            "gateway6": "2001:db8:7::1",
            "nameservers": ["2001:db8::53"],
        }
    ]


async def test_dual_stack_is_two_claims_and_one_write(world):
    await world.pool("v4", "10.0.0.10-10.0.0.19", gateway="10.0.0.1", dnsServers=["10.0.0.53"])
    await world.pool("v6", "2001:db8:7::10-2001:db8:7::19", gateway="2001:db8:7::1", dnsServers=["2001:db8::53"])
    await world.cluster()
    await world.machine("m1", pools="v4, v6")
    assert await world.addressed("m1") == ["10.0.0.10", "2001:db8:7::10"]
    (device,) = await world.devices("m1")
    assert device["ipAddrs"] == ["10.0.0.10/24", "2001:db8:7::10/64"]
    assert (device["gateway4"], device["gateway6"]) == ("10.0.0.1", "2001:db8:7::1")
    assert device["nameservers"] == ["10.0.0.53", "2001:db8::53"]
    assert len(await world.claims_of("m1")) == 2


async def test_of_dual_stack_nothing_is_written_before_both_are_bound(world):
    await world.pool("v4", "10.0.0.10-10.0.0.19")
    await world.pool("v6", "2001:db8:7::10-2001:db8:7::10")
    await world.cluster()
    await world.machine("first", pools="v6")
    await world.addressed("first")
    await world.machine("m1", pools="v4, v6")
    await world.refused("m1", "PoolExhausted", "v6")
    assert await world.devices("m1") == [STATIC]
    await world.delete("first")
    assert await world.addressed("m1") == ["10.0.0.10", "2001:db8:7::10"]


async def test_what_a_user_has_set_on_a_waiting_nic_stays(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19", gateway="10.0.0.1", dnsServers=["10.0.0.53"])
    await world.cluster()
    own = {
        **STATIC,
        "mtu": 9000,
        "gateway4": "10.0.0.254",
        "nameservers": ["10.0.0.99"],
        "searchDomains": ["a.example"],
    }
    await world.machine(
        "m1", own, pools="vlan-7", annotations={"integrator.groundwork.dev/search-domains": "b.example"}
    )
    await world.addressed("m1")
    assert await world.devices("m1") == [{**own, "ipAddrs": ["10.0.0.10/24"]}]


@pytest.mark.parametrize("key", ["integrator.groundwork.dev/search-domains", "cluster.x-k8s.io/dns-search-domains"])
async def test_search_domains_come_from_the_machine_its_template_or_the_pool(world, key):
    await world.cluster()
    await world.pool("silent", "10.0.0.10-10.0.0.19")
    await world.pool("vlan-7", "10.0.0.20-10.0.0.29", annotations={key: "pool.example"})
    await world.template("silent")
    await world.template("md", annotations={key: "template.example"})
    said = {key: "machine.example, second.example"}
    cases = {
        "m1": ({"template": "md", "pools": "vlan-7", "annotations": said}, ["machine.example", "second.example"]),
        "m2": ({"template": "md", "pools": "vlan-7"}, ["template.example"]),
        "m3": ({"template": "silent", "pools": "vlan-7"}, ["pool.example"]),
        "m4": ({"template": "silent", "pools": "silent"}, None),
    }
    for name, (how, wanted) in cases.items():
        await world.machine(name, **how)
        await world.written_to(name)
        assert (await world.devices(name))[0].get("searchDomains") == wanted


async def test_capv_s_own_claims_are_left_to_capv(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19")
    await world.pool("vlan-8", "10.8.0.10-10.8.0.19")
    await world.cluster()
    pool = {"apiGroup": "ipam.metal3.io", "kind": "IPPool", "name": "vlan-8"}
    await world.machine("m1", {**STORAGE, "addressesFromPools": [pool]}, STATIC, pools="vlan-7")
    assert sorted(await world.addressed("m1")) == ["10.0.0.10", "10.8.0.10"]
    claims = await world.claims()
    assert claims.pop("m1-0-0")["spec"]["poolRef"]["name"] == "vlan-8"
    (own,) = claims.values()
    assert own["spec"]["poolRef"]["name"] == "vlan-7"
    assert (await world.devices("m1"))[0] == {**STORAGE, "addressesFromPools": [pool]}


async def test_addresses_are_written_before_there_is_bootstrap_data(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19")
    await world.cluster()
    await world.machine("m1", pools="vlan-7", bootstrap=False)
    assert await world.written_to("m1") == ["10.0.0.10"]
    assert world.vcenter.vms == []
    await world.bootstrap("m1")
    assert await world.addressed("m1") == ["10.0.0.10"]


async def test_a_machine_waits_for_its_owner_and_its_cluster(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19")
    await world.machine("m1", pools="vlan-7", cluster="late")
    await world.settled()
    assert await world.claims_of("m1") == []
    await world.cluster("late")
    assert await world.addressed("m1") == ["10.0.0.10"]


async def test_a_vm_may_be_named_otherwise_than_its_vsphere_machine(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19")
    await world.cluster()
    await world.machine("prod-md-abcde", infra_name="prod-md-infra-xyz", pools="vlan-7")
    assert await world.addressed("prod-md-abcde") == ["10.0.0.10"]


async def test_equal_names_in_two_namespaces_are_two_machines(start_world):
    world = await start_world(namespaces=2)
    given = []
    for tenant in world.tenants:
        await tenant.pool("vlan-7", "10.0.0.10-10.0.0.19")
        await world.cluster(namespace=tenant.namespace)
        await world.machine("m1", pools="vlan-7", namespace=tenant.namespace)
        given += await world.addressed("m1", namespace=tenant.namespace)
    assert len(set(given)) == 2
    names = [next(iter(await world.claims(namespace))) for namespace in world.namespaces]
    assert names[0] != names[1], "a provider that knows claims by name alone would mix them up"
    await world.delete("m1", namespace=world.namespaces[0])
    await world.gone("m1", namespace=world.namespaces[0])
    await eventually(lambda: world.claims(world.namespaces[0]), lambda claims: claims == {})
    assert list(await world.claims(world.namespaces[1])) == [names[1]]


async def test_a_claim_says_everything_that_others_ask_of_it(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19")
    await world.cluster()
    made = await world.machine("m1", pools="vlan-7")
    await world.addressed("m1")

    def marked(claims):
        conditions = [c for obj in claims.values() for c in obj["status"].get("conditions", [])]
        return [c for c in conditions if c["type"] == "integrator.groundwork.dev/Written" and c["status"] == "True"]

    (claim,) = (await eventually(world.claims, marked)).values()
    assert claim["spec"] == {
        "clusterName": "prod",
        "poolRef": {"apiGroup": "ipam.metal3.io", "kind": "IPPool", "name": "vlan-7"},
    }
    assert claim["metadata"]["labels"]["cluster.x-k8s.io/cluster-name"] == "prod"
    assert "integrator.groundwork.dev/in-use" in claim["metadata"]["finalizers"]
    (owner,) = claim["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("VSphereMachine", "m1", made["metadata"]["uid"])
    assert not owner.get("blockOwnerDeletion")


async def test_capv_s_condition_is_not_waited_for_but_goes_away(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.10")
    await world.cluster()
    await world.machine("first", pools="vlan-7")
    await world.addressed("first")
    await world.machine("m1", pools="vlan-7")
    for resource in (world.versions.vsphere_machines, world.versions.vsphere_vms):
        await eventually(
            lambda resource=resource: world.kube.get(resource, "m1", world.namespace),
            lambda obj: capv_conditions.reasons(obj) == {capv_conditions.WAITING},
        )
    await world.delete("first")
    assert await world.addressed("m1") == ["10.0.0.10"]


async def test_an_address_that_capv_s_definition_has_no_room_for_is_reported(world):
    # 39 characters are allowed, an IPv6 address with a prefix may need 43.
    await world.pool("v6", "2001:db8:1111:2222:3333:4444:5555:6666-2001:db8:1111:2222:3333:4444:5555:6667")
    await world.cluster()
    await world.machine("m1", pools="v6")
    await world.refused("m1", "WriteRefused", "ipAddrs")
    assert await world.devices("m1") == [STATIC]
    await world.delete("m1")
    await world.gone("m1")
    await world.nothing_left()


async def test_the_endpoint_of_a_cluster_is_no_business_of_its_machines(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19")
    await world.cluster()
    await world.machine("m1", pools="vlan-7")
    await world.addressed("m1")
    assert await world.endpoint() == f"{ENDPOINT}:6443"
