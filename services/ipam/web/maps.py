"""A pool as a map of its addresses, of a size that does not grow with the pool.

Responsible for: how many addresses a cell stands for, which rows there are, and what cells of a coarse map sum up.
Invariants: cells are aligned blocks of 2**shift addresses and rows are 16 of them, so a row of a coarse map is a
network with a prefix length, and opening it shows it 16 or more times finer; no layout has more than `EXACT_ROWS` rows.
Must not know: HTML, what takes an address.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from services.ipam import intervals
from services.ipam.intervals import Interval
from services.ipam.web.states import COUNTED, UNTAKEN, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROW_BITS = 4
ROW = 1 << ROW_BITS
EXACT_ROWS = 64
"""A pool with no more rows of 16 addresses than this is shown address by address."""
COARSE_ROWS = 16
TAKEN_ROWS = 16
"""Rows of single addresses beside a coarse map: the first ones in which something is taken."""
_FAMILY_BITS = 128


class Layout(NamedTuple):
    """Rows of a map: the first address of each, and how many bits of an address one cell leaves open."""

    shift: int
    rows: tuple[int, ...]

    def cells(self, row: int) -> Iterable[Interval]:
        """Blocks of a row."""
        size = 1 << self.shift
        return (Interval(first, first + size - 1) for first in range(row, row + ROW * size, size))


def clipped(spans: Iterable[Interval], window: Interval | None) -> list[Interval]:
    """Return what of sorted, disjoint spans lies in a window; all of them without one."""
    if window is None:
        return list(spans)
    cut = (Interval(max(first, window.first), min(last, window.last)) for first, last in spans)
    return [span for span in cut if span.first <= span.last]


def layouts(spans: Sequence[Interval], exact_rows: int = EXACT_ROWS) -> list[Layout]:
    """Return a layout for each family that sorted, disjoint spans have addresses of."""
    families = [[span for span in spans if intervals.is_v6(span.first) is v6] for v6 in (False, True)]
    return [_layout(family, exact_rows) for family in families if family]


def exact(points: Iterable[int], most: int) -> Layout:
    """Return the first rows of single addresses that hold the points."""
    return Layout(0, tuple(sorted({at >> ROW_BITS << ROW_BITS for at in points})[:most]))


def _layout(spans: Sequence[Interval], exact_rows: int) -> Layout:
    if _rows(spans, ROW_BITS) <= exact_rows:
        return Layout(0, _firsts(spans, ROW_BITS))
    low, high = 1, _FAMILY_BITS
    while low < high:  # the coarser, the fewer rows
        middle = (low + high) // 2
        if _rows(spans, middle + ROW_BITS) <= COARSE_ROWS:
            high = middle
        else:
            low = middle + 1
    return Layout(low, _firsts(spans, low + ROW_BITS))


def _rows(spans: Sequence[Interval], bits: int) -> int:
    """Number of aligned blocks of 2**bits addresses that sorted spans touch."""
    count, before = 0, -1
    for first, last in spans:
        count += (last >> bits) - max(first >> bits, before + 1) + 1
        before = last >> bits
    return count


def _firsts(spans: Sequence[Interval], bits: int) -> tuple[int, ...]:
    found: dict[int, None] = {}
    for first, last in spans:
        found.update(dict.fromkeys(range(first >> bits, (last >> bits) + 1)))
    return tuple(row << bits for row in found)


class Block:
    """What one cell of a coarse map stands for."""

    __slots__ = ("assignable", "size", "states")

    def __init__(self) -> None:
        self.size = 0
        """Addresses of the pool's ranges."""
        self.assignable = 0
        """Those that the pool may give."""
        self.states: Counter[State] = Counter()
        """How many are in each state; free ones and those never given are not counted."""

    @property
    def taken(self) -> int:
        """Assignable addresses that are not free."""
        return sum(self.states[state] for name in ("used", "reserved", "cooling") for state in COUNTED[name])

    @property
    def leading(self) -> State:
        """The state that the cell is shown in: a conflict, else what most of its addresses are used for."""
        if not self.size:
            return State.OUTSIDE
        if self.states[State.CONFLICT]:
            return State.CONFLICT
        if not self.taken:
            return State.FREE if self.assignable else State.EXCLUDED
        return max((state for state in self.states if state not in UNTAKEN), key=lambda state: self.states[state])


class Tally:
    """Sums over the cells of a coarse layout, fed with intervals and points in any order."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.blocks: dict[int, Block] = {}
        self._size = 1 << layout.shift
        self._rows = frozenset(layout.rows)

    def cover(self, span: Interval) -> None:
        """Count addresses of the pool's ranges."""
        for first, count in self._pieces(span):
            self._block(first).size += count

    def give(self, piece: Interval) -> None:
        """Count addresses that the pool may give."""
        for first, count in self._pieces(piece):
            self._block(first).assignable += count

    def take(self, at: int, state: State) -> None:
        """Count one address in a state."""
        first = at & -self._size
        if state not in UNTAKEN and self._has(first):
            self._block(first).states[state] += 1

    def block(self, first: int) -> Block:
        """Return the sums of the cell that begins at a point."""
        return self.blocks.get(first) or Block()

    def _block(self, first: int) -> Block:
        return self.blocks.setdefault(first, Block())

    def _has(self, first: int) -> bool:
        bits = self.layout.shift + ROW_BITS
        return first >> bits << bits in self._rows

    def _pieces(self, span: Interval) -> Iterable[tuple[int, int]]:
        """Cells that a span touches, with the number of addresses in each; only those of the layout are walked."""
        for row in self.layout.rows:
            width = ROW * self._size
            if row > span.last:
                return
            if row + width <= span.first:
                continue
            start = max(row, span.first & -self._size)
            for first in range(start, min(row + width, span.last + 1), self._size):
                yield first, min(span.last, first + self._size - 1) - max(span.first, first) + 1
