"""A controller: workers that take keys from a queue, reconcile them and act on the outcome.

Responsible for: the workers, the deadline of a reconcile, carrying out what `outcome` decides, the fields that follow
a reconcile into the logs, and the `controller_runtime_*` metrics.

Invariants: an exception never ends a worker. A worker gives the event loop a turn after each reconcile, so that a long
queue of reconciles that never wait cannot hold up lease renewal and probes.

Must not know: what a key stands for, caches, leader election beyond the error it raises.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping
from typing import Final, Generic, TypeVar

from services.runtime import log, metrics
from services.runtime.clock import Clock, SystemClock
from services.runtime.outcome import (
    Cause,
    DeadlineExceededError,
    Outcome,
    ReconcileError,
    Result,
    TerminalError,
    decide,
)
from services.runtime.queue import QueueShutDownError, WorkQueue

__all__ = ["Controller", "ReconcileError", "Result", "TerminalError"]

K = TypeVar("K", bound=Hashable)

DEFAULT_DEADLINE: Final = 30.0
"""Seconds a reconcile may take. Every call below it has its own, shorter timeout; this one catches what forgot its."""

_LOG: Final = log.get("controller")
_RESULTS: Final = ("success", "error", "requeue", "requeue_after")
_RECONCILES = metrics.counter(
    "controller_runtime_reconcile_total", "Total number of reconciliations per controller.", ("controller", "result")
)
_ERRORS = metrics.counter(
    "controller_runtime_reconcile_errors_total",
    "Total number of reconciliation errors per controller.",
    ("controller",),
)
_TERMINAL = metrics.counter(
    "controller_runtime_terminal_reconcile_errors_total",
    "Total number of terminal reconciliation errors per controller.",
    ("controller",),
)
_PANICS = metrics.counter(
    "controller_runtime_reconcile_panics_total",
    "Total number of reconciliations per controller that ended with an unexpected exception.",
    ("controller",),
)
_TIMEOUTS = metrics.counter(
    "controller_runtime_reconcile_timeouts_total",
    "Total number of reconciliations per controller that exceeded their deadline.",
    ("controller",),
)
_SECONDS = metrics.histogram(
    "controller_runtime_reconcile_time_seconds",
    "Length of time per reconciliation per controller.",
    ("controller",),
    buckets=metrics.RECONCILE_BUCKETS,
)
_WORKERS = metrics.gauge(
    "controller_runtime_max_concurrent_reconciles",
    "Maximum number of concurrent reconciles per controller.",
    ("controller",),
)
_ACTIVE = metrics.gauge(
    "controller_runtime_active_workers", "Number of currently used workers per controller.", ("controller",)
)


class Controller(Generic[K]):
    """Reconciles the keys of `queue` with a fixed number of workers.

    Keys get into `queue` from store handlers (`store.subscribe`), from outcomes, or from anybody who calls `queue.add`.
    """

    def __init__(
        self,
        name: str,
        reconcile: Callable[[K], Awaitable[Result | None]],
        *,
        workers: int = 1,
        deadline: float = DEFAULT_DEADLINE,
        clock: Clock | None = None,
        group: Callable[[K], Hashable] | None = None,
        settled: Callable[[K], bool] | None = None,
    ) -> None:
        """Make a controller; `reconcile` brings the object of one key closer to what it should be.

        It must be idempotent: it is called again after errors, restarts and changes of its own. `name` labels
        metrics and logs, `deadline` is in seconds. `group` and `settled` are the queue's. Nothing runs before `run`.
        """
        self.name = name
        self.workers = workers
        self.queue: WorkQueue[K] = WorkQueue(name, clock, group=group, settled=settled)
        self._reconcile = reconcile
        self._deadline = deadline
        self._monotonic = (clock or SystemClock()).monotonic
        self._active = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()
        self._count = {result: _RECONCILES.labels(name, result).inc for result in _RESULTS}
        self._count_error = _ERRORS.labels(name).inc
        self._count_cause = {
            Cause.TERMINAL: _TERMINAL.labels(name).inc,
            Cause.TIMEOUT: _TIMEOUTS.labels(name).inc,
            Cause.BUG: _PANICS.labels(name).inc,
        }
        self._observe = _SECONDS.labels(name).observe
        self._set_active = _ACTIVE.labels(name).set
        _WORKERS.labels(name).set(workers)

    async def run(self) -> None:
        """Work until `drain` or cancellation; returns when every worker has ended."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self.workers):
                    task = group.create_task(self._work(), name=f"{self.name}-worker-{number}")
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        finally:
            self._stopped.set()

    async def drain(self, seconds: float) -> bool:
        """Take no more keys, let what runs finish for at most `seconds`, then cancel it.

        Returns whether everything finished by itself. Keys that were queued are dropped: the next leader lists
        everything anyway. Returns at once when `run` was never called.
        """
        self.queue.shut_down(discard=True)
        if not self._tasks:
            return True
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            _LOG.warning(
                "Reconciles did not finish before the drain deadline",
                controller=self.name,
                keys=self.queue.processing,
                seconds=seconds,
            )
            for task in tuple(self._tasks):
                task.cancel()
            await self._stopped.wait()
            return False
        return True

    async def _work(self) -> None:
        queue = self.queue
        while True:
            try:
                key = await queue.get()
            except QueueShutDownError:
                return
            try:
                await self._handle(key)
            finally:
                queue.done(key)
            # A reconcile that found nothing to do never waited: without this turn, 50,000 of them in a row would
            # hold up everything else on the loop.
            await asyncio.sleep(0)

    async def _handle(self, key: K) -> None:
        log.set_context(_ReconcileFields(self.name, key))
        started = self._monotonic()
        self._active += 1
        self._set_active(self._active)
        try:
            result = await self._reconcile_in_time(key)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not this worker was cancelled but something its handler waited for: a bug, but not the worker's end.
            self._failed(key, error)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, the worker goes on
            self._failed(key, error)
        else:
            self._succeeded(key, result)
        finally:
            self._active -= 1
            self._set_active(self._active)
            self._observe(self._monotonic() - started)

    async def _reconcile_in_time(self, key: K) -> Result | None:
        deadline = asyncio.timeout(self._deadline)
        try:
            async with deadline:
                return await self._reconcile(key)
        except TimeoutError as error:
            if deadline.expired():
                raise DeadlineExceededError(f"no result within {self._deadline:g} s") from error
            raise

    def _succeeded(self, key: K, result: Result | None) -> None:
        self.queue.forget(key)
        if result is None or result.requeue_after is None:
            self._count["success"]()
        else:
            self._count["requeue_after"]()
            self.queue.add_after(key, result.requeue_after)

    def _failed(self, key: K, error: BaseException) -> None:
        outcome = decide(error)
        if outcome.cause is not Cause.NOT_LEADER:
            self._count["error"]()
            self._count_error()
            if outcome.cause in self._count_cause:
                self._count_cause[outcome.cause]()
        if not outcome.retry:
            self.queue.forget(key)
        elif outcome.retry_after is not None:
            self.queue.add_after(key, outcome.retry_after)
        else:
            self.queue.add_rate_limited(key)
        self._log_failure(key, error, outcome)

    def _log_failure(self, key: K, error: BaseException, outcome: Outcome) -> None:
        if outcome.cause is Cause.BUG:
            _LOG.exception("Reconcile failed unexpectedly", error=error, retries=self.queue.retries(key))
        elif outcome.cause is Cause.TERMINAL:
            _LOG.log(outcome.level, "Reconcile failed and will not be retried", error=error)
        else:
            _LOG.log(outcome.level, "Reconcile failed", error=error, retries=self.queue.retries(key))


class _ReconcileFields(Mapping[str, object]):
    """The log fields of one reconcile, computed when something is logged: most reconciles log nothing."""

    __slots__ = ("_controller", "_fields", "_key")

    def __init__(self, controller: str, key: object) -> None:
        self._controller = controller
        self._key = key
        self._fields: dict[str, object] | None = None

    def _all(self) -> dict[str, object]:
        if self._fields is None:
            # Names as controller-runtime logs them; the id tells the records of one reconcile from those of the next.
            key = {
                "namespace": getattr(self._key, "namespace", None),
                "name": getattr(self._key, "name", None),
            }
            named = {field: value for field, value in key.items() if value}
            self._fields = {
                "controller": self._controller,
                **(named or {"key": str(self._key)}),
                "reconcileID": f"{random.getrandbits(64):016x}",
            }
        return self._fields

    def __getitem__(self, name: str) -> object:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())
