"""Machines of a cluster without CAPV, from VSphereMachine to VM and back, with allocator and integrator running."""

from __future__ import annotations

import asyncio
import base64

import pytest

from services.machine_controller import api, contract
from services.machine_controller.guestinfo.encode import decoded
from services.runtime.kube.resource import Resource
from tests.support.kube import eventually, manifest
from tests.support.machine_site import NETWORK, SECRETS, STATIC, TEMPLATE, VERSIONS, condition, metadata

CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", namespaced=True)
OWN = "integrator.groundwork.dev"
TWO_NICS = (
    {"networkName": NETWORK, "macAddr": "00:50:56:00:00:01"},
    {"networkName": NETWORK, "macAddr": "00:50:56:00:00:02", "dhcp4": True},
)


async def test_a_cluster_is_made_scaled_and_deleted_and_leaves_nothing(start_site, sim):
    site = await start_site()
    before = sim.vms()
    await site.identity()
    await site.tenant.pool(
        "vips",
        "10.0.0.5-10.0.0.5",
        metadata={"labels": {f"{OWN}/use": "endpoints", f"{OWN}/cluster": "prod"}},
    )
    await site.tenant.pool("nodes", "10.0.0.10-10.0.0.49", gateway="10.0.0.1", dnsServers=["10.0.0.2"])
    await site.cluster(endpoint=None)
    control_planes = [f"cp-{i}" for i in range(3)]
    workers = [f"worker-{i}" for i in range(5)]
    for name in (*control_planes, *workers):
        await site.machine(name, control_plane=name in control_planes)
    ready = await site.provisioned(*control_planes, *workers)
    await site.sound()

    vms = site.own_vms()
    assert sorted(vms) == sorted([*control_planes, *workers])
    for machine in ready:
        name = machine["metadata"]["name"]
        (device,) = machine["spec"]["network"]["devices"]
        (assigned,) = device["ipAddrs"]
        vm = vms[name]
        assert vm["power"] == "poweredOn"
        assert vm["instanceUuid"] == machine["metadata"]["uid"]
        assert machine["spec"]["providerID"] == f"vsphere://{vm['uuid']}"
        assert machine["status"]["addresses"] == [
            {"type": "ExternalIP", "address": assigned.partition("/")[0]},
            {"type": "InternalDNS", "address": name},
        ]
        told = metadata(vm)
        assert (told["hostname"], told["instance-id"]) == (name, name)
        nic = told["network"]["ethernets"]["id0"]
        assert (nic["addresses"], nic["nameservers"]) == ([assigned], {"addresses": ["10.0.0.2"]})
        assert nic["match"]["macaddress"] == vm["nics"][0]["mac"]
        assert f"kubeadm join {name}" in decoded("guestinfo.userdata", vm["extraConfig"]).decode()
    cluster = await site.kube.get(api.VSPHERE_CLUSTERS, "prod", site.namespace)
    assert cluster["spec"]["controlPlaneEndpoint"] == {"host": "10.0.0.5", "port": 6443}
    assert cluster["status"]["initialization"]["provisioned"] is True
    assert cluster["status"]["vCenterVersion"]

    more = [f"worker-{i}" for i in range(5, 8)]
    for name in more:
        await site.machine(name)
    await site.delete("worker-0", "cp-0")
    await site.provisioned(*more)
    await site.gone("worker-0", "cp-0")
    assert len(site.own_vms()) == 9
    await site.sound()

    await site.kube.delete(VERSIONS.clusters, "prod", site.namespace)
    await site.kube.gone(VERSIONS.clusters, "prod", site.namespace)
    await site.kube.gone(api.VSPHERE_CLUSTERS, "prod", site.namespace)
    await site.empty()
    assert sim.vms() == before


async def test_a_machine_says_what_it_waits_for_in_the_order_of_capv(start_site):
    site = await start_site()
    await site.identity()
    await site.machine("m1", pools="nodes", bootstrap=False)
    await site.says("m1", "NotProvisioned", "its Machine is not there, or not its owner yet")
    await site.cluster(endpoint=None)
    await site.says("m1", "WaitingForClusterInfrastructureReady")
    await site.kube.patch(
        api.VSPHERE_CLUSTERS, "prod", site.namespace, spec={"controlPlaneEndpoint": {"host": "10.0.0.9", "port": 6443}}
    )
    await site.says("m1", "WaitingForStaticIPAllocation", "devices without an address: 0")
    await site.tenant.pool("nodes", "10.0.0.10-10.0.0.20", gateway="10.0.0.1")
    await site.says("m1", "WaitingForBootstrapData", "m1-boot")
    assert site.own_vms() == {}
    await site.bootstrap("m1")
    await site.provisioned("m1")
    await site.delete("m1")
    await site.gone("m1")
    await site.empty()


async def test_a_machine_without_bootstrap_data_waits_for_its_name(site):
    await site.machine("m1", bootstrap=False)
    machine = {"bootstrap": {"dataSecretName": None, "configRef": {"apiGroup": "b", "kind": "K", "name": "n"}}}
    await site.kube.patch(VERSIONS.machines, "m1", site.namespace, spec=machine)
    await site.says("m1", "WaitingForBootstrapData", "names no Secret")
    await site.bootstrap("m1")
    await site.kube.patch(VERSIONS.machines, "m1", site.namespace, spec={"bootstrap": {"dataSecretName": "m1-boot"}})
    await site.provisioned("m1")
    await site.delete("m1")
    await site.gone("m1")


async def test_addresses_from_pools_are_claimed_before_the_clone_and_kept_until_the_vm_is_gone(site, sim):
    pool = {"apiGroup": "ipam.metal3.io", "kind": "IPPool", "name": "nodes"}
    await site.machine("m1", {"networkName": NETWORK, "addressesFromPools": [pool]}, pools=None)
    machine = await site.provisioned("m1")
    claims = await site.claims()
    claim = claims["m1-0-0"]
    assert list(claims) == ["m1-0-0"]
    assert claim["metadata"]["ownerReferences"][0]["uid"] == machine["metadata"]["uid"]
    assert "ipAddrs" not in machine["spec"]["network"]["devices"][0]  # addresses are in metadata alone
    told = metadata(site.vm("m1"))["network"]["ethernets"]["id0"]
    assert told["addresses"] == ["10.0.0.10/24"]
    assert told["routes"] == [{"to": "0.0.0.0/0", "via": "10.0.0.1"}]
    assert condition(machine, "IPAddressClaimsFulfilled")["status"] == "True"

    sim.task("destroy", hold=True)
    await site.delete("m1")
    await site.says("m1", "Deleting", "destroy")
    assert "deletionTimestamp" not in (await site.claims())["m1-0-0"]["metadata"]
    # Somebody who deletes the claim does not get the address while the VM has it.
    await site.kube.delete(contract.IP_ADDRESS_CLAIMS[0], "m1-0-0", site.namespace)
    assert (await site.claims())["m1-0-0"]["metadata"]["finalizers"]
    sim.release()
    await site.gone("m1")
    await site.empty()


async def test_a_claim_that_gets_nothing_holds_the_clone_back_and_says_why(site):
    pool = {"apiGroup": "ipam.metal3.io", "kind": "IPPool", "name": "none"}
    await site.machine("m1", {"networkName": NETWORK, "addressesFromPools": [pool]}, pools=None)
    await site.says("m1", "WaitingForIPAddress", "m1-0-0", "none")
    assert site.own_vms() == {}
    await site.delete("m1")
    await site.gone("m1")
    await site.empty()


async def test_a_machine_does_not_take_the_address_that_its_namesake_is_giving_back(site):
    pool = {"apiGroup": "ipam.metal3.io", "kind": "IPPool", "name": "nodes"}
    device = {"networkName": NETWORK, "addressesFromPools": [pool]}
    await site.machine("m1", device, pools=None)
    await site.provisioned("m1")
    # Another who looks at the claim keeps it for a while, as a provider that is slow to release does.
    claims, slow = contract.IP_ADDRESS_CLAIMS[0], "example.com/slow"
    finalizers = (await site.claims())["m1-0-0"]["metadata"]["finalizers"]
    await site.kube.patch(claims, "m1-0-0", site.namespace, metadata={"finalizers": [*finalizers, slow]})
    await site.delete("m1")
    await site.gone("m1")
    old = (await site.claims())["m1-0-0"]
    assert old["status"]["addressRef"]["name"]

    await site.kube.delete(SECRETS, "m1-boot", site.namespace)
    await site.machine("m1", device, pools=None)
    await site.says("m1", "WaitingForIPAddress", "m1-0-0", "being deleted")
    assert site.own_vms() == {}
    old = (await site.claims())["m1-0-0"]
    left = [name for name in old["metadata"]["finalizers"] if name != slow]
    await site.kube.patch(claims, "m1-0-0", site.namespace, metadata={"finalizers": left})
    await site.provisioned("m1")
    new = (await site.claims())["m1-0-0"]
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    await site.delete("m1")
    await site.gone("m1")
    await site.empty()


async def test_ready_means_the_assigned_address_not_any(site, sim):
    site.guests.silent.add("m1")
    await site.machine("m1")
    obj = await site.says("m1", "WaitingForIPAllocation", "10.0.0.10")
    vm = site.vm("m1")
    assert vm["power"] == "poweredOn"
    sim.report(vm["id"], addresses={vm["nics"][0]["mac"]: ["192.0.2.99"]}, tools="guestToolsRunning")
    seen = await eventually(lambda: site.vsphere_machine("m1"), lambda o: o["status"].get("addresses"))
    assert condition(seen)["reason"] == "WaitingForIPAllocation"
    assert "initialization" not in obj["status"]
    sim.report(vm["id"], addresses={vm["nics"][0]["mac"]: ["192.0.2.99", "10.0.0.10"]})
    ready = await site.provisioned("m1")
    assert [a["address"] for a in ready["status"]["addresses"]] == ["10.0.0.10", "192.0.2.99", "m1"]
    await site.delete("m1")
    await site.gone("m1")


async def test_a_machine_with_a_static_and_a_dhcp_device_waits_for_both(site, sim):
    site.guests.silent.add("m1")
    await site.machine("m1", *TWO_NICS)
    await site.says("m1", "WaitingForIPAllocation")
    first, second = ("00:50:56:00:00:01", "00:50:56:00:00:02")
    pods = {"be:ef:00:00:00:01": ["10.244.0.1"]}  # a bridge that the guest alone has
    sim.report("m1", addresses={first: ["10.0.0.10"], **pods}, tools="guestToolsRunning")
    await site.says("m1", "WaitingForIPAllocation", "addresses on 2 devices, but on 1")
    sim.report("m1", addresses={second: ["198.51.100.7"]})
    status = (await site.provisioned("m1"))["status"]
    assert [row["address"] for row in status["addresses"]] == ["10.0.0.10", "198.51.100.7", "m1"]
    assert [row["macAddr"] for row in status["network"]] == [first, second]
    await site.delete("m1")
    await site.gone("m1")


@pytest.mark.parametrize(
    ("do", "reason", "text"),
    [("powerOff", "PoweredOff", "poweredOff"), ("destroy", "NotFoundByBIOSUUID", "not made again")],
)
async def test_what_others_do_to_a_vm_is_told_and_not_undone(site, sim, do, reason, text):
    await site.machine("m1")
    machine = await site.provisioned("m1")
    if do == "destroy":
        sim.change("m1", "powerOff")
    sim.change("m1", do)
    seen = await site.says("m1", reason, text)
    assert condition(seen, "Ready")["status"] == "False"
    assert seen["status"]["initialization"]["provisioned"] is True
    events = await eventually(lambda: site.kube.events(machine), lambda es: any(e["reason"] == reason for e in es))
    assert [e["type"] for e in events if e["reason"] == reason] == ["Warning"]
    assert [vm["power"] for vm in site.own_vms().values()] == ([] if do == "destroy" else ["poweredOff"])
    await site.delete("m1")
    await site.gone("m1")
    await site.empty()


async def test_a_vm_that_is_powered_on_again_is_ready_again(site, sim):
    await site.machine("m1")
    await site.provisioned("m1")
    sim.change("m1", "powerOff")
    await site.says("m1", "PoweredOff")
    sim.change("m1", "powerOn")
    await site.provisioned("m1")
    await site.delete("m1")
    await site.gone("m1")


async def test_a_vm_that_was_renamed_is_told_and_still_found(site, sim):
    await site.machine("m1")
    await site.provisioned("m1")
    sim.change("m1", "rename", name="other")
    seen = await site.says("m1", "Changed", "called other", type_="machine.groundwork.dev/AsPlaced")
    assert condition(seen, "Ready")["status"] == "True"
    sim.change("other", "rename", name="m1")
    await site.says("m1", "AsMade", type_="machine.groundwork.dev/AsPlaced", status="True")
    sim.change("m1", "rename", name="other")
    await site.delete("m1")
    await site.gone("m1")
    await site.empty()


async def test_a_foreign_vm_of_the_same_name_is_left_alone_and_the_machine_waits(site, sim):
    await site.machine("m0")
    await site.provisioned("m0")
    sim.change("m0", "rename", name="m1")
    foreign = site.vm("m1")
    await site.machine("m1")
    await site.says("m1", "DuplicateName", "m1", "rename or remove it")
    assert site.own_vms() == {"m1": foreign}
    sim.change(foreign["id"], "rename", name="m0")
    await site.provisioned("m1")
    await site.delete("m0", "m1")
    await site.gone("m0", "m1")
    await site.empty()


async def test_a_paused_cluster_is_left_alone(site):
    await site.kube.patch(VERSIONS.clusters, "prod", site.namespace, spec={"paused": True})
    await site.kube.patch(
        api.VSPHERE_CLUSTERS, "prod", site.namespace, metadata={"annotations": {"cluster.x-k8s.io/paused": ""}}
    )
    await eventually(
        lambda: site.kube.get(api.VSPHERE_CLUSTERS, "prod", site.namespace),
        lambda obj: (condition(obj, "Paused") or {}).get("status") == "True",
    )
    await site.machine("m1")
    assert site.own_vms() == {}
    await site.kube.patch(
        api.VSPHERE_CLUSTERS, "prod", site.namespace, metadata={"annotations": {"cluster.x-k8s.io/paused": None}}
    )
    await site.kube.patch(VERSIONS.clusters, "prod", site.namespace, spec={"paused": False})
    await site.provisioned("m1")
    await site.kube.patch(VERSIONS.clusters, "prod", site.namespace, spec={"paused": True})
    paused = await eventually(
        lambda: site.vsphere_machine("m1"), lambda obj: (condition(obj, "Paused") or {}).get("status") == "True"
    )
    await site.kube.delete(api.VSPHERE_MACHINES, "m1", site.namespace)
    assert site.vm("m1")["power"] == "poweredOn"
    assert paused["metadata"]["finalizers"]
    await site.kube.patch(VERSIONS.clusters, "prod", site.namespace, spec={"paused": False})
    await site.kube.gone(api.VSPHERE_MACHINES, "m1", site.namespace)
    await eventually(lambda: asyncio.to_thread(site.own_vms), lambda vms: vms == {})
    await site.delete("m1")


async def test_only_what_carries_the_label_is_taken_unless_told_otherwise(start_site):
    site = await start_site(all=False)
    await site.identity()
    await site.tenant.pool("nodes", "10.0.0.10-10.0.0.49", gateway="10.0.0.1")
    await site.cluster()
    await site.kube.patch(
        VERSIONS.clusters, "prod", site.namespace, spec={"controlPlaneEndpoint": {"host": "10.0.0.9", "port": 6443}}
    )
    await site.kube.patch(
        api.VSPHERE_CLUSTERS, "prod", site.namespace, metadata={"labels": {api.MANAGED_LABEL: "true"}}
    )
    await site.machine("m1")
    await site.provisioned("m1")
    await site.kube.patch(api.VSPHERE_CLUSTERS, "prod", site.namespace, metadata={"labels": {api.MANAGED_LABEL: None}})
    await site.machine("m2")
    await site.machine("m3")
    await site.kube.patch(api.VSPHERE_MACHINES, "m3", site.namespace, metadata={"labels": {api.MANAGED_LABEL: "true"}})
    await site.provisioned("m3")
    untouched = await site.vsphere_machine("m2")
    assert untouched["metadata"].get("finalizers") is None
    assert "m2" not in site.own_vms()
    await site.kube.patch(
        api.VSPHERE_CLUSTERS, "prod", site.namespace, metadata={"labels": {api.MANAGED_LABEL: "true"}}
    )
    await site.delete("m1", "m2", "m3")
    await site.gone("m1", "m2", "m3")
    await site.empty()


async def test_a_host_gets_proxy_settings_with_everything_that_must_be_reached_directly(site):
    values = {"httpProxy": "http://proxy.example:3128", "noProxy": "intranet.example"}
    await site.kube.create(CONFIG_MAPS, {**manifest(CONFIG_MAPS, "proxy", site.namespace), "data": values})
    annotations = {api.PROXY_CONFIG_MAP_ANNOTATION: "proxy"}
    await site.kube.patch(api.VSPHERE_CLUSTERS, "prod", site.namespace, metadata={"annotations": annotations})
    await site.machine("m1")
    await site.provisioned("m1")
    vendor = decoded("guestinfo.vendordata", site.vm("m1")["extraConfig"]).decode()
    for entry in ("10.96.0.0/12", "192.168.0.0/16", "10.255.255.1", "10.0.0.0/24", "127.0.0.1", "intranet.example"):
        assert entry in vendor
    assert "http://proxy.example:3128" in vendor
    assert "kubeadm join m1" in decoded("guestinfo.userdata", site.vm("m1")["extraConfig"]).decode()
    await site.delete("m1")
    await site.gone("m1")


async def test_control_planes_alone_get_kube_vip(site):
    annotations = {api.KUBE_VIP_IMAGE_ANNOTATION: "ghcr.io/kube-vip/kube-vip:v0.8.9"}
    await site.kube.patch(api.VSPHERE_CLUSTERS, "prod", site.namespace, metadata={"annotations": annotations})
    await site.machine("cp-0", control_plane=True)
    await site.machine("worker-0")
    await site.provisioned("cp-0", "worker-0")
    vms = site.own_vms()
    assert "ghcr.io/kube-vip/kube-vip:v0.8.9" in decoded("guestinfo.vendordata", vms["cp-0"]["extraConfig"]).decode()
    assert "guestinfo.vendordata" not in vms["worker-0"]["extraConfig"]
    await site.delete("cp-0", "worker-0")
    await site.gone("cp-0", "worker-0")


async def test_a_mistake_in_the_spec_is_told_before_there_is_a_vm(site):
    device = {"networkName": NETWORK, "ipAddrs": ["10.0.0.200/24"], "gateway4": "10.0.0.1", "mtu": 20}
    await site.machine("m1", device, pools=None)
    await site.says("m1", "InvalidConfiguration", "mtu")
    assert site.own_vms() == {}
    await site.delete("m1")
    await site.gone("m1")


async def test_hardware_is_as_the_spec_says(site):
    await site.machine("m1", numCPUs=4, memoryMiB=4096, diskGiB=20, cloneMode="fullClone")
    await site.provisioned("m1")
    vm = site.vm("m1")
    assert (vm["cpus"], vm["memoryMiB"], vm["disksGiB"]) == (4, 4096, [20])
    await site.delete("m1")
    await site.gone("m1")


async def test_a_size_for_a_disk_that_the_template_has_not_is_refused(site):
    await site.machine("m1", additionalDisksGiB=[3])
    await site.says("m1", "TaskFailed", "additionalDisksGiB: 1 given, at most 0 expected", TEMPLATE)
    assert site.own_vms() == {}
    await site.delete("m1")
    await site.gone("m1")


async def test_a_guest_is_asked_to_shut_down_where_the_spec_says_so(site, sim):
    await site.machine("m1", powerOffMode="trySoft", guestSoftPowerOffTimeoutSeconds=300)
    await site.provisioned("m1")
    sim.forget_stats()
    await site.delete("m1")
    await site.gone("m1")
    calls = sim.stats()["calls"]
    assert calls["ShutdownGuest"] == 1
    assert "PowerOffVM_Task" not in calls
    await site.empty()


async def test_credentials_are_not_needed_to_delete_what_never_had_a_vm(start_site):
    site = await start_site()
    await site.cluster(identity="nowhere")
    await site.machine("m1", pools=None)
    seen = await eventually(
        lambda: site.kube.get(api.VSPHERE_CLUSTERS, "prod", site.namespace),
        lambda obj: (condition(obj, "VCenterAvailable") or {}).get("status") == "False",
    )
    assert f"no Secret {site.namespace}/nowhere" in condition(seen, "VCenterAvailable")["message"]
    await site.delete("m1")
    await site.gone("m1")


async def test_a_vm_that_capv_has_made_is_taken_over_by_its_provider_id(site, sim):
    await site.machine("m1")
    made = await site.provisioned("m1")
    annotation = {"machine.groundwork.dev/vm": None}
    await site.controller.stop()
    await site.kube.patch(api.VSPHERE_MACHINES, "m1", site.namespace, metadata={"annotations": annotation})
    await site.controller.start()
    await eventually(
        lambda: site.vsphere_machine("m1"), lambda obj: "machine.groundwork.dev/vm" in obj["metadata"]["annotations"]
    )
    assert (await site.provisioned("m1"))["spec"]["providerID"] == made["spec"]["providerID"]
    assert len(site.own_vms()) == 1
    await site.delete("m1")
    await site.gone("m1")
    await site.empty()


async def test_a_machine_that_was_moved_to_another_management_cluster_keeps_its_vm(site, sim):
    await site.machine("m1")
    made = await site.provisioned("m1")
    vm = site.vm("m1")
    # What clusterctl move does: everything is paused, made anew with another uid and without status, and deleted here.
    await site.kube.patch(VERSIONS.clusters, "prod", site.namespace, spec={"paused": True})
    await eventually(
        lambda: site.vsphere_machine("m1"), lambda obj: (condition(obj, "Paused") or {}).get("status") == "True"
    )
    await site.controller.stop()
    await site.integrator.stop()
    await site.kube.force_delete(api.VSPHERE_MACHINES, "m1", site.namespace)
    kept = ("name", "namespace", "labels", "annotations", "ownerReferences", "finalizers")
    moved = {**made, "metadata": {key: made["metadata"][key] for key in kept}}
    del moved["status"]
    again = await site.kube.create(api.VSPHERE_MACHINES, moved)
    assert again["metadata"]["uid"] != made["metadata"]["uid"]
    await site.integrator.start()
    await site.controller.start()
    await site.kube.patch(VERSIONS.clusters, "prod", site.namespace, spec={"paused": False})
    await site.provisioned("m1")
    assert site.own_vms() == {"m1": vm}
    await site.delete("m1")
    await site.gone("m1")
    await site.empty()


async def test_a_copied_manifest_does_not_take_the_vm_of_its_original(site):
    await site.machine("m1")
    made = await site.provisioned("m1")
    copied = {key: made[key] for key in ("apiVersion", "kind", "spec")}
    annotations = {k: v for k, v in made["metadata"]["annotations"].items() if k.startswith("machine.")}
    copied["metadata"] = {"name": "copy", "namespace": site.namespace, "annotations": annotations}
    copied["metadata"]["labels"] = made["metadata"]["labels"]
    await site.kube.create(api.VSPHERE_MACHINES, copied)
    ref = {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "VSphereMachine", "name": "copy"}
    machine = {"clusterName": "prod", "infrastructureRef": ref, "bootstrap": {"dataSecretName": "m1-boot"}}
    await site.kube.create(VERSIONS.machines, manifest(VERSIONS.machines, "copy", site.namespace, machine))
    await site.says("copy", "NotOurs", "VSphereMachine", "m1")
    await site.delete("copy")
    await site.gone("copy")
    assert site.vm("m1")["power"] == "poweredOn"
    await site.delete("m1")
    await site.gone("m1")


async def test_a_vm_goes_with_its_machine_even_if_somebody_has_spoiled_what_was_noted_of_it(site, sim):
    """Before it has a provider id: from then on that tells which VM it is."""
    sim.fault("PowerOnVM_Task", "InvalidState", message="not now")
    await site.machine("m1")
    await site.says("m1", "TaskFailed")
    assert site.own_vms()
    await site.controller.stop()
    await site.kube.patch(
        api.VSPHERE_MACHINES, "m1", site.namespace, metadata={"annotations": {"machine.groundwork.dev/vm": "{"}}
    )
    await site.delete("m1")
    await site.controller.start()
    await site.gone("m1")
    await site.empty()


async def test_no_secret_of_a_machine_is_in_what_the_service_says(site, caplog):
    canary = base64.b64encode(b"#cloud-config\ntoken: canary-token\n").decode()
    await site.machine("m1", bootstrap=False)
    await site.bootstrap("m1", "#cloud-config\nruncmd: [kubeadm join --token canary-token]\n")
    machine = await site.provisioned("m1")
    said = caplog.text + str(machine["status"]) + str(machine["metadata"]["annotations"])
    for word in ("canary-token", "canary-Passw0rd", canary):
        assert word not in said
    await site.delete("m1")
    await site.gone("m1")


def test_the_template_and_network_of_the_site_are_what_its_words_say(sim):
    assert sim.vm(TEMPLATE)["nics"][0]["network"] == STATIC["networkName"]
