"""One VSphereDeploymentZone: looked at in vCenter again and again, and what was seen written down.

Responsible for: finalizer, owner reference on the failure domain, whose credentials are used, tags where they may be
made, conditions, `status.ready`, Events, and the deletion.
Invariants: vCenter tells nobody that a tag, a rule or a name has changed, so every zone is looked at again after a
period, one that is not ready sooner. Tags are touched only for a failure domain that asks for it by annotation, with
credentials for that alone. What changed is said once: the conditions on the object are the memory. A zone stays while a
Machine is placed in it; the last zone of a failure domain takes that with it.
Must not know: how a check is made, which clusters publish the zone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec.structs import replace

from services.machine_controller import api
from services.machine_controller.connections import Connection
from services.machine_controller.contract import is_paused
from services.machine_controller.vsphere.errors import AuthenticationFailed, CertificateMismatch, VSphereError
from services.machine_controller.zones import autoconfigure, identity, metrics
from services.machine_controller.zones.caches import domain_name
from services.machine_controller.zones.decide import (
    FAILURE_DOMAIN_VALIDATED,
    READY,
    TAG_CHECKS,
    Check,
    Observation,
    Verdict,
    decide,
    deleting,
)
from services.machine_controller.zones.observe import Look, observe
from services.runtime import log
from services.runtime.controller import Result
from services.runtime.kube.conditions import FALSE, TRUE, find, plain, set_condition
from services.runtime.kube.errors import NotFound
from services.runtime.kube.events import NORMAL, WARNING
from services.runtime.kube.objects import (
    KubeObject,
    ObjectKey,
    OwnerReference,
    has_finalizer,
    view,
    with_finalizer,
    with_owner,
    with_status,
    without_finalizers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.machine_controller.probes import Probes
    from services.machine_controller.vsphere.vcenter import VCenter
    from services.machine_controller.zones.caches import Stores
    from services.machine_controller.zones.identity import Connections, Secrets
    from services.machine_controller.zones.tagging import Wanted
    from services.runtime.clock import Clock
    from services.runtime.kube.conditions import Condition
    from services.runtime.kube.events import EventRecorder
    from services.runtime.kube.transport import Client

FINALIZER: Final = f"vspheredeploymentzone.{api.GROUP}"
RETRY_SECONDS: Final = 30.0
"""After this long a zone that is not ready is looked at again, unless the period is shorter."""
PENDING_SECONDS: Final = 1.0
"""Reading a Secret takes about this long."""
_LOG = log.get("machine_controller.zones")
_SHOWN = 5


class _Reached(NamedTuple):
    """A vCenter that was signed in at, or why there is none; neither while credentials are read, or it is asked."""

    vcenter: VCenter | None
    problem: str = ""


class ZoneReconciler:
    """Brings one zone up to date."""

    def __init__(
        self,
        client: Client,
        stores: Stores,
        connections: Connections,
        probes: Probes,
        secrets: Secrets,
        events: EventRecorder,
        clock: Clock,
        *,
        period: float,
        taken: Callable[[KubeObject], bool],
    ) -> None:
        """`period` is in seconds; `taken` tells which VSphereClusters are ours, so that others' credentials rest."""
        self._client = client
        self._stores = stores
        self._connections = connections
        self._probes = probes
        self._secrets = secrets
        self._events = events
        self._clock = clock
        self._period = period
        self._taken = taken
        self._tagging = asyncio.Lock()  # two zones that extend one category at once would undo one another's
        self._ending = asyncio.Lock()  # of two last zones that go at once, each would leave the domain to the other

    async def reconcile(self, key: ObjectKey) -> Result | None:
        """Do what one zone needs now."""
        try:
            return await self._work(key)
        finally:
            self._probes.done(key)

    async def _work(self, key: ObjectKey) -> Result | None:
        zone = self._stores.zones.get(key)
        if zone is None:
            metrics.forget(key.name)
            return None
        if is_paused(zone):
            return None
        if zone.deleting:
            return await self._delete(zone)
        held = with_finalizer(zone, FINALIZER)
        if held is not zone:
            zone = await self._client.update(api.VSPHERE_DEPLOYMENT_ZONES, held)
            self._stores.zones.observe(zone)
        spec = view(zone.spec, api.VSphereDeploymentZoneSpec)
        domain = self._stores.domain(zone)
        if domain is not None:
            await self._own(zone, domain)
        seen = await self._look(zone, spec, domain)
        if seen is None:
            return Result(PENDING_SECONDS)
        verdict = decide(seen, zone.metadata.generation)
        await self._report(zone, verdict)
        return Result(self._period if verdict.ready else min(self._period, RETRY_SECONDS))

    # Looking

    async def _look(
        self, zone: KubeObject, spec: api.VSphereDeploymentZoneSpec, domain: KubeObject | None
    ) -> Observation | None:
        """Look at a zone; None while credentials are being read, or vCenter is asked whether it is there."""
        if domain is None:
            return Observation({Check.DOMAIN: f"VSphereFailureDomain {spec.failure_domain!r} does not exist"})
        reached = self._reach(zone, spec.server)
        if reached.vcenter is None:
            return Observation({Check.VCENTER: reached.problem}) if reached.problem else None
        wanted = view(domain.spec, api.VSphereFailureDomainSpec)
        look = await observe(reached.vcenter, wanted, spec.placement_constraint)
        asked = (domain.metadata.annotations or {}).get(api.AUTO_CONFIGURE_ANNOTATION) == "true"
        if not asked or not look.wanted or not any(check in look.observation.problems for check in TAG_CHECKS):
            return look.observation
        problem = await self._configure(zone, spec.server, look.wanted)
        if problem is None:
            return None
        if problem:
            return _with(look, problem)
        return (await observe(reached.vcenter, wanted, spec.placement_constraint)).observation

    def _reach(self, zone: KubeObject, server: str) -> _Reached:
        """Sign in as the first who may; whoever has no usable credentials, or a wrong thumbprint, is passed over."""
        if not server:
            return _Reached(None, "spec.server is missing")
        refused: list[str] = []
        without: list[str] = []
        clusters = [cluster for cluster in self._stores.clusters.values() if self._taken(cluster)]
        for cluster in identity.order(zone, clusters):
            vcenter, trouble = self._connection(cluster, server)
            if vcenter is None and not trouble:
                return _Reached(None)
            if vcenter is None:
                without.append(trouble)
                continue
            try:
                answered = self._probes.outcome(zone.key, vcenter) is not None
            except (AuthenticationFailed, CertificateMismatch) as error:
                refused.append(str(error))
            except VSphereError as error:
                return _Reached(None, str(error))
            else:
                return _Reached(vcenter if answered else None)
        # That a password is wrong is nearer to the cause than that somebody else has none.
        return _Reached(None, (refused + without)[0])

    def _connection(self, cluster: KubeObject | None, server: str) -> Connection:
        if cluster is not None:
            spec = view(cluster.spec, api.VSphereClusterSpec)
            return self._connections.get(cluster, spec.server, spec.thumbprint)
        if self._secrets.own is None:
            return Connection(
                trouble=f"nobody to sign in as at {server}: no VSphereCluster of this server names a Secret, and no "
                "default is configured"
            )
        return self._connections.of(self._secrets.own, server)

    async def _configure(self, zone: KubeObject, server: str, wanted: Sequence[Wanted]) -> str | None:
        """Make the tags that are missing; returns why that cannot be done, "" when it is, None when not yet."""
        if self._secrets.tags is None:
            return "no credentials for making tags are configured (--zone-tags-secret)"
        # Never with a thumbprint of a cluster's: whoever may write one could have these credentials sent anywhere.
        vcenter, trouble = self._connections.of(self._secrets.tags, server)
        if vcenter is None:
            return trouble or None
        try:
            names = {
                target: found.path
                for target, found in (
                    await vcenter.inventory.names(target for want in wanted for target in want.objects)
                ).items()
            }
            async with self._tagging:
                changes = await autoconfigure.carry_out(vcenter.tags, wanted, names)
        except VSphereError as error:
            return str(error)
        if changes:
            metrics.TAG_CHANGES.inc(len(changes))
            message = "; ".join(change.text(names) for change in changes)
            _LOG.info("Configured tags", changes=message)
            self._events.event(zone, NORMAL, "TagsConfigured", message, action="ConfigureTags")
        return ""

    # Telling

    async def _report(self, zone: KubeObject, verdict: Verdict) -> None:
        metrics.READY.labels(zone.metadata.name).set(1 if verdict.ready else 0)
        before = view(zone.status, api.VSphereDeploymentZoneStatus).conditions
        await self._write(zone, verdict.conditions, ready=verdict.ready)
        old = find(before, READY)
        new = verdict.conditions[0]
        if new.status == FALSE:
            if old is None or (old.status, old.message) != (new.status, new.message):
                drifted = old is not None and old.status == TRUE
                message = f"machines cannot be placed here any more: {verdict.message}" if drifted else verdict.message
                _LOG.warning("A zone is not ready", reason=verdict.reason, problem=verdict.message)
                self._events.event(zone, WARNING, verdict.reason, message, action="Validate")
            return
        if old is not None and old.status != TRUE:
            self._events.event(zone, NORMAL, "Validated", "machines can be placed here", action="Validate")
        remark = find(verdict.conditions, FAILURE_DOMAIN_VALIDATED)
        known = find(before, FAILURE_DOMAIN_VALIDATED)
        if remark is not None and remark.message and (known is None or known.message != remark.message):
            self._events.event(zone, WARNING, "HostRuleDisabled", remark.message, action="Validate")

    async def _write(self, zone: KubeObject, conditions: Sequence[Condition], *, ready: bool) -> None:
        present = view(zone.status, api.VSphereDeploymentZoneStatus).conditions
        merged = present
        for condition in conditions:
            merged = set_condition(merged, condition, self._clock.now())
        wanted = with_status(zone, api.with_fields(zone.status, ready=ready, conditions=plain(merged)))
        if wanted is not zone:
            written = await self._client.update_status(api.VSPHERE_DEPLOYMENT_ZONES, wanted)
            self._stores.zones.observe(written)

    # The failure domain, and the end

    async def _own(self, zone: KubeObject, domain: KubeObject) -> None:
        """Let garbage collection know that the failure domain belongs to its zones."""
        owner = OwnerReference(zone.apiVersion, zone.kind, zone.metadata.name, zone.metadata.uid)
        owned = with_owner(domain, owner)
        if owned is not domain and not domain.deleting:
            self._stores.domains.observe(await self._client.update(api.VSPHERE_FAILURE_DOMAINS, owned))

    async def _delete(self, zone: KubeObject) -> Result | None:
        if not has_finalizer(zone, FINALIZER):
            return None
        users = self._stores.users(zone.metadata.name)
        if users:
            more = f" and {len(users) - _SHOWN} more" if len(users) > _SHOWN else ""
            said = deleting(zone.metadata.generation, f"Machines {', '.join(users[:_SHOWN])}{more}")
            before = find(view(zone.status, api.VSphereDeploymentZoneStatus).conditions, READY)
            await self._write(zone, (said,), ready=False)
            metrics.READY.labels(zone.metadata.name).set(0)
            if before is None or before.message != said.message:
                self._events.event(zone, WARNING, "InUse", f"cannot be deleted: {said.message}", action="Delete")
            return None  # the last of these Machines brings the zone back
        async with self._ending:
            await self._let_domain_go(zone)
            released = without_finalizers(zone, {FINALIZER})
            try:
                self._stores.zones.observe(await self._client.update(api.VSPHERE_DEPLOYMENT_ZONES, released))
            except NotFound:
                self._stores.zones.forget(zone.key, zone.metadata.uid)
        metrics.forget(zone.metadata.name)
        return None

    async def _let_domain_go(self, zone: KubeObject) -> None:
        """Take the zone off its failure domain's owners, and delete that when no other zone names it.

        The API server is asked rather than the caches: another zone may have been created a moment ago.
        """
        name = domain_name(zone)
        try:
            domain = await self._client.get(api.VSPHERE_FAILURE_DOMAINS, name)
        except NotFound:
            return
        zones = (await self._client.list(api.VSPHERE_DEPLOYMENT_ZONES)).items
        if any(domain_name(other) == name and other.metadata.uid != zone.metadata.uid for other in zones):
            owners = tuple(ref for ref in domain.metadata.ownerReferences if ref.uid != zone.metadata.uid)
            if len(owners) < len(domain.metadata.ownerReferences):
                freed = replace(domain, metadata=replace(domain.metadata, ownerReferences=owners))
                self._stores.domains.observe(await self._client.update(api.VSPHERE_FAILURE_DOMAINS, freed))
            return
        if not domain.deleting:
            _LOG.info("Deleting the failure domain of its last zone", domain=name)
            meta = domain.metadata
            left = await self._client.delete(
                api.VSPHERE_FAILURE_DOMAINS, name, uid=meta.uid, resource_version=meta.resourceVersion
            )
            if left is None:
                self._stores.domains.forget(domain.key, meta.uid)


def _with(look: Look, problem: str) -> Observation:
    """Return the observation with what kept the tags from being made, at the check that misses them."""
    problems = dict(look.observation.problems)
    check = next(check for check in TAG_CHECKS if check in problems)
    problems[check] = f"{problems[check]}; it cannot be configured: {problem}"
    return Observation(problems, look.observation.remarks)
