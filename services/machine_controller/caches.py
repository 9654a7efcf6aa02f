"""The local copies of what machines are made of, and which machine or cluster has to be looked at when one changes.

Responsible for: one store per resource with its indexes, what the server serves of them, and turning changes into keys.
Invariants: a machine is queued whenever something changed that its next step depends on; the status of anything, which
everybody writes all the time, queues nobody but where a field of it matters. Secrets are not here: those with bootstrap
data are read one by one when they are needed (a watch would need the right to read every Secret of the cluster, and
hold each node's join token in memory), those with vCenter's credentials are in `credentials`.
Must not know: what is decided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from services.machine_controller import api, contract
from services.runtime.cache.store import Store, either
from services.runtime.kube.objects import KubeObject, ObjectKey, view

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.runtime.kube.resource import Resource

_OWN_GROUPS = (api.GROUP,)


class Stores(NamedTuple):
    """One store per resource."""

    machines: Store[KubeObject]
    """VSphereMachines."""
    clusters: Store[KubeObject]
    """VSphereClusters."""
    owners: Store[KubeObject]
    """Cluster API's Machines."""
    capi_clusters: Store[KubeObject]
    claims: Store[KubeObject]
    zones: Store[KubeObject]
    domains: Store[KubeObject]


class Caches:
    """Stores, and the subscriptions that feed the queues."""

    def __init__(
        self,
        queue_machine: Callable[[ObjectKey], None],
        queue_cluster: Callable[[ObjectKey], None],
        identity_unused: Callable[[ObjectKey], None],
    ) -> None:
        """`identity_unused` is told of each Secret that no VSphereCluster names any more."""
        self._identity_unused = identity_unused
        self._queue_machine = queue_machine
        self._queue_cluster = queue_cluster
        self.served: dict[str, Resource | None] = {}
        """What the server serves of each store's resource, by the store's name."""
        self.stores = Stores(
            machines=Store(
                "VSphereMachine", {"owner": _owner_machine, "cluster": _by_cluster, "provider": _by_provider}
            ),
            clusters=Store("VSphereCluster", {"cluster": _by_cluster, "identity": _by_identity}),
            owners=Store("Machine", {"zone": _by_zone}),
            capi_clusters=Store("Cluster"),
            claims=Store("IPAddressClaim", {"owner": _claim_owner}),
            zones=Store("VSphereDeploymentZone", {"domain": _by_domain}),
            domains=Store("VSphereFailureDomain"),
        )

    def subscribe(self) -> None:
        """Start to feed the queues."""
        stores = self.stores
        stores.machines.subscribe(self._machine_changed)
        stores.clusters.subscribe(self._cluster_changed)
        stores.owners.subscribe(self._owner_changed)
        stores.capi_clusters.subscribe(self._capi_cluster_changed)
        stores.claims.subscribe(self._claim_changed)
        stores.zones.subscribe(self._zone_changed)
        stores.domains.subscribe(self._domain_changed)

    def cluster_of(self, machine: KubeObject) -> KubeObject | None:
        """VSphereCluster of a VSphereMachine."""
        found = self.stores.clusters.by_index("cluster", ObjectKey(machine.metadata.namespace, self.name_of(machine)))
        return found[0] if found else None

    def capi_cluster_of(self, obj: KubeObject) -> KubeObject | None:
        """Cluster of a VSphereMachine or VSphereCluster."""
        return self.stores.capi_clusters.get(ObjectKey(obj.metadata.namespace, self.name_of(obj)))

    def owner_of(self, machine: KubeObject) -> KubeObject | None:
        """Machine of a VSphereMachine."""
        key = contract.owner(machine, "Machine")
        return self.stores.owners.get(key) if key is not None else None

    def name_of(self, obj: KubeObject) -> str:
        """Name of the Cluster that a VSphereMachine or VSphereCluster belongs to, or ""."""
        name = contract.cluster_name(obj)
        if name or obj.kind != "VSphereMachine":
            return name
        owner = self.owner_of(obj)
        return view(owner.spec, contract.MachineSpec).cluster_name if owner is not None else ""

    def machines_of(self, cluster: KubeObject) -> list[KubeObject]:
        """VSphereMachines of a VSphereCluster."""
        key = ObjectKey(cluster.metadata.namespace, self.name_of(cluster))
        return self.stores.machines.by_index("cluster", key)

    def queue_identity(self, identity: ObjectKey) -> list[ObjectKey]:
        """Queue all clusters that use a Secret, and their machines; returns the machines."""
        machines = []
        for cluster in self.stores.clusters.by_index("identity", identity):
            self._queue_cluster(cluster.key)
            machines += [machine.key for machine in self.machines_of(cluster)]
        for key in machines:
            self._queue_machine(key)
        return machines

    def queue_all(self) -> None:
        """Queue every cluster and every machine."""
        for cluster in self.stores.clusters.values():
            self._queue_cluster(cluster.key)
        for machine in self.stores.machines.values():
            self._queue_machine(machine.key)

    # What has to be looked at when something changed

    def _machine_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is None or new is None or _substance(old) != _substance(new):
            self._queue_machine(either(old, new).key)
        if new is None and old is not None:
            # A cluster that is being deleted waits for its machines.
            for cluster in list(self.stores.clusters.keys("cluster", ObjectKey(old.key.namespace, self.name_of(old)))):
                self._queue_cluster(cluster)

    def _cluster_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is not None and new is not None and _substance(old) == _substance(new):
            return
        obj = either(old, new)
        for identity in _by_identity(old) if old is not None else ():
            if not self.stores.clusters.keys("identity", identity):
                self._identity_unused(identity)
        self._queue_cluster(obj.key)
        for machine in self.machines_of(obj):
            self._queue_machine(machine.key)

    def _owner_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is not None and new is not None and _substance(old) == _substance(new):
            return
        for key in list(self.stores.machines.keys("owner", either(old, new).key)):
            self._queue_machine(key)

    def _capi_cluster_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is not None and new is not None and _cluster_facts(old) == _cluster_facts(new):
            return
        key = either(old, new).key
        for cluster in list(self.stores.clusters.keys("cluster", key)):
            self._queue_cluster(cluster)
        for machine in list(self.stores.machines.keys("cluster", key)):
            self._queue_machine(machine)

    def _claim_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        for key in _claim_owner(either(old, new)):
            self._queue_machine(key)

    def _zone_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is not None and new is not None and old.spec == new.spec:
            return
        for owner in list(self.stores.owners.keys("zone", either(old, new).metadata.name)):
            for key in list(self.stores.machines.keys("owner", owner)):
                self._queue_machine(key)

    def _domain_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        for zone in self.stores.zones.by_index("domain", either(old, new).metadata.name):
            self._zone_changed(None, zone)


def _substance(obj: KubeObject) -> tuple[object, ...]:
    """Everything but the status, and what changes with each write."""
    meta = obj.metadata
    return obj.spec, meta.labels, meta.annotations, meta.ownerReferences, meta.deletionTimestamp, meta.finalizers


def _cluster_facts(obj: KubeObject) -> tuple[object, ...]:
    return contract.is_paused(obj), contract.infrastructure_provisioned(obj), obj.spec, obj.deleting


def _owner_machine(obj: KubeObject) -> tuple[ObjectKey, ...]:
    key = contract.owner(obj, "Machine")
    return (key,) if key is not None else ()


def _by_cluster(obj: KubeObject) -> tuple[ObjectKey, ...]:
    name = contract.cluster_name(obj)
    return (ObjectKey(obj.metadata.namespace, name),) if name else ()


def _by_provider(obj: KubeObject) -> tuple[str, ...]:
    provider = view(obj.spec, api.VSphereMachineSpec).provider_id
    return (provider,) if provider else ()


def _by_identity(obj: KubeObject) -> tuple[ObjectKey, ...]:
    ref = view(obj.spec, api.VSphereClusterSpec).identity_ref
    return (ObjectKey(obj.metadata.namespace, ref.name),) if ref is not None and ref.name else ()


def _by_zone(obj: KubeObject) -> tuple[str, ...]:
    zone = view(obj.spec, contract.MachineSpec).failure_domain
    return (zone,) if zone else ()


def _by_domain(obj: KubeObject) -> tuple[str, ...]:
    return (view(obj.spec, api.VSphereDeploymentZoneSpec).failure_domain,)


def _claim_owner(obj: KubeObject) -> tuple[ObjectKey, ...]:
    key = contract.owner(obj, "VSphereMachine", _OWN_GROUPS)
    return (key,) if key is not None else ()
