"""Virtual time for asyncio: a loop whose clock jumps to the next timer as soon as nothing else can run.

The whole of asyncio follows it (`sleep`, `timeout`, `call_later`), so code under test needs no other clock than
`LoopClock`, and hours pass in milliseconds. A loop with nothing left to wait for is a deadlock and fails the test. As
trio's MockClock with autojump_threshold=0.
"""

import asyncio
import contextlib
import functools
import random
import selectors
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, tzinfo=UTC)


class DeadlockError(BaseException):
    """Every task waits for something that cannot happen. Not an Exception: code under test must not swallow it."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self.elapsed = 0.0
        super().__init__(_JumpingSelector(self))
        self._clock_resolution = 1e-9

    def time(self):
        return self.elapsed


class _JumpingSelector(selectors.BaseSelector):
    def __init__(self, loop):
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def select(self, timeout=None):
        events = self._real.select(0)
        if events or timeout == 0:
            return events
        if timeout is None:
            raise DeadlockError("nothing is scheduled and no task can run")
        self._loop.elapsed += timeout
        return []

    def register(self, fileobj, events, data=None):
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj):
        return self._real.unregister(fileobj)

    def close(self):
        self._real.close()

    def get_map(self):
        return self._real.get_map()


class LoopClock:
    """A `Clock` that shows the running loop's time, and goes on showing the last one's when that has ended.

    (Metrics of objects that a test has left behind are computed whenever somebody asks.)
    """

    def __init__(self):
        self._loop = None

    def monotonic(self):
        with contextlib.suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()
        return self._loop.time() if self._loop is not None else 0.0

    def now(self):
        return START + timedelta(seconds=self.monotonic())

    async def sleep(self, seconds):
        await asyncio.sleep(max(0.0, seconds))


def run(coroutine, *, seed=0):
    """Run to the end in virtual time; the jitter is the same each time, so that the same code gives the same answer."""
    random.seed(seed)
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)


def virtual_time(test):
    """Let an async test run in virtual time."""

    @functools.wraps(test)
    def wrapper(*args, **kwargs):
        return run(test(*args, **kwargs))

    return wrapper


async def settle(turns=20):
    """Let every task that can run do so; no time passes."""
    for _ in range(turns):
        await asyncio.sleep(0)
