"""How many decisions the ledger makes in a second of processor time, without any I/O.

Three pools: (a) an IPv4 /16 given out in order; (b) an IPv4 /8 given out at random, 100,000 addresses taken before;
(c) an IPv6 /64 with 100,000 addresses taken, where each claim asks for one far away. For each: `choose` alone, and the
whole cycle of a claim (choose, begin, set_reservation, settle). Run as `python -m tests.bench.decisions`.
"""

from __future__ import annotations

import itertools
import random
import time
from typing import TYPE_CHECKING

from services.ipam import intervals
from services.ipam.api import ClaimKey, PoolKey, PoolRange, PoolSpec
from services.ipam.ledger import Ledger
from services.ipam.slots import Reservation, Use
from services.ipam.space import PoolSpace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from services.ipam.poolstate import PoolState

DOMAIN = "default"
KEY = PoolKey("IPPool", "bench", "pool")
AGE = ("2026-01-01T00:00:00Z", 0)
BATCH = 2000
TAKEN_BEFORE = 100_000


class Bench:
    """One ledger with one pool, and the cycle that a claim goes through."""

    def __init__(self, subnet: str, *, random_order: bool = False, taken: Iterable[int] = ()) -> None:
        self.ledger = Ledger()
        space = PoolSpace(PoolSpec(pools=(PoolRange(subnet=subnet),)))
        self.pool: PoolState = self.ledger.set_pool(KEY, DOMAIN, space, random_order=random_order)
        self.rng = random.Random(1)
        self.claims = (ClaimKey("IPAddressClaim", "bench", f"claim-{n}") for n in itertools.count())
        self.given: list[int] = []
        for at in taken:
            self.ledger.set_reservation(DOMAIN, at, Reservation("", Use.HELD, next(self.claims), KEY))

    def choose(self, requested: int | None = None) -> None:
        """Decide, changing nothing."""
        self.ledger.choose(self.pool, CLAIM, AGE, requested, 0.0, self.rng)

    def cycle(self, requested: int | None = None) -> None:
        """Decide and carry the decision out, as the reconciler of one claim does."""
        claim = next(self.claims)
        at = self.ledger.choose(self.pool, claim, AGE, requested, 0.0, self.rng)
        assert isinstance(at, int), at
        self.ledger.begin(self.pool, at, claim)
        self.ledger.set_reservation(DOMAIN, at, Reservation("", Use.HELD, claim, KEY))
        self.ledger.settle(DOMAIN, at)
        self.given.append(at)

    def give_back(self) -> None:
        """Return what the cycles took."""
        for at in self.given:
            self.ledger.set_reservation(DOMAIN, at, None)
        self.given.clear()


CLAIM = ClaimKey("IPAddressClaim", "bench", "claim")


def rate(bench: Bench, work: Callable[[], None], seconds: float, limit: int) -> float:
    """Calls of `work` a second; only the calls are timed, not the return of addresses once `limit` are given."""
    done, spent = 0, 0.0
    while spent < seconds:
        started = time.process_time()
        for _ in range(BATCH):
            work()
        spent += time.process_time() - started
        done += BATCH
        if len(bench.given) + BATCH > limit:
            bench.give_back()
    return done / spent


def run(seconds: float = 1.0) -> dict[str, float]:
    """Decisions a second by name of the measurement, each measured for so many seconds."""
    rng = random.Random(2)
    eight = intervals.network_of(intervals.point("10.0.0.0"), 8)
    holes = (at for at in rng.sample(range(eight.first + 1, eight.last), TAKEN_BEFORE) if at & 0xFF)
    sixty_four = intervals.network_of(intervals.point("2001:db8::"), 64)
    benches = {
        "a: IPv4 /16 in order": (Bench("10.0.0.0/16"), lambda: None, 60_000),
        "b: IPv4 /8 at random, 100,000 taken": (
            Bench("10.0.0.0/8", random_order=True, taken=holes),
            lambda: None,
            TAKEN_BEFORE,
        ),
        "c: IPv6 /64, 100,000 taken, far address asked for": (
            Bench("2001:db8::/64", taken=range(sixty_four.first + 1, sixty_four.first + 1 + TAKEN_BEFORE)),
            lambda: sixty_four.first + rng.randrange(1 << 63, 1 << 64),
            TAKEN_BEFORE,
        ),
    }
    result = {}
    for name, (bench, request, limit) in benches.items():
        result[f"{name}: choose"] = rate(bench, lambda b=bench, r=request: b.choose(r()), seconds, limit)
        result[f"{name}: whole cycle"] = rate(bench, lambda b=bench, r=request: b.cycle(r()), seconds, limit)
    return result


def main() -> None:
    """Print a line for each measurement."""
    for name, per_second in run().items():
        print(f"{name:70} {per_second:>12,.0f}/s")


if __name__ == "__main__":
    main()
