"""Whose credentials a VSphereDeploymentZone is looked at with: it names a server, and nobody who may sign in there.

Responsible for: the order in which the VSphereClusters of a zone's server, and the service itself, are asked.
Invariants: pure, and the same objects give the same order. Clusters that select the zone come first, since their
machines will be placed in it with these very credentials; then the service's own; then other clusters of the server.
Must not know: what Secrets hold, sessions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from services.machine_controller import api
from services.machine_controller.zones.selectors import same_server, selects
from services.runtime.kube.objects import view

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.machine_controller.connections import Connection
    from services.runtime.kube.objects import KubeObject, ObjectKey


class Connections(Protocol):
    """Who gets connections; nothing is sent by that."""

    def get(self, cluster: KubeObject | None, server: str, thumbprint: str = "") -> Connection:
        """Return the connection of a VSphereCluster, with the credentials of its `identityRef`."""

    def of(self, identity: ObjectKey, server: str, thumbprint: str = "") -> Connection:
        """Return the connection with what a Secret holds."""


class Secrets(NamedTuple):
    """Secrets of the service itself: for zones that no cluster selects, and for making tags."""

    own: ObjectKey | None = None
    tags: ObjectKey | None = None


def order(zone: KubeObject, clusters: Iterable[KubeObject]) -> list[KubeObject | None]:
    """Return whom to ask: VSphereClusters, and None for the service itself."""
    server = view(zone.spec, api.VSphereDeploymentZoneSpec).server
    selecting: list[KubeObject] = []
    others: list[KubeObject] = []
    for cluster in sorted(clusters, key=lambda each: each.key):
        spec = view(cluster.spec, api.VSphereClusterSpec)
        if spec.identity_ref is None or cluster.deleting or not same_server(spec.server, server):
            continue
        chosen = selects(spec.failure_domain_selector, zone.metadata.labels or {})
        (selecting if chosen else others).append(cluster)
    return [*selecting, None, *others]
