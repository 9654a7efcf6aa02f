"""The reconciler of VSphereClusters: vCenter can be reached, the endpoint is known, failure domains are published.

Responsible for: the finalizer, conditions, vCenter's version, and the contract's sign that the infrastructure is there.
Invariants: the endpoint comes from somebody else (a user, the integrator) and is never made up here. A cluster stays
until none of its VSphereMachines is left, since their VMs need its credentials. vCenter is asked only while no watch of
its own tells that it is there, and never waited for here.
Must not know: machines, how zones are judged.
Source: the InfraCluster contract of the Cluster API book; CAPV v1.16 controllers/vspherecluster_reconciler.go.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from services.machine_controller import api, contract, render
from services.machine_controller.vsphere.errors import VSphereError
from services.runtime.controller import Result
from services.runtime.kube import conditions
from services.runtime.kube.conditions import FALSE, TRUE, Condition, find, set_condition
from services.runtime.kube.objects import has_finalizer, view, with_finalizer, with_status, without_finalizers

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from services.machine_controller.caches import Caches
    from services.machine_controller.connections import Connections
    from services.machine_controller.probes import Probes
    from services.runtime.clock import Clock
    from services.runtime.kube.objects import KubeObject, ObjectKey
    from services.runtime.kube.transport import Client

FINALIZER = "vspherecluster.infrastructure.cluster.x-k8s.io"
_KIND = "VSphereCluster"
READY = "Ready"
NOT_READY = "NotReady"
VCENTER_AVAILABLE = "VCenterAvailable"
AVAILABLE = "Available"
UNREACHABLE = "VCenterUnreachable"
WAITING_FOR_ENDPOINT = "WaitingForControlPlaneEndpoint"
WAITING_FOR_ZONES = "WaitingForFailureDomainStatus"
PAUSED = "Paused"
DELETING = "Deleting"
AGAIN_SECONDS = 60.0
"""Between two looks while nothing changes; also the longest pause between two tries of a vCenter that fails."""
_FIRST_PAUSE_SECONDS = 1.0


class Verdict(NamedTuple):
    """What is to be said of a cluster; `version` is vCenter's, "" while it is not known."""

    trouble: str = ""
    reason: str = READY
    message: str = ""
    version: str = ""
    paused: bool = False

    @property
    def ready(self) -> bool:
        """Whether machines may be made."""
        return self.reason == READY


class ClusterReconciler:
    """See the module."""

    def __init__(
        self,
        client: Client,
        caches: Caches,
        connections: Connections,
        probes: Probes,
        clock: Clock,
        *,
        taken: Callable[[KubeObject], bool],
        held_by_zones: Callable[[KubeObject], str],
    ) -> None:
        """`held_by_zones` says why a cluster has to wait for its failure domains, "" when it need not."""
        self._client = client
        self._caches = caches
        self._connections = connections
        self._probes = probes
        self._clock = clock
        self._taken = taken
        self._held_by_zones = held_by_zones
        self._failures: Counter[ObjectKey] = Counter()
        """Of each cluster's vCenter, in a row."""

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Bring one VSphereCluster up to date."""
        try:
            return await self._look(key)
        finally:
            self._probes.done(key)

    async def _look(self, key: ObjectKey) -> Result | None:
        cluster = self._caches.stores.clusters.get(key)
        if cluster is None or not self._taken(cluster):
            self._connections.release((_KIND, key))
            del self._failures[key]
            return None
        capi_cluster = self._caches.capi_cluster_of(cluster)
        if contract.is_paused(cluster, capi_cluster):
            await self._write_status(cluster, Verdict(paused=True))
            return None
        if cluster.deleting:
            await self._delete(cluster)
            return None
        if capi_cluster is None:
            return None  # nobody's yet; the watch tells when Cluster API has set the owner
        if not has_finalizer(cluster, FINALIZER):
            cluster = await self._update(with_finalizer(cluster, FINALIZER))
        verdict = self._verdict(cluster, capi_cluster)
        if verdict is None:
            return None  # its Secret is being read, or its vCenter asked: both queue it
        await self._write_status(cluster, verdict)
        if not verdict.trouble:
            del self._failures[key]
            return Result(AGAIN_SECONDS)
        # Nothing tells when vCenter is back, and a new cluster's machines wait for this.
        pause = min(AGAIN_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(self._failures[key], 10))
        self._failures[key] += 1
        return Result(pause)

    def _verdict(self, cluster: KubeObject, capi_cluster: KubeObject) -> Verdict | None:
        spec = view(cluster.spec, api.VSphereClusterSpec)
        user = (_KIND, cluster.key)
        connection = self._connections.get(cluster, spec.server, spec.thumbprint, user=user)
        if connection.trouble:
            return Verdict(connection.trouble, NOT_READY, connection.trouble)
        if connection.vcenter is None:
            return None
        version = view(cluster.status, api.VSphereClusterStatus).vcenter_version
        if not version or not connection.vcenter.watch.connected:
            try:
                about = self._probes.outcome(cluster.key, connection.vcenter)
            except VSphereError as error:
                return Verdict(str(error), NOT_READY, str(error))
            if about is None:
                return None
            version = about.version
        if not render.endpoint(cluster, capi_cluster)[0]:
            message = "spec.controlPlaneEndpoint.host is empty: set it, or let the integrator claim an address for it"
            return Verdict("", WAITING_FOR_ENDPOINT, message, version)
        if waits := self._held_by_zones(cluster):
            return Verdict("", WAITING_FOR_ZONES, waits, version)
        return Verdict(version=version)

    async def _delete(self, cluster: KubeObject) -> None:
        if not has_finalizer(cluster, FINALIZER):
            return
        left = sorted(machine.metadata.name for machine in self._caches.machines_of(cluster))
        if left:
            shown = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")  # noqa: PLR2004 - enough
            await self._write_status(cluster, Verdict("", DELETING, f"waiting for VSphereMachines: {shown}"))
            return
        await self._update(without_finalizers(cluster, {FINALIZER}))

    async def _update(self, cluster: KubeObject) -> KubeObject:
        answer = await self._client.update(api.VSPHERE_CLUSTERS, cluster)
        self._caches.stores.clusters.observe(answer)
        return answer

    async def _write_status(self, cluster: KubeObject, verdict: Verdict) -> None:
        changed = with_verdict(cluster, verdict, self._clock.now())
        if changed is not cluster:
            self._caches.stores.clusters.observe(await self._client.update_status(api.VSPHERE_CLUSTERS, changed))


def with_verdict(cluster: KubeObject, verdict: Verdict, now: datetime) -> KubeObject:
    """VSphereCluster with its status brought up to date; itself when it says that already."""
    rows = view(cluster.status, api.VSphereClusterStatus).conditions

    def put(type_: str, status: bool, reason: str, message: str = "") -> None:
        nonlocal rows
        old = find(rows, type_)
        new = Condition(type_, TRUE if status else FALSE, reason, message, None, cluster.metadata.generation)
        if old is None or (old.status, old.reason, old.message) != (new.status, new.reason, new.message):
            rows = set_condition(rows, new, now)

    fields: dict[str, object] = {}
    if verdict.paused or find(rows, PAUSED) is not None:
        put(PAUSED, verdict.paused, PAUSED if verdict.paused else "NotPaused")
    if not verdict.paused:
        if verdict.reason != DELETING:
            put(VCENTER_AVAILABLE, not verdict.trouble, UNREACHABLE if verdict.trouble else AVAILABLE, verdict.trouble)
        put(READY, verdict.ready, verdict.reason, verdict.message)
        if verdict.version:
            fields["vCenterVersion"] = verdict.version
        if verdict.ready:
            fields["initialization"] = {"provisioned": True}
    fields["conditions"] = conditions.plain(rows)
    return with_status(cluster, api.with_fields(cluster.status, **fields))
