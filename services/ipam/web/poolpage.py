"""The page of one pool: its map, who holds what, its fill over time, who waits for it and why.

Responsible for: everything about one pool on one page. The map is a table, so that it can be read as one: rows are
networks, cells are addresses, each with the letter of its state; the table of holders says the same in words.
Must not know: where facts are read from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from services.ipam import intervals
from services.ipam.web import charts
from services.ipam.web.claimtable import claim, since, waiting_section
from services.ipam.web.document import badge, legend, table
from services.ipam.web.maps import ROW
from services.ipam.web.markup import Child, Markup, element, joined
from services.ipam.web.overviewpage import counts_text, trouble_chips, troubles
from services.ipam.web.states import LOOKS, State
from services.ipam.web.words import grouped, percent, pool_path

if TYPE_CHECKING:
    from services.ipam.intervals import Interval
    from services.ipam.web.facts import Chart, Entry, PoolPage, Scene
    from services.ipam.web.maps import Block

HOURS = (1, 6, 24)
_TENTHS = 10


def pool_content(scene: Scene, page: PoolPage, window: Interval | None, start: str, hours: int) -> list[Child]:
    """Return what stands between header and footer. `start`: the address from which the table shows, as asked for."""
    line = page.line
    name = f"{line.key.namespace}/{line.key.name}" if line.key.namespace else line.key.name
    unclear = [element("li", element("b", word), f": {text}" if text else "") for word, text in troubles(line)]
    return [
        element("nav", element("a", "All pools", href="/", id="up"), " / ", line.key.kind, aria_label="Where this is"),
        element("h1", name, " ", trouble_chips(line)),
        element("ul", *unclear, class_="troubles") if unclear else None,
        _numbers(page),
        waiting_section(page.crowd, scene.now, with_pool=False) if page.crowd.waiting + page.crowd.returning else None,
        _map(page, window),
        _over_time(scene, page, hours),
        _entries(scene, page, window, start),
        _ranges(page),
    ]


def _numbers(page: PoolPage) -> Markup:
    line, counts = page.line, page.line.counts
    tiles = [
        ("Free", grouped(line.free), f"of {grouped(line.total)}", "bad" if not line.free else ""),
        (
            "Held",
            grouped(counts.used),
            f"{percent(counts.used / line.total) if line.total else '-'} of the pool",
            "",
        ),
        ("Reserved", grouped(counts.reserved), "by administrators and preAllocations", ""),
        ("Cooling", grouped(counts.cooling), "given back a short time ago", ""),
        ("Waiting", grouped(line.waiting), "claims", "bad" if line.waiting else ""),
    ]
    if counts.out_of_range:
        tiles.append(("Out of range", grouped(counts.out_of_range), "held, not in the ranges", "bad"))
    return joined(
        (
            element(
                "dl",
                *(
                    element(
                        "div",
                        element("dt", label),
                        element("dd", element("b", value), element("span", beside, class_="beside")),
                        class_=f"tile {look}".strip(),
                    )
                    for label, value, beside, look in tiles
                ),
                class_="tiles",
            ),
            charts.bar(line),
        )
    )


# -- the map -------------------------------------------------------------------------------------------------------


def _map(page: PoolPage, window: Interval | None) -> Markup:
    survey = page.survey
    seen = {state for chart in survey.charts for state in chart.states.values()}
    seen |= {block.leading for chart in survey.charts for block in chart.blocks.values()}
    path = pool_path(page.line.key)
    where = None
    if window is not None:
        where = element(
            "p",
            f"Shown: {block_text(window)}. ",
            element("a", "Show the whole pool", href=path, id="whole"),
            class_="summary",
        )
    return element(
        "section",
        element("h2", "Map", id="map"),
        where,
        element(
            "div",
            element("div", *(_chart(chart, path) for chart in survey.charts)),
            legend(seen),
            class_="map-and-legend",
        )
        if survey.charts
        else element("p", "There are no addresses of the pool here.", class_="summary"),
        aria_labelledby="map",
    )


def _chart(chart: Chart, path: str) -> Markup:
    shift = chart.layout.shift
    if shift:
        size = grouped(1 << shift)
        caption = f"Each cell is {size} addresses: tenths of it that are taken. Open a row to see it in detail."
    else:
        caption = "Each cell is one address"
    rows: list[Markup] = []
    before: int | None = None
    for row in chart.layout.rows:
        if before is not None and row != before:
            rows.append(element("tr", element("td", "⋮", colspan=ROW + 1), class_="gap", aria_hidden="true"))
        before = row + (ROW << shift)
        cells = [
            _coarse(chart.blocks.get(cell.first), cell) if shift else _exact(chart, cell.first)
            for cell in chart.layout.cells(row)
        ]
        head: Child = intervals.text(row)
        if shift:
            block = block_text(intervals.Interval(row, before - 1))
            head = element("a", block, href=f"{path}?{urlencode({'block': block})}", id=f"row-{row}")
        rows.append(element("tr", element("th", head, scope="row"), *cells))
    columns = [element("th", f"+{index}" if not shift else "", scope="col") for index in range(ROW)]
    top = element("thead", element("tr", element("th", "from", scope="col"), *columns)) if not shift else None
    return element(
        "div",
        element(
            "table",
            element("caption", caption),
            top,
            element("tbody", *rows),
            class_="map coarse" if shift else "map",
            data_shift=shift,
        ),
        class_="wide",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def _exact(chart: Chart, at: int) -> Markup:
    state = chart.states[at]
    if state is State.OUTSIDE:
        return element("td", class_="s-outside")
    look = LOOKS[state]
    note = chart.notes.get(at, "")
    title = f"{intervals.text(at)}: {look.label}{f' ({note})' if note else ''}"
    return element("td", look.mark, class_=f"s-{state.value}", title=title)


def _coarse(block: Block | None, cell: Interval) -> Markup:
    if block is None or not block.size:
        return element("td", class_="s-outside")
    share = block.taken / block.assignable if block.assignable else 0.0
    tenths = min(_TENTHS - 1, int(_TENTHS * share))
    mark = LOOKS[State.EXCLUDED].mark if not block.assignable else "·" if not block.taken else str(tenths)
    if block.states[State.CONFLICT]:
        mark = LOOKS[State.CONFLICT].mark
    parts = [f"{grouped(count)} {LOOKS[state].label}" for state, count in sorted(block.states.items(), key=_by_count)]
    title = f"{block_text(cell)}: {percent(share)} taken{''.join(f', {part}' for part in parts)}"
    return element("td", mark, class_=f"s-{block.leading.value} level-{tenths}", title=title)


def _by_count(item: tuple[State, int]) -> tuple[int, str]:
    return -item[1], item[0].value


def block_text(block: Interval) -> str:
    """Return an aligned block of addresses as a network, anything else as first and last address."""
    bits = 128 if intervals.is_v6(block.first) else 32
    prefix = bits - (block.size.bit_length() - 1)
    if block.size & (block.size - 1) or prefix < 0 or intervals.network_of(block.first, prefix) != block:
        return f"{intervals.text(block.first)}-{intervals.text(block.last)}"
    return f"{intervals.text(block.first)}/{prefix}"


# -- over time -----------------------------------------------------------------------------------------------------


def _over_time(scene: Scene, page: PoolPage, hours: int) -> Markup:
    path = pool_path(page.line.key)
    choices = [
        element("a", f"{choice} h", href=f"{path}?hours={choice}", id=f"hours-{choice}")
        if choice != hours
        else element("b", f"{choice} h", aria_current="true")
        for choice in HOURS
    ]
    began = page.samples[0].at if page.samples else int(scene.now.timestamp())
    return element(
        "section",
        element("h2", "Over time", id="over-time"),
        element("p", joined(choices, " · "), class_="choices"),
        element("div", charts.fill(page.samples, scene.now, began, hours), class_="wide"),
        element(
            "p",
            "Held, reserved and cooling addresses one above the other; the dashed line is all that the pool has, the "
            "red line below marks when claims waited. Kept in memory since this process started.",
            class_="summary",
        ),
        aria_labelledby="over-time",
    )


# -- who holds what ------------------------------------------------------------------------------------------------


def _entries(scene: Scene, page: PoolPage, window: Interval | None, start: str) -> Markup:
    survey = page.survey
    path = pool_path(page.line.key)
    kept = {"block": block_text(window)} if window is not None else {}
    parts: list[Child] = []
    if survey.entries:
        columns = ["Address", "State", "Claim", "Owner", "Cluster", "Since", "Note"]
        rows = [_entry(entry, scene) for entry in survey.entries]
        parts.append(table("Addresses that are not merely free", columns, rows, "holders"))
    else:
        parts.append(element("p", "Nothing is taken here.", class_="summary"))
    links = []
    if start:
        href = f"{path}?{urlencode(kept)}" if kept else path
        links.append(element("a", "From the first", href=f"{href}#holders", id="first"))
    if survey.more:
        following = intervals.text(survey.entries[-1].at + 1)
        href = f"{path}?{urlencode({**kept, 'from': following})}#holders"
        links.append(element("a", f"Next ({grouped(survey.more)} more)", href=href, id="next"))
    form = element(
        "form",
        *(element("input", type="hidden", name=name, value=value) for name, value in kept.items()),
        element("label", "From address ", element("input", name="from", value=start, id="from", size=24)),
        element("button", "Show", type="submit"),
        action=f"{path}#holders",
        method="get",
    )
    return element(
        "section",
        element("h2", "Who holds what", id="holders"),
        element("p", f"{grouped(survey.taken)} addresses: {counts_text(page.line)}.", class_="summary"),
        form,
        *parts,
        element("nav", joined(links, " "), class_="pages", aria_label="Pages of addresses") if links else None,
        aria_labelledby="holders",
    )


def _entry(entry: Entry, scene: Scene) -> list[Child]:
    names = [claim(key) for key in entry.claims]
    who = joined(names, ", ") if names else Markup("-")
    address = element("span", intervals.text(entry.at), id=f"a-{entry.at}")
    return [
        address,
        badge(entry.state),
        who,
        entry.owner or "-",
        entry.cluster or "-",
        since(entry.since, scene.now),
        entry.note or "-",
    ]


def _ranges(page: PoolPage) -> Markup:
    rows: list[list[Child]] = [
        [
            f"{intervals.text(item.span.first)} - {intervals.text(item.span.last)}",
            "-" if item.prefix is None else f"/{item.prefix}",
            item.gateway or "-",
            ", ".join(item.dns_servers) or "-",
        ]
        for item in page.spans
    ]
    problems = element("ul", *(element("li", text) for text in page.problems), class_="troubles")
    return element(
        "section",
        element("h2", "Ranges", id="ranges"),
        element("p", f"Domain {page.line.domain}, {page.strategy} order.", class_="summary"),
        problems if page.problems else None,
        table("Ranges of the pool", ["Range", "Prefix", "Gateway", "DNS servers"], rows) if rows else None,
        element("p", f"{grouped(page.more_ranges)} more ranges.", class_="more") if page.more_ranges else None,
        aria_labelledby="ranges",
    )
