"""How a reconcile may end, and what follows from it for its key: a table, without I/O.

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

Responsible for: `Result`, the exceptions that a reconcile uses to say how it failed, and the table (`decide`).

Invariants: every exception has a row. What a service did not foresee is a bug: it is retried like any other failure,
since a retry may succeed, but counted and logged as what it is.

Must not know: queues, workers, metrics.
"""

from __future__ import annotations

import dataclasses
import enum
import logging
from typing import Final

from services.runtime.kube import errors

__all__ = ["Cause", "DeadlineExceededError", "Outcome", "ReconcileError", "Result", "TerminalError", "decide"]


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What a reconcile that succeeded wants next: with `requeue_after`, to see its key again after so many seconds."""

    requeue_after: float | None = None


class ReconcileError(Exception):
    """Base of the failures a service expects and names: retried with backoff and logged without a traceback."""


class TerminalError(ReconcileError):
    """A failure that no retry can mend (a spec that cannot be satisfied): the key waits until something changes."""


class DeadlineExceededError(ReconcileError):
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
    ((DeadlineExceededError,), Outcome(Cause.TIMEOUT, logging.ERROR, retry=True)),
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
