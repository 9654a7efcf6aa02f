"""The live numbers of one pool: its free addresses, what is released, and who waits.

Responsible for: keeping them right while addresses of the domain change state, at O(log n) a change.
Invariants: total = used + free + reserved + cooling, none negative; an address is in a free set exactly when nothing takes it, the
pool may give it and it is not pre-allocated.
Must not know: why an address changed state, other pools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sortedcontainers import SortedList

from services.ipam import intervals
from services.ipam.api import AddressCounts
from services.ipam.intervals import FreeSet, Interval
from services.ipam.slots import Use

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
        self.reset()

    def reset(self) -> None:
        """Start over with nothing taken."""
        pre = [Interval(at, at) for at in self.space.pre_allocated]
        self.free = [FreeSet(intervals.subtract(r.assignable.intervals, pre)) for r in self.space.ranges]
        self.fresh = sum(f.count for f in self.free)
        self.released: SortedList[tuple[float, int]] = SortedList()
        self.used = 0
        self.admin = 0
        self.pre_allocated_taken = 0
        self.out_of_range = 0

    @property
    def available(self) -> int:
        """Addresses that any claim could get now: never used or released, cooling ones included (they are cut short)."""
        return self.fresh + len(self.released)

    def _take(self, at: int) -> None:
        for free in self.free:
            if free.remove(at):
                self.fresh -= 1
                return

    def _give(self, at: int) -> None:
        for item, free in zip(self.space.ranges, self.free, strict=True):
            if at in item.assignable:
                self.fresh += free.add(at)
                return

    def move(self, at: int, before: Summary, after: Summary) -> None:
        """Account for an address whose state changed; O(log n)."""
        if not self.space.is_assignable(at):
            return
        pre_allocated = at in self.space.pre_allocated
        for summary, step in ((before, -1), (after, 1)):
            match summary.use:
                case Use.HELD:
                    self.used += step
                    self.pre_allocated_taken += step if pre_allocated else 0
                case Use.ADMIN:
                    self.admin += step
                    self.pre_allocated_taken += step if pre_allocated else 0
                case Use.RELEASED if not pre_allocated:
                    entry = (summary.reusable_at, at)
                    self.released.remove(entry) if step < 0 else self.released.add(entry)
                case _:
                    pass
        if not pre_allocated and (before.use is Use.FREE) != (after.use is Use.FREE):
            self._take(at) if before.use is Use.FREE else self._give(at)

    def counts(self, now: float) -> AddressCounts:
        """Numbers for status and metrics at a moment, saturating at 2**63 - 1."""
        cooling = len(self.released) - self.released.bisect_right((now, intervals.BEYOND))
        reserved = self.admin + len(self.space.pre_allocated) - self.pre_allocated_taken
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
        for free in self.free:
            if free.count:
                return free.random(rng) if self.random_order else free.lowest()
        return None
