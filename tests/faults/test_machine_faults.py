"""Machines while vCenter, the network, the API server and the controller itself fail.

Whatever happens: no second VM, no VM that nobody knows, and no address that goes back while a VM holds it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from services.machine_controller import decide, record
from services.machine_controller.api import VSPHERE_CLUSTERS
from services.machine_controller.vsphere import vms
from tests.support.capv_witness import Cutting
from tests.support.kube import Kube, eventually
from tests.support.machine_site import SECRETS, MachineController, Site, condition
from tests.support.vcenter import PASSWORD, USER, Vcsim
from tools import binaries, capi
from tools.paths import ROOT


@pytest.fixture(scope="module")
def vcsim():
    binaries.ensure("vcsim")
    with Vcsim.running(cluster=1) as running:
        yield running


@pytest.fixture
def sim(vcsim):
    vcsim.reset()
    vcsim.forget_stats()
    yield vcsim
    vcsim.reset()


@pytest.fixture(scope="module")
def machine_cluster(own_cluster):
    """With our own definitions: CAPV's are not needed."""
    own_cluster.install_crds(ROOT / "deploy" / "crds" / "infrastructure", *capi.crds("machines.cluster.x-k8s.io"))
    return own_cluster


@pytest.fixture
async def site(machine_cluster, sim):
    async with started(machine_cluster, sim) as found:
        yield found


@asynccontextmanager
async def started(cluster, sim, **settings):
    """A site with credentials, a pool and the cluster `prod`; sound and empty at the end."""
    async with Kube.connect(cluster.kubeconfig) as kube, Site.start(kube, cluster.kubeconfig, sim, **settings) as found:
        await found.identity()
        await found.tenant.pool("nodes", "10.0.0.10-10.0.0.49", gateway="10.0.0.1")
        await found.cluster()
        yield found
        await found.sound()
        sim.reset()
        left = [
            m["metadata"]["name"] for m in await found.kube.list(found.cluster_api.versions.machines, found.namespace)
        ]
        await found.delete(*left)
        await found.gone(*left)
        await found.empty()


async def calls(sim, method, count=1):
    """Wait until vCenter has been asked so often."""
    await eventually(lambda: asyncio.to_thread(sim.stats), lambda stats: stats["calls"].get(method, 0) >= count)


async def test_vcenter_restarts_while_machines_are_made(site, sim):
    sim.task("cloneVm", delayMs=300)
    names = [f"m{i}" for i in range(4)]
    for name in names:
        await site.machine(name)
    await calls(sim, "CloneVM_Task")
    sim.down()
    await asyncio.sleep(0.5)
    sim.up()
    await site.provisioned(*names)
    await site.sound()
    assert sorted(site.own_vms()) == names


async def test_a_cluster_is_ready_soon_after_its_vcenter_is_back(site, sim):
    """Well before the look that is taken once a minute anyhow, since the first machines wait for it."""
    sim.down()
    try:
        await site.cluster("late")
        row = await eventually(lambda: available(site, "late"))
        assert row["status"] == "False"
    finally:
        sim.up()
    await eventually(lambda: available(site, "late"), lambda row: row["status"] == "True", within=40)


async def available(site, name):
    """The condition of a VSphereCluster that tells of its vCenter."""
    obj = await site.kube.get(VSPHERE_CLUSTERS, name, site.namespace)
    return condition(obj, "VCenterAvailable")


async def test_sessions_expire_while_machines_are_made(site, sim):
    names = [f"m{i}" for i in range(4)]
    for name in names:
        await site.machine(name)
        sim.expire()
    await site.provisioned(*names)
    sim.expire()
    await site.delete(*names)
    await site.gone(*names)


@pytest.mark.parametrize(
    ("operation", "fault", "text"),
    [
        ("cloneVm", "NoDiskSpace", "NoDiskSpace"),
        ("reconfigVm", "ConcurrentAccess", "in use"),
        ("powerOn", "InsufficientCpuResourcesFault", "InsufficientCpuResourcesFault"),
    ],
)
async def test_a_task_that_fails_is_told_and_tried_again(site, sim, operation, fault, text):
    sim.task(operation, fault=fault, times=2)
    machine = await site.machine("m1")
    await site.says("m1", "TaskFailed", text)
    events = await eventually(
        lambda: site.kube.events(machine), lambda found: any(e["reason"] == "TaskFailed" for e in found)
    )
    assert all(text in event["note"] for event in events if event["reason"] == "TaskFailed")
    await site.provisioned("m1")
    assert len(site.own_vms()) == 1


@pytest.mark.parametrize(
    ("spec", "texts"),
    [
        ({"datastore": "nowhere"}, ("datastore 'nowhere' not found", "LocalDS_0")),
        ({"template": "nothing"}, ("template 'nothing' not found",)),
        ({"folder": "none"}, ("folder 'none' not found",)),
        ({"network": {"devices": [{"networkName": "VLAN 9"}]}}, ("network 'VLAN 9' not found", "DC0_DVPG0")),
        ({"resourcePool": "rp"}, ("resource pool 'rp' not found",)),
        ({"datacenter": "DC9"}, ("datacenter 'DC9' not found", "DC0")),
    ],
)
async def test_what_is_missing_in_vcenter_is_named_with_what_there_is(site, spec, texts):
    await site.machine("m1", **spec)
    await site.says("m1", "TaskFailed", *texts)
    assert site.own_vms() == {}


@pytest.mark.parametrize("drop", ["before", "after"])
async def test_an_answer_to_a_clone_that_never_comes(site, sim, monkeypatch, drop):
    monkeypatch.setattr(decide, "CLONE_GRACE_SECONDS", 2.0)
    sim.request("CloneVM_Task", drop=drop, times=1)
    await site.machine("m1")
    await site.provisioned("m1")
    assert len(site.own_vms()) == 1
    assert sim.stats()["calls"]["CloneVM_Task"] == (2 if drop == "before" else 1)


@pytest.mark.parametrize("delete", [False, True])
async def test_a_clone_that_vcenter_begins_after_it_was_given_up(site, sim, monkeypatch, delete):
    """The call takes longer than the grace, as it does with the values of every day."""
    monkeypatch.setattr(vms, "_CLONE_SECONDS", 3.0)
    monkeypatch.setattr(decide, "CLONE_GRACE_SECONDS", 2.0)
    sim.request("CloneVM_Task", delayMs=4000, times=1)
    await site.machine("m1")
    await site.says("m1", "VCenterUnreachable", "no answer to clone", type_="VCenterAvailable")
    if delete:
        await site.delete("m1")
        await site.gone("m1")
        await asyncio.sleep(0.5)
        await site.empty()
    else:
        await site.provisioned("m1")
        assert len(site.own_vms()) == 1


async def test_a_machine_that_is_deleted_during_its_clone_waits_for_it_and_leaves_nothing(site, sim):
    sim.task("cloneVm", hold=True)
    await site.machine("m1")
    await calls(sim, "CloneVM_Task")
    await site.delete("m1")
    await site.says("m1", "Deleting", "waiting for the clone")
    held = await site.tenant.held()
    assert "10.0.0.10" in held
    sim.release()
    await site.gone("m1")
    await site.empty()


async def test_a_vm_that_cannot_be_deleted_keeps_its_address(site, sim):
    await site.machine("m1")
    await site.provisioned("m1")
    sim.task("destroy", fault="ResourceInUse")
    await site.delete("m1")
    await site.says("m1", "Deleting", "cannot be deleted")
    assert site.vm("m1")["power"] == "poweredOff"
    assert "10.0.0.10" in await site.tenant.held()
    sim.release()
    await site.gone("m1")
    await site.empty()


async def test_credentials_change_while_machines_are_made(site, sim):
    await site.machine("m1")
    await site.provisioned("m1")
    sim.users({USER: "another-Passw0rd"})
    sim.expire()
    await site.machine("m2")
    await site.says("m2", "VCenterUnreachable", "refuses", type_="VCenterAvailable")
    await site.identity(password="another-Passw0rd")
    await site.provisioned("m2")
    await site.says("m2", "Available", type_="VCenterAvailable", status="True")
    await site.delete("m1", "m2")
    await site.gone("m1", "m2")
    sim.users({USER: PASSWORD})


async def test_a_secret_that_goes_first_keeps_no_vm_alive(site):
    await site.machine("m1")
    await site.provisioned("m1")
    await site.kube.delete(SECRETS, "vcenter", site.namespace)
    await site.delete("m1")
    await site.gone("m1")
    await site.empty()


async def test_without_credentials_a_deletion_says_what_it_lacks_and_goes_on_when_they_come(machine_cluster, sim):
    async with started(machine_cluster, sim) as site:
        await site.machine("m1")
        await site.provisioned("m1")
        await site.controller.stop()
        await site.kube.delete(SECRETS, "vcenter", site.namespace)
        await site.controller.start()
        await site.delete("m1")
        await site.says("m1", "Deleting", f"no Secret {site.namespace}/vcenter")
        assert site.vm("m1")["power"] == "poweredOn"
        await site.identity()
        await site.gone("m1")


async def test_a_power_loss_before_the_node_is_ready_does_not_lose_what_it_was_told(site, sim):
    await site.machine("m1", control_plane=True)
    site.guests.silent.add("m1")
    await site.says("m1", "WaitingForIPAllocation")
    before = site.vm("m1")["extraConfig"]
    await site.set_keys("m1", guestinfo_userdata="---")
    sim.change("m1", "powerOff")
    await site.says("m1", "PoweredOff")
    await eventually(lambda: asyncio.to_thread(lambda: site.vm("m1")["extraConfig"]), lambda seen: seen == before)
    site.guests.silent.clear()
    sim.change("m1", "powerOn")
    await site.provisioned("m1")


@pytest.mark.parametrize("delete", [False, True])
async def test_a_clone_that_vcenter_begins_after_the_controller_has_died(machine_cluster, sim, monkeypatch, delete):
    monkeypatch.setattr(decide, "CLONE_GRACE_SECONDS", 0.5)
    monkeypatch.setattr(record, "ANSWER_SECONDS", 6.0)
    async with started(machine_cluster, sim) as site:
        sim.request("CloneVM_Task", delayMs=5000, times=1)
        await site.machine("m1")
        await calls(sim, "CloneVM_Task")
        await site.controller.restart()
        if delete:
            await site.delete("m1")
            await site.gone("m1")
        else:
            await site.provisioned("m1")
            assert len(site.own_vms()) == 1


async def test_the_controller_dies_at_every_write(machine_cluster, sim, monkeypatch):
    monkeypatch.setattr(record, "ANSWER_SECONDS", 5.0)
    async with started(machine_cluster, sim) as site:
        cuts = 0
        for sent in (False, True):
            for at in range(40):
                name = f"m{at}{'s' if sent else 'b'}"
                cutting = site.controller.watch(Cutting(at, sent=sent))
                await site.machine(name)
                done = asyncio.create_task(site.provisioned(name))
                cut = asyncio.create_task(cutting.cut.wait())
                await asyncio.wait({done, cut}, return_when=asyncio.FIRST_COMPLETED)
                was_cut = cutting.cut.is_set()
                site.controller.watch(Cutting(-1, sent=False))
                if was_cut:
                    cuts += 1
                    await site.controller.restart()
                cut.cancel()
                await done
                await site.sound()
                if not was_cut:
                    break
        assert cuts >= 10


async def test_the_controller_dies_at_every_write_of_a_deletion(machine_cluster, sim):
    async with started(machine_cluster, sim) as site:
        for sent in (False, True):
            for at in range(20):
                name = f"m{at}{'s' if sent else 'b'}"
                await site.machine(name)
                await site.provisioned(name)
                cutting = site.controller.watch(Cutting(at, sent=sent))
                await site.delete(name)
                gone = asyncio.create_task(site.gone(name))
                cut = asyncio.create_task(cutting.cut.wait())
                await asyncio.wait({gone, cut}, return_when=asyncio.FIRST_COMPLETED)
                was_cut = cutting.cut.is_set()
                site.controller.watch(Cutting(-1, sent=False))
                if was_cut:
                    await site.controller.restart()
                cut.cancel()
                await gone
                if not was_cut:
                    break
        await site.empty()


PHASES = {
    "the request for the clone": ("request", "CloneVM_Task", "CloneVM_Task"),
    "the clone": ("task", "cloneVm", "CloneVM_Task"),
    "writing guestinfo": ("task", "reconfigVm", "ReconfigVM_Task"),
    "powering on": ("task", "powerOn", "PowerOnVM_Task"),
    "powering off": ("task", "powerOff", "PowerOffVM_Task"),
    "deleting": ("task", "destroy", "Destroy_Task"),
}


async def test_the_process_is_killed_while_vcenter_works(machine_cluster, sim, tmp_path):
    async with started(machine_cluster, sim, controller=False) as site:
        flags = ["--all", f"--watch-namespace={site.namespace}", "--log-level=info"]
        process = MachineController(tmp_path, machine_cluster.kubeconfig, *flags)
        await asyncio.to_thread(process.start)
        try:
            for index, (kind, held, method) in enumerate(PHASES.values()):
                name = f"m{index}"
                ending = held in ("powerOff", "destroy")
                if ending:
                    await site.machine(name)
                    await site.provisioned(name)
                sim.forget_stats()
                (sim.request if kind == "request" else sim.task)(held, hold=True, times=1)
                if ending:
                    await site.delete(name)
                else:
                    await site.machine(name)
                await calls(sim, method)
                process.kill()
                sim.release()
                await asyncio.to_thread(process.start)
                if not ending:
                    await site.provisioned(name)
                    await site.sound()
                    assert len([vm for vm in site.own_vms() if vm == name]) == 1
                    await site.delete(name)
                await site.gone(name)
            await site.empty()
            assert process.mistakes() == []
        finally:
            process.stop()


async def test_the_api_server_is_away_while_vcenter_clones(machine_cluster, sim):
    async with started(machine_cluster, sim) as site:
        sim.task("cloneVm", hold=True)
        await site.machine("m1")
        await calls(sim, "CloneVM_Task")
        machine_cluster.kill_apiserver()
        sim.release()
        await asyncio.sleep(1.0)
        machine_cluster.start_apiserver()
        await site.provisioned("m1")
        assert len(site.own_vms()) == 1


async def test_more_machines_than_clones_are_allowed_wait_their_turn(machine_cluster, sim):
    async with started(machine_cluster, sim, clones=2) as site:
        sim.task("cloneVm", hold=True)
        names = [f"m{i}" for i in range(5)]
        for name in names:
            await site.machine(name)

        async def waiting():
            found = [condition(await site.vsphere_machine(name)) or {} for name in names]
            return sum("as many clones" in row.get("message", "") for row in found)

        await eventually(waiting, lambda count: count == 3)
        assert sim.stats()["calls"]["CloneVM_Task"] >= 2
        assert len(site.own_vms()) == 0
        sim.release()
        await site.provisioned(*names)
