"""What a reflector does next: a pure table from state and outcome to state and action.

Responsible for: when to list, when to watch and from where, how long to wait, when a store may be emptied.
Invariants:
- The version a watch resumes from only grows, except through a list.
- A delay is never longer than MAX_DELAY, or, when the server names one, than RETRY_AFTER_LIMIT plus BASE_DELAY.
- A connection that delivers nothing is never reopened without a delay; one that delivered is reopened at once.
- A store that holds objects is emptied only after UNSERVED_LIMIT answers in a row that the resource is not served: a
  restarting API server says so too, and all addresses would look free.
Must not know: time, randomness (both are inputs), HTTP.
"""

from __future__ import annotations

from enum import Enum

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from services.runtime.kube.errors import (
    RETRY_AFTER_LIMIT,
    ApiError,
    ConnectionFailed,
    Forbidden,
    Gone,
    NotFound,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unreadable,
)
from services.runtime.kube.objects import version

BASE_DELAY = 0.8
MAX_DELAY = 30.0
MIN_DELAY = 0.05
SILENT_LIMIT = 5
"""Watches in a row without a single row, bookmarks included, after which the version they resume from is distrusted."""
UNSERVED_LIMIT = 3
SETTLED_LIMIT = 6
"""Answers in a row that the resource is not served, after which only a change of what is served can help."""
STEADY = 10.0
"""Seconds after which an open watch counts as a success, though nothing may have happened in it."""


class Trouble(Enum):
    """Why listing or watching did not go on; the value is the word for logs and metrics."""

    EXPIRED = "expired"  # 410: the version is too old
    REWOUND = "rewound"  # versions went backwards: the server was restored from a backup
    OVERLOADED = "overloaded"  # 429 or 5xx
    UNREACHABLE = "unreachable"  # the network
    SUPERSEDED = "superseded"  # the server serves a version that is preferred by now
    SILENT = "silent"  # no bytes for too long
    DENIED = "denied"  # 401 or 403
    UNSERVED = "unserved"  # the server does not know the resource
    BROKEN = "broken"  # anything else: a bug here or there


class State(Struct, frozen=True):
    """Where a reflector stands. `resource_version` None means that the next thing is a list."""

    resource_version: str | None = None
    attempt: int = 0
    silent: int = 0
    unserved: int = 0
    trouble: Trouble | None = None


# -- outcomes ----------------------------------------------------------------------------------------------------------


class Listed(Struct, frozen=True):
    """A complete list was taken over."""

    resource_version: str


class ListFailed(Struct, frozen=True):
    """No list; `populated` tells whether the store holds objects."""

    trouble: Trouble
    populated: bool
    retry_after: float | None = None


class WatchEnded(Struct, frozen=True):
    """A watch ended at `resource_version`, the last one it told; without trouble when the server closed it properly.

    `delivered` tells whether there was any row, bookmarks included; `lasted` is in seconds.
    """

    resource_version: str
    delivered: bool
    trouble: Trouble | None = None
    retry_after: float | None = None
    lasted: float = 0.0


class Resumed(Struct, frozen=True):
    """A pause is over; `changed` when what the server serves has changed."""

    changed: bool = False


Outcome = Listed | ListFailed | WatchEnded | Resumed


# -- actions -----------------------------------------------------------------------------------------------------------


class List(Struct, frozen=True):
    """Choose the resource and list it."""


class Watch(Struct, frozen=True):
    """Watch from that version on."""

    resource_version: str


class Pause(Struct, frozen=True):
    """Wait; with `until_change` no longer than until the served resources change. First empty the store if `clear`.

    `settled` says that `seconds` are for the case only that nobody tells of changes.
    """

    seconds: float
    until_change: bool = False
    clear: bool = False
    settled: bool = False


Action = List | Watch | Pause


def step(state: State, outcome: Outcome, spread: float) -> tuple[State, Action]:
    """Return the next state and what to do; `spread` in [0, 1) is the jitter. The first step is `Resumed()`."""
    match outcome:
        case Resumed(changed=changed):
            # What has just been installed is not served at once, so the answers are counted anew.
            return _resume(replace(state, attempt=0, unserved=0) if changed else state)
        case Listed(resource_version=resource_version):
            state = replace(state, resource_version=resource_version, unserved=0, silent=0, trouble=None)
            return state, Watch(resource_version)
        case ListFailed():
            return _list_failed(state, outcome, spread)
        case WatchEnded():
            return _watch_ended(state, outcome, spread)


def _resume(state: State) -> tuple[State, Action]:
    return state, List() if state.resource_version is None else Watch(state.resource_version)


def _list_failed(state: State, outcome: ListFailed, spread: float) -> tuple[State, Action]:
    unserved = state.unserved + 1 if outcome.trouble is Trouble.UNSERVED else 0
    state = replace(state, resource_version=None, unserved=unserved, trouble=outcome.trouble)
    absent = unserved >= UNSERVED_LIMIT or (unserved > 0 and not outcome.populated)
    return _pause(state, spread, outcome.retry_after, clear=absent)


def _watch_ended(state: State, outcome: WatchEnded, spread: float) -> tuple[State, Action]:
    silent = 0 if outcome.delivered else state.silent + 1
    state = replace(
        state,
        resource_version=outcome.resource_version,
        attempt=0 if outcome.delivered or outcome.lasted >= STEADY else state.attempt,
        silent=silent,
        trouble=outcome.trouble,
    )
    if silent >= SILENT_LIMIT:
        state = replace(state, resource_version=None, silent=0)
    match outcome.trouble:
        case None if outcome.delivered:
            return _resume(state)
        case Trouble.EXPIRED | Trouble.REWOUND | Trouble.SUPERSEDED:
            state = replace(state, resource_version=None)
            if state.attempt == 0:
                return _resume(replace(state, attempt=1))
        case Trouble.UNSERVED | Trouble.BROKEN:
            state = replace(state, resource_version=None)
        case _:
            pass
    return _pause(state, spread, outcome.retry_after)


def _pause(state: State, spread: float, retry_after: float | None, *, clear: bool = False) -> tuple[State, Action]:
    seconds = backoff(state.attempt, spread)
    if retry_after is not None:
        seconds = min(retry_after, RETRY_AFTER_LIMIT) + spread * BASE_DELAY
    unserved = state.trouble is Trouble.UNSERVED
    settled = unserved and state.unserved >= SETTLED_LIMIT
    pause = Pause(seconds, until_change=unserved, clear=clear, settled=settled)
    return replace(state, attempt=state.attempt + 1), pause


def backoff(attempt: int, spread: float) -> float:
    """Seconds before try number `attempt` + 1: full jitter below an exponential ceiling, BASE_DELAY to MAX_DELAY.

    Source: AWS Architecture Blog, "Exponential Backoff And Jitter"; the numbers are client-go's.
    """
    ceiling = min(MAX_DELAY, BASE_DELAY * 2.0 ** min(attempt, 16))
    return max(MIN_DELAY, ceiling * spread)


def opened(state: State) -> State:
    """Return the state once the server has accepted a watch: nothing is wrong, though nothing was delivered yet."""
    return state if state.trouble is None else replace(state, trouble=None)


def rewound(last: str, resource_version: str) -> bool:
    """Whether an event's version lies before the last one: the history is not the one that was followed so far."""
    return 0 < version(resource_version) < version(last)


def classify(error: Exception) -> Trouble:
    """Name the trouble behind an error of a list or a watch."""
    match error:
        case Gone():
            return Trouble.EXPIRED
        case Unauthorized() | Forbidden():
            return Trouble.DENIED
        case NotFound():
            return Trouble.UNSERVED
        case TooManyRequests() | ServerError():
            return Trouble.OVERLOADED
        case Unreadable():
            return Trouble.BROKEN
        case ConnectionFailed():
            return Trouble.UNREACHABLE
        case TimeoutError():
            return Trouble.SILENT
        case ApiError() | msgspec.MsgspecError():
            return Trouble.BROKEN
    raise error
