"""Going through the addresses of one pool: the maps, and the table of what is taken.

Responsible for: visiting what is taken once, by the shorter way (the addresses of the window, or all that is taken in
the domain), and making maps and one page of a table of it.
Invariants: work is bounded by what is taken plus a constant; maps and table have a greatest size whatever the pool;
the event loop is given back all along (`reading.gently`).
Must not know: HTML, HTTP.
"""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, NamedTuple

from services.ipam import intervals
from services.ipam.web import maps
from services.ipam.web.facts import Chart, Survey
from services.ipam.web.reading import gently
from services.ipam.web.states import UNTAKEN, State, is_outside, state_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from services.ipam.api import PoolKey
    from services.ipam.intervals import Interval
    from services.ipam.poolstate import PoolState
    from services.ipam.space import PoolSpace
    from services.ipam.web.maps import Layout
    from services.ipam.web.reading import Reader
    from services.runtime.clock import Clock

ENTRIES = 200
SMALL_ROWS = 16
"""Rows of the maps in the overview."""
_SMALL_TAKEN_ROWS = 4
_REST = 20.0
_LONGEST_REST = 60.0
"""A small map is kept for so many times the seconds that making it took, and for so many seconds at most."""


class _Small(NamedTuple):
    space: PoolSpace
    until: float
    charts: tuple[Chart, ...]


class Surveyor:
    """Makes maps and tables of pools."""

    def __init__(self, reader: Reader, clock: Clock) -> None:
        self._reader = reader
        self._clock = clock
        self._small: dict[PoolKey, _Small] = {}

    async def survey(self, state: PoolState, now: float, window: Interval | None = None, start: int = 0) -> Survey:
        """Return maps of a pool, or of a window of it, and what is taken there from a point on.

        What is held outside all ranges is shown without a window only.
        """
        layouts = maps.layouts(maps.clipped(state.space.spans, window))
        tallies = [maps.Tally(layout) for layout in layouts if layout.shift]
        rows = _TakenRows(tallies)
        strays: set[int] = set()
        taken = behind = 0
        page: list[tuple[int, State]] = []
        async for at, what in self._taken(state, now, window):
            taken += 1
            for tally in tallies:
                tally.take(at, what)
            rows.add(at)
            if what is State.OUT_OF_RANGE and is_outside(state, at):
                strays.add(at)
            if at >= start:
                behind += 1
                page.append((at, what))
                if len(page) > 4 * ENTRIES:
                    page = _lowest(page)
        page = _lowest(page)
        charts = [await self._exact(state, now, layout) for layout in rows.layouts(maps.TAKEN_ROWS)]
        charts += await self._charts(state, now, layouts, tallies)
        if strays:
            charts.append(await self._exact(state, now, maps.exact(strays, maps.TAKEN_ROWS)))
        entries = tuple(self._reader.entry(state, at, what) for at, what in page)
        return Survey(tuple(charts), taken, entries, behind - len(entries))

    async def small(self, state: PoolState, now: float) -> tuple[Chart, ...]:
        """Return small maps of a pool; those of a large one are some seconds old."""
        layouts = maps.layouts(state.space.spans, SMALL_ROWS)
        if all(not layout.shift for layout in layouts):
            return tuple(await self._charts(state, now, layouts, []))
        known = self._small.get(state.key)
        began = self._clock.monotonic()
        if known is not None and known.space is state.space and began < known.until:
            return known.charts
        tallies = [maps.Tally(layout) for layout in layouts if layout.shift]
        rows = _TakenRows(tallies)
        async for at, what in self._taken(state, now, None):
            rows.add(at)
            for tally in tallies:
                tally.take(at, what)
        taken = [await self._exact(state, now, layout) for layout in rows.layouts(_SMALL_TAKEN_ROWS)]
        # Of IPv6 a coarse map says nothing: all that is held is in one cell of it.
        coarse = [layout for layout in layouts if not (layout.shift and _is_v6(layout) and rows.of(v6=True))]
        charts = (*taken, *await self._charts(state, now, coarse, tallies))
        ended = self._clock.monotonic()
        self._small[state.key] = _Small(state.space, ended + min(_REST * (ended - began), _LONGEST_REST), charts)
        for key in set(self._small).difference(self._reader.pool_keys()):
            del self._small[key]
        return charts

    async def _taken(self, state: PoolState, now: float, window: Interval | None) -> AsyncIterator[tuple[int, State]]:
        """Everything of a window that is not merely free, in no order."""
        spans = maps.clipped(state.space.spans, window)
        slots = self._reader.slots(state)
        points: Iterable[int]
        if sum(span.size for span in spans) <= len(slots):
            points = itertools.chain.from_iterable(range(first, last + 1) for first, last in spans)
            if window is None and state.out_of_range:
                points = itertools.chain(points, [at for at in list(state.held) if is_outside(state, at)])
        else:
            there = self._reader.slot
            untaken = [at for at in state.space.kept_for if there(state, at) is None]
            points = itertools.chain(slots, untaken)
        async for at in gently(points):
            if window is not None and not window.first <= at <= window.last:
                continue
            if at not in state.held and not state.space.is_assignable(at):
                continue  # nothing of this pool, as most of what is taken in a domain
            what = state_of(state, at, self._reader.slot(state, at), now, self._reader.leaving)
            if what not in UNTAKEN:
                yield at, what

    async def _charts(
        self, state: PoolState, now: float, layouts: Iterable[Layout], tallies: Iterable[maps.Tally]
    ) -> list[Chart]:
        """Charts of layouts; the tallies of coarse ones have counted what is taken already."""
        by_layout = {tally.layout: tally for tally in tallies}
        charts = []
        for layout in layouts:
            tally = by_layout.get(layout)
            if tally is None:
                charts.append(await self._exact(state, now, layout))
                continue
            async for span in gently(state.space.spans):
                tally.cover(span)
            async for piece in gently(piece for r in state.space.ranges for piece in r.assignable.intervals):
                tally.give(piece)
            charts.append(Chart(layout, {}, {}, tally.blocks))
        return charts

    async def _exact(self, state: PoolState, now: float, layout: Layout) -> Chart:
        states: dict[int, State] = {}
        notes: dict[int, str] = {}
        async for at in gently(cell.first for row in layout.rows for cell in layout.cells(row)):
            what = state_of(state, at, self._reader.slot(state, at), now, self._reader.leaving)
            states[at] = what
            if what not in UNTAKEN:
                notes[at] = self._reader.brief(state, at, what)
            elif what is State.EXCLUDED:
                notes[at] = state.space.reserved.get(at, "excluded")
        return Chart(layout, states, notes, {})


def _lowest(page: list[tuple[int, State]]) -> list[tuple[int, State]]:
    return heapq.nsmallest(ENTRIES, page, key=lambda item: item[0])


def _is_v6(layout: Layout) -> bool:
    return intervals.is_v6(layout.rows[0])


class _TakenRows:
    """Rows of single addresses in which something is taken, of the families that have but a coarse map."""

    def __init__(self, tallies: Iterable[maps.Tally]) -> None:
        self._rows: dict[bool, set[int]] = {_is_v6(tally.layout): set() for tally in tallies}

    def add(self, at: int) -> None:
        """Note an address that is taken."""
        rows = self._rows.get(intervals.is_v6(at))
        if rows is not None:
            rows.add(at >> maps.ROW_BITS << maps.ROW_BITS)

    def of(self, *, v6: bool) -> set[int]:
        """Rows of a family."""
        return self._rows.get(v6, set())

    def layouts(self, most: int) -> list[Layout]:
        """Return the first rows of each family, IPv4 first."""
        return [maps.exact(self._rows[v6], most) for v6 in sorted(self._rows) if self._rows[v6]]
