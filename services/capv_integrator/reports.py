"""What the integrator says about a VSphereMachine or VSphereCluster: its condition, Events and metrics.

Responsible for: saying a change once. The condition on the object is the memory of what was said, so a restart repeats
nothing; an owner that was served at once never gets one.
Must not know: claims, why something is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.capv_integrator import api, gather, metrics, patches
from services.runtime import log
from services.runtime.kube.conditions import FALSE, parse_timestamp
from services.runtime.kube.errors import Forbidden, Invalid, NotFound
from services.runtime.kube.objects import KubeObject, ObjectKey
from services.runtime.kube.transport import PatchKind

if TYPE_CHECKING:
    from services.capv_integrator.caches import Caches
    from services.capv_integrator.claimobjects import OwnerKey
    from services.capv_integrator.pools import Refusal
    from services.capv_integrator.waitinglist import WaitingList
    from services.runtime.clock import Clock
    from services.runtime.kube.conditions import Condition
    from services.runtime.kube.events import EventRecorder
    from services.runtime.kube.transport import Client

_LOG = log.get("capv_integrator.reports")
_TRIES = 3


class Reporter:
    """Tells users and operators."""

    def __init__(
        self, client: Client, caches: Caches, waiting: WaitingList, events: EventRecorder, clock: Clock
    ) -> None:
        self._client = client
        self._caches = caches
        self._waiting = waiting
        self._events = events
        self._clock = clock

    async def waits(self, key: OwnerKey, reason: str, refusal: Refusal | None) -> None:
        """Say what an owner waits for; aloud only when somebody has to mend something."""
        self._waiting.put(key, reason, self._clock.now().timestamp())
        owner = self._owner(key)
        if refusal is None or owner is None:
            return
        wanted = patches.unserved(refusal.reason, refusal.message)
        before = patches.condition_of(owner)
        if before is not None and (before.status, before.reason, before.message) == (FALSE, *refusal):
            return
        self._events.event(owner, "Warning", refusal.reason, refusal.message, action="AssignAddresses")
        await self._set(key, owner, wanted)

    async def wrote(self, key: OwnerKey, message: str) -> None:
        """Say that addresses were written."""
        owner = self._owner(key)
        if owner is not None:
            self._events.event(owner, "Normal", "AddressWritten", message, action="AssignAddresses")

    async def served(self, key: OwnerKey, *, written: bool) -> None:
        """Say that nothing waits any more; `written` just now."""
        reported = gather.since(self._caches, key) if written else None
        began = self._waiting.drop(key)
        if written:
            now = self._clock.now().timestamp()
            starts = [now if began is None else began, *([parse_timestamp(reported).timestamp()] if reported else [])]
            metrics.WRITE_SECONDS.labels(key.kind).observe(max(0.0, now - min(starts)))
        owner = self._owner(key)
        before = patches.condition_of(owner) if owner is not None else None
        if owner is not None and before is not None and before.status == FALSE:
            await self._set(key, owner, patches.served())

    def gone(self, key: OwnerKey) -> None:
        """Forget an owner."""
        self._waiting.drop(key)

    def _owner(self, key: OwnerKey) -> KubeObject | None:
        return self._caches.stores.owners[key.kind].get(ObjectKey(key.namespace, key.name))

    async def _set(self, key: OwnerKey, owner: KubeObject, condition: Condition) -> None:
        """Write the condition; a courtesy that must not keep addresses from anybody."""
        resource = api.resource_of(owner)
        for _ in range(_TRIES):
            operations = patches.condition_patch(owner, condition, self._clock.now())
            if not operations:
                return
            try:
                answer = await self._client.patch(
                    resource, key.name, key.namespace, operations, kind=PatchKind.JSON, subresource="status"
                )
            except Invalid:
                # CAPV writes the same list every few seconds.
                try:
                    owner = await self._client.get(resource, key.name, key.namespace)
                except NotFound:
                    return
                continue
            except (Forbidden, NotFound) as error:
                _LOG.warning("Cannot set a condition", owner=str(key), error=error)
                return
            self._caches.stores.owners[key.kind].observe(answer)
            return
        _LOG.warning("Cannot set a condition: others write too often", owner=str(key))
