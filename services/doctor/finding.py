"""What the doctor says: one finding is about one thing and says what to do.

Must not know: how anything is found or printed.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Level(enum.IntEnum):
    """How bad it is; what is larger is worse."""

    OK = 0
    """As it should be."""
    INFO = 1
    """Worth knowing, or not looked at."""
    WARNING = 2
    """It works, and will not for long or not for all."""
    ERROR = 3
    """Something does not work."""

    def __str__(self) -> str:
        """`ok`, `info`, `warning`, `error`."""
        return self.name.lower()


class Finding(NamedTuple):
    """One thing that was found."""

    level: Level
    check: str
    """Name of the check, stable: what `--only` and `--skip` take."""
    subject: str
    """The object that it is about, `Kind namespace/name`; "" when it is about the cluster."""
    what: str
    action: str = ""
    """What to do, a command where one does it; "" for nothing."""


SHOWN = 3


def many(count: int, noun: str) -> str:
    """`1 pool`, `3 pools`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def some(names: list[str], shown: int = SHOWN) -> str:
    """Name the first few of many."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
