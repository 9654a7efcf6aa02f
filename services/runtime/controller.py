"""A controller: workers that take keys from a queue, reconcile them and act on the outcome.

Responsible for: the workers, the deadline of a reconcile, the outcome table (`decide`), the fields that follow a
reconcile into the logs, and the `controller_runtime_*` metrics.

The outcome table, after controller-runtime's `reconcileHandler`:

| a reconcile ends with                          | counted as       | the key                                    |
|------------------------------------------------|------------------|--------------------------------------------|
| `None` or `Result()`                           | success          | is forgotten                               |
| `Result(requeue_after=s)`                      | requeue_after    | is forgotten, comes back after s           |
| `TerminalError`                                | error, terminal  | is forgotten until its object changes      |
| an answer of the API server with Retry-After   | error            | comes back after that time                 |
| `Conflict`                                     | error            | is retried with backoff, logged at debug   |
| `ReconcileError`, `KubeError`, `OSError`       | error            | is retried with backoff                    |
| nothing before its deadline                    | error, timeout   | is retried with backoff                    |
| any other exception: a bug                     | error, panic     | is retried with backoff, traceback logged  |
| `NotLeader`                                    | not counted      | is forgotten: another process has the work |

Invariants: an exception never ends a worker. A worker gives the event loop a turn after each reconcile, so that a long
queue of reconciles that never wait cannot hold up lease renewal and probes.

Must not know: what a key stands for, caches, leader election beyond the error it raises.
"""

import asyncio
import dataclasses
import enum
import logging
import random
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping
from typing import Final, Generic, TypeVar

from services.runtime import log, metrics
from services.runtime.clock import Clock, SystemClock
from services.runtime.kube import errors
from services.runtime.queue import QueueShutDownError, WorkQueue

__all__ = ["Controller", "Outcome", "ReconcileError", "Result", "TerminalError", "decide"]

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


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What a reconcile that succeeded wants next: with `requeue_after`, to see its key again after so many seconds."""

    requeue_after: float | None = None


class ReconcileError(Exception):
    """Base of the failures a service expects and names: retried with backoff and logged without a traceback."""


class TerminalError(ReconcileError):
    """A failure that no retry can mend (a spec that cannot be satisfied): the key waits until something changes."""


class _DeadlineExceededError(ReconcileError):
    """The reconcile did not finish before its deadline."""


class Cause(enum.Enum):
    """Why a reconcile failed, as far as metrics and logs tell failures apart."""

    EXPECTED = "expected"
    TERMINAL = "terminal"
    TIMEOUT = "timeout"
    BUG = "bug"
    NOT_LEADER = "not leader"


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What to do with a key after a failure, see the module's table."""

    cause: Cause
    level: int
    """Level of the log record, of `logging`."""
    retry: bool
    """Whether the key comes back by itself."""
    retry_after: float | None = None
    """Seconds the API server asked for, instead of the backoff."""


_TABLE: Final[tuple[tuple[tuple[type[BaseException], ...], Outcome], ...]] = (
    ((errors.NotLeader,), Outcome(Cause.NOT_LEADER, logging.DEBUG, retry=False)),
    ((TerminalError,), Outcome(Cause.TERMINAL, logging.ERROR, retry=False)),
    ((_DeadlineExceededError,), Outcome(Cause.TIMEOUT, logging.ERROR, retry=True)),
    # Somebody else wrote first; the retry reads the new state. Not worth a line in a busy cluster.
    ((errors.Conflict,), Outcome(Cause.EXPECTED, logging.DEBUG, retry=True)),
    ((ReconcileError, errors.KubeError, OSError), Outcome(Cause.EXPECTED, logging.WARNING, retry=True)),
)
_BUG: Final = Outcome(Cause.BUG, logging.ERROR, retry=True)


def decide(error: BaseException) -> Outcome:
    """Return the row of the outcome table for a reconcile that raised `error`: the first that matches. Pure."""
    for types, outcome in _TABLE:
        if isinstance(error, types):
            if isinstance(error, errors.ApiError) and error.retry_after is not None:
                return dataclasses.replace(outcome, retry_after=error.retry_after)
            return outcome
    return _BUG


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
    ) -> None:
        """Make a controller; `reconcile` brings the object of one key closer to what it should be.

        It must be idempotent: it is called again after errors, restarts and changes of its own. `name` labels
        metrics and logs, `deadline` is in seconds. Nothing runs before `run`.
        """
        self.name = name
        self.workers = workers
        self.queue: WorkQueue[K] = WorkQueue(name, clock)
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
                raise _DeadlineExceededError(f"no result within {self._deadline:g} s") from error
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
