"""Writes to VSphereMachines.

Responsible for: the record, the provider id, finalizers and the status, each write visible in the store at once.
Invariants: a write says which object it means (uid) and, where it matters, which version; the status is written only
when it says something else.
Must not know: why anything is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.machine_controller import api, phases, record, status
from services.machine_controller.status import News
from services.runtime.kube.conditions import FALSE, Condition
from services.runtime.kube.errors import NotFound
from services.runtime.kube.transport import PatchKind

if TYPE_CHECKING:
    from services.machine_controller.caches import Caches
    from services.machine_controller.record import Record
    from services.runtime.clock import Clock
    from services.runtime.kube.objects import KubeObject
    from services.runtime.kube.transport import Client

IN_PROGRESS = "InProgress"


class Writer:
    """See the module."""

    def __init__(self, client: Client, caches: Caches, clock: Clock) -> None:
        self._client = client
        self._store = caches.stores.machines
        self._clock = clock

    async def update(self, machine: KubeObject) -> KubeObject:
        """Write all but the status."""
        try:
            return self._seen(await self._client.update(api.VSPHERE_MACHINES, machine))
        except NotFound:
            self._store.forget(machine.key, machine.metadata.uid)
            raise

    async def note(
        self, machine: KubeObject, noted: Record | None, *, guarded: bool = False, provider_id: str = ""
    ) -> KubeObject:
        """Write the record, None removes it; `guarded` only if nobody has changed the object since."""
        metadata: dict[str, Any] = {
            "uid": machine.metadata.uid,
            "annotations": {record.ANNOTATION: record.write(noted)},
        }
        if guarded:
            metadata["resourceVersion"] = machine.metadata.resourceVersion
        body: dict[str, Any] = {"metadata": metadata}
        if provider_id:
            body["spec"] = {"providerID": provider_id}
        key = machine.key
        return self._seen(
            await self._client.patch(api.VSPHERE_MACHINES, key.name, key.namespace, body, kind=PatchKind.MERGE)
        )

    async def say(self, machine: KubeObject, news: News) -> KubeObject:
        """Bring the status up to date."""
        changed = status.with_news(machine, news, self._clock.now())
        if changed is machine:
            return machine
        return self._seen(await self._client.update_status(api.VSPHERE_MACHINES, changed))

    async def asked_to_stop(self, machine: KubeObject, message: str) -> None:
        """Note since when the guest has been asked to shut down."""
        condition = Condition(phases.SOFT_POWER_OFF, FALSE, IN_PROGRESS, message)
        current = self._store.get(machine.key) or machine
        await self.say(current, News(soft_power_off=condition))

    def _seen(self, machine: KubeObject) -> KubeObject:
        self._store.observe(machine)
        return machine
