"""A management cluster with everything in it: allocator, integrator, and the stand-ins for CAPV and Cluster API.

Responsible for: the words that scenarios are told in (a cluster, a template, a machine; addressed, gone, settled), and
remembering what users wrote.
Invariant: `sound` holds at the end of each scenario, whatever happened before.
"""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from services.runtime.kube.resource import Resource
from tests.support import capv_outside, outside
from tests.support.capv import Capv, VCenter
from tests.support.capv_cluster_api import ClusterApi, GarbageCollector
from tests.support.capv_parts import CLUSTER_NAME, CONTROL_PLANE, IPAM, METAL3_CLAIMS, Versions
from tests.support.capv_services import InProcess, Mistakes
from tests.support.kube import NAMESPACES, eventually, manifest
from tests.support.tenant import Tenant

POOLS = "integrator.groundwork.dev/pools"
CLAIMS = "integrator.groundwork.dev/claims"
NETWORK = "integrator.groundwork.dev/network"
USE = "integrator.groundwork.dev/use"
CLONED_FROM = "cluster.x-k8s.io/cloned-from-name"
CLONED_FROM_KIND = "cluster.x-k8s.io/cloned-from-groupkind"
STATIC = {"networkName": "VM Network"}
SECRETS = Resource("", "v1", "secrets", "Secret", namespaced=True)
ENDPOINT = "10.255.255.1"
BARRIER = "barrier-"


class Options(NamedTuple):
    """What a world consists of."""

    namespaces: int = 1
    gc: bool = False
    """Whether a garbage collector runs."""
    versions: Versions = Versions()
    integrators: int = 1
    stand_ins: bool = True
    """Whether CAPV, Cluster API and the garbage collector run from the start."""
    integrator: dict = {}  # noqa: RUF012 - never changed
    """Settings of the integrator."""
    names: tuple = ()
    """Of the namespaces; made up otherwise."""
    vcenter: VCenter | None = None
    """Of another world, which shares it."""


class World:
    """Users' view of the management cluster; see `start`."""

    def __init__(self, kube, kubeconfig, tenants, options):
        self.kube = kube
        self.kubeconfig = kubeconfig
        self.versions = options.versions
        self.tenants = tenants
        self._stack = AsyncExitStack()
        self._with_gc = options.gc
        self.namespaces = [tenant.namespace for tenant in tenants]
        self.failure_domains = {}
        self.vcenter = options.vcenter or VCenter()
        self.written = {}
        self.mistakes = Mistakes()
        self.stand_ins = []
        self.allocator = InProcess.allocator(kubeconfig, self.namespaces, orphan_grace_seconds=0)
        self.integrators = [self.other_integrator(**options.integrator) for _ in range(options.integrators)]

    @classmethod
    @asynccontextmanager
    async def start(cls, kube, kubeconfig, **options):
        """Everything running in namespaces of its own, for the body of the `with`; see `Options`."""
        chosen = Options(**options)
        capi = chosen.versions.ipam or "v1beta2"
        tenants = []
        for name in chosen.names or [f"test-{uuid.uuid4().hex[:10]}" for _ in range(chosen.namespaces)]:
            await kube.create(NAMESPACES, manifest(NAMESPACES, name))
            domain = tenants[0].domain if tenants else name
            tenants.append(Tenant(kube, name, domain, capi=capi))
        world = cls(kube, kubeconfig, tenants, chosen)
        with world.mistakes.watching():
            async with world._stack as stack:
                if chosen.stand_ins:
                    await world.start_stand_ins()
                for service in (world.allocator, *world.integrators):
                    await stack.enter_async_context(service.running())
                yield world
        assert world.mistakes.records == []
        assert [part.mistakes for part in world.stand_ins if part.mistakes] == []

    async def start_stand_ins(self, versions=None):
        """Start CAPV and Cluster API; others of another version replace those that run."""
        self.versions = versions or self.versions
        for part in self.stand_ins:
            part.stop()
        client, spaces, versions = self.kube.client, self.namespaces, self.versions
        self.stand_ins = [
            Capv(client, self.vcenter, spaces, versions=versions, failure_domains=self.failure_domains),
            ClusterApi(client, spaces, versions=versions),
            *([GarbageCollector(client, spaces, versions=versions)] if self._with_gc else []),
        ]
        for part in self.stand_ins:
            await self._stack.enter_async_context(part.running())

    def other_integrator(self, **settings):
        """One more integrator, not started."""
        settings = {"orphan_grace_seconds": 0, **settings}
        return InProcess.integrator(self.kubeconfig, self.namespaces, **settings)

    @property
    def integrator(self):
        return self.integrators[0]

    @property
    def tenant(self):
        return self.tenants[0]

    @property
    def namespace(self):
        return self.namespaces[0]

    # What users write

    async def pool(self, name, *blocks, labels=None, annotations=None, **details):
        """An IPPool with a gateway for its first network, unless told otherwise."""
        metadata = {"labels": labels or {}, "annotations": annotations or {}}
        return await self.tenant.pool(name, *blocks, metadata=metadata, **details)

    async def cluster(self, name="prod", *, endpoint=ENDPOINT, paused=False, infra=True, namespace=None, **metadata):
        """A Cluster and its VSphereCluster; `endpoint` None leaves that to the integrator."""
        v, namespace = self.versions, namespace or self.namespace
        spec = {"paused": paused, "infrastructureRef": self._ref(v.vsphere_clusters, name, namespace)}
        made = await self.kube.create(v.clusters, manifest(v.clusters, name, namespace, spec, **metadata))
        if infra:
            await self.vsphere_cluster(name, endpoint=endpoint, namespace=namespace)
        return made

    async def vsphere_cluster(self, name="prod", *, endpoint=None, namespace=None, **metadata):
        """A VSphereCluster; Cluster API makes the Cluster of its name its owner. `endpoint` is a host or the field."""
        resource = self.versions.vsphere_clusters
        spec = {"server": "vcenter.example.org"}
        if isinstance(endpoint, dict):
            spec["controlPlaneEndpoint"] = endpoint
        elif endpoint is not None:
            spec["controlPlaneEndpoint"] = {"host": endpoint, "port": 6443}
        return await self._write(resource, name, namespace, spec, metadata)

    async def template(self, name, *devices, namespace=None, **metadata):
        """A VSphereMachineTemplate; one static device unless told otherwise."""
        resource = self.versions.templates
        namespace = namespace or self.namespace
        spec = {"template": {"spec": _clone_spec(devices or (STATIC,))}}
        return await self.kube.create(resource, manifest(resource, name, namespace, spec, **metadata))

    async def machine(
        self,
        name,
        *devices,
        cluster="prod",
        template=None,
        pools=None,
        control_plane=False,
        failure_domain=None,
        bootstrap=True,
        infra_name=None,
        namespace=None,
        **metadata,
    ):
        """What KubeadmControlPlane or a MachineSet makes: a VSphereMachine out of a template, then its Machine.

        `pools` is the integrator's annotation on the VSphereMachine. Returns the VSphereMachine.
        """
        v, namespace = self.versions, namespace or self.namespace
        annotations = {**metadata.pop("annotations", {}), **({POOLS: pools} if pools else {})}
        labels = {CLUSTER_NAME: cluster, **metadata.pop("labels", {})}
        labels |= {CONTROL_PLANE: ""} if control_plane else {}
        spec = _clone_spec(devices or (STATIC,))
        if template is not None:
            found = await self.kube.get(v.templates, template, namespace)
            spec = found["spec"]["template"]["spec"]
            annotations |= {CLONED_FROM: template, CLONED_FROM_KIND: f"{v.templates.kind}.{v.templates.group}"}
        infra = infra_name or name
        made = await self._write(
            v.vsphere_machines, infra, namespace, spec, {"annotations": annotations, "labels": labels, **metadata}
        )
        machine = {"clusterName": cluster, "infrastructureRef": self._ref(v.vsphere_machines, infra, namespace)}
        machine["bootstrap"] = {"dataSecretName": f"{name}-bootstrap"} if bootstrap else {"dataSecretName": ""}
        if not bootstrap:
            machine["bootstrap"] = {"configRef": self._ref(v.machines, name, namespace)}
        machine |= {"failureDomain": failure_domain} if failure_domain else {}
        machine_labels = {CLUSTER_NAME: cluster} | ({CONTROL_PLANE: ""} if control_plane else {})
        await self.kube.create(v.machines, manifest(v.machines, name, namespace, machine, labels=machine_labels))
        return made

    async def bootstrap(self, name, namespace=None):
        """The bootstrap provider is done."""
        spec = {"bootstrap": {"dataSecretName": f"{name}-bootstrap"}}
        await self.kube.patch(self.versions.machines, name, namespace or self.namespace, spec=spec)

    async def edit_devices(self, name, *devices, namespace=None):
        """A user replaces the devices of a VSphereMachine."""
        namespace = namespace or self.namespace
        self.written["VSphereMachine", namespace, name]["network"]["devices"] = list(devices)
        spec = {"network": {"devices": list(devices)}}
        return await self.kube.patch(self.versions.vsphere_machines, name, namespace, spec=spec)

    async def pause(self, paused=True, name="prod", namespace=None):
        return await self.kube.patch(self.versions.clusters, name, namespace or self.namespace, spec={"paused": paused})

    async def delete(self, *names, namespace=None):
        """Delete Machines; Cluster API and CAPV do the rest."""
        for name in names:
            await self.kube.delete(self.versions.machines, name, namespace or self.namespace)

    def _ref(self, resource, name, namespace):
        if self.versions.cluster == "v1beta1":
            return {"apiVersion": resource.api_version, "kind": resource.kind, "name": name, "namespace": namespace}
        return {"apiGroup": resource.group, "kind": resource.kind, "name": name}

    async def _write(self, resource, name, namespace, spec, metadata):
        namespace = namespace or self.namespace
        made = await self.kube.create(resource, manifest(resource, name, namespace, spec, **metadata))
        self.written[resource.kind, namespace, name] = made["spec"]
        return made

    # What they see

    async def vsphere_machine(self, name, namespace=None):
        return await self.kube.get(self.versions.vsphere_machines, name, namespace or self.namespace)

    async def devices(self, name, namespace=None):
        """spec.network.devices of a VSphereMachine."""
        return capv_outside.devices(await self.vsphere_machine(name, namespace))

    async def written_to(self, name, namespace=None):
        """Wait until no device of a VSphereMachine waits; return its addresses."""

        def done(obj):
            return obj is not None and not any(_waits(device) for device in capv_outside.devices(obj))

        return capv_outside.ips(await eventually(lambda: self.vsphere_machine(name, namespace), done))

    async def addressed(self, *names, namespace=None):
        """Wait until the VMs of machines run; return their static addresses, of one machine or a list of all's."""
        found = []
        for name in names:

            async def look(name=name):
                return [vm for vm in self.vcenter.alive(name, namespace or self.namespace) if vm.on]

            (vm,) = await eventually(look, lambda vms: len(vms) == 1)
            found.append(vm.addresses)
        return found[0] if len(names) == 1 else found

    async def gone(self, *names, namespace=None):
        """Wait until nothing is left of Machines."""
        for name in names:
            await self.kube.gone(self.versions.machines, name, namespace or self.namespace)

    async def endpoint(self, name="prod", namespace=None):
        """Wait until the Cluster has an endpoint, and return it as `host:port`."""
        seen = await eventually(
            lambda: self.kube.get(self.versions.clusters, name, namespace or self.namespace),
            lambda obj: obj["spec"].get("controlPlaneEndpoint", {}).get("host"),
        )
        return "{host}:{port}".format(**seen["spec"]["controlPlaneEndpoint"])

    async def claims(self, namespace=None):
        """Claims of both kinds, by name."""
        found = await self.kube.list(METAL3_CLAIMS, namespace or self.namespace)
        if self.versions.ipam:
            found += await self.kube.list(self.versions.claims, namespace or self.namespace)
        return {obj["metadata"]["name"]: obj for obj in found}

    async def claims_of(self, name, namespace=None):
        """Claims that an owner of that name has."""
        found = (await self.claims(namespace)).values()
        return [obj for obj in found if name in {ref["name"] for ref in obj["metadata"].get("ownerReferences", [])}]

    async def nothing_left(self):
        """Wait until no claim exists and no address is held; those of `settled` do not count."""
        for namespace in self.namespaces:

            async def left(namespace=namespace):
                return [name for name in await self.claims(namespace) if not name.startswith(BARRIER)]

            await eventually(left, lambda names: names == [])
        await self.tenant.nothing_held()

    async def refused(self, name, reason, *texts, resource=None, namespace=None):
        """Wait until an object has our condition for a reason, with texts in its message, and an Event that says it."""
        resource = resource or self.versions.vsphere_machines

        def right(obj):
            row = own_condition(obj)
            return row is not None and (row["status"], row["reason"]) == ("False", reason)

        obj = await eventually(lambda: self.kube.get(resource, name, namespace or self.namespace), right)
        message = own_condition(obj)["message"]
        assert [text for text in texts if text not in message] == [], message
        await eventually(
            lambda: self.kube.events(obj),
            lambda events: any((e["type"], e["reason"], e["note"]) == ("Warning", reason, message) for e in events),
        )
        return message

    # Waiting for nothing

    async def settled(self, namespace=None):
        """Return once the integrator has looked at everything written before: what it left alone, it leaves alone.

        Watches keep order within a resource and the queue is first in, first out: when a machine whose Cluster, pool
        and Machine were made just now has been served, all earlier changes were seen.
        """
        name = f"{BARRIER}{uuid.uuid4().hex[:8]}"
        namespace = namespace or self.namespace
        tenant = next(tenant for tenant in self.tenants if tenant.namespace == namespace)
        await tenant.pool(name, "192.0.2.1-192.0.2.1", domain=name)
        await self.cluster(name, namespace=namespace)
        await self.machine(name, cluster=name, pools=name, bootstrap=False, namespace=namespace)
        assert await self.written_to(name, namespace) == ["192.0.2.1"]

    async def sound(self):
        """Wait until everything is right at rest; see `capv_outside` and `outside`."""

        async def look():
            state = await capv_outside.look(self.kube.client, self.versions, self.namespaces)
            wrong = capv_outside.violations(state, self.vcenter, self.written)
            return [*wrong, *(await self._ledger())]

        await eventually(look, lambda wrong: wrong == [], within=20.0)

    async def _ledger(self):
        """What is wrong with claims and reservations alone, of our own allocator."""
        if self.versions != Versions():
            return []
        state = await outside.snapshot(self.kube.client, tuple(self.namespaces))
        ours = {"192.0.2.1"}  # of barriers, which have domains of their own
        return [line for line in outside.violations(state) if not any(ip in line for ip in ours)]


def own_condition(obj):
    """The integrator's condition on an object."""
    rows = obj.get("status", {}).get("conditions", [])
    return next((row for row in rows if row["type"] == "integrator.groundwork.dev/StaticAddresses"), None)


def _clone_spec(devices):
    return {
        "template": "ubuntu-2404",
        "datacenter": "*",
        "numCPUs": 2,
        "memoryMiB": 4096,
        "network": {"devices": [dict(device) for device in devices]},
    }


def _waits(device):
    exempt = device.get("skipIPAllocation") or device.get("dhcp4") or device.get("dhcp6")
    return not exempt and not device.get("ipAddrs") and not device.get("addressesFromPools")


__all__ = ["CLAIMS", "IPAM", "NAMESPACES", "NETWORK", "POOLS", "STATIC", "USE", "Options", "World", "own_condition"]
