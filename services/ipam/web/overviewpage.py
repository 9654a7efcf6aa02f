"""The first page: totals, what waits, and every pool with its bar, map and fill over time.

Responsible for: the order in which an operator reads in an incident: who waits, which pool is the reason, how full the
others are.
Must not know: where facts are read from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from services.ipam.api import POOL_EXHAUSTED
from services.ipam.web import charts
from services.ipam.web.claimtable import waiting_section
from services.ipam.web.facts import URGENT
from services.ipam.web.markup import Child, Markup, element, joined
from services.ipam.web.words import grouped, percent, pool_path

if TYPE_CHECKING:
    from services.ipam.web.facts import Chart, Overview, PoolLine, Scene
    from services.ipam.web.history import Sample

POOLS_AT_ONCE = 24


class Card(NamedTuple):
    """A pool of the part of the overview that is shown."""

    line: PoolLine
    charts: tuple[Chart, ...]
    samples: tuple[Sample, ...]


def overview_content(scene: Scene, overview: Overview, cards: list[Card], page: int) -> list[Child]:
    """Return what stands between header and footer."""
    pools = overview.pools
    pages = -(-len(pools) // POOLS_AT_ONCE)
    return [
        element("h1", "Pools and claims"),
        _totals(overview),
        waiting_section(overview.crowd, scene.now, with_pool=True),
        element(
            "section",
            element("h2", "Pools", id="pools"),
            element("p", "Those that need to be looked at come first.", class_="summary") if len(pools) > 1 else None,
            element("ul", *(_card(card) for card in cards), class_="cards") if cards else _no_pools(),
            _pages(page, pages) if pages > 1 else None,
            aria_labelledby="pools",
        ),
    ]


def _totals(overview: Overview) -> Markup:
    counts = [line.counts for line in overview.pools]
    small = [c for c in counts if c.total <= 1 << 32]
    waiting = overview.crowd.waiting
    empty = sum(not line.available for line in overview.pools)
    beside = f"in {len(small)} of {len(counts)} pools, the IPv6 ones left out" if len(small) < len(counts) else ""
    tiles = [
        ("Waiting claims", grouped(waiting), "bad" if waiting else "good", "no address yet" if waiting else "none"),
        ("Pools without a free address", str(empty), "bad" if empty else "good", f"of {len(counts)} pools"),
        ("Held", grouped(sum(line.held for line in overview.pools)), "", "addresses that claims have"),
        ("Free", grouped(sum(c.free for c in small)), "", beside or "addresses that claims can get"),
        (
            "Reserved and cooling",
            grouped(sum(c.reserved + c.cooling for c in counts)),
            "",
            "kept for something or someone",
        ),
    ]
    return element(
        "dl",
        *(
            element(
                "div",
                element("dt", name),
                element("dd", element("b", value), element("span", note, class_="beside")),
                class_=f"tile {look}".strip(),
            )
            for name, value, look, note in tiles
        ),
        class_="tiles",
    )


def troubles(line: PoolLine) -> list[tuple[str, str]]:
    """Return what is wrong with a pool: a word and a sentence for each."""
    found = [(c.reason, c.message) for c in line.conditions if c.status != "True" and c.type != "AddressesAvailable"]
    if not line.available:
        found.append((POOL_EXHAUSTED, f"None of {grouped(line.total)} addresses is free"))
    if line.paused:
        found.append(("Paused", "Claims of this pool are left alone"))
    if line.counts.out_of_range:
        found.append(
            ("OutOfRange", f"{grouped(line.counts.out_of_range)} held addresses are not in its ranges any more")
        )
    return found


def trouble_chips(line: PoolLine) -> Markup:
    """Return a pool's troubles as chips, or one that says that there are none."""
    found = troubles(line)
    if not found:
        return element("span", "ready", class_="chip good")
    chips = [
        element("span", word, class_=f"chip {'bad' if word in URGENT else 'calm'}", title=text) for word, text in found
    ]
    return joined(chips, " ")


def _card(card: Card) -> Markup:
    line = card.line
    name = f"{line.key.namespace}/{line.key.name}" if line.key.namespace else line.key.name
    anchor = "-".join(line.key)
    unserved = f"{grouped(line.waiting)} waiting" if line.waiting else ""
    return element(
        "li",
        element(
            "article",
            element(
                "header",
                element("h3", element("a", name, href=pool_path(line.key), id=anchor)),
                element("p", f"{line.key.kind} · domain {line.domain} · {line.ranges}", class_="where"),
                element(
                    "p",
                    trouble_chips(line),
                    " " if unserved else None,
                    element("span", unserved, class_="chip bad") if unserved else None,
                    class_="chips",
                ),
            ),
            element(
                "p",
                element("b", grouped(line.free)),
                " free of ",
                grouped(line.total),
                element("span", f"{percent(line.unfree)} taken", class_="beside"),
                class_="free",
            ),
            charts.bar(line),
            charts.small_map(card.charts, f"Map of the addresses of {line.key}: {counts_text(line)}"),
            charts.sparkline(card.samples),
            element("p", counts_text(line), class_="counts"),
            class_="card",
        ),
    )


def counts_text(line: PoolLine) -> str:
    """Return the counts that are not zero in words."""
    counts = line.counts
    parts = [
        (counts.used, "held"),
        (counts.reserved, "reserved"),
        (counts.cooling, "cooling"),
        (line.free, "free"),
        (counts.out_of_range, "out of range"),
        (line.returning, "being returned"),
    ]
    return ", ".join(f"{grouped(count)} {what}" for count, what in parts if count) or "no addresses"


def _no_pools() -> Markup:
    return element("p", "There is no pool. Claims wait until there is one.", class_="summary")


def _pages(page: int, pages: int) -> Markup:
    def link(target: int, text: str) -> Markup | None:
        if not 1 <= target <= pages:
            return None
        return element("a", text, href=f"/?page={target}", id=f"page-{text.split(maxsplit=1)[0].lower()}")

    return element(
        "nav",
        link(page - 1, "Previous pools"),
        element("span", f"Page {page} of {pages}"),
        link(page + 1, "Next pools"),
        class_="pages",
        aria_label="Pages of pools",
    )
