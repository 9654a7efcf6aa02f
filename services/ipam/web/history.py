"""How full each pool was: samples of its counts in memory, of bounded number.

Responsible for: keeping what changed and when; forgetting pools that are gone.
Invariants: a pool has at most `MOST` samples, whatever happens: when they are that many, every other one of the older
half goes, so that the past gets coarser and the last minutes stay as they were. Equal counts in a row cost nothing.
Must not know: where counts come from, the clock (times are Unix seconds).
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

    from services.ipam.api import PoolKey

MOST = 360
_WIDTH = 6


class Sample(NamedTuple):
    """A pool's counts from a moment on, until the next sample."""

    at: int
    total: int
    used: int
    reserved: int
    cooling: int
    waiting: int


class History:
    """Samples by pool."""

    def __init__(self) -> None:
        self._rows: dict[PoolKey, array[int]] = {}

    def add(self, pool: PoolKey, sample: Sample) -> None:
        """Record a pool's counts, which are not older than those recorded before."""
        rows = self._rows.setdefault(pool, array("q"))
        if rows and tuple(rows[-_WIDTH + 1 :]) == sample[1:]:
            return
        rows.extend(sample)
        if len(rows) > MOST * _WIDTH:
            self._rows[pool] = _thinned(rows)

    def keep(self, pools: Collection[PoolKey]) -> None:
        """Forget every other pool."""
        for gone in [pool for pool in self._rows if pool not in pools]:
            del self._rows[gone]

    def samples(self, pool: PoolKey) -> list[Sample]:
        """Return what is known of a pool, oldest first."""
        rows = self._rows.get(pool, array("q"))
        return [Sample(*rows[i : i + _WIDTH]) for i in range(0, len(rows), _WIDTH)]


def _thinned(rows: array[int]) -> array[int]:
    """Drop every other sample of the older half, save for the first one."""
    half = len(rows) // _WIDTH // 2
    kept = array("q")
    for index in range(half):
        if index % 2 == 0:
            kept.extend(rows[index * _WIDTH : (index + 1) * _WIDTH])
    kept.extend(rows[half * _WIDTH :])
    return kept
