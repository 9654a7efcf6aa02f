"""How findings look: lines for people, plain data for programs.

Invariant: the same findings give the same text.
Must not know: how anything was found.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

from services.doctor.finding import Level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.doctor.finding import Finding

_LEVEL, _CHECK = 9, 14


def lines(found: Sequence[Finding], width: int, *, everything: bool = True) -> str:
    """One paragraph for each finding, in the order of the checks, and a last line that sums up.

    `width` is the number of columns, 0 for one line each. Without `everything` what is as it should be is left out.
    """
    shown = [item for item in found if everything or item.level > Level.OK]
    return "".join(_paragraph(item, width) for item in shown) + summary(found) + "\n"


def _paragraph(item: Finding, width: int) -> str:
    head = f"{str(item.level).ljust(_LEVEL)}{item.check.ljust(_CHECK)}"
    text = f"{item.subject}: {item.what}" if item.subject else item.what
    body = [text, *([f"-> {item.action}"] if item.action else [])]
    indent = " " * len(head)
    wrapped = [line for part in body for line in _wrapped(part, width - len(indent))]
    return f"{head}{wrapped[0]}\n" + "".join(f"{indent}{line}\n" for line in wrapped[1:])


def _wrapped(text: str, width: int) -> list[str]:
    plain = " ".join(text.split())
    if width < _CHECK:
        return [plain]
    # A command or a name that is cut in two could not be copied.
    return textwrap.wrap(plain, width, break_long_words=False, break_on_hyphens=False) or [""]


def summary(found: Sequence[Finding]) -> str:
    """`2 errors, 1 warning, 3 notes, 12 as it should be`."""
    counts = Counter(item.level for item in found)
    words = {Level.ERROR: ("error", "errors"), Level.WARNING: ("warning", "warnings"), Level.INFO: ("note", "notes")}
    said = [f"{counts[level]} {one if counts[level] == 1 else many}" for level, (one, many) in words.items()]
    return ", ".join([*said, f"{counts[Level.OK]} as it should be"])


def data(found: Sequence[Finding]) -> dict[str, Any]:
    """Plain data."""
    return {
        "findings": [
            {
                "level": str(item.level),
                "check": item.check,
                "object": item.subject,
                "what": item.what,
                "action": item.action,
            }
            for item in found
        ],
        "counts": {str(level): sum(item.level is level for item in found) for level in Level},
    }
