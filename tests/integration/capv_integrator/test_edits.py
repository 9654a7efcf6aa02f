"""What a user writes is never lost, whatever the integrator does at the same moment."""

from __future__ import annotations

import asyncio

import pytest

from services.runtime.kube.errors import Invalid
from services.runtime.kube.transport import PatchKind
from tests.support.capv_witness import Interfering
from tests.support.capv_world import STATIC
from tests.support.kube import eventually


@pytest.fixture
async def waiting(world):
    """A world with a machine m1 that gets its address as soon as the allocator is started."""
    await world.allocator.stop()
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19", gateway="10.0.0.1")
    await world.cluster()
    await world.machine("m1", pools="vlan-7")
    await eventually(lambda: world.claims_of("m1"), lambda claims: len(claims) == 1)
    return world


def right_before_the_write(world, act):
    """Do something in the moment between the integrator's decision and its patch."""
    return world.integrator.watch(Interfering("patch", "vspheremachines", act))


async def test_an_edit_of_the_same_nic_right_before_the_write_is_kept(waiting):
    world = waiting

    async def edit(name):
        await world.edit_devices(name, {**STATIC, "mtu": 9000, "nameservers": ["10.0.0.99"]})

    race = right_before_the_write(world, edit)
    await world.allocator.start()
    assert await world.addressed("m1") == ["10.0.0.10"]
    assert race.done.is_set()
    assert await world.devices("m1") == [
        {**STATIC, "mtu": 9000, "nameservers": ["10.0.0.99"], "ipAddrs": ["10.0.0.10/24"], "gateway4": "10.0.0.1"}
    ]
    assert [write for write in race.writes if write == "patch vspheremachines"] == ["patch vspheremachines"] * 2


async def test_a_nic_that_a_user_puts_before_it_right_before_the_write_does_not_get_the_address(waiting):
    world = waiting
    dhcp = {"networkName": "Management", "dhcp4": True}

    async def edit(name):
        await world.edit_devices(name, dhcp, STATIC)

    right_before_the_write(world, edit)
    await world.allocator.start()
    assert len(await world.addressed("m1")) == 1
    first, second = await world.devices("m1")
    assert first == dhcp
    assert second["gateway4"] == "10.0.0.1"


async def test_an_address_that_a_user_sets_right_before_the_write_wins(waiting):
    world = waiting

    async def edit(name):
        await world.edit_devices(name, {**STATIC, "ipAddrs": ["10.0.0.200/24"]})

    right_before_the_write(world, edit)
    await world.allocator.start()
    assert await world.addressed("m1") == ["10.0.0.200"]
    await world.nothing_left()


async def test_a_machine_deleted_right_before_the_write_is_left_alone(waiting):
    world = waiting

    async def delete(name):
        await world.delete(name)
        await world.gone(name)

    right_before_the_write(world, delete)
    await world.allocator.start()
    await world.nothing_left()
    assert world.vcenter.vms == []


@pytest.mark.parametrize("change", [{"dhcp4": True}, {"skipIPAllocation": True}, {"ipAddrs": ["10.0.0.200/24"]}])
async def test_a_nic_that_needs_no_address_any_more_gives_its_claim_back_before_anything_is_written(waiting, change):
    world = waiting
    await world.edit_devices("m1", {**STATIC, **change})
    await eventually(lambda: world.claims_of("m1"), lambda claims: claims == [])
    await world.allocator.start()
    await world.addressed("m1")
    await world.nothing_left()


async def test_the_claim_of_a_nic_that_is_taken_out_is_given_back(world):
    await world.allocator.stop()
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19")
    await world.cluster()
    await world.machine("m1", STATIC, STATIC, pools="vlan-7")
    await eventually(lambda: world.claims_of("m1"), lambda claims: len(claims) == 2)
    await world.edit_devices("m1", STATIC)
    await eventually(lambda: world.claims_of("m1"), lambda claims: len(claims) == 1)
    await world.allocator.start()
    await world.addressed("m1")


async def test_what_was_written_once_is_not_written_again(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19", gateway="10.0.0.1", dnsServers=["10.0.0.53"])
    await world.cluster()
    await world.machine("m1", pools="vlan-7", bootstrap=False)
    assert await world.written_to("m1") == ["10.0.0.10"]
    (claim,) = await world.claims_of("m1")
    # A user has other ideas, before there is a VM.
    own = {**STATIC, "ipAddrs": ["10.0.0.77/24"]}
    await world.edit_devices("m1", own)
    await world.settled()
    assert await world.devices("m1") == [own]
    (kept,) = await world.claims_of("m1")
    assert kept["metadata"]["uid"] == claim["metadata"]["uid"], "it was written: a VM may have it already"
    await world.delete("m1")
    await world.gone("m1")
    await world.nothing_left()


async def test_an_address_that_a_stale_tool_wiped_out_is_written_again(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19", gateway="10.0.0.1")
    await world.cluster()
    await world.machine("m1", pools="vlan-7", bootstrap=False)
    await world.written_to("m1")
    await world.edit_devices("m1", STATIC)
    assert await world.written_to("m1") == ["10.0.0.10"]
    assert len(await world.claims_of("m1")) == 1


async def test_edits_of_many_machines_while_their_addresses_are_written_are_all_kept(world):
    names = [f"m{number}" for number in range(16)]
    await world.pool("vlan-7", "10.0.0.10-10.0.0.99", gateway="10.0.0.1")
    await world.cluster()

    async def edit(name):
        """As an operator of another system does it: read, change, and write only what is unchanged since."""
        resource = world.versions.vsphere_machines
        while True:
            seen = await world.vsphere_machine(name)
            devices = seen["spec"]["network"]["devices"]
            body = [
                {"op": "test", "path": "/spec/network/devices", "value": devices},
                {"op": "add", "path": "/spec/network/devices/0/mtu", "value": 9000},
            ]
            try:
                await world.kube.client.patch(resource, name, world.namespace, body, kind=PatchKind.JSON)
            except Invalid:
                continue
            world.written["VSphereMachine", world.namespace, name]["network"]["devices"][0]["mtu"] = 9000
            return

    async def both(name):
        await world.machine(name, pools="vlan-7", bootstrap=False)
        await edit(name)

    await asyncio.gather(*(both(name) for name in names))
    given = [address for name in names for address in await world.written_to(name)]
    assert len(set(given)) == len(names)
    for name in names:
        assert (await world.devices(name))[0]["mtu"] == 9000
