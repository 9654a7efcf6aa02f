"""Time as an input: everything in the runtime that waits or stamps gets a Clock instead of asking the system.

Invariant: `monotonic` and `now` are read through one Clock, so that a test can move both.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes backwards."""

    def now(self) -> datetime:
        """Return the time of day, timezone-aware."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`; at the next turn of the loop when they are zero or negative."""


class SystemClock:
    """The real time."""

    def monotonic(self) -> float:
        """As `Clock.monotonic`."""
        return time.monotonic()

    def now(self) -> datetime:
        """As `Clock.now`, in UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """As `Clock.sleep`."""
        await asyncio.sleep(max(0.0, seconds))


class VirtualClock:
    """Time that stands still until `advance` moves it: sleepers wake in the order of their deadlines, without waiting.

    For tests, as `trio.testing.MockClock` is for trio: code that gets its time from a Clock runs hours in milliseconds.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def monotonic(self) -> float:
        """Seconds advanced so far."""
        return self._elapsed

    def now(self) -> datetime:
        """Return the start plus the seconds advanced so far."""
        return self._start + timedelta(seconds=self._elapsed)

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), woken))
        await woken

    @property
    def next_wake(self) -> float | None:
        """Seconds until the first sleeper is due; None when nobody sleeps."""
        self._drop_cancelled()
        return self._sleepers[0][0] - self._elapsed if self._sleepers else None

    async def advance(self, seconds: float) -> None:
        """Move time on, stopping at each deadline on the way until the tasks it woke have come to rest."""
        target = self._elapsed + seconds
        await self.settle()
        while self._next_due(target):
            due, _, woken = heapq.heappop(self._sleepers)
            self._elapsed = max(self._elapsed, due)
            woken.set_result(None)
            await self.settle()
        self._elapsed = target
        await self.settle()

    async def settle(self, turns: int = 50) -> None:
        """Let every task that can run do so; `turns` bounds how long a chain of awaits may be."""
        for _ in range(turns):
            await asyncio.sleep(0)

    def _drop_cancelled(self) -> None:
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)

    def _next_due(self, target: float) -> bool:
        self._drop_cancelled()
        return bool(self._sleepers) and self._sleepers[0][0] <= target
