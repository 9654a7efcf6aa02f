"""The failure domains of one VSphereCluster: keeps its status equal to what `publish` says.

Responsible for: the write, and an Event when what is published changes or when nothing can be.
Invariants: writes are guarded by the resourceVersion, so the reconciler of clusters, which writes the same status,
loses nothing. A paused cluster is left alone.
Must not know: why a zone is not ready, what else a cluster needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.machine_controller import api
from services.machine_controller.zones import publish
from services.runtime.kube.conditions import find
from services.runtime.kube.events import NORMAL, WARNING
from services.runtime.kube.objects import KubeObject, ObjectKey, view, with_status

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.machine_controller.zones.caches import Stores
    from services.runtime.clock import Clock
    from services.runtime.kube.events import EventRecorder
    from services.runtime.kube.transport import Client

_EVENTS = {publish.NOT_READY: "FailureDomainsNotReady", publish.NONE_SELECTED: publish.NONE_SELECTED}
"""What somebody has to mend; that zones are about to be looked at is no news."""


class Publisher:
    """Publishes zones."""

    def __init__(
        self,
        client: Client,
        stores: Stores,
        events: EventRecorder,
        clock: Clock,
        *,
        taken: Callable[[KubeObject], bool],
        paused: Callable[[KubeObject], bool],
        published: Callable[[ObjectKey], None],
    ) -> None:
        """`taken` and `paused` tell which VSphereClusters are ours, and which of them are left alone now.

        `published` is told of each whose status was written.
        """
        self._client = client
        self._stores = stores
        self._events = events
        self._clock = clock
        self._taken = taken
        self._paused = paused
        self._published = published

    async def reconcile(self, key: ObjectKey) -> None:
        """Bring one VSphereCluster's status up to date."""
        cluster = self._stores.clusters.get(key)
        if cluster is None or cluster.deleting or not self._taken(cluster) or self._paused(cluster):
            return
        wanted = publish.publication(cluster, self._stores.zones.values())
        changed = with_status(cluster, publish.applied(cluster.status, wanted, self._clock.now()))
        if changed is cluster:
            return
        before = view(cluster.status, api.VSphereClusterStatus)
        self._stores.clusters.observe(await self._client.update_status(api.VSPHERE_CLUSTERS, changed))
        said = find(before.conditions, publish.FAILURE_DOMAINS_READY)
        told = wanted.condition
        worth = told is not None and told.reason in _EVENTS and (said is None or said.message != told.message)
        if told is not None and worth:
            self._events.event(cluster, WARNING, _EVENTS[told.reason], told.message, action="PublishFailureDomains")
        if before.failure_domains != wanted.failure_domains:
            names = ", ".join(domain.name for domain in wanted.failure_domains) or "none"
            self._events.event(cluster, NORMAL, "FailureDomainsPublished", names, action="PublishFailureDomains")
        self._published(key)
