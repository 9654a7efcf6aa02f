"""The values of the chart as values.yaml tells them: each with its default and the comment in front of it.

Responsible for: reading comments, which YAML parsers drop. Invariant: values.yaml is written so that this is easy:
block style with two spaces, a comment right above its key; a list is one value, and so is a map that says nothing
inside. A mistake in that is a ValuesError that names the line or the value.
Must not know: what any value is for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Block", "Value", "ValuesError", "read"]

_KEY = re.compile(r" *([A-Za-z]\w*):(?: .*)?")
_INDENT = 2


class ValuesError(Exception):
    """values.yaml is not written as expected; the message names the line."""


class Value(NamedTuple):
    """One value: its dotted path, its default, and what is said of it."""

    path: str
    default: Any
    comment: str


class Block(NamedTuple):
    """A top-level key that holds others, and what is said of it; the name "" stands for those that hold none."""

    name: str
    comment: str
    values: list[Value]


def read(path: Path) -> list[Block]:
    """Return the values of a file by their top-level key, in the order of the file. Raises ValuesError."""
    text = path.read_text(encoding="utf-8")
    comments = _comments(text)
    single = Block("", _preamble(text), [])
    blocks = [single]
    for name, value in yaml.safe_load(text).items():
        if isinstance(value, dict) and value and name not in comments.whole:
            blocks.append(Block(name, comments.said.get(name, ""), list(_values(name, value, comments))))
        else:
            single.values.append(Value(name, value, comments.of(name)))
    return blocks


def _preamble(text: str) -> str:
    """What stands above everything, and is about no key."""
    lines = text.partition("\n\n")[0].splitlines()
    return " ".join(line.lstrip("#").strip() for line in lines if line.startswith("#"))


class _Comments(NamedTuple):
    said: dict[str, str]
    """What stands above a key, by its dotted path."""
    whole: set[str]
    """Keys of maps with nothing said inside: those are one value."""

    def of(self, path: str) -> str:
        comment = self.said.get(path, "")
        if not comment:
            raise ValuesError(f"nothing is said of {path}")
        return comment


def _values(path: str, value: dict[str, Any], comments: _Comments) -> list[Value]:
    found = []
    for name, inner in value.items():
        below = f"{path}.{name}"
        if isinstance(inner, dict) and inner and below not in comments.whole:
            found += _values(below, inner, comments)
        else:
            found.append(Value(below, inner, comments.of(below)))
    return found


def _comments(text: str) -> _Comments:
    said: dict[str, str] = {}
    keys: list[str] = []
    above: list[str] = []
    at: list[str] = []
    element: int | None = None
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if stripped.startswith("- "):
            element = indent
        elif element is not None and indent < element:
            element = None
        if element is not None:
            continue  # inside of a list
        if stripped.startswith("#"):
            above.append(stripped.lstrip("#").strip())
            continue
        match = _KEY.fullmatch(line)
        if match is not None:
            depth, odd = divmod(indent, _INDENT)
            if odd or depth > len(at):
                raise ValuesError(f"line {number}: indented by {indent}")
            at[depth:] = [match[1]]
            path = ".".join(at)
            keys.append(path)
            if above:
                said[path] = " ".join(above)
        above = []  # a blank line, too, ends what was said
    outer = {key for key in keys if any(other.startswith(f"{key}.") for other in keys)}
    whole = {key for key in outer if key in said and not any(other.startswith(f"{key}.") for other in said)}
    return _Comments(said, whole)
