"""Which failure domains a VSphereCluster offers to Cluster API: a pure function of its selector and the zones.

Responsible for: `status.failureDomains`, the condition FailureDomainsReady, and whether the cluster has to wait.
Invariants: failure domains are sorted by name. Only a zone that was found ready is published. One whose vCenter cannot
be asked stays published if it was: the zone is as it was, and a control plane that is mended meanwhile must not be
placed anywhere else. While nothing can be published a cluster that selects zones is not provisioned: machines made
then would be placed outside of every zone for good.
Must not know: vCenter, the API server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from services.machine_controller import api
from services.machine_controller.zones.decide import VCENTER_AVAILABLE, VCENTER_UNREACHABLE
from services.machine_controller.zones.selectors import same_server, selects, shown
from services.runtime.kube.conditions import FALSE, TRUE, Condition, find, plain, set_condition
from services.runtime.kube.objects import view

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from msgspec import Raw

    from services.runtime.kube.objects import KubeObject

FAILURE_DOMAINS_READY: Final = "FailureDomainsReady"
READY: Final = "Ready"
NOT_READY: Final = "NotReady"
WAITING: Final = "WaitingForFailureDomainStatus"
NONE_SELECTED: Final = "NoFailureDomainSelected"
LIMIT: Final = 100
"""Failure domains that a VSphereCluster can have."""
_SHOWN = 5


class Publication(NamedTuple):
    """What a VSphereCluster's status shall say. Without a condition there is no selector, and nothing is said.

    `hold`: why the cluster must not become provisioned yet, "" when it may.
    """

    failure_domains: tuple[api.FailureDomain, ...] = ()
    condition: Condition | None = None
    hold: str = ""


class _Zone(NamedTuple):
    name: str
    control_plane: bool
    ready: bool | None
    published: bool
    why_not: str


def publication(cluster: KubeObject, zones: Iterable[KubeObject]) -> Publication:
    """Return what a VSphereCluster publishes of all the zones there are."""
    spec = view(cluster.spec, api.VSphereClusterSpec)
    if spec.failure_domain_selector is None:
        return Publication()
    before = {domain.name for domain in view(cluster.status, api.VSphereClusterStatus).failure_domains}
    selected = sorted(_zone(zone, before) for zone in zones if _belongs(zone, spec))
    published = [zone for zone in selected if zone.published]
    unknown = [zone.name for zone in selected if zone.ready is None]
    skipped = [zone for zone in selected if zone.ready is False]
    domains = tuple(api.FailureDomain(zone.name, control_plane=zone.control_plane) for zone in published[:LIMIT])
    reason, message, hold = READY, "", False
    if not selected:
        label = shown(spec.failure_domain_selector)
        labelled = f" has labels that match {label}" if label else " exists"
        reason, message, hold = NONE_SELECTED, f"no VSphereDeploymentZone of server {spec.server}{labelled}", True
    elif unknown:
        reason, hold = WAITING, True
        message = f"not looked at yet: {_names(unknown)}"
    elif skipped:
        details = "; ".join(f"{zone.name}: {zone.why_not}" for zone in skipped[:_SHOWN])
        more = f"; and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
        counted = f"{len(skipped)} of {len(selected)} zones are not ready" if published else "no zone is ready"
        reason, message, hold = NOT_READY, f"{counted}: {details}{more}", not published
    elif len(published) > LIMIT:
        reason = NOT_READY
        message = f"{len(published)} zones are selected, of which a cluster can have {LIMIT}: the first are published"
    condition = Condition(
        FAILURE_DOMAINS_READY,
        TRUE if reason == READY else FALSE,
        reason,
        message,
        observedGeneration=cluster.metadata.generation,
    )
    return Publication(domains, condition, message if hold else "")


def applied(status: Raw, wanted: Publication, now: datetime) -> Raw:
    """Return a VSphereCluster's status with the publication in it; other fields and conditions stay as they are.

    Without a selector only what was published through one is taken back.
    """
    present = view(status, api.VSphereClusterStatus)
    conditions = present.conditions
    if wanted.condition is not None:
        conditions = set_condition(conditions, wanted.condition, now)
    elif find(conditions, FAILURE_DOMAINS_READY) is None:
        return status
    else:
        conditions = tuple(each for each in conditions if each.type != FAILURE_DOMAINS_READY)
    if conditions is present.conditions and wanted.failure_domains == present.failure_domains:
        return status
    return api.with_fields(
        status, failureDomains=_or_none(wanted.failure_domains), conditions=_or_none(plain(conditions))
    )


def holds(cluster: KubeObject, zones: Iterable[KubeObject]) -> str:
    """Return why a VSphereCluster must not become provisioned yet; "" when nothing about zones stands in the way.

    That its status is behind is a reason too: Cluster API copies failure domains when it sees the cluster provisioned.
    """
    wanted = publication(cluster, zones)
    if wanted.hold:
        return wanted.hold
    present = view(cluster.status, api.VSphereClusterStatus).failure_domains
    if wanted.condition is not None and present != wanted.failure_domains:
        return "failure domains are about to be published"
    return ""


def _belongs(zone: KubeObject, cluster: api.VSphereClusterSpec) -> bool:
    server = view(zone.spec, api.VSphereDeploymentZoneSpec).server
    labels = zone.metadata.labels or {}
    return (
        not zone.deleting and same_server(server, cluster.server) and selects(cluster.failure_domain_selector, labels)
    )


def _zone(zone: KubeObject, before: set[str]) -> _Zone:
    status = view(zone.status, api.VSphereDeploymentZoneStatus)
    name = zone.metadata.name
    reached = find(status.conditions, VCENTER_AVAILABLE)
    silent = status.ready is False and reached is not None and reached.reason == VCENTER_UNREACHABLE
    summary = find(status.conditions, READY)
    return _Zone(
        name,
        view(zone.spec, api.VSphereDeploymentZoneSpec).control_plane,
        status.ready,
        published=bool(status.ready) or (silent and name in before),
        why_not=summary.message if summary is not None else "",
    )


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _or_none(values: Sequence[object]) -> list[object] | None:
    return list(values) or None
