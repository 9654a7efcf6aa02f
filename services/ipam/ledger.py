"""Which addresses are taken, by whom, in every domain; and the choice of the next one.

Responsible for: one slot per taken address of a domain, fed by IPReservations, IPAddresses and this process's own picks
in flight; the free addresses of each pool, kept by subtraction as slots change; the queue of claims that wait.
Invariants: an address with a slot is in no pool's free set; a claim waits behind every older waiter of its pool; a
waiter that could be served has been woken since it began to wait; total = used + free + reserved + cooling for each
pool. Everything here is a projection: etcd decides, and a lost race simply fills another slot.
Cost: a change touches the pools that cover the address, found by bisection, at O(log n) each; no call walks addresses
but the registration of a pool whose spec changed, and it no more than the pool has or the domain holds.
Must not know: Kubernetes calls, clocks (times are arguments, Unix seconds).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple

from services.ipam import intervals
from services.ipam.poolstate import PoolState
from services.ipam.slots import FREE, OBTAINABLE, Holding, Reservation, Slot, Summary, Use

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Collection, Iterable

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

    def __init__(self) -> None:
        self.slots: dict[int, Slot] = {}
        self.pools: dict[PoolKey, PoolState] = {}
        self.address_waiters: dict[int, dict[ClaimKey, None]] = {}
        """Claims that wait for one address, in the order in which they began to (a dict as ordered set)."""
        self.conflicts: dict[int, set[ClaimKey]] = {}
        self.disputed: dict[int, set[PoolKey]] = {}
        """For each conflict the pools through which its claims hold the address."""
        self.held: dict[PoolKey, set[int]] = {}
        """Addresses held through each pool, also through one that is not registered."""
        # Cell i spans from _edges[i] to below _edges[i + 1] and is covered by the pools _cover[i].
        self._edges: list[int] = []
        self._cover: list[tuple[PoolState, ...]] = []

    def covering(self, at: int) -> tuple[PoolState, ...]:
        """Pools whose ranges cover an address; O(log n) of the number of range ends."""
        index = bisect_right(self._edges, at) - 1
        return self._cover[index] if index >= 0 else ()

    def overlaps_of(self, key: PoolKey) -> set[PoolKey]:
        """Other pools that share addresses with one."""
        found: set[PoolKey] = set()
        pool = self.pools.get(key)
        for first, last in pool.space.spans if pool is not None else ():
            for cell in range(bisect_right(self._edges, first) - 1, bisect_right(self._edges, last)):
                found.update(other.key for other in self._cover[cell])
        found.discard(key)
        return found

    def map_pool(self, pool: PoolState) -> None:
        """Add a pool to the map from addresses to pools."""
        for span in pool.space.spans:
            begin, end = self._cut(span.first), self._cut(span.last + 1)
            for cell in range(begin, end):
                self._cover[cell] = (*self._cover[cell], pool)

    def unmap_pool(self, pool: PoolState) -> None:
        """Take a pool off the map, and the edges that only it had."""
        for span in pool.space.spans:
            begin, end = self._cut(span.first), self._cut(span.last + 1)
            for cell in range(begin, end):
                self._cover[cell] = tuple(other for other in self._cover[cell] if other is not pool)
            for edge in (end, begin):
                if self._cover[edge] == (self._cover[edge - 1] if edge else ()):
                    del self._edges[edge], self._cover[edge]

    def _cut(self, at: int) -> int:
        """Index of the cell that begins at a point, made by a cut if need be."""
        index = bisect_left(self._edges, at)
        if index == len(self._edges) or self._edges[index] != at:
            self._cover.insert(index, self._cover[index - 1] if index else ())
            self._edges.insert(index, at)
        return index

    def slots_in(self, space: PoolSpace) -> Iterable[tuple[int, Slot]]:
        """Slots among which are all that a pool may cover: a walk over its addresses or over all slots, the shorter."""
        if sum(span.size for span in space.spans) >= len(self.slots):
            return self.slots.items()
        points = (at for first, last in space.spans for at in range(first, last + 1))
        return ((at, slot) for at in points if (slot := self.slots.get(at)) is not None)

    def move_holder(self, at: int, before: Summary, after: Summary) -> None:
        """Account for an address that is held through another pool than before, or no longer, or now."""
        if before.use is Use.HELD and before.via is not None:
            pool = self.pools.get(before.via)
            if pool is not None:
                pool.let_go(at)
            else:
                self.held[before.via].remove(at)
            if not self.held[before.via] and pool is None:
                del self.held[before.via]
        if after.use is Use.HELD and after.via is not None:
            pool = self.pools.get(after.via)
            if pool is not None:
                pool.hold(at)
            else:
                self.held.setdefault(after.via, set()).add(at)


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
        self._holdings: dict[PoolKey, set[Holding]] = {}
        self._domain_of: dict[PoolKey, str] = {}
        """Where the holdings of a pool are: its domain, also once it is gone; absent until it first comes."""
        self._waits: dict[ClaimKey, tuple[PoolKey, tuple[str, int, ClaimKey]]] = {}
        self._address_waits: dict[ClaimKey, tuple[Domain, int]] = {}

    def domain(self, name: str) -> Domain:
        """Domain by name, made on first mention."""
        found = self.domains.get(name)
        if found is None:
            found = self.domains[name] = Domain()
        return found

    # Pools

    def set_pool(self, key: PoolKey, domain_name: str, space: PoolSpace, *, random_order: bool) -> PoolState:
        """Register a pool or replace its spec; its waiters that could be served now are woken."""
        domain = self.domain(domain_name)
        known = self._domain_of.get(key)
        if known is not None and known != domain_name:
            self.remove_pool(key)
            for holding in self._holdings.get(key, ()):
                self._drop(self.domains[known], holding)
        old = self.pools.get(key)
        pool = PoolState(key, domain_name, space, random_order=random_order)
        pool.held = domain.held.setdefault(key, pool.held)
        pool.out_of_range = sum(not space.is_assignable(at) for at in pool.held)
        for at, slot in domain.slots_in(space):
            pool.move(at, FREE, slot.state)
        affected = {key}
        if old is not None:
            pool.waiting = old.waiting
            affected |= domain.overlaps_of(key)
            domain.unmap_pool(old)
        self.pools[key] = domain.pools[key] = pool
        self._domain_of[key] = domain_name
        domain.map_pool(pool)
        affected |= domain.overlaps_of(key)
        if known != domain_name:
            for holding in self._holdings.get(key, ()):
                self._hold(domain, holding)
        for touched in affected:
            self._touched(touched)
        for entry in list(pool.waiting.islice(0, min(pool.available, len(pool.waiting)))):
            self._wake(entry[2])
        return pool

    def remove_pool(self, key: PoolKey) -> None:
        """Forget a pool that is gone; what was held through it stays taken, and who waits is woken to find out."""
        pool = self.pools.pop(key, None)
        if pool is None:
            return
        domain = self.domains[pool.domain]
        overlaps = domain.overlaps_of(key)
        domain.unmap_pool(pool)
        del domain.pools[key]
        if not pool.held:
            del domain.held[key]
        if key not in self._holdings:
            del self._domain_of[key]
        for neighbour in overlaps:
            self._touched(neighbour)
        for _, _, claim in pool.waiting:
            del self._waits[claim]
            self._wake(claim)

    def claims_through(self, key: PoolKey, domains: Collection[str], *, bare: bool) -> set[ClaimKey]:
        """Return the claims that hold addresses of some domains through a pool; `bare`: those without an IPAddress."""
        found: set[ClaimKey] = set()
        for name in domains:
            domain = self.domains.get(name)
            for at in domain.held.get(key, ()) if domain is not None else ():
                assert domain is not None
                if not bare or not domain.slots[at].holdings:
                    found |= domain.slots[at].claims()
        return found

    # What is taken

    def set_reservation(self, domain_name: str, at: int, reservation: Reservation | None) -> None:
        """Record an IPReservation as it now is, or None when it is gone."""
        domain = self.domain(domain_name)
        slot = domain.slots.get(at) or Slot()
        slot.reservation = reservation
        self._carry(domain, at, slot)

    def set_holding(self, old: Holding | None, new: Holding | None) -> None:
        """Record an IPAddress that came, changed or went. It takes its address once its pool has come, for good."""
        if old == new:
            return
        if old is not None:
            self._forget_holding(old)
        if new is not None:
            self._holdings.setdefault(new.pool, set()).add(new)
            if new.pool in self._domain_of:
                self._hold(self.domains[self._domain_of[new.pool]], new)

    def _forget_holding(self, holding: Holding) -> None:
        known = self._holdings.get(holding.pool, set())
        if holding not in known:
            return
        known.remove(holding)
        domain_name = self._domain_of.get(holding.pool)
        if domain_name is not None:
            self._drop(self.domains[domain_name], holding)
        if not known:
            del self._holdings[holding.pool]
            if holding.pool not in self.pools:
                self._domain_of.pop(holding.pool, None)

    def _hold(self, domain: Domain, holding: Holding) -> None:
        slot = domain.slots.get(holding.at) or Slot()
        slot.holdings = (*slot.holdings, holding)
        self._carry(domain, holding.at, slot)

    def _drop(self, domain: Domain, holding: Holding) -> None:
        slot = domain.slots[holding.at]
        slot.holdings = tuple(h for h in slot.holdings if h != holding)
        self._carry(domain, holding.at, slot)

    def begin(self, pool: PoolState, at: int, claim: ClaimKey) -> None:
        """Mark an address as picked, before any call is made; nobody else here picks it until `settle`.

        The claim no longer waits: it would count twice, as a waiter and by the address it takes from those behind it.
        """
        queued = self._queue_of(claim)
        available = queued.available if queued is not None else 0
        domain = self.domains[pool.domain]
        slot = domain.slots.get(at) or Slot()
        slot.pending = (claim, pool.key)
        self._carry(domain, at, slot)
        # Its place in the queue went with the address, unless that came from elsewhere.
        self._leave(claim, wake=queued is not None and queued.available == available)

    def settle(self, domain_name: str, at: int) -> None:
        """End a pick: the reservation made by it is recorded by now, or it came to nothing."""
        domain = self.domains[domain_name]
        slot = domain.slots.get(at)
        if slot is not None:
            slot.pending = None
            self._carry(domain, at, slot)

    def slot(self, domain_name: str, at: int) -> Slot | None:
        """Slot of an address, None when nothing is known to take it."""
        domain = self.domains.get(domain_name)
        return None if domain is None else domain.slots.get(at)

    def _carry(self, domain: Domain, at: int, slot: Slot) -> None:
        """Carry what changed in a slot into the domain, its pools and those who wait; an empty slot is dropped."""
        before, after = slot.state, slot.summary()
        slot.state = after
        if after is FREE:
            domain.slots.pop(at, None)
        else:
            domain.slots[at] = slot
        if slot.holdings or at in domain.conflicts:
            self._note_conflict(domain, at, slot)
        if before == after:
            return
        if before.use is not after.use or before.via != after.via:
            domain.move_holder(at, before, after)
            for via in {before.via, after.via}:
                if via in domain.pools:
                    self._touched(via)
        for pool in domain.covering(at):
            if pool.move(at, before, after):
                self._wake_next(pool)
            self._touched(pool.key)
        if after.use in OBTAINABLE:
            for claim in tuple(domain.address_waiters.get(at, ())):
                self._wake(claim)

    def _note_conflict(self, domain: Domain, at: int, slot: Slot) -> None:
        """Keep `domain.conflicts` in step with a slot that two claims hold, or no longer do."""
        claims, pools = slot.claims(), slot.pools()
        known = domain.conflicts.pop(at, None), domain.disputed.pop(at, set())
        if len(claims) > 1:
            domain.conflicts[at], domain.disputed[at] = claims, pools
            if known == (claims, pools):
                return
        elif known[0] is None:
            return
        for key in pools | known[1]:
            if key in self.pools:
                self._touched(key)

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

        `age` is (creationTimestamp, order of first sight), the claim's place in the queue; `requested` the one address
        it wants.
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
        owner = pool.space.kept_for.get(at)
        if owner is not None and owner != pool.pre_allocation_of(claim):
            message = f"{intervals.text(at)} is kept for {owner!r} by the pool's preAllocations"
            return Refusal("AddressReserved", message)
        slot = self.slot(pool.domain, at)
        if slot is None:
            return None
        summary = slot.state
        if summary.use is Use.RELEASED:
            last = slot.reservation.claim if slot.reservation is not None else None
            others = pool.available if owner is not None else pool.available - 1
            if summary.reusable_at > now and last != claim and others > 0:
                message = f"{intervals.text(at)} was released by {last} and is kept for its reuse delay"
                return Refusal("AddressCooling", message, address=at, until=summary.reusable_at)
            return None
        if summary.use is Use.ADMIN:
            return Refusal("AddressReserved", f"{intervals.text(at)} is kept by {slot.holder()}", address=at)
        return Refusal("AddressTaken", f"{intervals.text(at)} is held by {slot.holder()}", address=at)

    # Waiting

    def wait(self, pool: PoolState, claim: ClaimKey, age: tuple[str, int]) -> None:
        """Queue a claim for capacity of a pool (once)."""
        entry = (*age, claim)
        if self._waits.get(claim) == (pool.key, entry):
            return
        self.stop_waiting(claim)
        current = self.pools.get(pool.key)
        if current is None:
            self._wake(claim)
            return
        current.waiting.add(entry)
        self._waits[claim] = (pool.key, entry)
        self._touched(pool.key)
        if current.waiting.index(entry) < current.available:
            self._wake(claim)  # capacity came between its choice and this call

    def wait_for(self, domain_name: str, at: int, claim: ClaimKey) -> None:
        """Wake a claim when a given address comes free."""
        self.stop_waiting(claim)
        domain = self.domain(domain_name)
        domain.address_waiters.setdefault(at, {})[claim] = None
        self._address_waits[claim] = (domain, at)
        if at not in domain.slots:
            self._wake(claim)

    def stop_waiting(self, claim: ClaimKey) -> None:
        """Take a claim out of whatever it waits for; whoever may go in its place is woken."""
        self._leave(claim, wake=True)

    def _queue_of(self, claim: ClaimKey) -> PoolState | None:
        """Pool for whose capacity a claim waits."""
        known = self._waits.get(claim)
        return None if known is None else self.pools[known[0]]

    def _leave(self, claim: ClaimKey, *, wake: bool) -> None:
        known = self._waits.pop(claim, None)
        if known is not None:
            key, entry = known
            pool = self.pools[key]
            rank = pool.waiting.index(entry)
            del pool.waiting[rank]
            self._touched(key)
            if wake and rank < pool.available:
                self._wake_next(pool)
        waited = self._address_waits.pop(claim, None)
        if waited is not None:
            domain, at = waited
            waiters = domain.address_waiters[at]
            del waiters[claim]
            if not waiters:
                del domain.address_waiters[at]

    def _wake_next(self, pool: PoolState) -> None:
        """Wake the waiter that the latest unit of capacity makes eligible; earlier units woke those before it."""
        index = pool.available - 1
        if 0 <= index < len(pool.waiting):
            self._wake(pool.waiting[index][2])

    def conflicts(self, pool: PoolKey) -> Iterable[tuple[int, set[ClaimKey]]]:
        """Addresses that two claims hold, one of them through the given pool (found in adopted objects only)."""
        state = self.pools.get(pool)
        if state is None:
            return
        domain = self.domains[state.domain]
        for at, pools in domain.disputed.items():
            if pool in pools:
                yield at, domain.conflicts[at]
