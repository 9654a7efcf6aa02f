"""Status conditions: values, and the one rule about their timestamps.

Source: meta/v1 Condition and the API conventions, "Typical status properties": `lastTransitionTime` changes only when
`status` does. Pure; time is an input.
"""
# ruff: noqa: N815 - the fields carry their wire names

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct, to_builtins
from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Iterable

TRUE = "True"
FALSE = "False"
UNKNOWN = "Unknown"


class Condition(Struct, frozen=True, omit_defaults=True, gc=False):
    """meta/v1 Condition. The API server's validation wants a reason and a message; the latter may be empty."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    lastTransitionTime: str | None = None
    observedGeneration: int = 0


C = TypeVar("C", list[Condition], tuple[Condition, ...])


def set_condition(conditions: C, condition: Condition, now: datetime) -> C:
    """`conditions` with `condition` in the place of the one of its type, or at the end.

    `lastTransitionTime` of the given one is ignored: it is kept while the status stays, else it is `now`. The very
    argument comes back when nothing changes.
    """
    old = find(conditions, condition.type)
    since = old.lastTransitionTime if old is not None and old.status == condition.status else None
    new = replace(condition, lastTransitionTime=since or timestamp(now))
    if new == old:
        return conditions
    if old is None:
        return type(conditions)([*conditions, new])
    return type(conditions)([new if other.type == new.type else other for other in conditions])


def find(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """Return the condition of that type, or None."""
    return next((condition for condition in conditions if condition.type == type_), None)


def is_true(conditions: Iterable[Condition], type_: str) -> bool:
    """Whether there is a condition of that type and its status is "True"."""
    condition = find(conditions, type_)
    return condition is not None and condition.status == TRUE


def plain(conditions: Iterable[Condition]) -> list[dict[str, Any]]:
    """Conditions as they stand in a status. An empty message is written: meta/v1 requires the field, not a text."""
    return [{"message": "", **to_builtins(condition)} for condition in conditions]


def timestamp(moment: datetime) -> str:
    """meta/v1 Time: RFC 3339 in UTC with whole seconds, e.g. `2026-01-02T03:04:05Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_timestamp(moment: datetime) -> str:
    """meta/v1 MicroTime: RFC 3339 in UTC with six digits, e.g. `2026-01-02T03:04:05.000006Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_timestamp(text: str) -> datetime:
    """Return the moment a Time or MicroTime names. Raises ValueError on anything else.

    That can be what the API server takes for a date-time: a year 0, or small letters as RFC 3339 allows.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"no time zone in {text!r}")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:  # its offset leads out of the years that there are
        raise ValueError(f"{text!r}: {error}") from error
