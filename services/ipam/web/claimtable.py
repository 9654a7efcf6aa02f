"""Claims that are not served, as a table: what an operator looks for first.

Responsible for: the part of a page that says who waits, for how long, and why.
Must not know: where that is read from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.ipam.web.document import table
from services.ipam.web.markup import Markup, element, joined
from services.ipam.web.words import age, grouped, moment, pool_path

if TYPE_CHECKING:
    from datetime import datetime

    from services.ipam.api import ClaimKey, PoolKey
    from services.ipam.web.facts import Crowd, Waiting


def waiting_section(crowd: Crowd, now: datetime, *, with_pool: bool) -> Markup:
    """Return the section about claims that wait; it is there, and says so, when none does."""
    total = crowd.waiting + crowd.returning
    if not total:
        return element(
            "section",
            element("h2", "Waiting", id="waiting"),
            element("p", "No claim waits.", class_="good"),
            aria_labelledby="waiting",
        )
    columns = ["Claim", *(["Pool"] if with_pool else []), "Waits", "Reason", "Message", "For"]
    rows = [_row(item, now, with_pool=with_pool) for item in crowd.oldest]
    parts = []
    if crowd.waiting:
        parts.append(
            f"{grouped(crowd.waiting)} {'claims wait' if crowd.waiting != 1 else 'claim waits'} for an address"
        )
    if crowd.returning:
        verb = "are" if crowd.returning != 1 else "is"
        parts.append(f"{grouped(crowd.returning)} {verb} being deleted and not gone")
    more = total - len(crowd.oldest)
    return element(
        "section",
        element("h2", "Waiting", id="waiting"),
        element("p", f"{'; '.join(parts)}. The oldest come first.", class_="summary"),
        table("Claims that wait, the oldest first", columns, rows, "waiting"),
        element("p", f"{grouped(more)} more are not shown.", class_="more") if more > 0 else None,
        aria_labelledby="waiting",
    )


def _row(item: Waiting, now: datetime, *, with_pool: bool) -> list[Markup | str]:
    pool = [pool_link(item.pool)] if with_pool else []
    reason = element("span", item.reason, class_=f"chip {'calm' if item.returning else 'bad'}")
    return [claim(item.key), *pool, since(item.since, now), reason, item.message, item.owner or "-"]


def claim(key: ClaimKey) -> Markup:
    """Return a claim by name, with its kind in small."""
    return joined((element("span", key.kind, class_="kind"), " ", f"{key.namespace}/{key.name}"))


def pool_link(key: PoolKey) -> Markup:
    """Return a link to a pool's page."""
    name = f"{key.namespace}/{key.name}" if key.namespace else key.name
    return element("a", name, href=pool_path(key), title=str(key))


def since(text: str, now: datetime) -> Markup:
    """Return how long ago something was; the moment itself is its title."""
    return element("time", age(text, now), datetime=text, title=moment(text)) if moment(text) else element("span", "-")
