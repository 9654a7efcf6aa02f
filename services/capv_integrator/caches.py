"""The local copies of everything the integrator looks at, and which owner has to be looked at when one changes.

Responsible for: one store per resource with its indexes, the book of pools, what the server serves, and translating
changes into keys of VSphereMachines and VSphereClusters.
Invariant: an owner is queued whenever something changed that its plan depends on. What cannot matter (CAPV writes the
status of everything every few seconds) queues nothing.
Must not know: what is decided about an owner.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from services.capv_integrator import api
from services.capv_integrator.claimobjects import Claim, OwnerKey, claim_of_address, is_paused, owner_of, read_claim
from services.capv_integrator.poolobjects import Pool, PoolBook, pool_ref, read_pool
from services.runtime.cache.store import Store, either
from services.runtime.kube.objects import KubeObject, ObjectKey, view

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from services.capv_integrator.api import PoolRef
    from services.runtime.kube.resource import Resource

MACHINE = "VSphereMachine"
CLUSTER = "VSphereCluster"
_DENIALS = 3


class Stores(NamedTuple):
    """One store per resource."""

    owners: dict[str, Store[KubeObject]]
    vms: Store[KubeObject]
    templates: Store[KubeObject]
    machines: Store[KubeObject]
    clusters: Store[KubeObject]
    claims: dict[str, Store[KubeObject]]
    addresses: dict[str, Store[KubeObject]]
    pools: dict[str, Store[KubeObject]]


class Caches:
    """Stores, and the subscriptions that feed the queues."""

    def __init__(self, queue: Callable[[OwnerKey], None], unserved: Callable[[], Collection[OwnerKey]]) -> None:
        """`queue` an owner to be looked at; `unserved` are those that wait for something."""
        self._queue = queue
        self._unserved = unserved
        self.book = PoolBook()
        self.served: dict[str, Resource | None] = {}
        """What the server serves of each kind that is followed, by what the store is called."""
        self._denied: Counter[str] = Counter()
        self.witnessed: set[OwnerKey] = set()
        """Owners that this process saw go, and that may have claims left."""
        self.pending: Counter[PoolRef] = Counter()
        """Claims on their way to the server."""
        self.stores = Stores(
            owners={
                MACHINE: Store(MACHINE, {"owner": _owner_machine, "template": _template}),
                CLUSTER: Store(CLUSTER, {"owner": _owner_cluster}),
            },
            vms=Store("VSphereVM", {"owner": _owner_vsphere_machine}),
            templates=Store("VSphereMachineTemplate"),
            machines=Store("Machine", {"cluster": _cluster}),
            clusters=Store("Cluster"),
            claims={
                kind: Store(kind, {"owner": _claim_owner, "unbound": _unbound, "cluster": _cluster})
                for kind in api.CLAIMS
            },
            addresses={kind: Store(f"IPAddress of {kind}") for kind in api.CLAIMS},
            pools={kind: Store(kind) for kind in api.POOLS},
        )

    def subscribe(self) -> None:
        """Start to feed the queues."""
        stores = self.stores
        for kind, owners in stores.owners.items():
            owners.subscribe(lambda old, new, kind=kind: self._owner_changed(kind, old, new))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        stores.vms.subscribe(self._vm_changed)
        stores.templates.subscribe(self._template_changed)
        stores.machines.subscribe(self._machine_changed)
        stores.clusters.subscribe(self._cluster_changed)
        for claims in stores.claims.values():
            claims.subscribe(self._claim_changed)
        for kind, addresses in stores.addresses.items():
            addresses.subscribe(lambda old, new, kind=kind: self._address_changed(kind, old, new))  # type: ignore[misc]  # as above
        for pools in stores.pools.values():
            pools.subscribe(self._pool_changed)

    def serves(self, name: str, resource: Resource | None) -> None:
        """Take note of what the server serves for a store.

        A server that has just started does not know its definitions for a moment: only the third such answer in a row
        is believed.
        """
        before = self.served.get(name)
        if resource is None and before is not None:
            self._denied[name] += 1
            if self._denied[name] < _DENIALS:
                return
        self._denied.pop(name, None)
        self.served[name] = resource
        if before != resource and name in api.CLAIMS:
            self._queue_unserved()
        if before is None and resource is not None and name in api.OWNERS:
            # Whether the owner of a claim is gone could not be asked before.
            for claims in self.stores.claims.values():
                for claim in claims.values():
                    self._queue_owner_of(claim)

    def taken(self, ref: PoolRef) -> int:
        """How many addresses of a pool claims of ours are about to take."""
        return self.pending[ref] + sum(len(claims.keys("unbound", ref)) for claims in self.stores.claims.values())

    def claims_of(self, key: OwnerKey) -> tuple[Claim, ...]:
        """Claims made for an owner."""
        objects = (obj for claims in self.stores.claims.values() for obj in claims.by_index("owner", key))
        return tuple(claim for claim in (read_claim(obj) for obj in objects) if claim is not None)

    def settled(self, key: OwnerKey) -> bool:
        """Tell that an owner is gone and has no claims left; that it was seen to go is of no use any more."""
        if self.stores.owners[key.kind].get(ObjectKey(key.namespace, key.name)) is not None:
            return False
        if any(claims.keys("owner", key) for claims in self.stores.claims.values()):
            return False
        self.witnessed.discard(key)
        return True

    # What has to be looked at when something changed

    def _owner_changed(self, kind: str, old: KubeObject | None, new: KubeObject | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        key = OwnerKey(kind, obj.metadata.namespace, obj.metadata.name)
        if new is None:
            self.witnessed.add(key)
        else:
            self.witnessed.discard(key)
        if old is None or new is None or _substance(old) != _substance(new):
            self._queue(key)

    def _vm_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is not None and new is not None and old.spec == new.spec:
            return
        for key in _owner_vsphere_machine(either(old, new)):
            self._queue(OwnerKey(MACHINE, *key))

    def _template_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is not None and new is not None and _words(old) == _words(new):
            return
        for key in list(self.stores.owners[MACHINE].keys("template", either(old, new).key)):
            owner = OwnerKey(MACHINE, *key)
            if owner in self._unserved():
                self._queue(owner)

    def _machine_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is not None and new is not None and _substance(old) == _substance(new):
            return
        self._queue_machines_of(either(old, new).key)

    def _cluster_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is not None and new is not None and _cluster_facts(old) == _cluster_facts(new):
            return
        key = either(old, new).key
        for machine in list(self.stores.machines.keys("cluster", key)):
            self._queue_machines_of(machine)
        for owner in list(self.stores.owners[CLUSTER].keys("owner", key)):
            self._queue(OwnerKey(CLUSTER, *owner))
        for claims in self.stores.claims.values():
            for claim in claims.by_index("cluster", key):
                self._queue_owner_of(claim)

    def _claim_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is None or new is None or _claim_facts(old) != _claim_facts(new):
            self._queue_owner_of(either(old, new))

    def _address_changed(self, kind: str, old: KubeObject | None, new: KubeObject | None) -> None:
        if new is None or (old is not None and old.spec == new.spec):
            return
        key = claim_of_address(new)
        obj = self.stores.claims[kind].get(key) if key is not None else None
        claim = read_claim(obj) if obj is not None else None
        # Providers make the IPAddress first; a claim that names it says so itself later.
        if claim is not None and claim.bound == new.key:
            self._queue(claim.owner)

    def _pool_changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        before = self.book.get(pool_ref(either(old, new)))
        if new is None:
            self.book.remove(pool_ref(either(old, new)))
            self._queue_unserved()
            return
        pool = read_pool(new)
        self.book.put(pool)
        if before is None or _offer(before) != _offer(pool):
            self._queue_unserved()

    def _queue_machines_of(self, machine: ObjectKey) -> None:
        for key in list(self.stores.owners[MACHINE].keys("owner", machine)):
            self._queue(OwnerKey(MACHINE, *key))

    def _queue_owner_of(self, claim: KubeObject) -> None:
        owner = owner_of(claim)
        if owner is not None:
            self._queue(owner)

    def _queue_unserved(self) -> None:
        for key in list(self._unserved()):
            self._queue(key)


def reference(obj: KubeObject, group: str, kind: str) -> ObjectKey | None:
    """Key of the owner of some kind, in the same namespace."""
    for ref in obj.metadata.ownerReferences:
        if ref.kind == kind and ref.apiVersion.partition("/")[0] == group:
            return ObjectKey(obj.metadata.namespace, ref.name)
    return None


def cluster_paused(obj: KubeObject) -> bool:
    """Tell whether a Cluster is paused, by spec or by annotation."""
    return bool(view(obj.spec, api.ClusterSpec).paused) or is_paused(obj)


def cluster_of(obj: KubeObject) -> str:
    """Name of the Cluster in an object's label, or ""."""
    return (obj.metadata.labels or {}).get(api.CLUSTER_NAME_LABEL, "")


def _substance(obj: KubeObject) -> tuple[object, ...]:
    """Everything but the status, and what changes with each write."""
    meta = obj.metadata
    return obj.spec, meta.labels, meta.annotations, meta.ownerReferences, meta.deletionTimestamp


def _words(obj: KubeObject) -> tuple[object, ...]:
    return obj.metadata.labels, obj.metadata.annotations


def _cluster_facts(obj: KubeObject) -> tuple[object, ...]:
    endpoint = view(obj.spec, api.ClusterSpec).control_plane_endpoint
    return (
        cluster_paused(obj),
        bool(endpoint.host),
        (obj.metadata.annotations or {}).get(api.OLD_POOL_NAMESPACE_ANNOTATION),
    )


def _claim_facts(obj: KubeObject) -> tuple[object, ...]:
    """What of a claim makes a difference to its owner: not what else its provider and others write into it."""
    meta, claim = obj.metadata, read_claim(obj)
    own = () if claim is None else (claim.bound, claim.refusal, claim.held)
    return (obj.spec, meta.labels, meta.annotations, meta.ownerReferences, obj.deleting, *own)


def _offer(pool: Pool) -> tuple[object, ...]:
    """What of a pool makes a difference to those that wait: not how many addresses, but whether it has any."""
    has_some = pool.available is None or pool.available > 0
    return pool.family, has_some, pool.usable, pool.allowed_namespaces, pool.labels, pool.selectors


def _owner_machine(obj: KubeObject) -> tuple[ObjectKey, ...]:
    key = reference(obj, api.CLUSTER_GROUP, "Machine")
    return (key,) if key is not None else ()


def _owner_cluster(obj: KubeObject) -> tuple[ObjectKey, ...]:
    key = reference(obj, api.CLUSTER_GROUP, "Cluster")
    return (key,) if key is not None else ()


def _owner_vsphere_machine(obj: KubeObject) -> tuple[ObjectKey, ...]:
    key = reference(obj, api.INFRASTRUCTURE_GROUP, MACHINE)
    return (key,) if key is not None else ()


def _template(obj: KubeObject) -> tuple[ObjectKey, ...]:
    name = (obj.metadata.annotations or {}).get(api.TEMPLATE_ANNOTATION)
    return (ObjectKey(obj.metadata.namespace, name),) if name else ()


def _cluster(obj: KubeObject) -> tuple[ObjectKey, ...]:
    name = cluster_of(obj) or (view(obj.spec, api.MachineSpec).cluster_name if obj.kind == "Machine" else "")
    return (ObjectKey(obj.metadata.namespace, name),) if name else ()


def _claim_owner(obj: KubeObject) -> tuple[OwnerKey, ...]:
    key = owner_of(obj)
    return (key,) if key is not None else ()


def _unbound(obj: KubeObject) -> tuple[PoolRef, ...]:
    claim = read_claim(obj)
    return (claim.pool,) if claim is not None and claim.bound is None and not obj.deleting else ()
