"""A stand-in for CAPV: its VSphereMachine, VSphereVM and VSphereCluster reconcilers, and a vCenter that remembers.

It behaves as the real managers were observed to (CAPV v1.16 on a real API server and a simulated vCenter), mistakes
included: each reconcile copies VSphereMachine.spec over VSphereVM.spec, and a VSphereVM whose devices do not wait is
cloned at once, with whatever addresses it has at that moment. So what is written to the wrong object makes a wrong VM,
and stays on the vCenter's list.
"""

from __future__ import annotations

import asyncio
import dataclasses
import uuid

from services.runtime.controller import ReconcileError
from services.runtime.kube.errors import AlreadyExists, NotFound
from services.runtime.kube.objects import (
    KubeObject,
    ObjectKey,
    ObjectMeta,
    OwnerReference,
    raw,
    with_finalizer,
    with_labels,
    with_owner,
    with_spec,
    with_status,
    without_finalizers,
)
from services.runtime.kube.transport import PatchKind
from tests.support import capv_conditions
from tests.support.capv_parts import (
    CLUSTER_NAME,
    CONTROL_PLANE,
    INFRASTRUCTURE,
    Parts,
    Versions,
    by_cluster,
    by_owner,
    cluster_key,
    content,
    is_paused,
    owner_key,
)

MACHINE_FINALIZER = f"vspheremachine.{INFRASTRUCTURE}"
VM_FINALIZER = f"vspherevm.{INFRASTRUCTURE}"
CLUSTER_FINALIZER = f"vspherecluster.{INFRASTRUCTURE}"
CLAIM_FINALIZER = f"vspherevm.{INFRASTRUCTURE}/ip-claim-protection"
_CLONE_FIELDS_OF_MACHINE = ("providerID", "failureDomain", "naming", "namingStrategy")


@dataclasses.dataclass
class Vm:
    """One VM that was cloned."""

    namespace: str
    name: str
    uid: str
    """Of the VSphereVM: the VM's instance UUID."""
    devices: list
    """spec.network.devices at the moment of the clone."""
    bios_uuid: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    from_pools: list = dataclasses.field(default_factory=list)
    """Addresses that CAPV itself claimed, by `addressesFromPools`."""
    on: bool = False
    destroyed: bool = False

    @property
    def addresses(self):
        """Static addresses, without prefix."""
        own = [text.partition("/")[0] for device in self.devices for text in device.get("ipAddrs", ())]
        return own + self.from_pools


class VCenter:
    """All VMs that were ever made, and what nobody should see."""

    def __init__(self):
        self.vms = []
        self.wrong = []
        self._destroy = asyncio.Event()
        self._destroy.set()

    def find(self, uid, bios_uuid=None):
        """The VM of a VSphereVM, by BIOS UUID and then by instance UUID, as CAPV looks for it."""
        found = [vm for vm in self.alive() if vm.bios_uuid == bios_uuid] or [vm for vm in self.alive() if vm.uid == uid]
        return next(iter(found), None)

    def alive(self, name=None, namespace=None):
        """VMs that exist; of a name or namespace only, if given."""
        return [
            vm for vm in self.vms if not vm.destroyed and name in {None, vm.name} and namespace in {None, vm.namespace}
        ]

    def clone(self, vm):
        """Make a VM."""
        for address in vm.addresses:
            self._claim(vm, address)
        self.vms.append(vm)

    def give(self, vm, addresses):
        """Power a VM on, with addresses out of CAPV's own claims."""
        for address in addresses:
            self._claim(vm, address)
        vm.from_pools = addresses
        vm.on = True

    def hold(self):
        """Let no destroy task end from now on."""
        self._destroy.clear()

    def let_go(self):
        """Let destroy tasks end."""
        self._destroy.set()

    async def destroy(self, uid, bios_uuid=None):
        """Power off and destroy; comes back when the VM is gone."""
        vm = self.find(uid, bios_uuid)
        if vm is not None:
            await self._destroy.wait()
            vm.destroyed = True

    def _claim(self, vm, address):
        others = [other for other in self.alive() if address in other.addresses]
        self.wrong += [f"{address} is used by {other.namespace}/{other.name} and {vm.name}" for other in others]


def waits(device):
    """CAPV's isWaitingForStaticIPAllocation for one device."""
    if device.get("skipIPAllocation") or device.get("dhcp4") or device.get("dhcp6"):
        return False
    return not device.get("ipAddrs") and not device.get("addressesFromPools")


def overlay(devices, domain):
    """CAPV's overrideNetworkDeviceSpecs with `networks` or `networkConfigurations` of a failure domain."""
    networks = [{"networkName": name} for name in domain.get("networks", ())]
    wanted = networks or domain.get("networkConfigurations", [])
    result = [{**device, **wanted[at]} if at < len(wanted) else dict(device) for at, device in enumerate(devices)]
    return result + [dict(network) for network in wanted[len(devices) :]]


class Capv(Parts):
    """The manager. `failure_domains`: deployment zone -> `networks` or `networkConfigurations`."""

    def __init__(self, client, vcenter, namespaces, *, versions=Versions(), failure_domains=None):  # noqa: B008 - immutable
        super().__init__(client, namespaces)
        self.vcenter = vcenter
        self.versions = versions
        self.failure_domains = failure_domains if failure_domains is not None else {}
        self.vsms = self.follow(versions.vsphere_machines, owner=by_owner("Machine"), cluster=by_cluster)
        self.vms = self.follow(versions.vsphere_vms, owner=by_owner("VSphereMachine"), cluster=by_cluster)
        self.infra_clusters = self.follow(versions.vsphere_clusters, owner=by_owner("Cluster"))
        self.machines = self.follow(versions.machines)
        self.clusters = self.follow(versions.clusters)
        self.claims = self.follow(versions.claims, owner=by_owner("VSphereVM")) if versions.ipam else None
        queue_machine = self.control("vspheremachine", self.reconcile_machine)
        queue_vm = self.control("vspherevm", self.reconcile_vm)
        queue_cluster = self.control("vspherecluster", self.reconcile_cluster)

        def machine_changed(old, new):
            queue_machine((new or old).key)
            for key in self._infra_of(new or old):
                queue_cluster(key)

        def vm_changed(old, new):
            queue_vm((new or old).key)
            owner = owner_key(new or old, "VSphereMachine")
            if owner is not None:
                queue_machine(owner)

        def owner_changed(old, new):
            for key in list(self.vsms.keys("owner", (new or old).key)):
                queue_machine(key)

        def cluster_changed(old, new):
            key = (new or old).key
            for found in list(self.vsms.keys("cluster", key)):
                queue_machine(found)
            for found in list(self.vms.keys("cluster", key)):
                queue_vm(found)
            for found in list(self.infra_clusters.keys("owner", key)):
                queue_cluster(found)

        def claim_changed(old, new):
            owner = owner_key(new or old, "VSphereVM")
            if owner is not None:
                queue_vm(owner)

        self.vsms.subscribe(machine_changed)
        self.vms.subscribe(vm_changed)
        self.machines.subscribe(owner_changed)
        self.clusters.subscribe(cluster_changed)
        self.infra_clusters.subscribe(lambda old, new: queue_cluster((new or old).key))
        if self.claims is not None:
            self.claims.subscribe(claim_changed)

    # VSphereMachine

    async def reconcile_machine(self, key):
        vsm = self.vsms.get(key)
        if vsm is None:
            return
        if MACHINE_FINALIZER not in vsm.metadata.finalizers and not vsm.deleting:
            await self._update(self.vsms, with_finalizer(vsm, MACHINE_FINALIZER))
            return
        owner = owner_key(vsm, "Machine")
        machine = self.machines.get(owner) if owner is not None else None
        cluster = self.clusters.get(cluster_key(machine)) if machine is not None and cluster_key(machine) else None
        if is_paused(cluster, vsm):
            return
        if vsm.deleting:
            await self._delete_machine(vsm)
        elif machine is not None and cluster is not None:
            await self._provision(vsm, machine, cluster)

    async def _delete_machine(self, vsm):
        vms = self.vms.by_index("owner", vsm.key)
        for vm in vms:
            if not vm.deleting:
                await self.client.delete(self.versions.vsphere_vms, vm.metadata.name, vm.metadata.namespace)
        if not vms:
            await self._update(self.vsms, without_finalizers(vsm, {MACHINE_FINALIZER}))

    async def _provision(self, vsm, machine, cluster):
        if not content(cluster.spec).get("infrastructureRef"):
            return
        status = content(cluster.status)
        if not (status.get("infrastructureReady") or status.get("initialization", {}).get("infrastructureProvisioned")):
            await self._say(self.vsms, vsm, "WaitingForClusterInfrastructureReady")
            return
        secret = content(machine.spec)["bootstrap"].get("dataSecretName")
        if not secret:
            await self._say(self.vsms, vsm, "WaitingForBootstrapData")
            return
        vm = await self._create_or_patch(vsm, machine, secret)
        if not content(vm.status).get("ready"):
            reason = capv_conditions.reasons({"status": content(vm.status)})
            await self._say(self.vsms, vsm, next(iter(sorted(reason)), "NotProvisioned"))
            return
        provider = f"vsphere://{content(vm.spec)['biosUUID']}"
        if content(vsm.spec).get("providerID") != provider:
            vsm = await self._merge(self.versions.vsphere_machines, vsm, {"spec": {"providerID": provider}})
            self.vsms.observe(vsm)
        addresses = [{"type": "ExternalIP", "address": text} for text in content(vm.status)["addresses"]]
        addresses.append({"type": "InternalDNS", "address": vm.metadata.name})
        done = (
            {"ready": True} if self.versions.infrastructure == "v1beta1" else {"initialization": {"provisioned": True}}
        )
        await self._say(self.vsms, vsm, "", addresses=addresses, **done)

    async def _create_or_patch(self, vsm, machine, secret):
        """CAPV's createOrPatchVSphereVM."""
        key = ObjectKey(vsm.metadata.namespace, machine.metadata.name)
        own = content(vsm.spec)
        spec = {name: value for name, value in own.items() if name not in _CLONE_FIELDS_OF_MACHINE}
        domain = self.failure_domains.get(content(machine.spec).get("failureDomain"))
        if domain is not None:
            network = own["network"]
            spec["network"] = {**network, "devices": overlay(network.get("devices", []), domain)}
        spec["bootstrapRef"] = {"name": secret}
        if self.versions.infrastructure == "v1beta1":
            spec["bootstrapRef"] |= {"apiVersion": "v1", "kind": "Secret", "namespace": key.namespace}
        resource = self.versions.vsphere_vms
        labels = {CLUSTER_NAME: machine.metadata.labels[CLUSTER_NAME]}
        labels |= {CONTROL_PLANE: ""} if CONTROL_PLANE in machine.metadata.labels else {}
        owner = OwnerReference(vsm.apiVersion, "VSphereMachine", vsm.metadata.name, vsm.metadata.uid)
        vm = self.vms.get(key)
        if vm is None:
            meta = ObjectMeta(
                name=key.name,
                namespace=key.namespace,
                labels=labels,
                finalizers=(MACHINE_FINALIZER, VM_FINALIZER),
                ownerReferences=(owner,),
            )
            obj = KubeObject(apiVersion=resource.api_version, kind=resource.kind, metadata=meta, spec=raw(spec))
            try:
                vm = await self.client.create(resource, obj)
            except AlreadyExists as error:
                raise ReconcileError("the watch has not shown it yet") from error
            self.vms.observe(vm)
            return vm
        before = content(vm.spec)
        spec |= {"biosUUID": before["biosUUID"]} if "biosUUID" in before else {}
        changed = with_labels(with_owner(vm, owner), labels)
        if spec != before:
            changed = with_spec(changed, spec)
        return vm if changed is vm or vm.deleting else await self._update(self.vms, changed)

    # VSphereVM

    async def reconcile_vm(self, key):
        vm = self.vms.get(key)
        if vm is None or is_paused(self.clusters.get(cluster_key(vm)), vm):
            return
        if vm.deleting:
            await self._say(self.vms, vm, "Deleting")
            await self.vcenter.destroy(vm.metadata.uid, content(vm.spec).get("biosUUID"))
            await self._let_claims_go(vm)
            vm = await self.client.get(self.versions.vsphere_vms, vm.metadata.name, vm.metadata.namespace)
            await self._update(self.vms, without_finalizers(vm, {MACHINE_FINALIZER, VM_FINALIZER}))
        elif owner_key(vm, "VSphereMachine") in self.vsms:
            devices = content(vm.spec)["network"].get("devices", [])
            if any(waits(device) for device in devices):
                await self._say(self.vms, vm, capv_conditions.WAITING)
            else:
                await self._build(vm, devices)

    async def _build(self, vm, devices):
        bound = await self._claimed(vm, devices)
        made = self.vcenter.find(vm.metadata.uid, content(vm.spec).get("biosUUID"))
        if made is None:
            made = Vm(vm.metadata.namespace, vm.metadata.name, vm.metadata.uid, devices)
            self.vcenter.clone(made)
        if made.devices != devices:
            # CAPV would write this to the running guest, which does not take it.
            self.vcenter.wrong.append(f"{vm.key}: {made.devices} became {devices} after the clone")
            made.devices = devices
        if bound is None:
            await self._say(self.vms, vm, "WaitingForIPAddress")
            return
        if not made.on:
            self.vcenter.give(made, bound)
        spec = content(vm.spec)
        if spec.get("biosUUID") != made.bios_uuid:
            vm = await self._update(self.vms, with_spec(vm, {**spec, "biosUUID": made.bios_uuid}))
        dhcp = [f"100.64.{at}.1" for at, device in enumerate(devices) if device.get("dhcp4")]
        await self._say(self.vms, vm, "", ready=True, addresses=[*made.addresses, *dhcp])

    async def _claimed(self, vm, devices):
        """Addresses of CAPV's own claims, made as needed; None while one is not bound."""
        found = []
        for at, device in enumerate(devices):
            for number, pool in enumerate(device.get("addressesFromPools") or ()):
                name = f"{vm.metadata.name}-{at}-{number}"
                claim = self.claims.get(ObjectKey(vm.metadata.namespace, name))
                if claim is None:
                    claim = await self._make_claim(vm, name, pool)
                ref = content(claim.status).get("addressRef") or {}
                found.append(ref.get("name"))
        if not all(found):
            return None
        resource = self.versions.addresses
        addresses = [await self.client.get(resource, name, vm.metadata.namespace) for name in found]
        return [content(address.spec)["address"] for address in addresses]

    async def _make_claim(self, vm, name, pool):
        resource = self.versions.claims
        meta = ObjectMeta(
            name=name,
            namespace=vm.metadata.namespace,
            labels={CLUSTER_NAME: vm.metadata.labels[CLUSTER_NAME]},
            finalizers=(CLAIM_FINALIZER,),
            ownerReferences=(OwnerReference(vm.apiVersion, "VSphereVM", vm.metadata.name, vm.metadata.uid),),
        )
        ref = {"apiGroup": pool["apiGroup"], "kind": pool["kind"], "name": pool["name"]}
        obj = KubeObject(apiVersion=resource.api_version, kind=resource.kind, metadata=meta, spec=raw({"poolRef": ref}))
        try:
            claim = await self.client.create(resource, obj)
        except AlreadyExists:
            claim = await self.client.get(resource, name, vm.metadata.namespace)
        self.claims.observe(claim)
        return claim

    async def _let_claims_go(self, vm):
        """CAPV takes its finalizer off its own claims and leaves their deletion to the garbage collector."""
        for claim in self.claims.by_index("owner", vm.key) if self.claims is not None else ():
            if CLAIM_FINALIZER in claim.metadata.finalizers:
                await self._update(self.claims, without_finalizers(claim, {CLAIM_FINALIZER}))

    # VSphereCluster

    async def reconcile_cluster(self, key):
        infra = self.infra_clusters.get(key)
        if infra is None:
            return
        if CLUSTER_FINALIZER not in infra.metadata.finalizers and not infra.deleting:
            await self._update(self.infra_clusters, with_finalizer(infra, CLUSTER_FINALIZER))
            return
        owner = owner_key(infra, "Cluster")
        cluster = self.clusters.get(owner) if owner is not None else None
        if is_paused(cluster, infra):
            return
        if infra.deleting:
            if owner is None or not self.vsms.keys("cluster", owner):
                await self._update(self.infra_clusters, without_finalizers(infra, {CLUSTER_FINALIZER}))
            return
        if cluster is None:
            return
        done = (
            {"ready": True} if self.versions.infrastructure == "v1beta1" else {"initialization": {"provisioned": True}}
        )
        status = content(infra.status)
        if done.items() <= status.items():
            return
        changed = with_status(infra, {**status, **done})
        self.infra_clusters.observe(await self.client.update_status(self.versions.vsphere_clusters, changed))

    def _infra_of(self, vsm):
        owner = cluster_key(vsm)
        return list(self.infra_clusters.keys("owner", owner)) if owner is not None else []

    # Writing

    async def _update(self, store, obj):
        resource = {
            id(self.vsms): self.versions.vsphere_machines,
            id(self.vms): self.versions.vsphere_vms,
            id(self.infra_clusters): self.versions.vsphere_clusters,
            id(self.claims): self.versions.claims if self.claims is not None else None,
        }[id(store)]
        try:
            answer = await self.client.update(resource, obj)
        except NotFound:
            store.forget(obj.key, obj.metadata.uid)
            return obj
        store.observe(answer)
        return answer

    async def _merge(self, resource, obj, body):
        """A merge patch without a resourceVersion, as Cluster API's patch helper sends it."""
        return await self.client.patch(resource, obj.metadata.name, obj.metadata.namespace, body, kind=PatchKind.MERGE)

    async def _say(self, store, obj, reason, **fields):
        """Set the conditions, and other fields of the status."""
        status = content(obj.status)
        wanted = capv_conditions.report(
            {**status, **fields}, obj.apiVersion, obj.metadata.generation, self.now(), reason
        )
        if wanted == status:
            return
        resource = self.versions.vsphere_vms if store is self.vms else self.versions.vsphere_machines
        store.observe(await self.client.update_status(resource, with_status(obj, wanted)))
