import time
from datetime import UTC, datetime, timedelta

from services.runtime.clock import SystemClock


async def test_the_system_clock_shows_the_time_of_day_in_utc_and_monotonic_seconds():
    clock = SystemClock()
    assert clock.now().tzinfo is UTC
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(minutes=1)
    before = time.monotonic()
    assert before <= clock.monotonic() <= time.monotonic()


async def test_a_negative_sleep_only_gives_way():
    await SystemClock().sleep(-5)
