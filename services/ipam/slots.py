"""One address of a domain: everything known to take it, and the one state that follows from it.

Responsible for: the precedence between IPReservations, IPAddresses and picks in flight.
Invariant: a slot with nothing in it is FREE, and only then.
Must not know: pools' ranges, Kubernetes objects.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from services.ipam.api import ClaimKey, PoolKey


class Use(Enum):
    """What an address is used for."""

    FREE = "free"
    HELD = "held"
    """By a claim: through a reservation, an IPAddress, or a pick in flight."""
    ADMIN = "reserved by an administrator"
    RELEASED = "released"
    """Kept for the claim that had it last; others may have it when nothing else is free."""


OBTAINABLE = (Use.FREE, Use.RELEASED)
"""What a claim that wants no certain address may get."""


class Reservation(NamedTuple):
    """An IPReservation as the ledger sees it."""

    name: str
    use: Use
    claim: ClaimKey | None
    """The holder, or for RELEASED the last holder."""
    pool: PoolKey | None
    reusable_at: float = 0.0


class Holding(NamedTuple):
    """An IPAddress object of either group."""

    kind: str
    """Kind of the claims it belongs to: `IPClaim` or `IPAddressClaim`."""
    namespace: str
    name: str
    claim: ClaimKey
    pool: PoolKey
    at: int


class Summary(NamedTuple):
    """The state of an address, as far as pools account for it."""

    use: Use
    via: PoolKey | None = None
    reusable_at: float = 0.0


FREE = Summary(Use.FREE)


class Slot:
    """All that is known of one taken address."""

    __slots__ = ("holdings", "pending", "reservation", "state")

    def __init__(self) -> None:
        self.reservation: Reservation | None = None
        self.holdings: tuple[Holding, ...] = ()
        self.pending: tuple[ClaimKey, PoolKey] | None = None
        self.state = FREE
        """`summary()` as last carried into the pools."""

    def summary(self) -> Summary:
        """State for accounting; an IPAddress or a pick outweighs a released reservation."""
        reservation = self.reservation
        if reservation is not None and reservation.use is Use.HELD:
            return Summary(Use.HELD, reservation.pool)
        if self.holdings:
            return Summary(Use.HELD, self.holdings[0].pool)
        if self.pending is not None:
            return Summary(Use.HELD, self.pending[1])
        if reservation is not None:
            return Summary(reservation.use, reservation.pool, reservation.reusable_at)
        return FREE

    def claims(self) -> set[ClaimKey]:
        """Every claim that holds the address; more than one is a conflict found in adopted objects."""
        found = {holding.claim for holding in self.holdings}
        if self.reservation is not None and self.reservation.use is Use.HELD and self.reservation.claim is not None:
            found.add(self.reservation.claim)
        return found

    def pools(self) -> set[PoolKey]:
        """Every pool through which a claim holds the address."""
        found = {holding.pool for holding in self.holdings}
        if self.reservation is not None and self.reservation.use is Use.HELD and self.reservation.pool is not None:
            found.add(self.reservation.pool)
        return found

    def holder(self) -> str:
        """Who has the address, for messages."""
        claims = self.claims()
        if claims:
            return " and ".join(sorted(str(claim) for claim in claims))
        if self.pending is not None:
            return str(self.pending[0])
        if self.reservation is not None:
            return f"IPReservation {self.reservation.name}"
        return "nobody"
