"""A drawing of how services grow: one panel for each figure, both axes logarithmic, one line for each service.

Pure: rows in, SVG out. Knows the figures' names, not how they were measured.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PANELS = {
    "rate": "served a second",
    "p99": "p99, seconds",
    "cpu": "CPU ms for each object",
    "bytes": "bytes for each object",
    "rss": "memory, MiB",
    "ready": "start to ready, seconds",
}
_COLOURS = ("#0969da", "#cf222e", "#1a7f37", "#8250df")
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_WIDTH, _HEIGHT, _COLUMNS, _MARGIN = 320, 220, 3, 48


class Measured(Protocol):
    """A row: the number of objects, and the figures of `PANELS` as attributes."""

    @property
    def size(self) -> int:
        """Number of objects."""


def drawing(rows: Mapping[str, Sequence[Measured]]) -> str:
    """SVG of all panels; colour and dashes tell the services apart."""
    lines = math.ceil(len(PANELS) / _COLUMNS)
    width, height = _COLUMNS * _WIDTH, lines * _HEIGHT + 28
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"',
        ' font-family="sans-serif" font-size="11">',
        "<title>Growth of each service with the number of objects</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, (figure, title) in enumerate(PANELS.items()):
        left, top = number % _COLUMNS * _WIDTH, number // _COLUMNS * _HEIGHT
        parts += [f'<g transform="translate({left} {top})">', *_panel(figure, title, rows), "</g>"]
    for number, service in enumerate(rows):
        x = 20 + number * 200
        parts.append(f'<path d="M{x} {height - 12}h30" {_stroke(number)}/>')
        parts.append(f'<text x="{x + 36}" y="{height - 8}">{escape(service)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _panel(figure: str, title: str, rows: Mapping[str, Sequence[Measured]]) -> Iterator[str]:
    points = {
        service: [(row.size, getattr(row, figure)) for row in of if getattr(row, figure) > 0]
        for service, of in rows.items()
    }
    known = [point for of in points.values() for point in of]
    yield f'<text x="{_MARGIN}" y="16" font-weight="bold">{escape(title)}</text>'
    if not known:
        return
    x_of, x_ticks = _scale([size for size, _ in known], _MARGIN, _WIDTH - 16)
    y_of, y_ticks = _scale([value for _, value in known], _HEIGHT - 34, 28)
    for tick in x_ticks:
        yield f'<path d="M{x_of(tick):.1f} 28V{_HEIGHT - 34}" stroke="#d0d7de"/>'
        yield f'<text x="{x_of(tick):.1f}" y="{_HEIGHT - 18}" text-anchor="middle">{_shown(tick)}</text>'
    for tick in y_ticks:
        yield f'<path d="M{_MARGIN} {y_of(tick):.1f}H{_WIDTH - 16}" stroke="#d0d7de"/>'
        yield f'<text x="{_MARGIN - 4}" y="{y_of(tick) + 4:.1f}" text-anchor="end">{_shown(tick)}</text>'
    for number, of in enumerate(points.values()):
        path = "L".join(f"{x_of(size):.1f} {y_of(value):.1f}" for size, value in of)
        if path:
            yield f'<path d="M{path}" {_stroke(number)}/>'
        for size, value in of:
            yield f'<circle cx="{x_of(size):.1f}" cy="{y_of(value):.1f}" r="2.5" fill="{_COLOURS[number % 4]}"/>'


def _scale(values: Sequence[float], start: float, end: float):  # type: ignore[no-untyped-def] # a function and its ticks
    """Where a value goes between two coordinates, and the powers of ten that enclose all values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    ticks = [10.0**power for power in range(low, high + 1)]
    return lambda value: start + (end - start) * (math.log10(value) - low) / (high - low), ticks


def _stroke(number: int) -> str:
    dashes = _DASHES[number % len(_DASHES)]
    return f'fill="none" stroke="{_COLOURS[number % len(_COLOURS)]}" stroke-width="1.5" stroke-dasharray="{dashes}"'


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
