"""Zones as a part of the machine controller: two controllers over stores that it has anyway.

Responsible for: wiring only, and which change is about which key.
Must not know: where the stores and credentials come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from services.machine_controller import api
from services.machine_controller.probes import Probes
from services.machine_controller.zones import publish
from services.machine_controller.zones.caches import Stores, domain_name, zone_of
from services.machine_controller.zones.publisher import Publisher
from services.machine_controller.zones.reconciler import ZoneReconciler
from services.machine_controller.zones.selectors import same_server
from services.runtime.cache.store import either
from services.runtime.controller import Controller
from services.runtime.kube.objects import KubeObject, ObjectKey, view
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from services.machine_controller.zones.identity import Connections, Secrets
    from services.runtime.kube.events import EventRecorder
    from services.runtime.main import Service
    from services.runtime.queue import WorkQueue

S = TypeVar("S", bound=Settings)

DEADLINE_SECONDS: Final = 180.0
"""A look asks vCenter a dozen questions, each of which has a deadline of its own."""
_WORKERS: Final = 4


class Zones:
    """What the rest of the service may ask about zones."""

    def __init__(self, stores: Stores, zones: Controller[ObjectKey], probes: Probes) -> None:
        self._stores = stores
        self._zones = zones
        self._probes = probes

    def holds(self, cluster: KubeObject) -> str:
        """Return why a VSphereCluster must not become provisioned yet, "" when zones do not stand in the way."""
        return publish.holds(cluster, self._stores.zones.values())

    def look_again(self, server: str = "") -> None:
        """Look at the zones of a server (all without one) now: credentials have changed, say."""
        self._probes.forget()
        for zone in self._stores.zones.values():
            if not server or same_server(view(zone.spec, api.VSphereDeploymentZoneSpec).server, server):
                self._zones.queue.add(zone.key)


def add_zones(
    service: Service[S],
    stores: Stores,
    connections: Connections,
    secrets: Secrets,
    events: EventRecorder,
    *,
    period: float,
    taken: Callable[[KubeObject], bool],
    paused: Callable[[KubeObject], bool],
    published: Callable[[ObjectKey], None],
) -> Zones:
    """Add the controllers of zones to the manager; the caller adds the reflectors of the stores.

    `period`: seconds between two looks at a zone. `taken` tells which VSphereClusters are ours, `paused` which of them
    (or whose Cluster) are left alone; it is asked again when their status changes. `published` is told of each
    VSphereCluster whose failure domains were written: `Zones.holds` may have changed.
    """

    def queue_zone(key: ObjectKey) -> None:
        zones.queue.add(key)

    probes = Probes(queue_zone)
    reconciler = ZoneReconciler(
        service.client, stores, connections, probes, secrets, events, service.clock, period=period, taken=taken
    )
    publisher = Publisher(
        service.client, stores, events, service.clock, taken=taken, paused=paused, published=published
    )
    zones: Controller[ObjectKey] = Controller(
        "vsphere-zone", reconciler.reconcile, workers=_WORKERS, deadline=DEADLINE_SECONDS, clock=service.clock
    )
    clusters: Controller[ObjectKey] = Controller(
        "vsphere-zone-publisher", publisher.reconcile, workers=1, clock=service.clock
    )

    _Routes(stores, zones.queue, clusters.queue).subscribe()
    service.manager.add_controller(zones)
    service.manager.add_controller(clusters)
    return Zones(stores, zones, probes)


class _Routes:
    """Which change is about which key."""

    def __init__(self, stores: Stores, zones: WorkQueue[ObjectKey], clusters: WorkQueue[ObjectKey]) -> None:
        self._stores = stores
        self._zones = zones
        self._clusters = clusters

    def subscribe(self) -> None:
        """Follow the stores."""
        self._stores.zones.subscribe(self._zone)
        self._stores.domains.subscribe(self._domain)
        self._stores.clusters.subscribe(self._cluster)
        self._stores.machines.subscribe(self._machine)

    def _zone(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is None or new is None or _substance(old) != _substance(new):
            self._zones.add(either(old, new).key)
        for cluster in self._stores.clusters.values():
            self._clusters.add(cluster.key)

    def _domain(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is not None and new is not None and _substance(old) == _substance(new):
            return
        name = either(old, new).metadata.name
        for zone in self._stores.zones.values():
            if domain_name(zone) == name:
                self._zones.add(zone.key)

    def _cluster(self, old: KubeObject | None, new: KubeObject | None) -> None:
        self._clusters.add(either(old, new).key)
        before, after = _access(old), _access(new)
        if before == after:
            return
        servers = [access.server for access in (before, after) if access is not None]
        for zone in self._stores.zones.values():
            # A zone that is ready needs nobody else's credentials; its period will do.
            status = view(zone.status, api.VSphereDeploymentZoneStatus)
            own = view(zone.spec, api.VSphereDeploymentZoneSpec).server
            if not status.ready and any(same_server(own, server) for server in servers):
                self._zones.add(zone.key)

    def _machine(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if new is not None or old is None:
            return
        zone = self._stores.zones.get(ObjectKey("", zone_of(old)))
        if zone is not None and zone.deleting:
            self._zones.add(zone.key)


def _substance(obj: KubeObject) -> tuple[object, ...]:
    """Everything that a look depends on: a status that was written is no reason for another."""
    meta = obj.metadata
    return meta.uid, meta.generation, meta.labels, meta.annotations, meta.deletionTimestamp


class _Access(NamedTuple):
    """What of a VSphereCluster says whether and how its credentials serve a zone."""

    server: str
    labels: Mapping[str, str] | None
    identity: api.IdentityRef | None
    thumbprint: str
    selector: api.LabelSelector | None


def _access(obj: KubeObject | None) -> _Access | None:
    if obj is None or obj.deleting:
        return None
    spec = view(obj.spec, api.VSphereClusterSpec)
    return _Access(spec.server, obj.metadata.labels, spec.identity_ref, spec.thumbprint, spec.failure_domain_selector)
