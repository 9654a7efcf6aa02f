"""Integer arithmetic on addresses: one number line for both families, and sets of free addresses on it.

Responsible for: parsing addresses, ranges and CIDRs into closed integer intervals, and `FreeSet`, from which a lowest,
a random or a given address is taken in O(log n) of the number of gaps, never of the number of addresses.
Invariants: IPv4 lies in [0, 2**32), IPv6 in [2**128, 2**129), so an interval never spans families; a FreeSet's
intervals are disjoint, not adjacent, and its `count` is their total length.
Must not know: pools, claims, Kubernetes.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, NamedTuple

from sortedcontainers import SortedList

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator

V6_BASE = 1 << 128
BEYOND = 1 << 130
"""Greater than every point."""
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
    """Point of an address; ValueError if `text` is not one.

    Not accepted, as by the API server (CEL's `ip()`): zone ids, leading zeros in IPv4, and IPv4-mapped IPv6, which
    would be a second name for an IPv4 address.
    """
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv4Address):
        return int(address)
    if address.scope_id:
        raise ValueError(f"{text!r} has a zone id")
    if address.ipv4_mapped is not None:
        raise ValueError(f"{text!r} is an IPv4 address in IPv6 notation")
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
    """Mutable set of points kept as disjoint intervals.

    Intervals are found by their last point, so that taking the lowest one, what most pools do all day, moves no key.
    """

    __slots__ = ("_first_of", "_lasts", "count")

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        merged = merge(intervals)
        self._lasts: SortedList[int] = SortedList(i.last for i in merged)
        self._first_of = {i.last: i.first for i in merged}
        self.count = sum(i.size for i in merged)

    def __iter__(self) -> Iterator[Interval]:
        """Intervals in ascending order."""
        return (Interval(self._first_of[last], last) for last in self._lasts)

    def _last_from(self, at: int) -> int | None:
        """Last point of the interval that ends soonest at or after a point."""
        return next(self._lasts.irange(minimum=at), None)

    def __contains__(self, at: int) -> bool:
        """Tell whether the point is in the set."""
        last = self._last_from(at)
        return last is not None and self._first_of[last] <= at

    def lowest(self) -> int | None:
        """Lowest point, or None when empty."""
        return self._first_of[self._lasts[0]] if self._lasts else None

    def random(self, rng: random.Random) -> int | None:
        """Point chosen at random, or None when empty.

        Uniform while a fair share of the span is in the set; in a sparse set the first point at or after a random
        place, which keeps the choice O(log n) whatever the holes.
        """
        lowest = self.lowest()
        if lowest is None:
            return None
        span = self._lasts[-1] - lowest + 1
        following = lowest
        for _ in range(_RANDOM_TRIES):
            at = lowest + rng.randrange(span)
            last = self._last_from(at)
            assert last is not None  # nothing drawn lies beyond the last interval
            following = self._first_of[last]
            if following <= at:
                return at
        return following

    def remove(self, at: int) -> bool:
        """Take a point out; False if it was not in."""
        last = self._last_from(at)
        if last is None or at < (first := self._first_of[last]):
            return False
        if at < last:
            self._first_of[last] = at + 1
        else:
            self._lasts.remove(last)
            del self._first_of[last]
        if at > first:
            self._lasts.add(at - 1)
            self._first_of[at - 1] = first
        self.count -= 1
        return True

    def add(self, at: int) -> bool:
        """Put a point in; False if it was in already."""
        last = self._last_from(at)
        if last is not None and self._first_of[last] <= at:
            return False
        first = at
        if at - 1 in self._first_of:
            first = self._first_of.pop(at - 1)
            self._lasts.remove(at - 1)
        if last is not None and self._first_of[last] == at + 1:
            self._first_of[last] = first
        else:
            self._lasts.add(at)
            self._first_of[at] = first
        self.count += 1
        return True
