"""Who waits, since when and what for: the memory behind the gauges, and the list of those whom a new pool may help.

Responsible for: keeping gauges and list in step. Invariant: an owner is on the list at most once.
Must not know: why somebody waits.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from services.capv_integrator import metrics

if TYPE_CHECKING:
    from collections.abc import KeysView

    from services.capv_integrator.claimobjects import OwnerKey


class _Entry(NamedTuple):
    reason: str
    since: float


class WaitingList:
    """Owners that wait."""

    def __init__(self) -> None:
        self._entries: dict[OwnerKey, _Entry] = {}
        self._by_reason: Counter[str] = Counter()
        metrics.WAITING.set_function(lambda: self._count("VSphereMachine"))
        metrics.WAITING_CLUSTERS.set_function(lambda: self._count("VSphereCluster"))

    def keys(self) -> KeysView[OwnerKey]:
        """Owners that wait now."""
        return self._entries.keys()

    def waiting_for(self, reason: str) -> int:
        """How many wait for that."""
        return self._by_reason[reason]

    def put(self, key: OwnerKey, reason: str, now: float) -> None:
        """Note what an owner waits for; `now` in seconds of the day counts if it did not wait before."""
        before = self._entries.get(key)
        if before is not None and before.reason == reason:
            return
        if before is not None:
            self._count_reason(key, before.reason, -1)
        self._entries[key] = _Entry(reason, before.since if before is not None else now)
        self._count_reason(key, reason, 1)

    def drop(self, key: OwnerKey) -> float | None:
        """Note that an owner does not wait any more; returns since when it did."""
        before = self._entries.pop(key, None)
        if before is None:
            return None
        self._count_reason(key, before.reason, -1)
        return before.since

    def _count_reason(self, key: OwnerKey, reason: str, change: int) -> None:
        self._by_reason[reason] += change
        metrics.NOT_SERVED.labels(key.kind, reason).inc(change)

    def _count(self, kind: str) -> float:
        return float(sum(key.kind == kind for key in self._entries))
