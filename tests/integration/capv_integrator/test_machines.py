"""Machines of every shape go from waiting to a VM with the right addresses."""

from __future__ import annotations


async def test_a_machine_that_waits_gets_an_address_out_of_its_pool(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19", gateway="10.0.0.1", dnsServers=["10.0.0.53"])
    await world.cluster()
    await world.machine("m1", pools="vlan-7")
    assert await world.addressed("m1") == ["10.0.0.10"]
    assert await world.devices("m1") == [
        {
            "networkName": "VM Network",
            "ipAddrs": ["10.0.0.10/24"],
            "gateway4": "10.0.0.1",
            "nameservers": ["10.0.0.53"],
        }
    ]
