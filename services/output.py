"""How the subcommands of `groundwork` print: tables for people, JSON and YAML for programs.

Invariant: the same values give the same text. Must not know: what is printed, where it goes.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_GAP = "   "
_BASE: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class Dumper(_BASE):  # type: ignore[misc]  # the library left it unannotated
    """Quotes what YAML 1.2, such as kubectl's, takes for a number, and not only what this library does: `1e3`."""


Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines of left-aligned columns as kubectl prints them; an empty cell is shown as a dash."""
    lines = [list(columns), *([cell or "-" for cell in row] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    return "".join(
        _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


def structured(value: Any, output: str) -> str:
    """Plain data as `json` or `yaml` text."""
    if output == "json":
        return json.dumps(value, indent=2) + "\n"
    text: str = yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True)
    return text


def names(found: Iterable[str]) -> str:
    """One `kind.group/name` a line, as `kubectl get -o name` prints objects; each once."""
    return "".join(f"{name}\n" for name in dict.fromkeys(found))
