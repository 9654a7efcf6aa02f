"""A stand-in for the parts of Cluster API around CAPV, and for kube-controller-manager's garbage collector.

Cluster API: owners and labels of infrastructure objects, the endpoint's way into the Cluster, and the order of
deletion. Garbage collector: background deletion of what all owners are gone of; an owner in another namespace counts as
gone, as it does for the real one.
"""

from __future__ import annotations

import contextlib

from services.runtime.kube.errors import NotFound
from services.runtime.kube.objects import (
    ObjectKey,
    OwnerReference,
    with_finalizer,
    with_labels,
    with_owner,
    with_spec,
    with_status,
    without_finalizers,
)
from tests.support.capv_parts import (
    CLUSTER_NAME,
    METAL3_ADDRESSES,
    METAL3_CLAIMS,
    Parts,
    Versions,
    by_cluster,
    content,
    is_paused,
    owner_key,
)

MACHINE_FINALIZER = "machine.cluster.x-k8s.io"
CLUSTER_FINALIZER = "cluster.cluster.x-k8s.io"


class ClusterApi(Parts):
    """The Cluster and Machine reconcilers."""

    def __init__(self, client, namespaces, *, versions=Versions()):  # noqa: B008 - immutable
        super().__init__(client, namespaces)
        self.versions = versions
        self.machines = self.follow(versions.machines, cluster=by_cluster)
        self.clusters = self.follow(versions.clusters)
        self.vsms = self.follow(versions.vsphere_machines)
        self.infra_clusters = self.follow(versions.vsphere_clusters)
        queue_machine = self.control("machine", self.reconcile_machine)
        queue_cluster = self.control("cluster", self.reconcile_cluster)

        def machine_changed(old, new):
            queue_machine((new or old).key)
            queue_cluster(ObjectKey((new or old).metadata.namespace, content((new or old).spec)["clusterName"]))

        def vsm_changed(old, new):
            # Machines are named like their VSphereMachines or own them already.
            queue_machine(owner_key(new or old, "Machine") or (new or old).key)

        def cluster_changed(old, new):
            queue_cluster((new or old).key)
            for key in list(self.machines.keys("cluster", (new or old).key)):
                queue_machine(key)

        def infra_changed(old, new):
            queue_cluster(owner_key(new or old, "Cluster") or (new or old).key)

        self.machines.subscribe(machine_changed)
        self.vsms.subscribe(vsm_changed)
        self.clusters.subscribe(cluster_changed)
        self.infra_clusters.subscribe(infra_changed)

    async def reconcile_machine(self, key):
        machine = self.machines.get(key)
        if machine is None:
            return
        spec = content(machine.spec)
        cluster = self.clusters.get(ObjectKey(key.namespace, spec["clusterName"]))
        if cluster is None or is_paused(cluster, machine):
            return
        if MACHINE_FINALIZER not in machine.metadata.finalizers and not machine.deleting:
            machine = await self._update(self.machines, with_finalizer(machine, MACHINE_FINALIZER))
        infra = self.vsms.get(ObjectKey(key.namespace, spec["infrastructureRef"]["name"]))
        if machine.deleting:
            if infra is None:
                await self._update(self.machines, without_finalizers(machine, {MACHINE_FINALIZER}))
            elif not infra.deleting:
                await self.client.delete(self.versions.vsphere_machines, infra.metadata.name, key.namespace)
            return
        if infra is not None:
            await self._own(self.vsms, infra, machine, spec["clusterName"])

    async def reconcile_cluster(self, key):
        cluster = self.clusters.get(key)
        if cluster is None or is_paused(None, cluster) or content(cluster.spec).get("paused"):
            return
        if CLUSTER_FINALIZER not in cluster.metadata.finalizers and not cluster.deleting:
            cluster = await self._update(self.clusters, with_finalizer(cluster, CLUSTER_FINALIZER))
        spec = content(cluster.spec)
        ref = spec.get("infrastructureRef")
        infra = self.infra_clusters.get(ObjectKey(key.namespace, ref["name"])) if ref else None
        if cluster.deleting:
            await self._delete_cluster(cluster, infra)
            return
        if infra is None:
            return
        infra = await self._own(self.infra_clusters, infra, cluster, key.name)
        status = content(infra.status)
        if not (status.get("ready") or status.get("initialization", {}).get("provisioned")):
            return
        endpoint = content(infra.spec).get("controlPlaneEndpoint") or {}
        if endpoint.get("host") and not (spec.get("controlPlaneEndpoint") or {}).get("host"):
            cluster = await self._update(self.clusters, with_spec(cluster, {**spec, "controlPlaneEndpoint": endpoint}))
        old_style = self.versions.cluster == "v1beta1"
        done = {"infrastructureReady": True} if old_style else {"initialization": {"infrastructureProvisioned": True}}
        before = content(cluster.status)
        if not done.items() <= before.items():
            changed = with_status(cluster, {**before, **done})
            self.clusters.observe(await self.client.update_status(self.versions.clusters, changed))

    async def _delete_cluster(self, cluster, infra):
        """Machines, then the infrastructure, then the Cluster itself."""
        machines = self.machines.by_index("cluster", cluster.key)
        for machine in machines:
            if not machine.deleting:
                await self.client.delete(self.versions.machines, machine.metadata.name, machine.metadata.namespace)
        if machines:
            return
        if infra is None:
            await self._update(self.clusters, without_finalizers(cluster, {CLUSTER_FINALIZER}))
        elif not infra.deleting:
            await self.client.delete(self.versions.vsphere_clusters, infra.metadata.name, infra.metadata.namespace)

    async def _own(self, store, infra, owner, cluster):
        ref = OwnerReference(
            owner.apiVersion,
            owner.kind,
            owner.metadata.name,
            owner.metadata.uid,
            controller=True,
            blockOwnerDeletion=True,
        )
        wanted = with_labels(with_owner(infra, ref), {CLUSTER_NAME: cluster})
        return infra if wanted is infra or infra.deleting else await self._update(store, wanted)

    async def _update(self, store, obj):
        resource = {
            id(self.machines): self.versions.machines,
            id(self.clusters): self.versions.clusters,
            id(self.vsms): self.versions.vsphere_machines,
            id(self.infra_clusters): self.versions.vsphere_clusters,
        }[id(store)]
        try:
            answer = await self.client.update(resource, obj)
        except NotFound:
            store.forget(obj.key, obj.metadata.uid)
            return obj
        store.observe(answer)
        return answer


class GarbageCollector(Parts):
    """Background deletion for the kinds that these tests are about."""

    def __init__(self, client, namespaces, *, versions=Versions()):  # noqa: B008 - immutable
        super().__init__(client, namespaces)
        v = versions
        resources = [v.vsphere_machines, v.vsphere_vms, v.vsphere_clusters, v.machines, v.clusters]
        resources += [v.claims, v.addresses] if v.ipam else []
        self._resources = [*resources, METAL3_CLAIMS, METAL3_ADDRESSES]
        self._stores = {}
        self._queue = self.control("garbage-collector", self.reconcile)
        self.deleted = []
        for resource in self._resources:
            self._stores[resource] = self.follow(resource, owner=_owner_uids)
        for resource, store in self._stores.items():
            store.subscribe(lambda old, new, resource=resource: self._changed(resource, old, new))

    def _changed(self, resource, old, new):
        if new is not None:
            self._queue((resource, new.key))
            return
        for dependent, store in self._stores.items():
            for key in list(store.keys("owner", old.metadata.uid)):
                self._queue((dependent, key))

    async def reconcile(self, key):
        resource, where = key
        obj = self._stores[resource].get(where)
        if obj is None or obj.deleting or not obj.metadata.ownerReferences:
            return
        for ref in obj.metadata.ownerReferences:
            if not await self._absent(ref, where.namespace):
                return
        self.deleted.append(f"{obj.kind} {where}")
        with contextlib.suppress(NotFound):
            await self.client.delete(resource, where.name, where.namespace, uid=obj.metadata.uid)

    async def _absent(self, ref, namespace):
        """Ask the API server, as the real one does before it deletes."""
        group = ref.apiVersion.partition("/")[0]
        resource = next((r for r in self._resources if (r.group, r.kind) == (group, ref.kind)), None)
        if resource is None:
            return False  # a kind that these tests never delete, such as pools
        try:
            owner = await self.client.get(resource, ref.name, namespace)
        except NotFound:
            return True
        return owner.metadata.uid != ref.uid


def _owner_uids(obj):
    return tuple(ref.uid for ref in obj.metadata.ownerReferences)
