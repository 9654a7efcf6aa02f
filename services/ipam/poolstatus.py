"""What a pool says of itself: a pure function from its numbers to status, labels and owner.

Responsible for: conditions, counts and metal3's `indexes`; who a pool belongs to; when it may go.
Invariants: the same facts give the same status, so nothing is written when nothing changed; a pool with
addresses stays.
Must not know: the API server, stores, the clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from services.ipam import api, intervals
from services.ipam.poolstate import MAX_INT64
from services.runtime.kube.conditions import FALSE, TRUE, Condition

if TYPE_CHECKING:
    from services.ipam.api import AddressCounts, ClaimKey, PoolKey
    from services.ipam.space import Problem

INDEXES_LIMIT = 1000
"""Pools that hold more leave `status.indexes` out: one object may not grow with the number of its addresses."""
_NAMED_AT_MOST = 5
_MESSAGE_LIMIT = 2000


class Facts(NamedTuple):
    """Everything a pool's status follows from."""

    key: PoolKey
    problems: tuple[Problem, ...]
    counts: AddressCounts
    held: int
    """Addresses held through the pool, in its ranges or not."""
    waiting: int
    available: int
    overlaps: tuple[PoolKey, ...]
    conflicts: tuple[tuple[int, tuple[ClaimKey, ...]], ...]
    deleting: bool
    strangers: tuple[tuple[str, int], ...]
    """Namespaces that the pool does not serve (any more), with the number of addresses that their claims hold."""
    indexes: dict[str, str] | None


def conditions(facts: Facts) -> tuple[Condition, ...]:
    """Ready, AddressesAvailable, NoOverlap and NamespacesAllowed."""
    return (_ready(facts), _available(facts), _no_overlap(facts), _namespaces(facts))


def capacity(facts: Facts) -> dict[str, int | bool | None]:
    """metal3's own counts; None for what is left out.

    What is kept for a claim that is not there, or by an administrator, is not available.
    """
    counts = facts.counts
    capped = counts.total >= MAX_INT64
    return {
        "capacity": counts.total,
        "capacityCapped": capped,
        "availableIPCount": None if capped else counts.total - counts.used - counts.reserved,
    }


def _ready(facts: Facts) -> Condition:
    if facts.deleting:
        return Condition(api.READY, FALSE, "Deleting", f"Waits until its addresses are returned: {facts.held} held")
    if facts.problems:
        return Condition(api.READY, FALSE, "InvalidSpec", _some("; ", [str(p) for p in facts.problems]))
    return Condition(api.READY, TRUE, "PoolReady", "")


def _available(facts: Facts) -> Condition:
    if facts.available:
        return Condition("AddressesAvailable", TRUE, "AddressesAvailable", "")
    waiting = f"; {facts.waiting} claims wait" if facts.waiting else ""
    message = f"{facts.counts.used} of {facts.counts.total} addresses are held, none is free{waiting}"
    return Condition("AddressesAvailable", FALSE, api.POOL_EXHAUSTED, message)


def _no_overlap(facts: Facts) -> Condition:
    if facts.conflicts:
        shown = [f"{intervals.text(at)} by {' and '.join(map(str, claims))}" for at, claims in facts.conflicts]
        return Condition("NoOverlap", FALSE, "AddressConflict", "Held twice: " + _some("; ", shown))
    if facts.overlaps:
        message = "Shares addresses with " + _some(", ", [str(key) for key in facts.overlaps])
        return Condition("NoOverlap", FALSE, "PoolsOverlap", message)
    return Condition("NoOverlap", TRUE, "NoOverlap", "")


def _namespaces(facts: Facts) -> Condition:
    if facts.strangers:
        shown = _some(", ", [f"{namespace} ({count})" for namespace, count in facts.strangers])
        message = f"Claims of namespaces that spec.allowedNamespaces does not have keep their addresses: {shown}"
        return Condition("NamespacesAllowed", FALSE, "HeldFromOtherNamespaces", message)
    return Condition("NamespacesAllowed", TRUE, "NamespacesAllowed", "")


def _some(separator: str, items: list[str]) -> str:
    shown = separator.join(items[:_NAMED_AT_MOST])
    more = f"{separator}and {len(items) - _NAMED_AT_MOST} more" if len(items) > _NAMED_AT_MOST else ""
    return f"{shown[:_MESSAGE_LIMIT]}{more}"
