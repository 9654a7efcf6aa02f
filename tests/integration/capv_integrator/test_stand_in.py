"""The stand-in for CAPV does what CAPV does, mistakes included: otherwise the other tests would prove less."""

from __future__ import annotations

from services.runtime.kube.errors import Invalid
from services.runtime.kube.transport import PatchKind
from tests.support import capv_conditions, capv_outside
from tests.support.capv_outside import ips
from tests.support.capv_world import STATIC
from tests.support.kube import eventually

ADDRESSED = [{**STATIC, "ipAddrs": ["10.0.0.66/24"]}]


async def test_an_address_written_to_the_vsphere_vm_is_reverted_and_leaves_a_wrong_vm_behind(start_world):
    world = await start_world(integrators=0)
    await world.cluster()
    await world.machine("m1")
    resource = world.versions.vsphere_vms

    async def waiting():
        return capv_conditions.reasons(await world.kube.get(resource, "m1", world.namespace))

    await eventually(waiting, lambda reasons: reasons == {capv_conditions.WAITING})
    await world.kube.patch(resource, "m1", world.namespace, spec={"network": {"devices": ADDRESSED}})
    await eventually(
        lambda: world.kube.get(resource, "m1", world.namespace), lambda obj: capv_outside.devices(obj) == [STATIC]
    )
    (vm,) = await eventually(lambda: _alive(world))
    assert vm.addresses == ["10.0.0.66"]
    state = await capv_outside.look(world.kube.client, world.versions, world.namespaces)
    wrong = capv_outside.violations(state, world.vcenter, world.written)
    assert [line for line in wrong if "was made with ['10.0.0.66']" in line] != []
    world.vcenter.vms.clear()
    world.vcenter.wrong.clear()


async def test_two_machines_with_one_address_are_both_built_and_that_is_seen(start_world):
    world = await start_world(integrators=0)
    await world.cluster()
    for name in ("m1", "m2"):
        await world.machine(name, *ADDRESSED)
    await world.addressed("m1", "m2")
    (line,) = world.vcenter.wrong
    assert line.startswith("10.0.0.66 is used by")
    world.vcenter.wrong.clear()


async def test_an_address_that_is_changed_under_a_running_vm_is_seen(start_world):
    world = await start_world(integrators=0)
    await world.cluster()
    await world.machine("m1", *ADDRESSED)
    await world.addressed("m1")
    await world.edit_devices("m1", {**STATIC, "ipAddrs": ["10.0.0.67/24"]})

    async def wrong():
        return world.vcenter.wrong

    (line,) = await eventually(wrong)
    assert line.endswith("after the clone")
    world.vcenter.wrong.clear()


async def _alive(world):
    return world.vcenter.alive()


async def test_what_capv_s_webhooks_refuse_is_refused_here_too(world):
    await world.pool("vlan-7", "10.0.0.10-10.0.0.19")
    await world.cluster()
    await world.machine("m1", pools="vlan-7")
    await world.addressed("m1")

    async def refused(**spec):
        try:
            await world.kube._send(
                "PATCH",
                world.versions.vsphere_machines.path(world.namespace, "m1") + "?dryRun=All",
                {"spec": spec},
                PatchKind.MERGE,
            )
        except Invalid as error:
            return str(error)
        return ""

    await eventually(lambda: refused(template="other"), lambda text: "cannot be modified" in text)
    devices = [{**STATIC, "ipAddrs": ["10.0.0.10"]}]
    await eventually(lambda: refused(network={"devices": devices}), lambda text: "CIDR" in text)
    assert await refused(providerID="vsphere://other") == ""
    assert ips(await world.vsphere_machine("m1")) == ["10.0.0.10"]
