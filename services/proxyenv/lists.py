"""Comma-separated lists such as NO_PROXY: split, normalised and merged.

Invariants: items are trimmed, empty ones are dropped, repetitions in any letter case go and the first spelling stays,
the order never changes. A list that already holds everything is returned as it was, byte for byte. `*` means every
host, and only a list of `*` alone is understood by every client: where one is written, it holds nothing else.
Must not know: environment variables, presets.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

EVERYTHING = "*"

Items = tuple[str, ...]


def split(text: str) -> Items:
    """Return the items of a list: trimmed, none empty, none twice."""
    return unique(text.split(","))


def unique(items: Iterable[str]) -> Items:
    """Return items trimmed, without the empty ones and without those that came before in any letter case."""
    found: dict[str, str] = {}
    for item in items:
        trimmed = item.strip()
        if trimmed:
            found.setdefault(trimmed.lower(), trimmed)
    return tuple(found.values())


def collapsed(items: Items) -> Items:
    """Return `*` alone for items that hold it, else the items."""
    return (EVERYTHING,) if EVERYTHING in items else items


def missing(items: Items, wanted: Items) -> Items:
    """Return those of `wanted` that `items` lack; none when they hold `*`."""
    if EVERYTHING in items:
        return ()
    held = {item.lower() for item in items}
    return tuple([item for item in wanted if item.lower() not in held])


def join(items: Items) -> str:
    """Return items as a list is written."""
    return ",".join(items)


def normal(text: str) -> str:
    """Return a list in normal form, `*` collapsed."""
    return join(collapsed(split(text)))


def append(text: str, wanted: Items) -> str:
    """Return `text` with the items that it lacks at its end; `text` itself when it lacks none."""
    items = split(text)
    lacking = missing(items, wanted)
    return join(collapsed((*items, *lacking))) if lacking else text


def prepend(text: str, wanted: Items) -> str:
    """Return `wanted` and then those items of `text` that are not among them; `text` itself when it holds all."""
    items = split(text)
    if not missing(items, wanted):
        return text
    return join(collapsed((*wanted, *missing(wanted, items))))


def same(one: str, other: str) -> bool:
    """Tell whether two lists have the same items in the same order, whatever their letter case and blanks."""
    return one == other or [item.lower() for item in split(one)] == [item.lower() for item in split(other)]


def problems(text: str) -> list[str]:
    """Return what is wrong with a list for one client or another, a sentence each; items are named.

    A blank inside an item separates items for curl alone; `*` beside others is understood by Go, Java and httpx alone;
    httpx cannot even be used with an IPv6 range or a bracketed address in its environment.
    """
    found = []
    items = split(text)
    if EVERYTHING in items and len(items) > 1:
        found.append("* beside other items is not understood by every client: it stands for all of them")
    for item in items:
        if len(item.split()) > 1:
            found.append(f"'{item}' holds a blank, which only curl takes for a separator")
        elif is_ipv6_range(item) or item.startswith("["):
            found.append(f"'{item}' makes httpx fail in every process that has it in its environment")
    return found


def is_ipv6_range(item: str) -> bool:
    """Tell whether an item is an IPv6 network such as `fd00::/8`."""
    address, slash, _ = item.partition("/")
    if not slash or ":" not in address:
        return False
    try:
        ipaddress.IPv6Network(item, strict=False)
    except ValueError:
        return False
    return True
