"""What could not be applied, from the review that met it to the status of the preset.

Responsible for: remembering conflicts without delaying a review, and adding them to `status.conflicts` and
`status.lastConflicts` some seconds later.
Invariants: every process that serves writes what it met itself, whoever leads: nobody else knows of it. So a write adds
to what the status says, and only to the state it was computed from (resourceVersion); one that lost a race is repeated
on the new state. Memory is bounded however many pods conflict. Nothing a variable holds is ever written.
Must not know: how a conflict is found, the rest of the status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from services.podpreset.api import PresetStatus, SeenConflict
from services.podpreset.presets import RESOURCES, read_status
from services.runtime import log
from services.runtime.kube import conditions
from services.runtime.kube.errors import KubeError, NotFound
from services.runtime.kube.transport import PatchKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.podpreset.api import PresetKey
    from services.podpreset.presets import Caches
    from services.runtime.clock import Clock
    from services.runtime.kube.transport import Client

__all__ = ["LAST_CONFLICTS", "ConflictReporter", "added"]

LAST_CONFLICTS = 10
"""Kinds of conflict that a status shows; the CRD's limit."""
_MESSAGE = 1024
_NAMESPACE = 63
_NAME = 253
_LOG = log.get("podpreset.conflicts")


class _Pending(msgspec.Struct):
    total: int = 0
    seen: dict[str, SeenConflict] = {}


def added(status: PresetStatus, total: int, seen: Iterable[SeenConflict]) -> PresetStatus:
    """Return `status` with `total` more conflicts, `seen` telling of the latest of each kind.

    A kind that is known already moves to the front, its count grown; what falls off the end is forgotten.
    """
    table = {conflict.message: conflict for conflict in status.last_conflicts}
    for conflict in seen:
        before = table.pop(conflict.message, None)
        grown = conflict.count + (before.count if before is not None else 0)
        table[conflict.message] = replace(conflict, count=grown)
    newest = sorted(table.values(), key=lambda conflict: (conflict.last_time, conflict.message), reverse=True)
    return replace(status, conflicts=status.conflicts + total, last_conflicts=tuple(newest[:LAST_CONFLICTS]))


class ConflictReporter:
    """`record` what a review met; `run` writes it."""

    def __init__(self, client: Client, caches: Caches, clock: Clock, *, period: float) -> None:
        """`period` seconds pass between two rounds: a preset that conflicts with every pod costs that much, no more."""
        self._client = client
        self._caches = caches
        self._clock = clock
        self._period = period
        self._pending: dict[PresetKey, _Pending] = {}

    def record(self, preset: PresetKey, message: str, namespace: str, pod: str) -> None:
        """Remember one conflict; never waits. `message` says what and with what, without values.

        All of it is cut to what a status may hold: nobody has looked at the names of a pod under review yet, and one
        that does not fit would keep the conflicts of all other pods out of the status, too.
        """
        pending = self._pending.setdefault(preset, _Pending())
        pending.total += 1
        message = message[:_MESSAGE]
        before = pending.seen.pop(message, None)
        if before is None and len(pending.seen) >= LAST_CONFLICTS:
            del pending.seen[next(iter(pending.seen))]
        pending.seen[message] = SeenConflict(
            message=message,
            namespace=namespace[:_NAMESPACE],
            pod=pod[:_NAME],
            last_time=conditions.timestamp(self._clock.now()),
            count=1 + (before.count if before is not None else 0),
        )

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._clock.sleep(self._period)
            await self.flush()

    async def flush(self) -> None:
        """Write what is pending; what cannot be written now is tried again in the next round."""
        for preset in list(self._pending):
            pending = self._pending.pop(preset)
            try:
                await self._write(preset, pending)
            except NotFound:
                continue
            except KubeError as error:
                _LOG.debug("Conflicts are written later", preset=str(preset), error=error)
                self._keep(preset, pending)

    async def _write(self, preset: PresetKey, pending: _Pending) -> None:
        obj = self._caches.get(preset)
        if obj is None:
            return
        status = added(read_status(obj), pending.total, pending.seen.values())
        body: dict[str, Any] = {
            "metadata": {"resourceVersion": obj.metadata.resourceVersion},
            "status": {
                "conflicts": status.conflicts,
                "lastConflicts": msgspec.to_builtins(status.last_conflicts),
            },
        }
        answer = await self._client.patch(
            RESOURCES[preset.kind],
            preset.name,
            preset.namespace,
            body,
            kind=PatchKind.MERGE,
            subresource="status",
        )
        self._caches.observe(answer)

    def _keep(self, preset: PresetKey, old: _Pending) -> None:
        """Put back what was not written, before what has come since."""
        new = self._pending.get(preset, _Pending())
        merged = added(
            PresetStatus(conflicts=old.total, last_conflicts=tuple(old.seen.values())), new.total, new.seen.values()
        )
        latest = {conflict.message: conflict for conflict in reversed(merged.last_conflicts)}
        self._pending[preset] = _Pending(merged.conflicts, latest)
