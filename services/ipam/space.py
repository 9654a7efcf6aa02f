"""What a pool can give: its spec turned into intervals, with every mistake in it named.

Responsible for: reading a PoolSpec into ranges, excluded and reserved addresses, pre-allocations and per-range network
settings; answering "may this address be given, and if not why". One mistake never hides the rest of the pool.
Invariants: the ranges' `assignable` intervals are disjoint over the whole pool and hold neither excluded nor reserved addresses.
Must not know: which addresses are taken (that is `ledger`), Kubernetes, time.
Source of the range rules: metal3 ip-address-manager; of the reserved addresses: the in-cluster provider, RFC 3021, RFC 4291.
"""

from __future__ import annotations

from bisect import bisect_right
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
# A range that its own prefix cuts into more networks than this has only the first and the last one's ends reserved.
MAX_NETWORKS_PER_RANGE = 65_536


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


class Range(NamedTuple):
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
        "_assignable",
        "_excluded",
        "_spans",
        "bad_pre_allocations",
        "pre_allocated",
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
        holes = [*self._excluded.intervals, *(Interval(at, at) for at in self.reserved)]
        self.ranges: list[Range] = []
        for item in raw:
            self.ranges.append(item._replace(assignable=Spans(intervals.subtract([item.span], holes))))
            holes.append(item.span)
        self._assignable = Spans(i for r in self.ranges for i in r.assignable.intervals)
        self.total = sum(i.size for i in self._assignable.intervals)
        self.pre_allocations: dict[str, int] = {}
        self.pre_allocated: dict[int, str] = {}
        self.bad_pre_allocations: dict[str, Problem] = {}
        self._read_pre_allocations(spec)

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
        return at in self._assignable

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
        """Range whose network settings an address gets: the first that spans it."""
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
        if not spec.pools:
            self._problem("spec.pools", "", "at least one entry with start and end, or subnet")
        result = []
        for index, entry in enumerate(spec.pools):
            item = self._read_range(spec, index, entry)
            if item is not None:
                result.append(item)
        return result

    def _read_range(self, spec: PoolSpec, index: int, entry: PoolRange) -> Range | None:
        where = f"spec.pools[{index}]"
        start = self._point(f"{where}.start", entry.start)
        end = self._point(f"{where}.end", entry.end)
        if (entry.start and start is None) or (entry.end and end is None):
            return None
        length: int | None = None
        if entry.subnet:
            try:
                written, length = intervals.subnet(entry.subnet)
            except ValueError:
                self._problem(f"{where}.subnet", entry.subnet, "an address, a slash and a prefix length")
                return None
            network = intervals.network_of(written, length)
            if start is None:
                # metal3 starts one above the address as written, host bits kept. A single-address or point-to-point
                # network has no network address to step over.
                keeps = network.size <= 1 << _POINT_TO_POINT_HOST_BITS or spec.allocate_reserved_addresses
                start = written if keeps and written == network.first else min(written + 1, network.last)
            end = network.last if end is None else end
        if start is None:
            self._problem(where, entry.end, "start or subnet beside end" if entry.end else "start and end, or subnet")
            return None
        if end is None:
            end = intervals.family_last(start)
        if intervals.is_v6(start) != intervals.is_v6(end):
            self._problem(f"{where}.end", intervals.text(end), f"the family of start {intervals.text(start)}")
            return None
        if start > end:
            self._problem(f"{where}.end", intervals.text(end), f"an address not below start {intervals.text(start)}")
            return None
        prefix = self._prefix(spec, where, entry, start, length)
        gateway = self._point(f"{where}.gateway", entry.gateway) or self._point("spec.gateway", spec.gateway)
        if gateway is not None and intervals.is_v6(gateway) != intervals.is_v6(start):
            gateway = None
        servers = entry.dns_servers or spec.dns_servers
        for position, server in enumerate(servers):
            field = f"{where}.dnsServers[{position}]" if entry.dns_servers else f"spec.dnsServers[{position}]"
            self._point(field, server)
        return Range(
            index, Interval(start, end), prefix, "" if gateway is None else intervals.text(gateway), servers, Spans(())
        )

    def _prefix(
        self, spec: PoolSpec, where: str, entry: PoolRange, start: int, subnet_length: int | None
    ) -> int | None:
        """Prefix length of the range's addresses: the entry's, else the pool's, else the subnet's own."""
        field = f"{where}.prefix" if entry.prefix is not None else "spec.prefix"
        value = entry.prefix if entry.prefix is not None else spec.prefix
        if value is None:
            return subnet_length
        try:
            intervals.network_of(start, value)
        except ValueError as error:
            self._problem(field, str(value), str(error))
            return subnet_length
        return value

    def _read_reserved(self, spec: PoolSpec, raw: list[Range]) -> dict[int, str]:
        reserved: dict[int, str] = {}
        for item in raw:
            entry = spec.pools[item.index]
            if entry.subnet:
                _reserve_ends(reserved, intervals.network_of(*intervals.subnet(entry.subnet)))
            if item.prefix is not None:
                for network in _networks(item.span, item.prefix):
                    _reserve_ends(reserved, network)
        for field, value in [
            ("spec.gateway", spec.gateway),
            *((f"spec.pools[{i}].gateway", e.gateway) for i, e in enumerate(spec.pools)),
        ]:
            at = self._point(field, value)
            if at is not None:
                reserved[at] = GATEWAY
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
            elif at in self.pre_allocated:
                other = self.pre_allocated[at]
                self.bad_pre_allocations[claim] = self._problem(field, value, f"an address not given to {other!r} too")
            else:
                self.pre_allocations[claim] = at
                self.pre_allocated[at] = claim

    def _point(self, field: str, value: str) -> int | None:
        if not value:
            return None
        try:
            return intervals.point(value)
        except ValueError:
            self._problem(field, value, "an IPv4 or IPv6 address")
            return None

    def _problem(self, field: str, value: str, expected: str) -> Problem:
        problem = Problem(field, value, expected)
        if problem not in self.problems:
            self.problems.append(problem)
        return problem


def _networks(span: Interval, prefix: int) -> list[Interval]:
    """Networks of the given prefix length that a span touches (the outermost two if there are too many)."""
    first, last = intervals.network_of(span.first, prefix), intervals.network_of(span.last, prefix)
    size = first.size
    count = (last.first - first.first) // size + 1
    if count > MAX_NETWORKS_PER_RANGE:
        return [first, last]
    return [Interval(at, at + size - 1) for at in range(first.first, last.first + 1, size)]


def _reserve_ends(reserved: dict[int, str], network: Interval) -> None:
    """Reserve a network's first address, and for IPv4 its broadcast; nothing where RFC 3021 or RFC 6164 applies."""
    if network.size <= 1 << _POINT_TO_POINT_HOST_BITS:
        return
    reserved.setdefault(network.first, NETWORK)
    if not intervals.is_v6(network.first):
        reserved.setdefault(network.last, BROADCAST)
