"""Pools and their fill, addresses and their holders: what `groundwork ipam pools` and `addresses` show.

Responsible for: computing both from specs, IPReservations and IPAddresses with the allocator's own arithmetic, so that
the answer is right also while no allocator runs and status is old.
Invariants: total = used + free + reserved + cooling, exact also beyond 2**63; an address that two claims hold gives a
row for each of them.
Must not know: the API server, the clock (`now` is Unix seconds), how rows are printed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from services.ipam import api, intervals, kinds
from services.ipam.ledger import Ledger
from services.ipam.poolobjects import pool_key, read_pool, read_pool_spec
from services.ipam.slots import Holding, Reservation, Use
from services.ipam.space import PoolSpace, Spans
from services.runtime.kube.objects import view

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from services.ipam.api import ClaimKey, PoolKey
    from services.ipam.cli.snapshot import Snapshot
    from services.ipam.intervals import Interval
    from services.runtime.kube.objects import KubeObject

T = TypeVar("T")

STATES = ("held", "reserved", "released", "cooling", "conflict")


class PoolRow(NamedTuple):
    """One pool. Counts as in its status, but exact."""

    key: PoolKey
    domain: str
    total: int
    used: int
    free: int
    reserved: int
    cooling: int
    out_of_range: int
    ready: bool
    reason: str
    message: str
    ranges: str
    status: str
    """What its status says compared with this row: `current`, `behind`, or `none` when there is none."""

    @property
    def fill(self) -> float | None:
        """Share of the addresses that are not free, 0 to 1; None when there are no addresses."""
        return (self.total - self.free) / self.total if self.total else None


class AddressRow(NamedTuple):
    """One taken address, and one of its holders."""

    domain: str
    """"" when the pool that would tell is gone."""
    at: int
    state: str
    pools: tuple[PoolKey, ...]
    """The pool it was taken through; of a reserved one all pools that cover it."""
    claim: ClaimKey | None
    address_object: str
    """`namespace/name` of the IPAddress, "" when there is none."""
    since: str
    """Timestamp (RFC 3339): made, or for released and cooling ones released; "" when unknown."""
    description: str
    reservation: str
    """Name of the IPReservation, "" when there is none."""


# -- pools ---------------------------------------------------------------------------------------------------------


def pool_rows(snapshot: Snapshot, now: float) -> list[PoolRow]:
    """Every pool by kind, namespace and name."""
    ledger = _ledger(snapshot)
    return [_pool_row(obj, ledger, now) for obj in sorted(snapshot.pools, key=pool_key)]


def _ledger(snapshot: Snapshot) -> Ledger:
    ledger = Ledger()
    for obj in snapshot.pools:
        spec, space = read_pool(obj)
        ledger.set_pool(pool_key(obj), spec.domain, space, random_order=False)
    for obj in snapshot.reservations:
        read = _read_reservation(obj)
        if read is not None:
            ledger.set_reservation(*read)
    for holding, _ in _holdings(snapshot):
        ledger.set_holding(None, holding)
    return ledger


def _pool_row(obj: KubeObject, ledger: Ledger, now: float) -> PoolRow:
    key = pool_key(obj)
    state = ledger.pools[key]
    counts = state.counts(now)
    problems = "; ".join(str(problem) for problem in state.space.problems)
    if obj.deleting:
        ready, reason, message = False, "Deleting", "waits for its addresses to be returned"
    elif problems:
        ready, reason, message = False, "InvalidSpec", problems
    elif kinds.is_paused(obj):
        ready, reason, message = False, "PoolPaused", f"annotation {api.PAUSED_ANNOTATION}"
    else:
        ready, reason, message = True, "PoolReady", ""
    try:
        status = view(obj.status, api.PoolStatus)
    except msgspec.ValidationError:  # of other definitions: what it said is not what it says now
        status = api.PoolStatus(ip_addresses=api.AddressCounts(-1))
    observed = status.ip_addresses == counts and status.observed_generation == obj.metadata.generation
    return PoolRow(
        key=key,
        domain=state.domain,
        total=state.space.total,
        used=counts.used,
        free=state.space.total - counts.used - counts.reserved - counts.cooling,
        reserved=counts.reserved,
        cooling=counts.cooling,
        out_of_range=counts.out_of_range,
        ready=ready,
        reason=reason,
        message=message,
        ranges=state.space.describe(),
        status="none" if status.ip_addresses is None else "current" if observed else "behind",
    )


# -- addresses -----------------------------------------------------------------------------------------------------


def _holdings(snapshot: Snapshot) -> Iterator[tuple[Holding, KubeObject]]:
    for obj in snapshot.addresses:
        kind = kinds.METAL3 if obj.apiVersion == api.IP_ADDRESSES.api_version else kinds.CAPI
        holding = _named(obj, partial(kinds.read_address, kind))
        if holding is not None:
            yield holding, obj


def _read_reservation(obj: KubeObject) -> tuple[str, int, Reservation] | None:
    return _named(obj, kinds.read_reservation)


def _named(obj: KubeObject, read: Callable[[KubeObject], T]) -> T:
    """Read an object; the error names it."""
    try:
        return read(obj)
    except msgspec.ValidationError as error:
        raise msgspec.ValidationError(f"{obj.kind} {obj.key}: {error}") from error


class _Taken:
    """What is known of one address."""

    def __init__(self) -> None:
        self.reservation: Reservation | None = None
        self.entry: KubeObject | None = None
        self.holdings: list[tuple[Holding, KubeObject]] = []


def address_rows(snapshot: Snapshot, now: float) -> list[AddressRow]:
    """Every address that is not free, by domain and number."""
    pools = {pool_key(obj): read_pool_spec(obj)[0] for obj in snapshot.pools}
    spaces = {key: PoolSpace(spec) for key, spec in pools.items()}
    covers = {key: Spans(space.spans) for key, space in spaces.items()}
    taken: dict[tuple[str, int], _Taken] = {}
    reserved_for: dict[tuple[ClaimKey, int], str] = {}
    for obj in snapshot.reservations:
        read = _read_reservation(obj)
        if read is None:
            continue
        domain, at, reservation = read
        place = taken.setdefault((domain, at), _Taken())
        place.reservation, place.entry = reservation, obj
        if reservation.use is Use.HELD and reservation.claim is not None:
            reserved_for[reservation.claim, at] = domain
    for holding, obj in _holdings(snapshot):
        spec = pools.get(holding.pool)
        domain = spec.domain if spec is not None else reserved_for.get((holding.claim, holding.at), "")
        taken.setdefault((domain, holding.at), _Taken()).holdings.append((holding, obj))

    def covering(domain: str, at: int) -> tuple[PoolKey, ...]:
        return tuple(key for key, spec in pools.items() if spec.domain == domain and at in covers[key])

    rows: list[AddressRow] = []
    for (domain, at), item in taken.items():
        rows += _held(domain, at, item) or _not_held(domain, at, item, covering, now)
    for key, space in spaces.items():
        for at, claim in space.kept_for.items():
            if (pools[key].domain, at) not in taken:
                kept = f"kept for a claim named {claim} (preAllocations)"
                rows.append(AddressRow(pools[key].domain, at, "reserved", (key,), None, "", "", kept, ""))
    return sorted(rows, key=lambda row: (row.domain, row.at, row.claim or (), row.pools))


def _held(domain: str, at: int, item: _Taken) -> list[AddressRow]:
    """Rows of an address that claims hold, one for each; none when none does."""
    reservation = item.reservation
    ledger_holder = reservation.claim if reservation is not None and reservation.use is Use.HELD else None
    claims = {holding.claim for holding, _ in item.holdings}
    if ledger_holder is not None:
        claims.add(ledger_holder)
    state = "conflict" if len(claims) > 1 else "held"
    entry_meta = item.entry.metadata if item.entry is not None else None
    said = view(item.entry.spec, api.ReservationSpec).description if item.entry is not None else ""
    rows = []
    for claim in sorted(claims):
        mine = [(holding, obj) for holding, obj in item.holdings if holding.claim == claim]
        notes = [said] if said else []
        if claim != ledger_holder:
            notes.append("not in the ledger" if reservation is None else f"IPReservation {reservation.name} disagrees")
        if not mine:
            notes.append("no IPAddress yet")
        pool = mine[0][0].pool if mine else reservation.pool if reservation is not None else None
        created = mine[0][1].metadata.creationTimestamp if mine else entry_meta and entry_meta.creationTimestamp
        rows.append(
            AddressRow(
                domain=domain,
                at=at,
                state=state,
                pools=(pool,) if pool is not None else (),
                claim=claim,
                address_object=", ".join(sorted(str(obj.key) for _, obj in mine)),
                since=created or "",
                description="; ".join(notes),
                reservation=reservation.name if reservation is not None else "",
            )
        )
    return rows


def _not_held(
    domain: str, at: int, item: _Taken, covering: Callable[[str, int], tuple[PoolKey, ...]], now: float
) -> list[AddressRow]:
    """Row of an address that only an IPReservation takes."""
    reservation, entry = item.reservation, item.entry
    if reservation is None or entry is None:
        return []
    spec = view(entry.spec, api.ReservationSpec)
    pools = (reservation.pool,) if reservation.pool is not None else covering(domain, at)
    notes = [spec.description] if spec.description else []
    if reservation.use is Use.RELEASED:
        cooling = reservation.reusable_at > now
        notes.append(f"kept for {reservation.claim}")
        if cooling:
            notes.append(f"for nobody else until {spec.reusable_at}")
        state, since = "cooling" if cooling else "released", spec.released_at or ""
    else:
        state, since = "reserved", entry.metadata.creationTimestamp or ""
    return [AddressRow(domain, at, state, pools, None, "", since, "; ".join(notes), reservation.name)]


# -- filters -------------------------------------------------------------------------------------------------------


class PoolName(NamedTuple):
    """A pool as written on the command line; "" matches everything."""

    kind: str
    namespace: str
    name: str

    @classmethod
    def parse(cls, text: str) -> PoolName:
        """Read `NAME`, `NAMESPACE/NAME`, `IPPool/NAMESPACE/NAME` or `GlobalIPPool/NAME`; ValueError otherwise."""
        parts = text.split("/")
        kind = parts.pop(0) if parts[0] in {api.IP_POOLS.kind, api.GLOBAL_IP_POOLS.kind} and len(parts) > 1 else ""
        if not all(parts) or len(parts) > 2:  # noqa: PLR2004 - namespace and name
            raise ValueError
        return cls(kind, parts[0] if len(parts) > 1 else "", parts[-1])

    def matches(self, key: PoolKey) -> bool:
        """Tell whether a pool is meant."""
        return all(not wanted or wanted == value for wanted, value in zip(self, key, strict=True))


def select_pools(rows: Iterable[PoolRow], namespaces: Collection[str]) -> list[PoolRow]:
    """Pools of the namespaces, and those that belong to none; all when no namespace is given."""
    return [row for row in rows if not namespaces or row.key.namespace in {"", *namespaces}]


def select_addresses(
    rows: Iterable[AddressRow],
    *,
    namespaces: Collection[str] = (),
    pool: PoolName | None = None,
    domain: str = "",
    states: Collection[str] = (),
    span: Interval | None = None,
) -> list[AddressRow]:
    """Rows that pass every filter given; a row is of the namespaces of its pools and of its claim."""

    def wanted(row: AddressRow) -> bool:
        involved = {key.namespace for key in row.pools} | ({row.claim.namespace} if row.claim else set())
        return (
            (not namespaces or not involved.isdisjoint(namespaces))
            and (pool is None or any(pool.matches(key) for key in row.pools))
            and (not domain or row.domain == domain)
            and (not states or row.state in states)
            and (span is None or span.first <= row.at <= span.last)
        )

    return [row for row in rows if wanted(row)]


def parse_span(text: str) -> Interval:
    """Read the addresses meant by `--address`: one, a CIDR or a range a-b; ValueError otherwise."""
    return intervals.parse_block(text)
