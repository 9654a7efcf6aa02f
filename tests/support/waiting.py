"""Waiting for something to become true; the limit is for a test that would hang, never for how fast something is."""

import asyncio
import time


async def until(condition, *, limit=60.0, step=0.01):
    """Ask again and again; TimeoutError when it stays false."""
    async with asyncio.timeout(limit):
        while not condition():  # noqa: ASYNC110 - what is waited for happens outside of this process
            await asyncio.sleep(step)


def blocking_until(condition, *, limit=60.0, step=0.05, why=""):
    """As `until`, without an event loop; returns what the condition returned."""
    end = time.monotonic() + limit
    while not (result := condition()):
        assert time.monotonic() < end, why or "it did not become true"
        time.sleep(step)
    return result
