"""JSON that is nested more deeply than Python can follow.

Responsible for: making such a text readable, by cutting away what is too deep. The API server takes 10,000 levels where
a definition leaves fields open, so whoever may write one object could keep everybody who reads its kind from doing so.
Invariants: works on the text from left to right, so no depth is a problem here; what is less deep stays as it is. What
is no JSON stays none.
Must not know: objects.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DEEPEST", "deeper", "shallow"]

DEEPEST: Final = 256
"""Levels that are kept. Built-in kinds have some twenty, managedFields of them twice as many."""

# Quantifiers that give nothing back: a string is what it is, and trying it in other ways would take long.
_MARKS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{]|[\]}]', re.DOTALL)


def shallow(data: bytes) -> bytes:
    """Return a JSON text with `null` in the place of each object and array below level `DEEPEST`."""
    kept = bytearray()
    since = 0
    for depth, start, end in _levels(data):
        if depth == DEEPEST + 1:
            kept += data[since:start] + b"null"
            since = end
    return bytes(kept) + data[since:]


def deeper(data: bytes, levels: int) -> bool:
    """Tell whether a JSON text has more levels of objects and arrays than that."""
    return any(depth > levels for depth, _, _ in _levels(data))


def _levels(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the level, start and end of each object and array, when it ends; one that does not is not yielded."""
    open_: list[int] = []
    for found in _MARKS.finditer(data):
        mark = found[0]
        if mark in {b"{", b"["}:
            open_.append(found.start())
        elif mark in {b"}", b"]"} and open_:
            yield len(open_), open_.pop(), found.end()
