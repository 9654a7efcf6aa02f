"""Keeps the table of docs/reference/licences.md: one row for each locked package.

Invariant: a row of a package that this Python does not install is left as it is, so that the page is the same whichever
Python writes it. Must not know how licences are found.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_START, _END = "<!-- packages: written by python -m tools.audit --write -->", "<!-- end of packages -->"
_ROW = re.compile(r"^\| (\S+) \| (.+?) \|$", re.MULTILINE)
_TABLE = re.compile(f"{re.escape(_START)}.*{re.escape(_END)}", re.DOTALL)


def rows(text: str) -> dict[str, str]:
    """Return the licence of each package that the page has."""
    found = _TABLE.search(text)
    listed = _ROW.findall(found[0]) if found else []
    return {name: licence for name, licence in listed if name not in {"Package", "---"}}


def rendered(text: str, licences: Mapping[str, str | None]) -> str:
    """Return the page with these packages; a licence of None keeps the one that the page has.

    Raises ValueError when the page has no place for the table.
    """
    if not _TABLE.search(text):
        raise ValueError(f"the page has no lines {_START!r} and {_END!r}")
    known = rows(text)
    lines = ["| Package | Licence |", "| --- | --- |"]
    lines += [f"| {name} | {licences[name] or known.get(name, 'unknown')} |" for name in sorted(licences)]
    table = "\n".join([_START, "", *lines, "", _END])
    return _TABLE.sub(lambda _: table, text)
