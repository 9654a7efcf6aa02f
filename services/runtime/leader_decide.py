"""The decisions of leader election, without I/O: what a process knows of the Lease and may conclude from it.

Responsible for: when a Lease may be taken, when a leader must stop, what to write. `leader.py` does the rest.

The rules are client-go's, on one local clock that never goes backwards:
- The times in a Lease are never compared with the local time of day, which may be wrong. What counts is for how long
  this process has seen the Lease unchanged: after the duration that its holder wrote into it, it may be taken.
- A holder counts from the moment *before* it sent the renewal that succeeded. Any other process saw that renewal
  later, and so takes the Lease at least a whole lease duration later. The holder stops at its renew deadline, which is
  shorter: the difference is the time that writes under way have to end.
- A write whose answer was lost proves nothing: not that the Lease was renewed, nor that it was not.

Must not know: HTTP, asyncio, where time comes from (`now` is seconds of any clock that also runs while the process is
stopped), Kubernetes beyond the fields of a Lease.
"""

from __future__ import annotations

import dataclasses
import enum
from datetime import UTC, datetime
from typing import Final

import msgspec

__all__ = [
    "Knowledge",
    "LeaseSpec",
    "Step",
    "Timing",
    "call_limit",
    "claim",
    "micro_time",
    "pause",
    "release",
    "step",
    "valid_for",
]

_WAKE_AFTER_EXPIRY: Final = 0.01


class LeaseSpec(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """coordination.k8s.io/v1 LeaseSpec. `strategy` and `preferred_holder` are kept for those who set them."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None
    strategy: str | None = None
    preferred_holder: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Timing:
    """Seconds; the defaults are those of client-go and controller-runtime."""

    lease_duration: float = 15.0
    """For how long others wait after the last renewal they saw."""
    renew_deadline: float = 10.0
    """When a leader that could not renew gives up."""
    retry_period: float = 2.0
    """Between two tries of anything."""

    def __post_init__(self) -> None:
        """Refuse values under which two processes could lead at the same time, or none for long."""
        if not self.lease_duration > self.renew_deadline > self.retry_period > 0:
            raise ValueError(
                "leader election needs lease duration > renew deadline > retry period > 0,"
                f" not {self.lease_duration:g} > {self.renew_deadline:g} > {self.retry_period:g}"
            )


class Step(enum.Enum):
    """What to do next about the Lease."""

    READ = "read"
    """What is known is not enough to write: get the Lease."""
    CREATE = "create"
    """There is none."""
    TAKE = "take"
    """It is free, or its holder has been silent for too long."""
    RENEW = "renew"
    """It is ours."""
    WAIT = "wait"
    """It is somebody else's."""
    LOST = "lost"
    """It was ours, and may by now be somebody else's. There is no way back: the process must end."""


@dataclasses.dataclass(frozen=True, slots=True)
class Knowledge:
    """What this process knows. Every change makes a new value."""

    identity: str
    timing: Timing
    spec: LeaseSpec | None = None
    """The Lease as last seen; None when there was none."""
    version: str = ""
    """Its resourceVersion; "" when there was none."""
    since: float = 0.0
    """When it was first seen in this version."""
    current: bool = False
    """Whether a write may be tried without reading first."""
    renewed: float | None = None
    """When the last successful write was about to be sent; None while not leading."""
    lost: bool = False

    def found(self, spec: LeaseSpec | None, version: str, now: float) -> Knowledge:
        """Add what a read that ended at `now` showed (None and "": no such Lease)."""
        # A leader that finds another holder, or none, was replaced. One that finds no Lease at all makes it anew, as
        # client-go does: somebody deleted the object.
        replaced = self.renewed is not None and spec is not None and spec.holder_identity != self.identity
        since = self.since if version == self.version else now
        return dataclasses.replace(
            self, spec=spec, version=version, since=since, current=True, lost=self.lost or replaced
        )

    def wrote(self, spec: LeaseSpec, version: str, sent: float) -> Knowledge:
        """Add that a write succeeded, which was about to be sent at `sent` and left the Lease in this version."""
        return dataclasses.replace(self, spec=spec, version=version, since=sent, current=True, renewed=sent)

    def unsure(self) -> Knowledge:
        """Add that a write failed, that its answer was lost, or that time has passed: a read must come first."""
        return dataclasses.replace(self, current=False)

    def resigned(self) -> Knowledge:
        """Stop leading by choice."""
        return dataclasses.replace(self, renewed=None)


def step(known: Knowledge, now: float) -> Step:
    """Return what to do at `now`."""
    if known.lost or (known.renewed is not None and valid_for(known, now) <= 0):
        return Step.LOST
    if not known.current:
        return Step.READ
    if known.spec is None:
        return Step.CREATE
    if known.spec.holder_identity == known.identity:
        return Step.RENEW
    return Step.TAKE if not known.spec.holder_identity or now > _expiry(known) else Step.WAIT


def valid_for(known: Knowledge, now: float) -> float:
    """Return for how many more seconds this process may act as the leader; zero or less when it may not."""
    if known.renewed is None or known.lost:
        return 0.0
    return known.renewed + known.timing.renew_deadline - now


def call_limit(known: Knowledge, now: float) -> float:
    """Return the seconds a call may take: half the renew deadline, so that a slow answer leaves time for another try.

    A leader's call ends with its leadership at the latest.
    """
    limit = known.timing.renew_deadline / 2
    return limit if known.renewed is None else max(0.0, min(limit, valid_for(known, now)))


def pause(known: Knowledge, now: float, spread: float) -> float:
    """Return the seconds to sleep before the next try; `spread` in [0, 1) shortens them by up to a half.

    A process that stands by wakes when the Lease expires, if that comes first, and a leader when its leadership ends.
    """
    period = known.timing.retry_period * (1.0 - spread / 2)
    if known.renewed is not None:
        return max(0.0, min(period, valid_for(known, now)))
    if known.current and known.spec is not None and known.spec.holder_identity:
        return min(period, max(_WAKE_AFTER_EXPIRY, _expiry(known) - now + _WAKE_AFTER_EXPIRY))
    return period


def _expiry(known: Knowledge) -> float:
    """Return when somebody else's Lease may be taken. A holder that wrote no duration gets ours."""
    duration = known.spec.lease_duration_seconds if known.spec is not None else None
    return known.since + (known.timing.lease_duration if duration is None else duration)


def claim(known: Knowledge, wall: datetime) -> LeaseSpec:
    """Return what to write to create, take or renew the Lease; `wall` is the time of day, for people to read."""
    stamp = micro_time(wall)
    before = known.spec or LeaseSpec()
    ours = before.holder_identity == known.identity
    transitions = before.lease_transitions or 0
    return msgspec.structs.replace(
        before,
        holder_identity=known.identity,
        # Rounded up: a shorter duration than ours would let others come early.
        lease_duration_seconds=max(1, -int(-known.timing.lease_duration // 1)),
        acquire_time=before.acquire_time if ours and before.acquire_time else stamp,
        renew_time=stamp,
        # client-go counts changes of the holder, and not the first one.
        lease_transitions=transitions if ours or known.spec is None else transitions + 1,
    )


def release(known: Knowledge, wall: datetime) -> LeaseSpec:
    """Return what to write to give the Lease up, so that others need not wait: no holder, one second (client-go)."""
    stamp = micro_time(wall)
    return msgspec.structs.replace(
        known.spec or LeaseSpec(),
        holder_identity="",
        lease_duration_seconds=1,
        acquire_time=stamp,
        renew_time=stamp,
    )


_MICRO_TIME: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


def micro_time(wall: datetime) -> str:
    """Format an aware time as meta/v1 MicroTime: UTC, always six digits (Go parses no other form of it)."""
    return wall.astimezone(UTC).strftime(_MICRO_TIME)
