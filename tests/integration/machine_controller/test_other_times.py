"""What a machine remembers of its VM and its addresses where it is true no more: after a restore, after a loss."""

from __future__ import annotations

import json

import pytest

from services.machine_controller import api, contract
from services.machine_controller.cloning import clone_spec
from services.machine_controller.placement import Placement
from services.machine_controller.vsphere.vcenter import VCenters
from tests.support.kube import eventually, manifest
from tests.support.machine_site import NETWORK, TEMPLATE, metadata

RECORD = "machine.groundwork.dev/vm"
POOL = {"apiGroup": "ipam.metal3.io", "kind": "IPPool", "name": "nodes"}


@pytest.mark.parametrize("name", ["precious", "m1"])
async def test_a_task_id_that_vcenter_gave_to_another_clone_costs_that_vm_nothing(site, sim, name):
    """As after a restore of vCenter, which counts on from what it was restored to.

    What is called as the machine's own clone was to be called, in the same folder, is that.
    """
    spec = api.VSphereMachineSpec(template=TEMPLATE, clone_mode="fullClone")
    place = Placement(str(sim.server), "", "", "", "", api.Network())
    async with VCenters() as vcenters:
        vc = vcenters.get(sim.server, "somebody", sim.credentials, sim.trust)
        foreign = await clone_spec(vc.inventory, name, "00000000-0000-4000-8000-000000000001", spec, place, "")
        task = await vc.watch.finished(await vc.vms.clone(foreign))
        assert task.error is None
        await site.controller.stop()
        made = await site.machine("m1")
        noted = {
            "of": f"{site.namespace}/m1",
            "uuid": made["metadata"]["uid"],
            "name": "m1",
            "server": str(sim.server),
            "template": str(foreign.template),
            "folder": str(foreign.folder),
            "since": "2026-01-01T00:00:00Z",
            "task": str(task.ref),
        }
        annotations = {RECORD: json.dumps(noted)}
        finalizers = ["vspheremachine.infrastructure.cluster.x-k8s.io"]
        await site.kube.patch(
            api.VSPHERE_MACHINES,
            "m1",
            site.namespace,
            metadata={"annotations": annotations, "finalizers": finalizers},
        )
        await site.controller.start()
        await site.provisioned("m1")
        assert sorted(site.own_vms()) == sorted({"m1", name})
        assert site.vm("m1")["instanceUuid"] == made["metadata"]["uid"]
        if name != "m1":
            assert (await vc.watch.finished(await vc.vms.destroy(task.result))).error is None
    await site.delete("m1")
    await site.gone("m1")
    await site.empty()


async def test_a_claim_that_is_lost_while_the_vm_is_cloned_takes_its_address_with_it(site, sim):
    sim.task("cloneVm", hold=True)
    await site.machine("m1", {"networkName": NETWORK, "addressesFromPools": [POOL]}, pools=None)
    await site.says("m1", "WaitingForClone", "cloning")
    await eventually(lambda: site.vsphere_machine("m1"), lambda obj: RECORD in obj["metadata"].get("annotations", {}))
    await site.allocator.stop()  # ours would give the same address once more; others do not
    claims, addresses = contract.IP_ADDRESS_CLAIMS[0], contract.IP_ADDRESSES[0]
    await site.kube.force_delete(claims, "m1-0-0", site.namespace)
    sim.release()
    await site.says("m1", "WaitingForIPAddress")
    spec = {"claimRef": {"name": "m1-0-0"}, "poolRef": POOL, "address": "10.0.0.77", "prefix": 24}
    await site.kube.create(addresses, manifest(addresses, "other", site.namespace, spec))
    await site.kube.set_status(claims, "m1-0-0", site.namespace, {"addressRef": {"name": "other"}})
    await site.provisioned("m1")
    assert metadata(site.vm("m1"))["network"]["ethernets"]["id0"]["addresses"] == ["10.0.0.77/24"]
    await site.kube.force_delete(addresses, "other", site.namespace)
    await site.delete("m1")
    await site.gone("m1")


async def test_a_machine_that_is_paused_during_its_clone_holds_up_no_other(start_site, sim):
    site = await start_site(clones=1)
    await site.identity()
    await site.tenant.pool("nodes", "10.0.0.10-10.0.0.49", gateway="10.0.0.1")
    await site.cluster()
    sim.task("cloneVm", hold=True)
    await site.machine("m1")
    await site.says("m1", "WaitingForClone", "cloning")
    await eventually(lambda: site.vsphere_machine("m1"), lambda obj: '"task"' in str(obj["metadata"]["annotations"]))
    await site.machine("m2")
    await site.says("m2", "WaitingForClone", "as many clones")
    paused = "cluster.x-k8s.io/paused"
    await site.kube.patch(api.VSPHERE_MACHINES, "m1", site.namespace, metadata={"annotations": {paused: ""}})
    await site.says("m1", "Paused", type_="Paused", status="True")
    sim.release()
    await site.provisioned("m2")
    assert site.vm("m1")["power"] == "poweredOff"
    await site.kube.patch(api.VSPHERE_MACHINES, "m1", site.namespace, metadata={"annotations": {paused: None}})
    await site.provisioned("m1")
    await site.delete("m1", "m2")
    await site.gone("m1", "m2")
    await site.empty()
