"""Which addresses are taken, by whom, in every domain; and the choice of the next one.

Responsible for: one slot per taken address of a domain, fed by IPReservations, IPAddresses and this process's own picks in
flight; the free addresses of each pool, kept by subtraction as slots change; the queue of claims that wait for capacity.
Invariants: an address with a slot is in no pool's free set; a claim waits behind every older waiter of its pool; total = used + free +
reserved + cooling for each pool. Everything here is a projection: etcd decides, and a lost race simply fills another slot.
Cost: a change touches the pools that cover the address, found by bisection, at O(log n) each; no call walks the addresses except the
registration of a pool whose spec changed.
Must not know: Kubernetes calls, clocks (times are arguments, Unix seconds).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from services.ipam import intervals
from services.ipam.poolstate import PoolState
from services.ipam.slots import FREE, Holding, Reservation, Slot, Summary, Use

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from services.ipam.api import ClaimKey, PoolKey
    from services.ipam.space import PoolSpace


class Refusal(NamedTuple):
    """Why a claim gets no address now."""

    token: str
    """Distinct word for Events and metrics: AddressOutsidePool, AddressExcluded, AddressReserved, AddressTaken,
    AddressCooling, PoolExhausted."""
    message: str
    exhausted: bool = False
    address: int | None = None
    """Wake the claim when this address is given back."""
    until: float | None = None
    """Try again at this time."""


class Domain:
    """The slots of one network domain and the pools that cover them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.slots: dict[int, Slot] = {}
        self.pools: dict[PoolKey, PoolState] = {}
        self.address_waiters: dict[int, set[ClaimKey]] = {}
        self.conflicts: dict[int, set[ClaimKey]] = {}
        self._starts: list[int] = []
        self._cover: list[tuple[PoolState, ...]] = []
        self._overlaps: dict[PoolKey, set[PoolKey]] = {}

    def covering(self, at: int) -> tuple[PoolState, ...]:
        """Pools whose ranges cover an address; O(log n) of the number of range ends."""
        index = bisect_right(self._starts, at) - 1
        return self._cover[index] if index >= 0 else ()

    def overlaps_of(self, key: PoolKey) -> set[PoolKey]:
        """Other pools that share addresses with one."""
        return self._overlaps.get(key, set())

    def recover(self) -> None:
        """Rebuild the map from addresses to pools, after a pool came, went or changed its ranges."""
        edges: dict[int, tuple[list[PoolState], list[PoolState]]] = {}
        for pool in self.pools.values():
            for first, last in pool.space.spans:
                edges.setdefault(first, ([], []))[0].append(pool)
                edges.setdefault(last + 1, ([], []))[1].append(pool)
        active: dict[PoolKey, PoolState] = {}
        self._starts, self._cover, self._overlaps = [], [], {}
        for at in sorted(edges):
            starting, ending = edges[at]
            for pool in ending:
                del active[pool.key]
            for pool in starting:
                active[pool.key] = pool
            self._starts.append(at)
            self._cover.append(tuple(active.values()))
            if len(active) > 1:
                for key in active:
                    self._overlaps.setdefault(key, set()).update(active.keys() - {key})


def _ignore_claim(_: ClaimKey) -> None:
    """Do nothing."""


def _ignore_pool(_: PoolKey) -> None:
    """Do nothing."""


class Ledger:
    """All domains. `wake` is called with claims that may be served now, `touched` with pools whose numbers changed."""

    def __init__(
        self, wake: Callable[[ClaimKey], None] = _ignore_claim, touched: Callable[[PoolKey], None] = _ignore_pool
    ) -> None:
        self._wake = wake
        self._touched = touched
        self.domains: dict[str, Domain] = {}
        self.pools: dict[PoolKey, PoolState] = {}
        self._unplaced: dict[PoolKey, dict[tuple[str, str, str], Holding]] = {}
        self._waits: dict[ClaimKey, tuple[PoolState, tuple[str, int, ClaimKey]]] = {}
        self._address_waits: dict[ClaimKey, tuple[Domain, int]] = {}

    def domain(self, name: str) -> Domain:
        """Domain by name, made on first mention."""
        found = self.domains.get(name)
        if found is None:
            found = self.domains[name] = Domain(name)
        return found

    # Pools

    def set_pool(self, key: PoolKey, domain_name: str, space: PoolSpace, *, random_order: bool) -> PoolState:
        """Register a pool or replace its spec; walks the domain's slots once."""
        old = self.pools.get(key)
        if old is not None and old.domain != domain_name:
            self.remove_pool(key)
            old = None
        domain = self.domain(domain_name)
        pool = PoolState(key, domain_name, space, random_order=random_order)
        if old is not None:
            pool.held, pool.waiting = old.held, old.waiting
        self.pools[key] = domain.pools[key] = pool
        for claim, (waiting_in, entry) in list(self._waits.items() if old is not None and old.waiting else ()):
            if waiting_in is old:
                self._waits[claim] = (pool, entry)
        for at, slot in domain.slots.items():
            summary = slot.summary()
            pool.move(at, FREE, summary)
            if old is None and summary.use is Use.HELD and summary.via == key:
                pool.held.add(at)
        pool.out_of_range = sum(not space.is_assignable(at) for at in pool.held)
        neighbours = domain.overlaps_of(key)
        domain.recover()
        for holding in self._unplaced.pop(key, {}).values():
            self._hold(domain, holding)
        for neighbour in neighbours | domain.overlaps_of(key):
            self._touched(neighbour)
        self._touched(key)
        for entry in list(pool.waiting.islice(0, min(pool.available, len(pool.waiting)))):
            self._wake(entry[2])
        return pool

    def remove_pool(self, key: PoolKey) -> None:
        """Forget a pool that is gone; what was held through it stays taken."""
        pool = self.pools.pop(key, None)
        if pool is None:
            return
        domain = self.domains[pool.domain]
        neighbours = domain.overlaps_of(key)
        del domain.pools[key]
        domain.recover()
        for _, _, claim in list(pool.waiting):
            self.stop_waiting(claim)
        for neighbour in neighbours:
            self._touched(neighbour)

    # What is taken

    def set_reservation(self, domain_name: str, at: int, reservation: Reservation | None) -> None:
        """Record an IPReservation as it now is, or None when it is gone."""
        domain = self.domain(domain_name)
        self._edit(domain, at, reservation=reservation)

    def set_holding(self, old: Holding | None, new: Holding | None) -> None:
        """Record an IPAddress that came, changed or went."""
        if old == new:
            return
        for holding, place in ((old, False), (new, True)):
            if holding is None:
                continue
            pool = self.pools.get(holding.pool)
            if pool is None:
                parked = self._unplaced.setdefault(holding.pool, {})
                identity = (holding.kind, holding.namespace, holding.name)
                if place:
                    parked[identity] = holding
                elif parked.pop(identity, None) is None:
                    self._drop_everywhere(holding)
            elif place:
                self._hold(self.domains[pool.domain], holding)
            else:
                self._drop(self.domains[pool.domain], holding)

    def _hold(self, domain: Domain, holding: Holding) -> None:
        slot = domain.slots.get(holding.at)
        self._edit(domain, holding.at, holdings=(*(slot.holdings if slot else ()), holding))

    def _drop(self, domain: Domain, holding: Holding) -> None:
        slot = domain.slots.get(holding.at)
        if slot is not None:
            self._edit(domain, holding.at, holdings=tuple(h for h in slot.holdings if h != holding))

    def _drop_everywhere(self, holding: Holding) -> None:
        """The pool went before its IPAddress did, so the domain is no longer known."""
        for domain in self.domains.values():
            self._drop(domain, holding)

    def begin(self, pool: PoolState, at: int, claim: ClaimKey) -> None:
        """Mark an address as picked, before any call is made; nobody else here picks it until `settle`."""
        self._edit(self.domains[pool.domain], at, pending=(claim, pool.key))

    def settle(self, domain_name: str, at: int) -> None:
        """The pick is over: the reservation made by it is recorded by now, or it came to nothing."""
        self._edit(self.domains[domain_name], at, pending=None)

    def slot(self, domain_name: str, at: int) -> Slot | None:
        """Slot of an address, None when nothing is known to take it."""
        domain = self.domains.get(domain_name)
        return None if domain is None else domain.slots.get(at)

    def _edit(
        self, domain: Domain, at: int, **fields: Reservation | tuple[Holding, ...] | tuple[ClaimKey, PoolKey] | None
    ) -> None:
        """Set fields of a slot (made on demand, dropped when empty) and carry the difference into the pools."""
        slot = domain.slots.get(at) or Slot()
        before = slot.summary()
        for name, value in fields.items():
            setattr(slot, name, value)
        after = slot.summary()
        if after is FREE:
            domain.slots.pop(at, None)
        else:
            domain.slots[at] = slot
        self._note_conflict(domain, at, slot)
        self._changed(domain, at, before, after)

    def _note_conflict(self, domain: Domain, at: int, slot: Slot) -> None:
        """Keep `domain.conflicts` in step with a slot that two claims hold, or no longer do."""
        claims = slot.claims() if slot.holdings else set()
        if len(claims) > 1:
            domain.conflicts[at] = claims
        elif domain.conflicts.pop(at, None) is None:
            return
        for holding in slot.holdings:
            self._touched(holding.pool)

    def _changed(self, domain: Domain, at: int, before: Summary, after: Summary) -> None:
        """Carry a change into the pools and wake who waited for it."""
        if before != after:
            if before.via != after.via or before.use != after.use:
                self._account_holder(at, before, held=False)
                self._account_holder(at, after, held=True)
            gained = before.use in {Use.HELD, Use.ADMIN} and after.use in {Use.FREE, Use.RELEASED}
            for pool in domain.covering(at):
                pool.move(at, before, after)
                if gained:
                    self._wake_next(pool)
                self._touched(pool.key)
        if after.use is not Use.HELD:
            for claim in domain.address_waiters.get(at, ()):
                self._wake(claim)

    def _account_holder(self, at: int, summary: Summary, *, held: bool) -> None:
        pool = self.pools.get(summary.via) if summary.use is Use.HELD and summary.via is not None else None
        if pool is None or (at in pool.held) == held:
            return
        pool.held.add(at) if held else pool.held.discard(at)
        if not pool.space.is_assignable(at):
            pool.out_of_range += 1 if held else -1
        self._touched(pool.key)

    # Choice

    def choose(
        self,
        pool: PoolState,
        claim: ClaimKey,
        age: tuple[str, int],
        requested: int | None,
        now: float,
        rng: random.Random,
    ) -> int | Refusal:
        """Address for a claim, or why there is none; changes nothing.

        `age` is (creationTimestamp, order of first sight), the claim's place in the queue; `requested` the one address it wants.
        """
        if requested is not None:
            return self._refusal(pool, claim, requested, now) or requested
        if pool.waiting:
            rank = pool.waiting.bisect_left((*age, claim))
            if rank >= pool.available:
                return self._exhausted(pool)
        at = pool.lowest_or_random(rng)
        if at is not None:
            return at
        if pool.released:
            oldest: int = pool.released[0][1]
            return oldest
        return self._exhausted(pool)

    def _exhausted(self, pool: PoolState) -> Refusal:
        return Refusal(
            "PoolExhausted",
            f"Exhausted IP Pools: {pool.key} has no free address",
            exhausted=True,
        )

    def _refusal(self, pool: PoolState, claim: ClaimKey, at: int, now: float) -> Refusal | None:
        why = pool.space.why_not(at)
        if why is not None:
            return Refusal(*why)
        owner = pool.space.pre_allocated.get(at)
        if owner is not None and owner != claim.name:
            message = f"{intervals.text(at)} is kept for {owner!r} by the pool's preAllocations"
            return Refusal("AddressReserved", message)
        slot = self.slot(pool.domain, at)
        if slot is None:
            return None
        summary = slot.summary()
        if summary.use is Use.RELEASED:
            last = slot.reservation.claim if slot.reservation is not None else None
            if summary.reusable_at > now and last != claim and pool.available > 1:
                message = f"{intervals.text(at)} was released by {last} and is kept for its reuse delay"
                return Refusal("AddressCooling", message, address=at, until=summary.reusable_at)
            return None
        if summary.use is Use.ADMIN:
            return Refusal("AddressReserved", f"{intervals.text(at)} is kept by {slot.holder()}", address=at)
        return Refusal("AddressTaken", f"{intervals.text(at)} is held by {slot.holder()}", address=at)

    # Waiting

    def wait(self, pool: PoolState, claim: ClaimKey, age: tuple[str, int]) -> None:
        """Queue a claim for capacity of a pool (once)."""
        known = self._waits.get(claim)
        if known is not None and known[0] is pool:
            return
        self.stop_waiting(claim)
        entry = (*age, claim)
        pool.waiting.add(entry)
        self._waits[claim] = (pool, entry)
        self._touched(pool.key)

    def wait_for(self, domain_name: str, at: int, claim: ClaimKey) -> None:
        """Wake a claim when a given address comes free."""
        self.stop_waiting(claim)
        domain = self.domain(domain_name)
        domain.address_waiters.setdefault(at, set()).add(claim)
        self._address_waits[claim] = (domain, at)

    def stop_waiting(self, claim: ClaimKey) -> None:
        """Take a claim out of whatever it waits for."""
        known = self._waits.pop(claim, None)
        if known is not None:
            pool, entry = known
            pool.waiting.discard(entry)
            self._touched(pool.key)
            self._wake_next(pool)
        waited = self._address_waits.pop(claim, None)
        if waited is not None:
            domain, at = waited
            domain.address_waiters[at].discard(claim)
            if not domain.address_waiters[at]:
                del domain.address_waiters[at]

    def _wake_next(self, pool: PoolState) -> None:
        """Wake the waiter that the latest unit of capacity makes eligible; those before it were woken by earlier ones."""
        index = pool.available - 1
        if 0 <= index < len(pool.waiting):
            self._wake(pool.waiting[index][2])

    def conflicts(self, pool: PoolKey) -> Iterable[tuple[int, set[ClaimKey]]]:
        """Addresses held twice among those held through a pool or covered by it (found in adopted objects only)."""
        state = self.pools[pool]
        for at, claims in self.domains[state.domain].conflicts.items():
            slot = self.domains[state.domain].slots[at]
            if at in state.held or any(holding.pool == pool for holding in slot.holdings):
                yield at, claims
