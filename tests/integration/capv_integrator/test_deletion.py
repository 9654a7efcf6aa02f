"""Giving back: an address is returned when its VM is destroyed, not earlier and not never, with or without a GC."""

from __future__ import annotations

import pytest

from tests.support.capv_parts import PAUSED
from tests.support.capv_world import STATIC
from tests.support.kube import eventually

GC = pytest.mark.parametrize("gc", [False, True], ids=["no-gc", "gc"])


async def prepared(start_world, *, gc):
    world = await start_world(gc=gc)
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19")
    await world.cluster()
    return world


async def without_owner(world):
    """Nobody has made its Machine yet."""
    resource = world.versions.vsphere_machines
    await world._write(resource, "m1", None, {"template": "t", "network": {"devices": [dict(STATIC)]}}, {})
    await world.settled()


async def claimed(world):
    """The claim waits for the allocator."""
    await world.allocator.stop()
    await world.machine("m1", pools="vlan-7")
    await eventually(lambda: world.claims_of("m1"), lambda claims: len(claims) == 1)


async def bound(world):
    """The claim has its address; the integrator was down when that came."""
    await claimed(world)
    await world.integrator.cut_off()
    await world.allocator.start()
    await eventually(
        lambda: world.claims_of("m1"), lambda claims: claims[0].get("status", {}).get("addressRef", {}).get("name")
    )


async def written(world):
    """The address is written, the VSphereVM does not exist."""
    await world.machine("m1", pools="vlan-7", bootstrap=False)
    await world.written_to("m1")


async def running(world):
    """The VM runs."""
    await world.machine("m1", pools="vlan-7")
    await world.addressed("m1")


@GC
@pytest.mark.parametrize("stage", [without_owner, claimed, bound, written, running])
async def test_a_machine_deleted_at_any_stage_leaves_nothing(start_world, stage, gc):
    world = await prepared(start_world, gc=gc)
    await stage(world)
    if stage is without_owner:
        await world.kube.delete(world.versions.vsphere_machines, "m1", world.namespace)
    else:
        await world.delete("m1")
        await world.gone("m1")
    for service in (world.allocator, world.integrator):
        if not service.running_now:
            await service.start()
    await world.kube.gone(world.versions.vsphere_machines, "m1", world.namespace)
    await world.nothing_left()
    assert world.vcenter.alive() == []


@GC
async def test_an_address_is_held_until_the_vm_is_destroyed_and_the_vsphere_machine_is_gone(start_world, gc):
    world = await prepared(start_world, gc=gc)
    await running(world)
    world.vcenter.hold()
    await world.delete("m1")
    deleting = await eventually(
        lambda: world.kube.find(world.versions.vsphere_vms, "m1", world.namespace),
        lambda vm: vm is not None and "deletionTimestamp" in vm["metadata"],
    )
    assert deleting["metadata"]["finalizers"]
    await world.settled()
    (claim,) = await world.claims_of("m1")
    assert "deletionTimestamp" not in claim["metadata"]
    assert await world.tenant.held() == ["10.0.0.10"]
    await world.integrator.restart()
    await world.settled()
    assert [c["metadata"]["uid"] for c in await world.claims_of("m1")] == [claim["metadata"]["uid"]]
    world.vcenter.let_go()
    await world.gone("m1")
    await world.nothing_left()


@GC
async def test_a_vsphere_vm_that_is_made_again_has_the_same_address(start_world, gc):
    world = await prepared(start_world, gc=gc)
    await running(world)
    (claim,) = await world.claims_of("m1")
    (first,) = world.vcenter.vms
    await world.kube.delete(world.versions.vsphere_vms, "m1", world.namespace)

    async def others():
        return [vm for vm in world.vcenter.alive("m1") if vm.uid != first.uid and vm.on]

    (second,) = await eventually(others)
    assert second.addresses == first.addresses == ["10.0.0.10"]
    assert [c["metadata"]["uid"] for c in await world.claims_of("m1")] == [claim["metadata"]["uid"]]


@GC
async def test_a_claim_that_somebody_deletes_under_a_running_machine_holds_its_address(start_world, gc):
    world = await prepared(start_world, gc=gc)
    await running(world)
    (claim,) = await world.claims_of("m1")
    await world.kube.delete(world.versions.claims, claim["metadata"]["name"], world.namespace)
    await world.settled()
    (left,) = await world.claims_of("m1")
    assert "deletionTimestamp" in left["metadata"]
    assert await world.tenant.held() == ["10.0.0.10"]
    await world.delete("m1")
    await world.gone("m1")
    await world.nothing_left()


async def test_a_claim_that_somebody_deletes_before_anything_was_written_is_made_anew(start_world):
    world = await prepared(start_world, gc=False)
    await claimed(world)
    (claim,) = await world.claims_of("m1")
    await world.kube.delete(world.versions.claims, claim["metadata"]["name"], world.namespace)
    await eventually(
        lambda: world.claims_of("m1"),
        lambda claims: len(claims) == 1 and claims[0]["metadata"]["uid"] != claim["metadata"]["uid"],
    )
    await world.allocator.start()
    assert await world.addressed("m1") == ["10.0.0.10"]


@GC
async def test_a_whole_cluster_goes_and_everything_comes_back(start_world, gc):
    world = await start_world(gc=gc)
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19")
    labels = {"integrator.groundwork.dev/use": "endpoints", "integrator.groundwork.dev/cluster": "prod"}
    await world.pool("vip", "10.0.9.9-10.0.9.9", labels=labels)
    await world.cluster(endpoint=None)
    names = ["cp-0", "md-0", "md-1"]
    for name in names:
        await world.machine(name, pools="vlan-7", control_plane=name == "cp-0")
    await world.addressed(*names)
    assert await world.endpoint() == "10.0.9.9:6443"
    await world.kube.delete(world.versions.clusters, "prod", world.namespace)
    await world.kube.gone(world.versions.clusters, "prod", world.namespace)
    await world.nothing_left()
    assert world.vcenter.alive() == []


async def test_a_machine_whose_finalizers_are_stripped_still_gives_its_address_back(start_world):
    world = await prepared(start_world, gc=False)
    await written(world)
    resource = world.versions.vsphere_machines
    await world.kube.annotate(resource, "m1", world.namespace, **{PAUSED: ""})  # so that CAPV keeps out of it
    await world.kube.force_delete(resource, "m1", world.namespace)
    await world.nothing_left()


async def test_a_machine_of_the_same_name_made_right_away_gets_an_address_of_its_own(start_world):
    world = await prepared(start_world, gc=True)
    for _ in range(3):
        await world.machine("m1", pools="vlan-7")
        (given,) = await world.addressed("m1")
        assert await world.tenant.held() == [given]
        await world.delete("m1")
        await world.gone("m1")
    await world.nothing_left()
