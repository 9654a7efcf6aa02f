"""Reading the local copies and the ledger into what the status page shows, a little at a time.

Responsible for: every look at stores and ledger that the page needs, on a leader and on a standby alike.
Invariants: the event loop is given back after every few hundred objects, so nobody who asks for a page delays the work
of the allocator by more than a few milliseconds; what is returned does not grow with the number of claims or addresses.
What a page shows may change while it is read: an object that went meanwhile is left out.
Must not know: HTML, HTTP.
"""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from services.ipam import kinds
from services.ipam.api import ClaimKey, PoolKey, PoolStatus, ReservationSpec
from services.ipam.slots import Use
from services.ipam.web import claimfacts
from services.ipam.web.facts import Crowd, Entry, Overview, PoolLine, Waiting
from services.ipam.web.states import State
from services.runtime.kube.conditions import timestamp
from services.runtime.kube.objects import ObjectKey, view

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from services.ipam.caches import Caches
    from services.ipam.poolstate import PoolState
    from services.ipam.slots import Slot
    from services.runtime.kube.conditions import Condition
    from services.runtime.kube.objects import KubeObject

T = TypeVar("T")

AT_ONCE = 250
SHOWN_CLAIMS = 100


async def gently(items: Iterable[T]) -> AsyncIterator[T]:
    """Go through items, letting everything else of the process run in between."""
    for number, item in enumerate(items, 1):
        yield item
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)


class _Unserved(NamedTuple):
    """A claim in the order in which it is shown: those that wait first, then by age."""

    deleting: bool
    created: str
    arrival: int
    key: ClaimKey
    pool: PoolKey


class _Numbers(NamedTuple):
    waiting: int
    returning: int
    oldest: list[_Unserved]


class Reader:
    """Looks at the caches of one allocator."""

    def __init__(self, caches: Caches) -> None:
        self._caches = caches
        self._ledger = caches.ledger

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the lists that have not been read yet."""
        caches = self._caches
        stores = (*caches.pools.values(), *caches.claims.values(), *caches.addresses.values(), caches.reservations)
        return tuple(store.name for store in (*stores, caches.clusters) if not store.synced)

    def pool_keys(self) -> list[PoolKey]:
        """Keys of all pools."""
        return list(self._ledger.pools)

    async def overview(self, now: datetime, shown: int = SHOWN_CLAIMS) -> Overview:
        """Return all pools, and the claims of all pools that have waited for longest."""
        lines: list[PoolLine] = []
        waiting = returning = 0
        oldest: list[_Unserved] = []
        async for key in gently(self.pool_keys()):
            numbers = await self._unserved(key, shown)
            line = self._line(key, numbers, now)
            if line is not None:
                lines.append(line)
                waiting += numbers.waiting
                returning += numbers.returning
                oldest = heapq.nsmallest(shown, [*oldest, *numbers.oldest])
        poolless = [item async for item in self._poolless()]
        oldest = heapq.nsmallest(shown, [*oldest, *poolless])
        leaving = sum(item.deleting for item in poolless)
        seeking = len(poolless) - leaving
        crowd = Crowd(waiting + seeking, returning + leaving, tuple(self._described(oldest)))
        lines.sort(key=lambda line: (-line.trouble, -line.waiting, -line.unfree, line.key))
        return Overview(tuple(lines), crowd, seeking)

    async def waiting(self, key: PoolKey) -> int:
        """Count the claims that wait for a pool."""
        return (await self._unserved(key, 0)).waiting

    def state(self, key: PoolKey) -> PoolState | None:
        """State of a pool, None when it does not exist."""
        return self._ledger.pools.get(key)

    async def crowd(self, key: PoolKey, shown: int = SHOWN_CLAIMS) -> Crowd:
        """Return the claims of a pool that are not served, the oldest first."""
        numbers = await self._unserved(key, shown)
        oldest = heapq.nsmallest(shown, numbers.oldest)
        return Crowd(numbers.waiting, numbers.returning, tuple(self._described(oldest)))

    def line(self, key: PoolKey, crowd: Crowd, now: datetime) -> PoolLine | None:
        """Return a pool in short, None when it does not exist."""
        return self._line(key, _Numbers(crowd.waiting, crowd.returning, []), now)

    def _line(self, key: PoolKey, numbers: _Numbers, now: datetime) -> PoolLine | None:
        obj, state = self._caches.pool(key), self._ledger.pools.get(key)
        if obj is None or state is None:
            return None
        counts = state.counts(now.timestamp())
        total = state.space.total
        return PoolLine(
            key=key,
            domain=state.domain,
            ranges=state.space.describe(),
            total=total,
            free=total - counts.used - counts.reserved - counts.cooling,
            counts=counts,
            held=len(state.held),
            available=state.available,
            conditions=_conditions(obj),
            paused=claimfacts.pool_paused(self._caches, obj),
            waiting=numbers.waiting,
            returning=numbers.returning,
        )

    # Claims

    async def _unserved(self, pool: PoolKey, shown: int) -> _Numbers:
        """Count a pool's claims without an address and those that are being deleted."""
        waiting = returning = 0
        oldest: list[_Unserved] = []
        for kind, store in self._caches.claims.items():
            async for name in gently(list(store.keys("waiting", pool))):
                obj = store.get(name)
                if obj is None:
                    continue
                key = ClaimKey(kind, name.namespace, name.name)
                if obj.deleting:
                    returning += 1
                else:
                    waiting += 1
                if shown:
                    oldest.append(_Unserved(obj.deleting, *self._caches.age(key, obj), key, pool))
                    if len(oldest) > 4 * shown:
                        oldest = heapq.nsmallest(shown, oldest)
        return _Numbers(waiting, returning, oldest)

    async def _poolless(self) -> AsyncIterator[_Unserved]:
        """Claims on pools that do not exist: without an address, or being deleted.

        Those of other providers' pools are not ours to show.
        """
        for kind, store in self._caches.claims.items():
            for pool in store.indexed("waiting"):
                assert isinstance(pool, PoolKey), "what the index gives"
                if pool in self._ledger.pools:
                    continue
                async for name in gently(list(store.keys("waiting", pool))):
                    obj = store.get(name)
                    if obj is not None:
                        key = ClaimKey(kind, name.namespace, name.name)
                        yield _Unserved(obj.deleting, *self._caches.age(key, obj), key, pool)

    def _described(self, items: Iterable[_Unserved]) -> Iterable[Waiting]:
        for item in items:
            obj = self._caches.claim(item.key)
            if obj is not None:
                yield claimfacts.waiting(self._caches, item.key, item.pool, obj)

    def leaving(self, key: ClaimKey) -> bool:
        """Tell whether a claim is being deleted."""
        obj = self._caches.claim(key)
        return obj is not None and obj.deleting

    # Addresses

    def slot(self, state: PoolState, at: int) -> Slot | None:
        """Slot of an address in a pool's domain."""
        return self._ledger.slot(state.domain, at)

    def slots(self, state: PoolState) -> Sequence[int]:
        """Points of a pool's domain that something takes."""
        return list(self._ledger.domains[state.domain].slots)

    def entry(self, state: PoolState, at: int, what: State) -> Entry:
        """Describe an address that is not merely free."""
        slot = self.slot(state, at)
        if slot is None:
            kept = state.space.kept_for.get(at, "")
            return Entry(at, what, (), "", "", "", f"kept for {kept}" if kept else "")
        claims = tuple(sorted(slot.claims()))
        if not claims and slot.pending is not None:
            return Entry(at, what, (slot.pending[0],), self._owner(slot.pending[0])[0], "", "", "being bound")
        owner, cluster = self._owner(claims[0]) if claims else ("", "")
        since, note = self._since(slot), ""
        reservation = slot.reservation
        if what is State.ELSEWHERE and slot.state.via is not None:
            note = f"through {slot.state.via}"
        elif what is State.PRE_ALLOCATED:
            note = f"kept for {state.space.kept_for[at]}"
        elif what is State.OUT_OF_RANGE:
            refusal = state.space.why_not(at)
            note = refusal[1] if refusal is not None else ""
        elif reservation is not None and reservation.use is Use.RELEASED:
            claims = (reservation.claim,) if reservation.claim is not None else ()
            note = (
                f"until {timestamp(datetime.fromtimestamp(reservation.reusable_at, tz=UTC))}"
                if what is State.COOLING
                else ""
            )
        elif reservation is not None and reservation.use is Use.ADMIN:
            note = self._description(reservation.name)
        return Entry(at, what, claims, owner, cluster, since, note)

    def brief(self, state: PoolState, at: int, what: State) -> str:
        """Say in a few words who has an address, for a map."""
        slot = self.slot(state, at)
        if what is State.PRE_ALLOCATED:
            return f"for {state.space.kept_for[at]}"
        if slot is None:
            return ""
        if what in {State.COOLING, State.REMEMBERED}:
            last = slot.reservation.claim if slot.reservation is not None else None
            return f"last {last}" if last is not None else ""
        return slot.holder()

    def _owner(self, key: ClaimKey) -> tuple[str, str]:
        obj = self._caches.claim(key)
        if obj is None:
            return "", ""
        try:
            cluster = kinds.read_claim(key.kind, obj).cluster
        except msgspec.ValidationError:
            cluster = ""
        return claimfacts.owner_of(obj), cluster

    def _since(self, slot: Slot) -> str:
        """When the address was given: of the IPAddress, else of the reservation."""
        found: KubeObject | None = None
        if slot.holdings:
            first = slot.holdings[0]
            found = self._caches.addresses[first.kind].get(ObjectKey(first.namespace, first.name))
        elif slot.reservation is not None:
            found = self._caches.reservations.get(ObjectKey("", slot.reservation.name))
        return (found.metadata.creationTimestamp or "") if found is not None else ""

    def _description(self, name: str) -> str:
        obj = self._caches.reservations.get(ObjectKey("", name))
        return view(obj.spec, ReservationSpec).description if obj is not None else ""


def _conditions(obj: KubeObject) -> tuple[Condition, ...]:
    """What a pool says of itself; nothing when that cannot be read."""
    try:
        return view(obj.status, PoolStatus).conditions
    except msgspec.ValidationError:
        return ()
