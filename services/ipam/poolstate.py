"""The live numbers of one pool: its free addresses, what is released, and who waits.

Responsible for: keeping them right while addresses of the domain change state, at O(log n) a change.
Invariants: total = used + free + reserved + cooling, none negative; an address is in a free set exactly when nothing
takes it, the pool may give it and it is not pre-allocated.
Must not know: why an address changed state, other pools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sortedcontainers import SortedList

from services.ipam import intervals
from services.ipam.api import AddressCounts
from services.ipam.intervals import FreeSet, Interval
from services.ipam.slots import OBTAINABLE, Use
from services.ipam.space import Spans

if TYPE_CHECKING:
    import random

    from services.ipam.api import ClaimKey, PoolKey
    from services.ipam.slots import Summary
    from services.ipam.space import PoolSpace

MAX_INT64 = (1 << 63) - 1


class PoolState:
    """A pool's free addresses, counters and waiting claims."""

    def __init__(self, key: PoolKey, domain: str, space: PoolSpace, *, random_order: bool) -> None:
        self.key = key
        self.domain = domain
        self.space = space
        self.random_order = random_order
        self.held: set[int] = set()
        """Addresses held through this pool, in its ranges or not."""
        self.waiting: SortedList[tuple[str, int, ClaimKey]] = SortedList()
        kept = Spans(Interval(at, at) for at in space.kept_for)
        self.free = [FreeSet(intervals.subtract(r.assignable.intervals, kept.touching(r.span))) for r in space.ranges]
        """For each range what nothing takes, pre-allocated addresses left out."""
        self._first = 0
        """No range before this one has anything free."""
        self.fresh = sum(f.count for f in self.free)
        self.released: SortedList[tuple[float, int]] = SortedList()
        self.used = 0
        self.admin = 0
        self.pre_allocated_taken = 0
        self.out_of_range = 0

    def pre_allocation_of(self, claim: ClaimKey) -> str | None:
        """Key of `spec.preAllocations` that means a claim: `namespace/name`, or `name` in a pool of its namespace.

        A name alone means nobody of another namespace: claims are named by whoever may make them.
        """
        keys = [f"{claim.namespace}/{claim.name}", *([claim.name] if self.key.namespace == claim.namespace else [])]
        known = self.space
        return next((key for key in keys if key in known.pre_allocations or key in known.bad_pre_allocations), None)

    @property
    def available(self) -> int:
        """Addresses that any claim could get now: never used, or released (cooling ones can be cut short)."""
        return self.fresh + len(self.released)

    def hold(self, at: int) -> None:
        """Account for an address that is now held through this pool."""
        self.held.add(at)
        self.out_of_range += not self.space.is_assignable(at)

    def let_go(self, at: int) -> None:
        """Account for an address that is no longer held through this pool."""
        self.held.remove(at)
        self.out_of_range -= not self.space.is_assignable(at)

    def move(self, at: int, before: Summary, after: Summary) -> bool:
        """Account for an address whose state changed, at O(log n); True when that makes it obtainable for any claim."""
        place = self.space.place_of(at)
        if place is None:
            return False
        pre_allocated = at in self.space.kept_for
        self._count(at, before, -1, pre_allocated=pre_allocated)
        self._count(at, after, 1, pre_allocated=pre_allocated)
        if pre_allocated:
            return False
        if before.use is Use.FREE:
            self.fresh -= self.free[place].remove(at)
        elif after.use is Use.FREE:
            self.fresh += self.free[place].add(at)
            self._first = min(self._first, place)
        return after.use in OBTAINABLE and before.use not in OBTAINABLE

    def _count(self, at: int, summary: Summary, step: int, *, pre_allocated: bool) -> None:
        """Count an address in a state, or with step -1 no longer."""
        if summary.use is Use.HELD:
            self.used += step
            self.pre_allocated_taken += step * pre_allocated
        elif summary.use is Use.ADMIN:
            self.admin += step
            self.pre_allocated_taken += step * pre_allocated
        elif summary.use is Use.RELEASED and not pre_allocated:
            change = self.released.add if step > 0 else self.released.remove
            change((summary.reusable_at, at))

    def counts(self, now: float) -> AddressCounts:
        """Numbers for status and metrics at a moment, saturating at 2**63 - 1."""
        cooling = len(self.released) - self.released.bisect_right((now, intervals.BEYOND))
        reserved = self.admin + len(self.space.kept_for) - self.pre_allocated_taken
        free = self.space.total - self.used - reserved - cooling
        return AddressCounts(
            total=min(self.space.total, MAX_INT64),
            used=self.used,
            free=min(free, MAX_INT64),
            reserved=reserved,
            cooling=cooling,
            out_of_range=self.out_of_range,
        )

    def lowest_or_random(self, rng: random.Random) -> int | None:
        """A never-used address by the pool's strategy: ranges in order, the strategy inside a range."""
        while self._first < len(self.free):
            free = self.free[self._first]
            if free.count:
                return free.random(rng) if self.random_order else free.lowest()
            self._first += 1  # a pool may have ten thousand ranges, and each claim would go through them
        return None
