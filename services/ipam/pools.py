"""The pool reconciler: status, completing the object, and forgetting addresses that nobody came back for.

Responsible for: the status and the end of IPPool and GlobalIPPool, and deleting released IPReservations that expired.
Invariants: status is written at most once per debounce interval however many claims come and go, and only when it
differs; a paused pool is left alone.
Must not know: claims, beyond their number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from services.ipam import api, intervals, kinds, metrics, poolstatus
from services.ipam.api import ClaimKey
from services.ipam.decide import ClusterState, serves
from services.ipam.gather import cluster_state
from services.ipam.kinds import METAL3
from services.ipam.poolobjects import FINALIZERS, RESOURCES, pool_cluster_name, read_pool_spec
from services.ipam.slots import Use
from services.runtime.controller import Result
from services.runtime.kube import conditions
from services.runtime.kube.conditions import Condition
from services.runtime.kube.errors import NotFound
from services.runtime.kube.objects import (
    KubeObject,
    ObjectKey,
    view,
    with_status,
    without_finalizers,
)

if TYPE_CHECKING:
    from services.ipam.api import PoolKey
    from services.ipam.caches import Caches
    from services.ipam.poolstate import PoolState
    from services.ipam.poolwriter import PoolWriter
    from services.ipam.reservations import ReservationWriter
    from services.runtime.clock import Clock
    from services.runtime.kube.events import EventRecorder
    from services.runtime.kube.transport import Client

_WARNINGS = {"InvalidSpec", api.POOL_EXHAUSTED, "AddressConflict"}
_RECOVERIES = {"PoolReady", "AddressesAvailable"}
_EXPIRE_AT_ONCE = 100
_SOONEST_SECONDS = 1.0


class PoolReconciler:
    """Keeps one pool's object telling the truth. `sticky_seconds`: how long a released address is remembered."""

    def __init__(
        self,
        client: Client,
        caches: Caches,
        reservations: ReservationWriter,
        writer: PoolWriter,
        events: EventRecorder,
        clock: Clock,
        *,
        sticky_seconds: float,
    ) -> None:
        self._client = client
        self._caches = caches
        self._ledger = caches.ledger
        self._reservations = reservations
        self._writer = writer
        self._events = events
        self._clock = clock
        self._sticky_seconds = sticky_seconds

    async def reconcile(self, key: PoolKey) -> Result | None:
        """Do what one pool needs now."""
        obj = self._caches.pool(key)
        state = self._ledger.pools.get(key)
        if obj is None or state is None:
            _forget_metrics(key)
            return await self._expire_left(key)
        cluster = cluster_state(self._caches, key.namespace, pool_cluster_name(obj))
        self._publish(key, state)
        if kinds.is_paused(obj) or cluster is ClusterState.PAUSED:
            return None
        if obj.deleting and not state.held:
            await self._finish(key, obj)
            return None
        if view(obj.status, api.PoolStatus).observed_generation != obj.metadata.generation:
            await self._forget_uncovered(key, state)
        obj = await self._writer.complete(key) or obj
        await self._write_status(key, obj, state)
        return await self._expire(state)

    async def _write_status(self, key: PoolKey, obj: KubeObject, state: PoolState) -> None:
        now = self._clock.now()
        facts = self._facts(key, obj, state)
        status: dict[str, Any] = view(obj.status, dict[str, Any])
        before = msgspec.convert(status.get("conditions") or [], tuple[Condition, ...], strict=False)
        after = before
        for condition in poolstatus.conditions(facts):
            stamped = msgspec.structs.replace(condition, observedGeneration=obj.metadata.generation)
            after = conditions.set_condition(after, stamped, now)
        status["conditions"] = conditions.plain(after)
        status["ipAddresses"] = msgspec.to_builtins(facts.counts)
        status["observedGeneration"] = obj.metadata.generation
        for name, value in {**poolstatus.capacity(facts), "indexes": facts.indexes}.items():
            if value is None:
                status.pop(name, None)
            else:
                status[name] = value
        if with_status(obj, status) is obj:
            return
        status["lastUpdated"] = conditions.timestamp(now)
        written = await self._client.update_status(RESOURCES[key.kind], with_status(obj, status))
        self._caches.pools[key.kind].observe(written)
        self._announce(obj, before, after)

    def _facts(self, key: PoolKey, obj: KubeObject, state: PoolState) -> poolstatus.Facts:
        overlaps = self._ledger.domains[state.domain].overlaps_of(key)
        conflicts = ((at, tuple(sorted(claims))) for at, claims in self._ledger.conflicts(key))
        return poolstatus.Facts(
            key=key,
            problems=tuple(state.space.problems),
            counts=state.counts(self._clock.now().timestamp()),
            held=len(state.held),
            waiting=len(state.waiting),
            available=state.available,
            overlaps=tuple(sorted(overlaps)),
            conflicts=tuple(sorted(conflicts)),
            deleting=obj.deleting,
            strangers=self._strangers(key, obj),
            indexes=self._indexes(key, state) if len(state.held) <= poolstatus.INDEXES_LIMIT else None,
        )

    def _strangers(self, key: PoolKey, obj: KubeObject) -> tuple[tuple[str, int], ...]:
        """Namespaces that hold addresses of a pool which does not serve them, and how many."""
        tenants = self._caches.tenants.get(key)
        if not tenants:
            return ()
        allowed = read_pool_spec(obj)[0].allowed_namespaces
        return tuple(
            sorted((name, n) for name, n in tenants.items() if not serves(key, allowed, ClaimKey("", name, "")))
        )

    def _indexes(self, key: PoolKey, state: PoolState) -> dict[str, str]:
        """Addresses by claim name as metal3 has them; where both kinds use a name, the IPClaim's is shown."""
        found: dict[str, str] = {}
        for at in sorted(state.held):
            slot = self._ledger.slot(state.domain, at)
            if slot is None:
                continue
            # A pick in flight counts as used, so it is shown too.
            for claim in sorted(slot.claims()) or ([slot.pending[0]] if slot.pending is not None else []):
                name = claim.name if key.namespace == claim.namespace else f"{claim.namespace}/{claim.name}"
                if claim.kind == METAL3 or name not in found:
                    found[name] = intervals.text(at)
        return found

    def _announce(self, obj: KubeObject, before: tuple[Condition, ...], after: tuple[Condition, ...]) -> None:
        """Tell transitions as Events; the first good state of a new pool is none."""
        for condition in after:
            old = conditions.find(before, condition.type)
            if old is not None and (old.status, old.reason) == (condition.status, condition.reason):
                continue
            if condition.reason in _WARNINGS:
                self._events.event(obj, "Warning", condition.reason, condition.message, action="Serve")
            elif old is not None and condition.reason in _RECOVERIES:
                self._events.event(obj, "Normal", condition.reason, f"{condition.type} again", action="Serve")

    async def _finish(self, key: PoolKey, obj: KubeObject) -> None:
        """Let a pool go that holds nothing any more, and with it what it remembered."""
        for item in list(self._caches.reservations.by_index("released", key)):
            await self._reservations.delete(item)
        wanted = without_finalizers(obj, {FINALIZERS[key.kind]})
        if wanted is obj:
            return
        try:
            answer = await self._client.update(RESOURCES[key.kind], wanted)
        except NotFound as error:
            if not error.is_of(key.name):
                raise
            answer = wanted
        store = self._caches.pools[key.kind]
        if answer.metadata.finalizers:
            store.observe(answer)
        else:
            store.forget(obj.key, obj.metadata.uid)

    async def _expire(self, state: PoolState) -> Result | None:
        """Delete released reservations whose claim did not come back in time, a hundred at a time.

        Comes back when the next one is due, or when the next one has cooled and so counts as free.
        """
        now = self._clock.now().timestamp()
        for reusable_at, at in list(state.released.islice(0, _EXPIRE_AT_ONCE)):
            if reusable_at + self._sticky_seconds > now:
                break
            await self._forget_released(state, at)
        if not state.released:
            return None
        next_expiry = state.released[0][0] + self._sticky_seconds
        next_cooled = next((until for until, _ in state.released.irange(minimum=(now, intervals.BEYOND))), next_expiry)
        return Result(max(_SOONEST_SECONDS, min(next_expiry, next_cooled) - now))

    async def _expire_left(self, key: PoolKey) -> Result | None:
        """The same for a pool that does not exist: removed by force, or not restored yet."""
        now = self._clock.now().timestamp()
        left = []
        for item in self._caches.reservations.by_index("released", key):
            read = kinds.read_reservation(item)
            if read is not None:
                left.append((read[2].reusable_at + self._sticky_seconds, item))
        left.sort(key=lambda due: due[0])
        for expiry, item in left[:_EXPIRE_AT_ONCE]:
            if expiry > now:
                return Result(max(_SOONEST_SECONDS, expiry - now))
            await self._reservations.delete(item)
        return Result(_SOONEST_SECONDS) if len(left) > _EXPIRE_AT_ONCE else None

    async def _forget_released(self, state: PoolState, at: int) -> None:
        slot = self._ledger.slot(state.domain, at)
        reservation = slot.reservation if slot is not None else None
        obj = self._caches.reservations.get(ObjectKey("", reservation.name)) if reservation is not None else None
        if obj is not None and reservation is not None and reservation.use is Use.RELEASED:
            await self._reservations.delete(obj)

    async def _forget_uncovered(self, key: PoolKey, state: PoolState) -> None:
        """Delete what a pool remembers of addresses that its new spec does not give any more, or in another domain."""
        for item in list(self._caches.reservations.by_index("released", key)):
            read = kinds.read_reservation(item)
            if read is not None and (read[0] != state.domain or not state.space.is_assignable(read[1])):
                await self._reservations.delete(item)

    def _publish(self, key: PoolKey, state: PoolState) -> None:
        counts = state.counts(self._clock.now().timestamp())
        for name in metrics.STATES:
            metrics.ADDRESSES.labels(*key, name).set(getattr(counts, name))
        metrics.WAITING.labels(*key).set(len(state.waiting))
        metrics.CONFLICTS.labels(*key).set(len(list(self._ledger.conflicts(key))))


def _forget_metrics(key: PoolKey) -> None:
    for name in metrics.STATES:
        _remove(metrics.ADDRESSES, (*key, name))
    _remove(metrics.WAITING, key)
    _remove(metrics.CONFLICTS, key)


def _remove(gauge: Any, labels: tuple[str, ...]) -> None:
    try:
        gauge.remove(*labels)
    except KeyError:
        return
