"""Pictures of a pool in SVG: a bar of its counts, a small map, and its fill over time.

Responsible for: shapes and their descriptions for those who do not see them. Colors and patterns are named by classes
and ids that the style sheet and `patterns` define.
Invariant: the size of a picture is bounded, whatever the pool; every picture says in its label what it shows.
Must not know: where numbers come from.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from services.ipam.web.maps import ROW
from services.ipam.web.markup import Markup, element
from services.ipam.web.states import State
from services.ipam.web.words import grouped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from services.ipam.web.facts import Chart, PoolLine
    from services.ipam.web.history import Sample

    Scale = Callable[[float], float]

_WIDTH, _HEIGHT = 720, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 12, 26
_CELL, _CELL_HEIGHT = 10, 6
_TILE = _CELL // 2
_FAR = 4
"""The capacity is drawn unless it is more than this many times what was ever taken."""
_NICE = (1, 2, 5, 10)
_TICKS = 8
_MINUTE, _HOUR = 60, 3600
_STEPS = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 14400)


def patterns() -> Markup:
    """Return the definitions that all pictures of a page share: states differ by pattern, not by color alone."""
    lines = {
        State.HELD: (),
        State.RETURNING: ("M1 0V6M3.5 0V6",),
        State.ELSEWHERE: ("M0 1.5H5M0 4.5H5",),
        State.CONFLICT: ("M0 0L5 6M5 0L0 6",),
        State.RESERVED: ("M0 6L5 0",),
        State.PRE_ALLOCATED: ("M0 0L5 6",),
        State.COOLING: ("M1 1.5h1M3.5 4.5h1",),
        State.REMEMBERED: ("M2 3h1",),
        State.FREE: (),
        State.EXCLUDED: ("M1 3H4",),
        State.OUT_OF_RANGE: ("M2.5 1V3.5M2.5 4.3V5",),
    }
    found = [
        element(
            "pattern",
            element("rect", class_=f"bg-{state.value}", width=_TILE, height=_CELL_HEIGHT),
            *(element("path", class_=f"fg-{state.value}", d=path) for path in paths),
            id=f"p-{state.value}",
            width=_TILE,
            height=_CELL_HEIGHT,
            patternUnits="userSpaceOnUse",
        )
        for state, paths in lines.items()
    ]
    return element("svg", element("defs", *found), class_="defs", aria_hidden="true", width=0, height=0)


def bar(line: PoolLine) -> Markup:
    """Return the counts of a pool as one bar; nothing taken is too little to be seen."""
    counts = line.counts
    parts = (
        (State.HELD, counts.used),
        (State.RESERVED, counts.reserved),
        (State.COOLING, counts.cooling),
    )
    total = max(line.total, 1)
    shapes: list[Markup] = [element("rect", class_="bg-free", width="100%", height="100%")]
    left = 0.0
    for state, count in parts:
        width = min(max(100 * count / total, 0.6 if count else 0.0), 100 - left)
        if width > 0:
            shapes.append(
                element("rect", x=f"{left:.2f}%", width=f"{width:.2f}%", height="100%", fill=f"url(#p-{state.value})")
            )
        left += width
    label = (
        f"{grouped(counts.used)} used, {grouped(counts.reserved)} reserved, {grouped(counts.cooling)} cooling, "
        f"{grouped(line.free)} free of {grouped(line.total)}"
    )
    return element("svg", *shapes, class_="bar", role="img", aria_label=label, height=14, width="100%")


def small_map(charts: Iterable[Chart], label: str) -> Markup:
    """Return maps of one pool without text, one under the other: runs of equal cells are one shape."""
    shapes: list[Markup] = []
    height = 0
    for chart in charts:
        if shapes:
            height += _CELL_HEIGHT
        paths: dict[State, list[str]] = {}
        for row in chart.layout.rows:
            for start, length, state in _runs(chart, row):
                path = f"M{start * _CELL} {height}h{length * _CELL}v{_CELL_HEIGHT}h-{length * _CELL}z"
                paths.setdefault(state, []).append(path)
            height += _CELL_HEIGHT
        shapes += [
            element("path", d="".join(found), fill=f"url(#p-{state.value})")
            for state, found in paths.items()
            if state is not State.OUTSIDE
        ]
    shapes.append(element("path", class_="grid", d="".join(f"M{x} 0V{height}" for x in range(0, 161, _CELL))))
    shapes.append(element("path", class_="grid", d="".join(f"M0 {y}H160" for y in range(0, height + 1, _CELL_HEIGHT))))
    return element("svg", *shapes, class_="small-map", role="img", aria_label=label, viewBox=f"-1 -1 162 {height + 2}")


def _runs(chart: Chart, row: int) -> Iterable[tuple[int, int, State]]:
    """Runs of cells in one state in a row: where each begins, its length and the state."""
    states = [_state(chart, cell.first) for cell in chart.layout.cells(row)]
    start = 0
    for index in range(1, ROW + 1):
        if index == ROW or states[index] is not states[start]:
            yield start, index - start, states[start]
            start = index


def _state(chart: Chart, first: int) -> State:
    if chart.layout.shift:
        return chart.blocks[first].leading if first in chart.blocks else State.OUTSIDE
    return chart.states.get(first, State.OUTSIDE)


def fill(samples: Sequence[Sample], now: datetime, began: int, hours: int) -> Markup:
    """Return used, reserved and cooling addresses over time, and when claims waited."""
    end = int(now.timestamp())
    start = min(max(end - hours * _HOUR, began), end - _MINUTE)
    rows = _within(samples, start)
    most = max((s.used + s.reserved + s.cooling for s in rows), default=0)
    total = max((s.total for s in rows), default=0)
    top = total if total and total <= _FAR * max(most, 1) else _nice(max(most, 1))

    def across(at: float) -> float:
        return _LEFT + (min(max(at, start), end) - start) / (end - start) * (_WIDTH - _LEFT - _RIGHT)

    def up(count: float) -> float:
        return _TOP + (1 - min(count, top) / top) * (_HEIGHT - _TOP - _BOTTOM)

    floor = [0] * len(rows)
    shapes: list[Markup] = []
    for state, values in (
        (State.HELD, [s.used for s in rows]),
        (State.RESERVED, [s.reserved for s in rows]),
        (State.COOLING, [s.cooling for s in rows]),
    ):
        ceiling = [low + value for low, value in zip(floor, values, strict=True)]
        if any(values):
            above = _steps(rows, ceiling, end, across, up)
            below = _steps(rows, floor, end, across, up)
            path = "M" + "L".join([*above, *reversed(below)]) + "Z"
            shapes.append(element("path", d=path, fill=f"url(#p-{state.value})", class_=f"area fg-{state.value}"))
        floor = ceiling
    for index, sample in enumerate(rows):
        if sample.waiting:
            until = rows[index + 1].at if index + 1 < len(rows) else end
            left = across(sample.at)
            width = max(across(until) - left, 1)
            shapes.append(
                element(
                    "rect",
                    element("title", f"{grouped(sample.waiting)} claims wait"),
                    class_="waits",
                    x=f"{left:.1f}",
                    y=_HEIGHT - _BOTTOM + 2,
                    width=f"{width:.1f}",
                    height=5,
                )
            )
    axes = [*_ticks(start, end, across), *_levels(top, up)]
    if top == total:
        y = f"{up(total):.1f}"
        axes.append(element("line", class_="capacity", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y))
    label = f"Addresses taken since {_clock(start, seconds=False)} UTC: {_range(rows)}"
    return element(
        "svg", *axes, *shapes, class_="fill", role="img", aria_label=label, viewBox=f"0 0 {_WIDTH} {_HEIGHT}"
    )


def sparkline(samples: Sequence[Sample]) -> Markup | None:
    """Return the share of a pool that was taken, from the first sample to the last; None for fewer than two."""
    if len(samples) < 2:  # noqa: PLR2004 - a line has two ends
        return None
    start, end = samples[0].at, max(samples[-1].at, samples[0].at + 1)
    corners: list[str] = []
    before = None
    for sample in samples:
        share = min((sample.used + sample.reserved + sample.cooling) / sample.total, 1.0) if sample.total else 0.0
        x = f"{160 * (sample.at - start) / (end - start):.1f}"
        y = f"{2 + 26 * (1 - share):.1f}"
        corners += [f"{x} {before}"] if before is not None and before != y else []
        corners.append(f"{x} {y}")
        before = y
    label = f"Taken since {_clock(start, seconds=False)} UTC: {_range(samples)}"
    shapes = [
        element("path", class_="capacity", d="M0 2H160"),
        element("path", class_="line", d="M" + "L".join(corners)),
    ]
    return element(
        "svg", *shapes, class_="spark", role="img", aria_label=label, viewBox="0 0 160 30", preserveAspectRatio="none"
    )


def _within(samples: Sequence[Sample], start: int) -> list[Sample]:
    """Samples of a window, with what was true at its beginning."""
    before = [sample for sample in samples if sample.at <= start][-1:]
    return [*(sample._replace(at=start) for sample in before), *(s for s in samples if s.at > start)]


def _steps(rows: Sequence[Sample], values: Sequence[int], end: int, across: Scale, up: Scale) -> list[str]:
    """Corners of a line that stays where it is between two samples."""
    corners = []
    for index, (sample, value) in enumerate(zip(rows, values, strict=True)):
        until = rows[index + 1].at if index + 1 < len(rows) else end
        y = up(value)
        corners += [f"{across(sample.at):.1f} {y:.1f}", f"{across(until):.1f} {y:.1f}"]
    return corners


def _nice(count: int) -> int:
    """Return the next round number at or above a count."""
    scale = int(10 ** (len(str(count)) - 1))
    return next(scale * factor for factor in _NICE if scale * factor >= count)


def _levels(top: int, up: Scale) -> list[Markup]:
    shapes = []
    for count in sorted({0, top // 2, top}):
        y = up(count)
        shapes.append(element("line", class_="axis", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=f"{y:.1f}", y2=f"{y:.1f}"))
        shapes.append(element("text", grouped(count), class_="level", x=_LEFT - 6, y=f"{y + 4:.1f}"))
    return shapes


def _ticks(start: int, end: int, across: Scale) -> list[Markup]:
    step = next((step for step in _STEPS if (end - start) / step <= _TICKS), _STEPS[-1])
    shapes = []
    for at in range(-(-start // step) * step, end + 1, step):
        x = f"{across(at):.1f}"
        shapes.append(element("line", class_="tick", x1=x, x2=x, y1=_TOP, y2=_HEIGHT - _BOTTOM))
        shapes.append(element("text", _clock(at, seconds=step < _MINUTE), class_="time", x=x, y=_HEIGHT - 4))
    return shapes


def _clock(at: int, *, seconds: bool) -> str:
    moment = datetime.fromtimestamp(0, tz=UTC) + timedelta(seconds=at)
    return moment.strftime("%H:%M:%S" if seconds else "%H:%M")


def _range(rows: Sequence[Sample]) -> str:
    if not rows:
        return "nothing recorded yet"
    used = [s.used for s in rows]
    return (
        f"{grouped(used[-1])} used now, between {grouped(min(used))} and {grouped(max(used))} before; "
        f"at most {grouped(max(s.waiting for s in rows))} claims waited"
    )
