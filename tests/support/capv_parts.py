"""What the stand-ins for CAPV, Cluster API and the garbage collector are made of: controllers over watches.

Responsible for: the resources of each API version, following them in some namespaces, and running it all inside the
test's own event loop.
Invariants: everything is woken by a watch; nothing polls. A mistake of a stand-in is remembered and fails the test.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import NamedTuple

from services.runtime.cache.reflector import Reflector
from services.runtime.cache.store import Store
from services.runtime.clock import SystemClock
from services.runtime.controller import Controller, ReconcileError
from services.runtime.kube.errors import KubeError
from services.runtime.kube.objects import ObjectKey, view
from services.runtime.kube.resource import Resource

INFRASTRUCTURE = "infrastructure.cluster.x-k8s.io"
CLUSTER = "cluster.x-k8s.io"
IPAM = "ipam.cluster.x-k8s.io"
METAL3 = "ipam.metal3.io"
CLUSTER_NAME = "cluster.x-k8s.io/cluster-name"
CONTROL_PLANE = "cluster.x-k8s.io/control-plane"
PAUSED = "cluster.x-k8s.io/paused"


class Versions(NamedTuple):
    """The version of each API group that a stand-in or a user speaks."""

    infrastructure: str = "v1beta2"
    cluster: str = "v1beta2"
    ipam: str = "v1beta2"

    def _resource(self, group, plural, kind):
        version = {INFRASTRUCTURE: self.infrastructure, CLUSTER: self.cluster, IPAM: self.ipam}[group]
        return Resource(group, version, plural, kind, namespaced=True)

    @property
    def vsphere_machines(self):
        return self._resource(INFRASTRUCTURE, "vspheremachines", "VSphereMachine")

    @property
    def vsphere_vms(self):
        return self._resource(INFRASTRUCTURE, "vspherevms", "VSphereVM")

    @property
    def vsphere_clusters(self):
        return self._resource(INFRASTRUCTURE, "vsphereclusters", "VSphereCluster")

    @property
    def templates(self):
        return self._resource(INFRASTRUCTURE, "vspheremachinetemplates", "VSphereMachineTemplate")

    @property
    def machines(self):
        return self._resource(CLUSTER, "machines", "Machine")

    @property
    def clusters(self):
        return self._resource(CLUSTER, "clusters", "Cluster")

    @property
    def claims(self):
        return self._resource(IPAM, "ipaddressclaims", "IPAddressClaim")

    @property
    def addresses(self):
        return self._resource(IPAM, "ipaddresses", "IPAddress")


METAL3_CLAIMS = Resource(METAL3, "v1alpha1", "ipclaims", "IPClaim", namespaced=True)
METAL3_ADDRESSES = Resource(METAL3, "v1alpha1", "ipaddresses", "IPAddress", namespaced=True)


class Parts:
    """Base of the stand-ins: reflectors and controllers of some namespaces."""

    def __init__(self, client, namespaces):
        self.client = client
        self.namespaces = tuple(namespaces)
        self.mistakes = []
        self._clock = SystemClock()
        self._tasks = []
        self._reflectors = []
        self._controllers = []

    def follow(self, resource, **indexes):
        """A store that follows a resource."""
        store = Store(f"stand-in {resource.kind}", indexes)
        for namespace in self.namespaces:
            self._reflectors.append(Reflector(self.client, resource, store, clock=self._clock, namespace=namespace))
        return store

    def control(self, name, reconcile, *, workers=8):
        """A controller; returns the function that queues a key."""

        async def watched(key):
            try:
                return await reconcile(key)
            except (KubeError, ReconcileError):
                raise  # tried again
            except Exception as error:
                self.mistakes.append(repr(error))
                raise

        controller = Controller(f"stand-in-{name}", watched, workers=workers, clock=self._clock)
        self._controllers.append(controller)
        return controller.queue.add

    def now(self):
        return self._clock.now()

    @asynccontextmanager
    async def running(self):
        """Run for the body of the `with`."""
        async with asyncio.TaskGroup() as group:
            self._tasks = [group.create_task(reflector.run()) for reflector in self._reflectors]
            for reflector in self._reflectors:
                await reflector.store.wait_synced()
            self._tasks += [group.create_task(controller.run()) for controller in self._controllers]
            try:
                yield self
            finally:
                self.stop()

    def stop(self):
        """End it; `running` does so at its end."""
        for task in self._tasks:
            task.cancel()


def content(raw):
    """A spec or status as a dict that may be changed."""
    return view(raw, dict)


def owner_key(obj, kind):
    """Key of the owner of a kind, or None."""
    for ref in obj.metadata.ownerReferences:
        if ref.kind == kind:
            return ObjectKey(obj.metadata.namespace, ref.name)
    return None


def by_owner(kind):
    """An index by owner of a kind."""

    def values(obj):
        key = owner_key(obj, kind)
        return () if key is None else (key,)

    return values


def cluster_key(obj):
    """Key of the Cluster that an object is labelled with, or None."""
    name = (obj.metadata.labels or {}).get(CLUSTER_NAME)
    return ObjectKey(obj.metadata.namespace, name) if name else None


def by_cluster(obj):
    """An index by Cluster."""
    key = cluster_key(obj)
    return () if key is None else (key,)


def is_paused(cluster, obj):
    """Cluster API's rule, on the Cluster and the object itself."""
    if PAUSED in (obj.metadata.annotations or {}):
        return True
    return cluster is not None and (
        bool(content(cluster.spec).get("paused")) or PAUSED in (cluster.metadata.annotations or {})
    )
