"""Time as an input: everything in the runtime that waits or stamps gets a Clock instead of asking the system.

Invariant: `monotonic` and `now` are read through one Clock, so that a test can move both.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
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
