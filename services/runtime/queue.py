"""The work queue between watch handlers and workers, with the semantics of client-go's workqueue.

Responsible for: deduplication, order (first in, first out; groups in turn), delayed adds, per-key exponential backoff,
shut down, and the `workqueue_*` metrics.

Invariants:
- A key is handed to one worker at a time. A key that is added while a worker has it is handed out once more after
  `done`, however often it was added.
- `add_after` never delays a key that is already to come earlier; a key waiting for its time can be added at once
  meanwhile, and then comes twice, as with client-go.
- Every operation costs O(log n) or less; a timer exists only while a key waits.
- All calls happen on the event loop's thread. `add` and its relatives never block; store handlers may call them.

Must not know: Kubernetes, what a key is (any hashable value), what a worker does.
"""

import asyncio
import contextlib
import heapq
import random
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from services.runtime import metrics
from services.runtime.clock import Clock, SystemClock
from services.runtime.fair import FairQueue

__all__ = ["BASE_DELAY", "MAX_DELAY", "QueueShutDownError", "WorkQueue", "backoff"]

K = TypeVar("K", bound=Hashable)

BASE_DELAY: Final = 0.005
"""Seconds before the first retry of a key (client-go: 5 ms)."""
MAX_DELAY: Final = 60.0
"""Seconds between retries at most. client-go waits up to 1000 s: too long for a machine that waits for its address."""
_JITTER: Final = 0.25
_PRUNE_ABOVE: Final = 1000  # keys that may wait for the first worker before it is looked whether they have to
_COMPACT_ABOVE: Final = 64  # stale heap entries tolerated whatever the number of waiting keys

_LABELS: Final = ("name", "controller")
_DEPTH = metrics.gauge("workqueue_depth", "Current depth of the workqueue.", _LABELS)
_ADDS = metrics.counter("workqueue_adds_total", "Total number of adds handled by the workqueue.", _LABELS)
_RETRIES = metrics.counter("workqueue_retries_total", "Total number of retries handled by the workqueue.", _LABELS)
_QUEUED = metrics.histogram(
    "workqueue_queue_duration_seconds",
    "How long in seconds an item stays in the workqueue before being requested.",
    _LABELS,
    buckets=metrics.WORKQUEUE_BUCKETS,
)
_WORKED = metrics.histogram(
    "workqueue_work_duration_seconds",
    "How long in seconds processing an item from the workqueue takes.",
    _LABELS,
    buckets=metrics.WORKQUEUE_BUCKETS,
)
_UNFINISHED = metrics.gauge(
    "workqueue_unfinished_work_seconds",
    "Seconds of work in progress that work_duration has not observed yet. Large values indicate stuck workers.",
    _LABELS,
)
_LONGEST = metrics.gauge(
    "workqueue_longest_running_processor_seconds",
    "How many seconds the longest running processor of the workqueue has been running.",
    _LABELS,
)


class QueueShutDownError(Exception):
    """Raised by `WorkQueue.get` when the queue is shut down and has nothing left to hand out."""


def backoff(failures: int, spread: float) -> float:
    """Return the seconds to wait after `failures` earlier failures (0 for the first).

    Exponential from `BASE_DELAY`, never above `MAX_DELAY`; `spread` in [0, 1) shortens it by up to a quarter, so that
    keys that failed together do not come back together.
    """
    # The exponent is capped because a key may fail for months and 2.0 ** 1024 overflows.
    nominal = min(MAX_DELAY, BASE_DELAY * 2.0 ** min(failures, 32))
    return nominal * (1.0 - _JITTER * spread)


class WorkQueue(Generic[K]):
    """A deduplicating queue of keys with delays and per-key backoff.

    The life of a key: `add` -> `get` -> (the worker works) -> `forget` or `add_rate_limited` -> `done`.
    """

    def __init__(
        self,
        name: str,
        clock: Clock | None = None,
        *,
        controller: str | None = None,
        group: Callable[[K], Hashable] | None = None,
        settled: Callable[[K], bool] | None = None,
    ) -> None:
        """Make an empty queue; `name` and `controller` (default: the name) become metric labels.

        With `group`, the groups of the keys that are ready take turns; without it, first in is first out. `settled`
        tells that nothing is left to be done about a key: such keys are dropped while nobody has taken any yet, as on a
        replica that waits for its turn to lead, which would otherwise remember everything that ever came and went.
        """
        self.name = name
        self._clock = clock or SystemClock()
        self._monotonic = self._clock.monotonic
        self._ready: FairQueue[K] = FairQueue(group)
        self._dirty: dict[K, float] = {}  # keys that need work -> when they were first added
        self._processing: dict[K, float] = {}  # keys a worker has -> since when
        self._failures: dict[K, int] = {}
        self._waiting: dict[K, float] = {}  # keys that wait -> when their time comes
        self._heap: list[tuple[float, int, K]] = []  # may hold stale entries: `_waiting` says which one counts
        self._sequence = 0  # breaks ties in the heap, so that keys need no order
        self._timer: asyncio.Task[None] | None = None
        self._timer_at = 0.0
        self._getters: deque[asyncio.Future[None]] = deque()
        self._idle: asyncio.Event | None = None
        self._shut_down = False
        self._settled = settled
        self._prune_above = _PRUNE_ABOVE
        labels = (name, controller or name)
        self._count_add = _ADDS.labels(*labels).inc
        self._count_retry = _RETRIES.labels(*labels).inc
        self._observe_queued = _QUEUED.labels(*labels).observe
        self._observe_worked = _WORKED.labels(*labels).observe
        _publish_gauges(self, labels)

    def __len__(self) -> int:
        """Return how many keys are ready to be handed out; keys that wait or are being processed do not count."""
        return len(self._ready)

    def add(self, key: K) -> None:
        """Ask for `key` to be processed: now, or once more after the worker that has it is done."""
        if self._shut_down or key in self._dirty:
            return
        self._dirty[key] = self._monotonic()
        self._count_add()
        if key not in self._processing:
            self._make_ready(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Add `key` when `seconds` have passed; when it already waits, the earlier of the two times counts.

        Needs a running event loop unless `seconds` is zero or less, which adds at once.
        """
        if self._shut_down:
            return
        self._count_retry()  # client-go counts every delayed add as a retry
        if seconds <= 0:
            self.add(key)
            return
        when = self._monotonic() + seconds
        known = self._waiting.get(key)
        if known is not None and known <= when:
            return
        self._waiting[key] = when
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, key))
        if len(self._heap) > 2 * len(self._waiting) + _COMPACT_ABOVE:
            self._compact()
        self._arm()

    def add_rate_limited(self, key: K) -> None:
        """Add `key` after its backoff, which doubles with each call until `forget`."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.add_after(key, backoff(failures, random.random()))

    def forget(self, key: K) -> None:
        """Reset the backoff of `key`. A delayed add that is under way stays."""
        self._failures.pop(key, None)

    def retries(self, key: K) -> int:
        """Return how often `key` was added rate-limited since it was last forgotten."""
        return self._failures.get(key, 0)

    async def get(self) -> K:
        """Wait for a key and take it; the caller must call `done` with it.

        Returns without suspending when a key is ready. Raises `QueueShutDownError` when the queue is shut down and
        empty.
        """
        self._settled = None  # somebody works here: what is settled is found out by working on it
        while not self._ready:
            if self._shut_down:
                raise QueueShutDownError(self.name)
            await self._wait_for_key()
        key = self._ready.popleft()
        now = self._monotonic()
        self._observe_queued(now - self._dirty.pop(key))
        self._processing[key] = now
        return key

    def done(self, key: K) -> None:
        """Hand back a key from `get`; it becomes ready again when it was added meanwhile."""
        started = self._processing.pop(key)
        self._observe_worked(self._monotonic() - started)
        if key in self._dirty:
            self._make_ready(key)
        elif self._idle is not None:
            self._signal_if_idle()

    def shut_down(self, *, discard: bool = False) -> None:
        """Refuse further adds and drop what waits for its time.

        Keys that are ready are still handed out (client-go's drain); with `discard` they are dropped, so that workers
        stop after what they have in hand. Idempotent.
        """
        self._shut_down = True
        self._heap.clear()
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if discard:
            self._ready.clear()
            self._dirty.clear()
        while self._getters:
            _wake(self._getters.popleft())
        self._signal_if_idle()

    async def wait_idle(self) -> None:
        """Wait until nothing is ready and nothing is being processed; keys that wait for their time do not count."""
        if self._idle is None:
            self._idle = asyncio.Event()
        self._idle.clear()
        self._signal_if_idle()
        await self._idle.wait()

    @property
    def shutting_down(self) -> bool:
        """Whether `shut_down` was called."""
        return self._shut_down

    @property
    def processing(self) -> tuple[K, ...]:
        """The keys that workers have in hand."""
        return tuple(self._processing)

    def ages(self) -> list[float]:
        """Return for each key that a worker has in hand the seconds since it took it."""
        now = self._monotonic()
        return [now - started for started in self._processing.values()]

    def _prune(self, settled: Callable[[K], bool]) -> None:
        """Drop the keys about which nothing is left to be done. Amortised: again when twice as many have come."""
        left = [key for key in self._ready if not settled(key)]
        self._ready.clear()
        self._dirty = {key: self._dirty[key] for key in left}
        for key in left:
            self._ready.append(key)
        self._prune_above = max(_PRUNE_ABOVE, 2 * len(left))

    def _make_ready(self, key: K) -> None:
        self._ready.append(key)
        if self._settled is not None and len(self._ready) > self._prune_above:
            self._prune(self._settled)
        while self._getters:
            if _wake(self._getters.popleft()):
                return

    async def _wait_for_key(self) -> None:
        getter = asyncio.get_running_loop().create_future()
        self._getters.append(getter)
        try:
            await getter
        except BaseException:
            # A getter that was woken and cancelled in the same turn must pass its key on: nobody else was woken for it.
            if getter.done() and not getter.cancelled():
                while self._ready and self._getters and not _wake(self._getters.popleft()):
                    pass
            else:
                with contextlib.suppress(ValueError):  # an add in the same turn has already skipped it
                    self._getters.remove(getter)
            raise

    def _signal_if_idle(self) -> None:
        if self._idle is not None and not self._ready and not self._processing:
            self._idle.set()

    def _arm(self) -> None:
        """Keep one timer, for the earliest key that waits."""
        when = self._heap[0][0]
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        # The clock sleeps, not the loop's call_later: a test's clock must move delays as well.
        self._timer = asyncio.get_running_loop().create_task(self._wait_until(when), name=f"{self.name}-delays")

    async def _wait_until(self, when: float) -> None:
        await self._clock.sleep(max(0.0, when - self._monotonic()))
        self._release_due()

    def _release_due(self) -> None:
        self._timer = None
        now = self._monotonic()
        while self._heap and self._heap[0][0] <= now:
            when, _, key = heapq.heappop(self._heap)
            if self._waiting.get(key) == when:
                del self._waiting[key]
                self.add(key)
        if self._heap:
            self._arm()

    def _compact(self) -> None:
        """Drop heap entries that an earlier add has overtaken; amortised O(1) per add."""
        self._heap = [entry for entry in self._heap if self._waiting.get(entry[2]) == entry[0]]
        heapq.heapify(self._heap)


def _wake(getter: asyncio.Future[None]) -> bool:
    if getter.done():
        return False
    getter.set_result(None)
    return True


def _publish_gauges(queue: WorkQueue[K], labels: tuple[str, str]) -> None:
    """Compute the gauges at scrape time: the hot path pays nothing. The registry must not keep a queue alive."""
    reference = weakref.ref(queue)

    def depth() -> float:
        alive = reference()
        return float(len(alive)) if alive is not None else 0.0

    def ages() -> list[float]:
        alive = reference()
        return alive.ages() if alive is not None else []

    _DEPTH.labels(*labels).set_function(depth)
    _UNFINISHED.labels(*labels).set_function(lambda: sum(ages()))
    _LONGEST.labels(*labels).set_function(lambda: max(ages(), default=0.0))
