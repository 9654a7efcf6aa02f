"""What one address of a pool is used for, in the words of the status page.

Responsible for: the states and how each is marked, by a letter and a pattern besides its color; which one an address is
in, seen from one pool.
Invariant: every address that a pool may give is in exactly one state, and the sums over `COUNTED` are the pool's own
counts (`PoolState.counts`).
Must not know: HTML, claims beyond whether they are being deleted.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from services.ipam.slots import FREE, Use

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.ipam.api import ClaimKey
    from services.ipam.poolstate import PoolState
    from services.ipam.slots import Slot


class State(Enum):
    """What an address is used for. Values are names in the JSON report and in the style sheet."""

    CONFLICT = "conflict"
    HELD = "held"
    RETURNING = "returning"
    ELSEWHERE = "elsewhere"
    RESERVED = "reserved"
    PRE_ALLOCATED = "preallocated"
    COOLING = "cooling"
    REMEMBERED = "remembered"
    FREE = "free"
    EXCLUDED = "excluded"
    OUT_OF_RANGE = "outofrange"
    OUTSIDE = "outside"
    """No address of the pool."""


class Look(NamedTuple):
    """How a state is shown where color is not enough."""

    mark: str
    label: str
    meaning: str


LOOKS = {
    State.CONFLICT: Look("X", "held twice", "two claims hold it, found in objects that were adopted"),
    State.HELD: Look("H", "held", "a claim has it"),
    State.RETURNING: Look("R", "being returned", "its claim is being deleted and has not let go of it yet"),
    State.ELSEWHERE: Look("O", "held through another pool", "another pool of the domain covers it and gave it"),
    State.RESERVED: Look("A", "reserved", "an administrator's IPReservation keeps it"),
    State.PRE_ALLOCATED: Look("P", "pre-allocated", "preAllocations keep it for one claim, which has not taken it"),
    State.COOLING: Look("C", "cooling", "given back, and not given to others before its reuse delay ends"),
    State.REMEMBERED: Look("·", "free, remembered", "free, and kept for its last claim while others are left"),
    State.FREE: Look("·", "free", "nothing takes it"),
    State.EXCLUDED: Look("-", "never given", "excluded, or the gateway, network or broadcast address"),
    State.OUT_OF_RANGE: Look("!", "out of range", "held through the pool, which would not give it any more"),
    State.OUTSIDE: Look("", "not in the pool", ""),
}

COUNTED = {
    "used": (State.HELD, State.RETURNING, State.ELSEWHERE, State.CONFLICT),
    "reserved": (State.RESERVED, State.PRE_ALLOCATED),
    "cooling": (State.COOLING,),
    "free": (State.FREE, State.REMEMBERED),
}
"""The states that each of a pool's counts is the number of."""

UNTAKEN = frozenset({State.FREE, State.EXCLUDED, State.OUTSIDE})
"""States of addresses of which there is nothing to tell."""


def state_of(pool: PoolState, at: int, slot: Slot | None, now: float, leaving: Callable[[ClaimKey], bool]) -> State:
    """Return what an address is used for, seen from a pool.

    `slot` is the domain's for that address; `leaving` tells whether a claim is being deleted; `now` in Unix seconds.
    """
    if not pool.space.is_assignable(at):
        if at in pool.held:
            return State.OUT_OF_RANGE
        return State.OUTSIDE if is_outside(pool, at) else State.EXCLUDED
    summary = FREE if slot is None else slot.state
    if slot is not None and summary.use is Use.HELD:
        claims = slot.claims()
        if len(claims) > 1:
            return State.CONFLICT
        if summary.via != pool.key:
            return State.ELSEWHERE
        return State.RETURNING if any(leaving(claim) for claim in claims) else State.HELD
    if summary.use is Use.ADMIN:
        return State.RESERVED
    if at in pool.space.kept_for:
        return State.PRE_ALLOCATED
    if summary.use is Use.RELEASED:
        return State.COOLING if summary.reusable_at > now else State.REMEMBERED
    return State.FREE


def is_outside(pool: PoolState, at: int) -> bool:
    """Tell whether an address is in none of a pool's ranges."""
    refusal = pool.space.why_not(at)
    return refusal is not None and refusal[0] == "AddressOutsidePool"
