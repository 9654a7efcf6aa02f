"""Integer arithmetic on addresses: one number line for both families, and sets of free addresses on it.

Responsible for: parsing addresses, ranges and CIDRs into closed integer intervals, and `FreeSet`, from which a lowest, a
random or a given address is taken in O(log n) of the number of gaps, never of the number of addresses.
Invariants: IPv4 lies in [0, 2**32), IPv6 in [2**128, 2**129), so an interval never spans families; a FreeSet's intervals are
disjoint, not adjacent, and its `count` is their total length.
Must not know: pools, claims, Kubernetes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from sortedcontainers import SortedList

if TYPE_CHECKING:
    import random

V6_BASE = 1 << 128
_V4_LAST = (1 << 32) - 1
_V6_LAST = V6_BASE + (1 << 128) - 1
_RANDOM_TRIES = 24


class Interval(NamedTuple):
    """Closed interval of points on the number line."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """Number of addresses."""
        return self.last - self.first + 1


def point(text: str) -> int:
    """Point of an address; ValueError if `text` is not one (zone ids and leading zeros in IPv4 are not accepted)."""
    address = ipaddress.ip_address(text)
    if address.version == 4:  # noqa: PLR2004 - the IP version
        return int(address)
    if address.scope_id:
        raise ValueError(f"{text!r} has a zone id")
    return V6_BASE + int(address)


def text(at: int) -> str:
    """Canonical text of a point (RFC 5952 for IPv6)."""
    return str(ipaddress.IPv6Address(at - V6_BASE) if at >= V6_BASE else ipaddress.IPv4Address(at))


def canonical(address: str) -> str:
    """Canonical text of an address; ValueError if it is not one."""
    return text(point(address))


def is_v6(at: int) -> bool:
    """Tell the family of a point."""
    return at >= V6_BASE


def family_last(at: int) -> int:
    """Last point of the family that `at` belongs to."""
    return _V6_LAST if at >= V6_BASE else _V4_LAST


def network_of(at: int, prefix: int) -> Interval:
    """Network with the given prefix length around a point; ValueError if the length does not fit the family."""
    base, bits = (V6_BASE, 128) if at >= V6_BASE else (0, 32)
    if not 0 <= prefix <= bits:
        raise ValueError(f"prefix length {prefix} is not between 0 and {bits}")
    host = (1 << (bits - prefix)) - 1
    first = base + ((at - base) & ~host)
    return Interval(first, first + host)


def subnet(cidr: str) -> tuple[int, int]:
    """`(point of the address as written, prefix length)` of `address/length`; ValueError otherwise."""
    address, slash, length = cidr.partition("/")
    if not slash or not (length.isascii() and length.isdigit()):
        raise ValueError(f"{cidr!r} is not an address, a slash and a prefix length")
    at = point(address)
    network_of(at, int(length))
    return at, int(length)


def parse_block(block: str) -> Interval:
    """Interval of an address, a CIDR (host bits ignored) or an `a-b` range; ValueError naming what is wrong."""
    first, dash, last = block.partition("-")
    if dash:
        interval = Interval(point(first.strip()), point(last.strip()))
        if is_v6(interval.first) != is_v6(interval.last):
            raise ValueError(f"{block!r} mixes IPv4 and IPv6")
        if interval.first > interval.last:
            raise ValueError(f"{block!r} ends before it starts")
        return interval
    if "/" in block:
        return network_of(*subnet(block.strip()))
    at = point(block.strip())
    return Interval(at, at)


def merge(intervals: Iterable[Interval]) -> list[Interval]:
    """Sorted disjoint union."""
    result: list[Interval] = []
    for interval in sorted(intervals):
        if result and interval.first <= result[-1].last + 1:
            if interval.last > result[-1].last:
                result[-1] = Interval(result[-1].first, interval.last)
        else:
            result.append(interval)
    return result


def subtract(intervals: Iterable[Interval], holes: Iterable[Interval]) -> list[Interval]:
    """`intervals` without `holes`, sorted and disjoint; O((n + m) log(n + m))."""
    result: list[Interval] = []
    cuts = merge(holes)
    index = 0
    for first, last in merge(intervals):
        while index < len(cuts) and cuts[index].last < first:
            index += 1
        at, cursor = first, index
        while cursor < len(cuts) and cuts[cursor].first <= last:
            if cuts[cursor].first > at:
                result.append(Interval(at, cuts[cursor].first - 1))
            at = cuts[cursor].last + 1
            cursor += 1
        if at <= last:
            result.append(Interval(at, last))
    return result


class FreeSet:
    """Mutable set of points kept as disjoint intervals."""

    __slots__ = ("_last_of", "_starts", "count")

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        merged = merge(intervals)
        self._starts: SortedList[int] = SortedList(i.first for i in merged)
        self._last_of = {i.first: i.last for i in merged}
        self.count = sum(i.size for i in merged)

    def __iter__(self) -> Iterator[Interval]:
        """Intervals in ascending order."""
        return (Interval(first, self._last_of[first]) for first in self._starts)

    def _start_before(self, at: int) -> int | None:
        """Start of the interval with the greatest start <= at."""
        return next(self._starts.irange(maximum=at, reverse=True), None)

    def __contains__(self, at: int) -> bool:
        """Tell whether the point is in the set."""
        start = self._start_before(at)
        return start is not None and at <= self._last_of[start]

    def lowest(self) -> int | None:
        """Lowest point, or None when empty."""
        return self._starts[0] if self._starts else None

    def random(self, rng: random.Random) -> int | None:
        """Point chosen at random, or None when empty.

        Uniform while a fair share of the span is in the set; in a sparse set the first point at or after a random place,
        which keeps the choice O(log n) whatever the holes.
        """
        if not self._starts:
            return None
        first = self._starts[0]
        span = self._last_of[self._starts[-1]] - first + 1
        at = first
        for _ in range(_RANDOM_TRIES):
            at = first + rng.randrange(span)
            if at in self:
                return at
        following: int | None = next(self._starts.irange(minimum=at), None)
        return first if following is None else following

    def remove(self, at: int) -> bool:
        """Take a point out; False if it was not in."""
        start = self._start_before(at)
        if start is None or at > (last := self._last_of[start]):
            return False
        if at == start:
            self._starts.remove(start)
            del self._last_of[start]
        else:
            self._last_of[start] = at - 1
        if at < last:
            self._starts.add(at + 1)
            self._last_of[at + 1] = last
        self.count -= 1
        return True

    def add(self, at: int) -> bool:
        """Put a point in; False if it was in already."""
        before = self._start_before(at)
        if before is not None and at <= self._last_of[before]:
            return False
        joins_before = before is not None and self._last_of[before] == at - 1
        last = at
        if at + 1 in self._last_of:
            last = self._last_of.pop(at + 1)
            self._starts.remove(at + 1)
        if joins_before and before is not None:
            self._last_of[before] = last
        else:
            self._starts.add(at)
            self._last_of[at] = last
        self.count += 1
        return True
