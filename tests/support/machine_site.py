"""A site without CAPV: a management cluster with allocator, integrator and machine controller, and a simulated vCenter.

Responsible for: the words that scenarios are told in (a cluster, machines; running, gone), the guests of VMs, and what
must hold whatever happened: `sound`.
Cluster API and kube-controller-manager's garbage collector are the stand-ins of `capv_cluster_api`; VMs are vcsim's.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import uuid
from contextlib import AsyncExitStack, asynccontextmanager

import yaml

from services.machine_controller import api, contract
from services.machine_controller import service as machine_controller
from services.machine_controller.guestinfo.encode import decoded
from services.machine_controller.settings import MachineSettings
from services.machine_controller.vsphere.values import ExtraConfig, Ref
from services.machine_controller.vsphere.vcenter import VCenters
from services.runtime.kube.resource import Resource
from tests.support.capv_cluster_api import ClusterApi, GarbageCollector
from tests.support.capv_parts import CLUSTER_NAME, CONTROL_PLANE, Versions
from tests.support.capv_services import InProcess, Mistakes
from tests.support.kube import eventually, manifest
from tests.support.service import ServiceProcess
from tests.support.tenant import Tenant
from tests.support.vcenter import PASSWORD, USER

SECRETS = Resource("", "v1", "secrets", "Secret", namespaced=True)
POOLS = "integrator.groundwork.dev/pools"
TEMPLATE = "DC0_C0_RP1_VM0"
NETWORK = "DC0_DVPG0"
STATIC = {"networkName": NETWORK}
ENDPOINT = "10.255.255.1"
_BOOT_SECONDS = 0.05
VERSIONS = Versions()


class MachineController(ServiceProcess):
    """`python -m services.machine_controller` against one cluster; `flags` are added to its command line."""

    module = "services.machine_controller"


def in_process(kubeconfig, namespaces, **settings):
    """The machine controller inside the test's event loop."""
    options = {"all": True, **settings}
    return InProcess(machine_controller, MachineSettings, kubeconfig, watch_namespace=tuple(namespaces), **options)


class Guests:
    """What runs in the VMs: each boots with its guestinfo and has VMware Tools report the addresses it was told."""

    def __init__(self, sim, *, every=_BOOT_SECONDS):
        self.sim = sim
        self._every = every
        self.silent = set()
        """Names of VMs whose guest says nothing."""
        self._booted = set()

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self):
        while True:
            await asyncio.to_thread(self._boot)
            await asyncio.sleep(self._every)

    def _boot(self):
        for vm in self.sim.runs():
            if vm["power"] != "poweredOn":
                self._booted.discard(vm["id"])
            elif vm["id"] not in self._booted and vm["name"] not in self.silent and vm["told"]:
                self._booted.add(vm["id"])
                with contextlib.suppress(AssertionError):  # the VM has gone meanwhile
                    told = metadata({"extraConfig": self.sim.told(vm["id"])})
                    self.sim.report(
                        vm["id"],
                        addresses=addresses(told),
                        host_name=told["local-hostname"],
                        tools="guestToolsRunning",
                    )


def metadata(vm):
    """Metadata of a VM of `Vcsim.vms`, decoded."""
    return yaml.safe_load(decoded("guestinfo.metadata", vm["extraConfig"]))


def addresses(told):
    """Addresses by MAC that metadata tells a guest to have; link-local ones come by themselves."""
    return {
        nic["match"]["macaddress"]: [text.partition("/")[0] for text in nic.get("addresses", ())] + ["fe80::1"]
        for nic in told["network"]["ethernets"].values()
    }


class Site:
    """See `start`."""

    def __init__(self, kube, kubeconfig, sim, tenant, settings):
        self.kube = kube
        self.kubeconfig = kubeconfig
        self.sim = sim
        self.tenant = tenant
        self.namespace = tenant.namespace
        self.guests = Guests(sim)
        self.mistakes = Mistakes()
        spaces = [tenant.namespace]
        self.cluster_api = ClusterApi(kube.client, spaces)
        self.gc = GarbageCollector(kube.client, spaces)
        self.allocator = InProcess.allocator(kubeconfig, spaces)
        self.integrator = InProcess.integrator(kubeconfig, spaces, orphan_grace_seconds=0)
        self.controller = in_process(kubeconfig, spaces, **settings)
        self._at_first = {}

    @classmethod
    @asynccontextmanager
    async def start(cls, kube, kubeconfig, sim, *, controller=True, **settings):
        """Everything running in a namespace of its own, for the body of the `with`; `settings` are the controller's."""
        site = cls(kube, kubeconfig, sim, await Tenant.create(kube), settings)
        site._at_first = sim.vms()
        async with AsyncExitStack() as stack:
            stack.enter_context(site.mistakes.watching())
            parts = [site.guests, site.cluster_api, site.gc, site.allocator, site.integrator]
            for part in [*parts, *([site.controller] if controller else [])]:
                await stack.enter_async_context(part.running())
            yield site
        assert site.mistakes.records == []
        assert site.cluster_api.mistakes == []

    # What users write

    async def identity(self, name="vcenter", username=USER, password=PASSWORD):
        """The Secret with vCenter's credentials, made or changed."""
        texts = {"username": username, "password": password, "ca.crt": self.sim.ca.decode()}
        data = {key: base64.b64encode(value.encode()).decode() for key, value in texts.items()}
        if await self.kube.find(SECRETS, name, self.namespace) is not None:
            return await self.kube.patch(SECRETS, name, self.namespace, data=data)
        obj = {**manifest(SECRETS, name, self.namespace), "data": data}
        return await self.kube.create(SECRETS, obj)

    async def cluster(self, name="prod", *, endpoint=ENDPOINT, identity="vcenter", annotations=None, **spec):
        """A Cluster and its VSphereCluster; `endpoint` None leaves that to the integrator."""
        v = VERSIONS
        ref = {"apiGroup": v.vsphere_clusters.group, "kind": "VSphereCluster", "name": name}
        network = {"services": {"cidrBlocks": ["10.96.0.0/12"]}, "pods": {"cidrBlocks": ["192.168.0.0/16"]}}
        capi = {"infrastructureRef": ref, "clusterNetwork": network}
        await self.kube.create(v.clusters, manifest(v.clusters, name, self.namespace, capi))
        fields = {"server": str(self.sim.server), "identityRef": {"kind": "Secret", "name": identity}, **spec}
        if endpoint is not None:
            fields["controlPlaneEndpoint"] = {"host": endpoint, "port": 6443}
        fields = {key: value for key, value in fields.items() if value is not None}
        obj = manifest(v.vsphere_clusters, name, self.namespace, fields, annotations=annotations or {})
        return await self.kube.create(v.vsphere_clusters, obj)

    async def machine(
        self,
        name,
        *devices,
        cluster="prod",
        pools="nodes",
        control_plane=False,
        bootstrap=True,
        failure_domain=None,
        annotations=None,
        **spec,
    ):
        """What KubeadmControlPlane or a MachineSet makes: a VSphereMachine, its Machine, and bootstrap data."""
        v = VERSIONS
        labels = {CLUSTER_NAME: cluster} | ({CONTROL_PLANE: ""} if control_plane else {})
        fields = {"template": TEMPLATE, "network": {"devices": [dict(d) for d in devices or (STATIC,)]}, **spec}
        own = {**({POOLS: pools} if pools else {}), **(annotations or {})}
        obj = manifest(v.vsphere_machines, name, self.namespace, fields, labels=labels, annotations=own)
        made = await self.kube.create(v.vsphere_machines, obj)
        ref = {"apiGroup": v.vsphere_machines.group, "kind": "VSphereMachine", "name": name}
        machine = {"clusterName": cluster, "infrastructureRef": ref, "bootstrap": {"dataSecretName": f"{name}-boot"}}
        if failure_domain:
            machine["failureDomain"] = failure_domain
        await self.kube.create(v.machines, manifest(v.machines, name, self.namespace, machine, labels=labels))
        if bootstrap:
            await self.bootstrap(name)
        return made

    async def bootstrap(self, name, content=None):
        """The bootstrap provider's Secret."""
        text = content or f"## template: jinja\n#cloud-config\nruncmd: [kubeadm join {name}]\n"
        data = {"value": base64.b64encode(text.encode()).decode()}
        obj = {**manifest(SECRETS, f"{name}-boot", self.namespace), "type": "cluster.x-k8s.io/secret", "data": data}
        return await self.kube.create(SECRETS, obj)

    async def delete(self, *names):
        """Delete Machines; Cluster API and the controller do the rest."""
        for name in names:
            await self.kube.delete(VERSIONS.machines, name, self.namespace)

    # What they see

    async def vsphere_machine(self, name):
        return await self.kube.get(api.VSPHERE_MACHINES, name, self.namespace)

    async def provisioned(self, *names):
        """Wait until machines are ready; return their VSphereMachines, of one machine or a list of all's.

        A simulated vCenter goes on with the long poll of a session that has expired: what it would have told is heard
        when the poll is over, up to a minute later.
        """
        found = [
            await eventually(
                lambda name=name: self.vsphere_machine(name),
                lambda obj: (
                    obj.get("status", {}).get("initialization", {}).get("provisioned")
                    and condition(obj, "Ready")["status"] == "True"
                ),
                within=180,
            )
            for name in names
        ]
        return found[0] if len(names) == 1 else found

    async def says(self, name, reason, *texts, type_="VirtualMachineProvisioned", status="False"):
        """Wait until a VSphereMachine's condition has a reason, with texts in its message."""

        def right(obj):
            row = condition(obj, type_)
            return (
                row is not None
                and (row["status"], row["reason"]) == (status, reason)
                and all(text in row["message"] for text in texts)
            )

        return await eventually(lambda: self.vsphere_machine(name), right)

    async def gone(self, *names):
        """Wait until nothing is left of Machines."""
        for name in names:
            await self.kube.gone(VERSIONS.machines, name, self.namespace)
            assert await self.kube.find(api.VSPHERE_MACHINES, name, self.namespace) is None

    async def set_keys(self, name, **keys):
        """Set keys of a VM's extra configuration as its guest would; underscores stand for dots."""
        async with VCenters() as vcenters:
            vc = vcenters.get(self.sim.server, "guest", self.sim.credentials, self.sim.trust)
            found = {key.replace("_", "."): value for key, value in keys.items()}
            task = await vc.vms.reconfigure(Ref("VirtualMachine", self.vm(name)["id"]), ExtraConfig(found))
            assert (await vc.watch.finished(task)).error is None

    async def claims(self):
        """IPAddressClaims by name."""
        found = await self.kube.list(contract.IP_ADDRESS_CLAIMS[0], self.namespace)
        return {obj["metadata"]["name"]: obj for obj in found}

    def own_vms(self):
        """VMs that were not there at first, by name; two of one name would hide each other, so they are counted too."""
        found = {name: vm for name, vm in self.sim.vms().items() if name not in self._at_first}
        ids = [vm["id"] for vm in self.sim._ask("GET", "/vms")]
        assert len(ids) == len(found) + len(self._at_first), "two VMs of one name"
        return found

    def vm(self, name):
        return self.own_vms()[name]

    async def empty(self):
        """Wait until vCenter is as it was at first and every address is back."""

        async def look():
            return {"vms": sorted(self.own_vms()), "claims": sorted(await self.claims())}

        await eventually(look, lambda seen: seen == {"vms": [], "claims": []})
        await self.tenant.nothing_held()

    async def sound(self):
        """Hold that every VM is a machine's, each machine has one at most, and each has its own addresses."""
        machines = {m["metadata"]["name"]: m for m in await self.kube.list(api.VSPHERE_MACHINES, self.namespace)}
        vms = self.own_vms()
        assert set(vms) <= set(machines)
        uuids = {m["metadata"]["uid"] for m in machines.values()}
        assert {vm["instanceUuid"] for vm in vms.values()} <= uuids
        held = [address for vm in vms.values() for addresses_ in vm["addresses"].values() for address in addresses_]
        shared = [address for address in held if not address.startswith("fe80")]
        assert len(shared) == len(set(shared))


def condition(obj, type_="VirtualMachineProvisioned"):
    """A condition of an object, or None."""
    rows = (obj or {}).get("status", {}).get("conditions", [])
    return next((row for row in rows if row["type"] == type_), None)


def unique(prefix="m"):
    """A name that no other machine has."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"
