"""Whose credentials a VSphereDeploymentZone is looked at with: it names a server, and nobody who may sign in there.

Responsible for: the order in which the VSphereClusters of a zone's server, and the service itself, are asked.
Invariants: pure, and the same objects give the same order. Clusters that select the zone come first, since their
machines will be placed in it with these very credentials; then the service's own; then other clusters of the server.
Must not know: Secrets, sessions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from services.machine_controller import api
from services.machine_controller.vsphere.errors import VSphereError
from services.machine_controller.vsphere.values import Server
from services.machine_controller.zones.selectors import selects
from services.runtime.kube.objects import view

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.machine_controller.vsphere.vcenter import VCenter
    from services.runtime.kube.objects import KubeObject


class NoIdentityError(VSphereError):
    """Nobody is known who may sign in at a server; the message says how to name somebody."""


class Connections(Protocol):
    """Who gets vCenters: each method raises VSphereError (NoIdentityError where no credentials are configured)."""

    async def of_cluster(self, cluster: KubeObject) -> VCenter:
        """Return the vCenter of a VSphereCluster, with the credentials of its `identityRef` or the service's own."""

    async def own(self, server: str) -> VCenter:
        """Return a vCenter with the service's own credentials."""

    async def for_tags(self, server: str) -> VCenter:
        """Return a vCenter with the credentials that may create and attach tags."""


def same_server(one: str, other: str) -> bool:
    """Whether two ways to write a server mean the same."""
    return one == other or _canonical(one) == _canonical(other)


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


def _canonical(text: str) -> str:
    try:
        return str(Server.parse(text))
    except VSphereError:
        return text
