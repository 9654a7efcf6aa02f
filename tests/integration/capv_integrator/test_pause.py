"""What is paused is left alone, and goes on where it was."""

from __future__ import annotations

from tests.support.capv_parts import PAUSED
from tests.support.capv_world import STATIC, USE
from tests.support.kube import eventually

VIP = {USE: "endpoints", "integrator.groundwork.dev/cluster": "prod"}


async def test_a_paused_cluster_is_given_nothing_until_it_goes_on(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19")
    await world.pool("vip", "10.0.9.9-10.0.9.9", labels=VIP)
    await world.cluster(endpoint=None, paused=True)
    await world.machine("m1", pools="vlan-7", cluster="prod")
    await world.settled()
    assert await world.claims_of("m1") == await world.claims_of("prod") == []
    await world.pause(False)
    assert await world.addressed("m1") == ["10.0.0.10"]
    assert await world.endpoint() == "10.0.9.9:6443"


async def test_a_pause_between_claim_and_write_holds_the_write_back(world):
    await world.allocator.stop()
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19")
    await world.cluster()
    await world.machine("m1", pools="vlan-7")
    await eventually(lambda: world.claims_of("m1"), lambda claims: len(claims) == 1)
    await world.kube.annotate(world.versions.vsphere_machines, "m1", world.namespace, **{PAUSED: ""})
    await world.allocator.start()
    await eventually(lambda: world.claims_of("m1"), lambda claims: "addressRef" in claims[0].get("status", {}))
    await world.settled()
    assert await world.devices("m1") == [STATIC]
    await world.kube.annotate(world.versions.vsphere_machines, "m1", world.namespace, **{PAUSED: None})
    assert await world.addressed("m1") == ["10.0.0.10"]


async def test_claims_of_a_paused_cluster_outlive_the_machine_until_it_goes_on(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19")
    await world.cluster()
    await world.machine("m1", pools="vlan-7", bootstrap=False)
    await world.written_to("m1")
    await world.pause()
    await world.kube.force_delete(world.versions.vsphere_machines, "m1", world.namespace)
    await world.kube.force_delete(world.versions.machines, "m1", world.namespace)
    await world.integrator.restart()
    await world.settled()
    assert len(await world.claims_of("m1")) == 1
    await world.pause(False)
    await world.nothing_left()
