"""What a pool can give: its spec turned into intervals, with every mistake in it named.

Responsible for: reading a PoolSpec into ranges, excluded and reserved addresses, pre-allocations and per-range network
settings; answering "may this address be given, and if not why". One mistake never hides the rest of the pool.
Invariants: the ranges' `assignable` intervals are disjoint over the whole pool and hold neither excluded nor reserved
addresses; a range that names a subnet gives nothing outside it.
Must not know: which addresses are taken (that is `ledger`), Kubernetes, time.
Source of the range rules: metal3 ip-address-manager; of the reserved addresses: the in-cluster provider, RFC 3021,
RFC 6164 and RFC 4291 (the subnet-router anycast address).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from services.ipam import intervals
from services.ipam.intervals import Interval

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.ipam.api import PoolRange, PoolSpec

GATEWAY = "gateway"
NETWORK = "network address"
BROADCAST = "broadcast address"
_POINT_TO_POINT_HOST_BITS = 1
# Of the ranges of a pool beyond this many networks only the first and the last one's ends are reserved: who writes a
# pool of a few lines must not decide how much memory it takes.
MAX_NETWORKS = 65_536


class Problem(NamedTuple):
    """One mistake in a spec: where, what stands there, what was expected."""

    field: str
    value: str
    expected: str

    def __str__(self) -> str:
        """Sentence for a condition message."""
        return f"{self.field}: {self.value!r}: {self.expected}"


class Spans:
    """A fixed set of points with membership in O(log n) of its intervals."""

    __slots__ = ("_firsts", "intervals")

    def __init__(self, items: Iterable[Interval]) -> None:
        self.intervals = intervals.merge(items)
        self._firsts = [i.first for i in self.intervals]

    def __contains__(self, at: int) -> bool:
        """Tell whether the point is in the set."""
        index = bisect_right(self._firsts, at) - 1
        return index >= 0 and at <= self.intervals[index].last

    def touching(self, span: Interval) -> list[Interval]:
        """Intervals that have a point in common with `span`."""
        begin = max(bisect_right(self._firsts, span.first) - 1, 0)
        found = self.intervals[begin : bisect_right(self._firsts, span.last)]
        return found[1:] if found and found[0].last < span.first else found


class _Covered:
    """A growing set of points; adding a span costs O(log n), and moving what is behind it in a list."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def add(self, span: Interval) -> list[Interval]:
        """Add a span; return the intervals that had a point in common with it."""
        begin, end = bisect_left(self._lasts, span.first), bisect_right(self._firsts, span.last)
        found = [Interval(*ends) for ends in zip(self._firsts[begin:end], self._lasts[begin:end], strict=True)]
        self._firsts[begin:end] = [min(span.first, found[0].first) if found else span.first]
        self._lasts[begin:end] = [max(span.last, found[-1].last) if found else span.last]
        return found


@dataclass(frozen=True, slots=True)
class Range:
    """One usable entry of `spec.pools`, with the network settings its addresses get ("" and None: not set)."""

    index: int
    span: Interval
    prefix: int | None
    gateway: str
    dns_servers: tuple[str, ...]
    assignable: Spans


class PoolSpace:
    """A pool's spec as sets of addresses."""

    __slots__ = (
        "_excluded",
        "_piece_firsts",
        "_pieces",
        "_spans",
        "bad_pre_allocations",
        "kept_for",
        "pre_allocations",
        "problems",
        "ranges",
        "reserved",
        "total",
    )

    def __init__(self, spec: PoolSpec) -> None:
        """Read `spec`; mistakes end up in `problems` and the rest is served."""
        self.problems: list[Problem] = []
        self._excluded = Spans(self._read_excluded(spec))
        raw = self._read_ranges(spec)
        self._spans = Spans([r.span for r in raw])
        self.reserved: dict[int, str] = {} if spec.allocate_reserved_addresses else self._read_reserved(spec, raw)
        self.ranges = self._without_holes(raw)
        self._pieces = sorted((piece, place) for place, r in enumerate(self.ranges) for piece in r.assignable.intervals)
        self._piece_firsts = [piece.first for piece, _ in self._pieces]
        self.total = sum(piece.size for piece, _ in self._pieces)
        self.pre_allocations: dict[str, int] = {}
        """Address by key of `spec.preAllocations`: `name`, or `namespace/name`."""
        self.kept_for: dict[int, str] = {}
        """Key by address."""
        self.bad_pre_allocations: dict[str, Problem] = {}
        self._read_pre_allocations(spec)
        self.problems = list(dict.fromkeys(self.problems))  # the pool's own settings are read once for each range

    @property
    def spans(self) -> list[Interval]:
        """Everything the ranges cover, excluded and reserved addresses included; sorted and disjoint."""
        return self._spans.intervals

    @property
    def excluded(self) -> list[Interval]:
        """`spec.excludedAddresses`, sorted and disjoint."""
        return self._excluded.intervals

    def is_assignable(self, at: int) -> bool:
        """Tell whether the pool may give the address to some claim."""
        return self.place_of(at) is not None

    def place_of(self, at: int) -> int | None:
        """Position in `ranges` of the one that gives an address, None when the pool never gives it; O(log n)."""
        index = bisect_right(self._piece_firsts, at) - 1
        if index < 0:
            return None
        piece, place = self._pieces[index]
        return place if at <= piece.last else None

    def why_not(self, at: int) -> tuple[str, str] | None:
        """`(token, explanation)` for an address that the pool never gives, else None."""
        if at not in self._spans:
            return "AddressOutsidePool", f"{intervals.text(at)} is outside the pool's ranges ({self.describe()})"
        if at in self._excluded:
            return "AddressExcluded", f"{intervals.text(at)} is in the pool's excludedAddresses"
        if at in self.reserved:
            what = self.reserved[at]
            return "AddressExcluded", (
                f"{intervals.text(at)} is a {what} of the pool; set allocateReservedAddresses to give it all the same"
            )
        return None

    def range_of(self, at: int) -> Range | None:
        """Range whose network settings an address gets: the one that gives it, else the first that spans it."""
        place = self.place_of(at)
        if place is not None:
            return self.ranges[place]
        return next((r for r in self.ranges if r.span.first <= at <= r.span.last), None)

    def describe(self, most: int = 4) -> str:
        """Ranges as text for messages, cut to the first few."""
        parts = [f"{intervals.text(r.span.first)}-{intervals.text(r.span.last)}" for r in self.ranges[:most]]
        if len(self.ranges) > most:
            parts.append(f"and {len(self.ranges) - most} more")
        return ", ".join(parts) or "none"

    def _read_excluded(self, spec: PoolSpec) -> list[Interval]:
        result = []
        for index, value in enumerate(spec.excluded_addresses):
            try:
                result.append(intervals.parse_block(value))
            except ValueError:
                self._problem(
                    f"spec.excludedAddresses[{index}]", value, "an address, a CIDR or a range a-b of one family"
                )
        return result

    def _read_ranges(self, spec: PoolSpec) -> list[Range]:
        """Usable entries; what of them may be given is not known yet."""
        if not spec.pools:
            self._problem("spec.pools", "", "at least one entry with start and end, or subnet")
        gateway = self._point("spec.gateway", spec.gateway)
        servers = self._servers("spec.dnsServers", spec.dns_servers)
        result = []
        for index, entry in enumerate(spec.pools):
            where = f"spec.pools[{index}]"
            bounds = self._read_bounds(where, entry, whole=spec.allocate_reserved_addresses)
            own_gateway = self._point(f"{where}.gateway", entry.gateway)
            own_servers = self._servers(f"{where}.dnsServers", entry.dns_servers)
            if bounds is None:
                continue
            span, length = bounds
            prefix = self._prefix(
                span.first, [(f"{where}.prefix", entry.prefix), ("spec.prefix", spec.prefix)], default=length
            )
            if own_gateway is not None and not _same_family(own_gateway, span.first):
                self._problem(f"{where}.gateway", entry.gateway, "an address of the family of the range")
            gateways = [
                intervals.text(g) for g in (own_gateway, gateway) if g is not None and _same_family(g, span.first)
            ]
            result.append(
                Range(index, span, prefix, gateways[0] if gateways else "", own_servers or servers, Spans(()))
            )
        return result

    def _read_bounds(self, where: str, entry: PoolRange, *, whole: bool) -> tuple[Interval, int | None] | None:
        """First and last address of an entry, and the prefix length of its subnet."""
        start = self._point(f"{where}.start", entry.start)
        end = self._point(f"{where}.end", entry.end)
        subnet = self._subnet(f"{where}.subnet", entry.subnet)
        if any(value and at is None for value, at in ((entry.start, start), (entry.end, end), (entry.subnet, subnet))):
            return None
        network = None if subnet is None else intervals.network_of(*subnet)
        given = [at for at in (start, end, None if network is None else network.first) if at is not None]
        if not all(_same_family(at, given[0]) for at in given):
            values = " ".join(value for value in (entry.start, entry.end, entry.subnet) if value)
            self._problem(where, values, "addresses of one family")
            return None
        if subnet is not None and network is not None:
            start = _first_of_subnet(subnet[0], network, whole=whole) if start is None else start
            limit, length = network, subnet[1]
        elif start is not None:
            limit, length = Interval(start, intervals.family_last(start)), None
        else:
            self._problem(where, entry.end, "start or subnet beside end" if entry.end else "start and end, or subnet")
            return None
        span = self._read_span(where, entry, Interval(start, limit.last if end is None else end), limit)
        return None if span is None else (span, length)

    def _read_span(self, where: str, entry: PoolRange, span: Interval, limit: Interval) -> Interval | None:
        """Check a span against the subnet it must lie in; of one that sticks out, the part inside is served."""
        outside = [
            (field, value)
            for field, value, at in (("start", entry.start, span.first), ("end", entry.end, span.last))
            if entry.subnet and not limit.first <= at <= limit.last
        ]
        for field, value in outside:
            self._problem(f"{where}.{field}", value, f"an address of subnet {entry.subnet}")
        if span.first > span.last and not outside:
            self._problem(f"{where}.end", entry.end, f"an address not below start {intervals.text(span.first)}")
        first, last = max(span.first, limit.first), min(span.last, limit.last)
        return Interval(first, last) if first <= last else None

    def _prefix(self, at: int, candidates: list[tuple[str, int | None]], *, default: int | None) -> int | None:
        """First candidate that is a prefix length of a point's family; 0, which to metal3 is none, if all else is."""
        bits = 128 if intervals.is_v6(at) else 32
        for field, value in candidates:
            if value is None:
                continue
            if 0 < value <= bits:
                return value
            if value != 0:
                self._problem(field, str(value), f"a prefix length between 0 and {bits}")
            elif default is None:
                default = 0
        return default

    def _without_holes(self, raw: list[Range]) -> list[Range]:
        """Ranges with what may be given of each: not excluded, not reserved, not in an earlier range."""
        never = Spans([*self._excluded.intervals, *(Interval(at, at) for at in self.reserved)])
        earlier = _Covered()
        result = []
        for item in raw:
            holes = [*never.touching(item.span), *earlier.add(item.span)]
            result.append(replace(item, assignable=Spans(intervals.subtract([item.span], holes))))
        return result

    def _read_reserved(self, spec: PoolSpec, raw: list[Range]) -> dict[int, str]:
        reserved: dict[int, str] = {}
        room = MAX_NETWORKS
        for item in raw:
            entry = spec.pools[item.index]
            if entry.subnet:
                _reserve_ends(reserved, intervals.network_of(*intervals.subnet(entry.subnet)))
            if item.prefix is not None:
                networks = _networks(item.span, item.prefix, room)
                room -= len(networks)
                for network in networks:
                    _reserve_ends(reserved, network)
        gateways = [
            self._point("spec.gateway", spec.gateway),
            *(self._point(f"spec.pools[{i}].gateway", e.gateway) for i, e in enumerate(spec.pools)),
        ]
        reserved.update((at, GATEWAY) for at in gateways if at is not None)
        return {at: what for at, what in reserved.items() if at in self._spans}

    def _read_pre_allocations(self, spec: PoolSpec) -> None:
        for claim, value in spec.pre_allocations.items():
            field = f"spec.preAllocations[{claim}]"
            try:
                at = intervals.point(value)
            except ValueError:
                self.bad_pre_allocations[claim] = self._problem(field, value, "an IPv4 or IPv6 address")
                continue
            refusal = self.why_not(at)
            if refusal is not None:
                self.bad_pre_allocations[claim] = self._problem(field, value, f"an address of the pool: {refusal[1]}")
            elif at in self.kept_for:
                other = self.kept_for[at]
                self.bad_pre_allocations[claim] = self._problem(field, value, f"an address not given to {other!r} too")
            else:
                self.pre_allocations[claim] = at
                self.kept_for[at] = claim

    def _point(self, field: str, value: str) -> int | None:
        if not value:
            return None
        try:
            return intervals.point(value)
        except ValueError:
            self._problem(field, value, "an IPv4 or IPv6 address")
            return None

    def _subnet(self, field: str, value: str) -> tuple[int, int] | None:
        if not value:
            return None
        try:
            return intervals.subnet(value)
        except ValueError:
            self._problem(field, value, "an address, a slash and a prefix length")
            return None

    def _servers(self, field: str, values: tuple[str, ...]) -> tuple[str, ...]:
        """DNS servers that are addresses."""
        return tuple(v for i, v in enumerate(values) if self._point(f"{field}[{i}]", v) is not None)

    def _problem(self, field: str, value: str, expected: str) -> Problem:
        problem = Problem(field, value, expected)
        self.problems.append(problem)
        return problem


def _same_family(one: int, other: int) -> bool:
    return intervals.is_v6(one) == intervals.is_v6(other)


def _first_of_subnet(written: int, network: Interval, *, whole: bool) -> int:
    """Where a range without `start` begins: as metal3's, one above the address as written, host bits kept.

    A single-address or point-to-point network has no network address to step over, and with `whole` it is given too.
    """
    has_ends = network.size > 1 << _POINT_TO_POINT_HOST_BITS and not whole
    return written if not has_ends and written == network.first else min(written + 1, network.last)


def _networks(span: Interval, prefix: int, most: int) -> list[Interval]:
    """Networks of the given prefix length that a span touches (the outermost two if there are too many)."""
    first, last = intervals.network_of(span.first, prefix), intervals.network_of(span.last, prefix)
    size = first.size
    count = (last.first - first.first) // size + 1
    if count > most:
        return [first, last]
    return [Interval(at, at + size - 1) for at in range(first.first, last.first + 1, size)]


def _reserve_ends(reserved: dict[int, str], network: Interval) -> None:
    """Reserve a network's first address, and for IPv4 its broadcast; nothing where RFC 3021 or RFC 6164 applies."""
    if network.size <= 1 << _POINT_TO_POINT_HOST_BITS:
        return
    reserved.setdefault(network.first, NETWORK)
    if not intervals.is_v6(network.first):
        reserved.setdefault(network.last, BROADCAST)
