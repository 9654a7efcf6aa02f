"""HTML and SVG as values: text is escaped, always, and every element that is opened is closed.

Responsible for: turning names, attributes and children into markup. Text becomes part of a page through `element` only.
Invariant: whatever a string holds, it ends up as text or as an attribute's value, never as markup; `Markup` marks what
went through here already.
Must not know: what is shown.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_VOID = frozenset({"br", "hr", "input", "link", "meta"})


class Markup(str):
    """Text that is markup already and goes into a page as it is."""

    __slots__ = ()


Child = str | int | None | bool
"""A child of an element: text to be escaped, or Markup; None and False stand for nothing."""


def element(name: str, /, *children: Child, **attributes: str | int | bool | None) -> Markup:
    """Return an element. `class_` is the attribute class and `aria_label` aria-label; None and False leave one out."""
    written = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        written.append(attribute if value is True else f'{attribute}="{escape(str(value))}"')
    opened = f"<{' '.join(written)}>"
    if name in _VOID:
        return Markup(opened)
    return Markup(f"{opened}{joined(children)}</{name}>")


def joined(children: Iterable[Child], separator: str = "") -> Markup:
    """Return children one after the other, as markup."""
    return Markup(escape(separator).join(_written(child) for child in children if child is not None))


def _written(child: Child) -> str:
    if isinstance(child, Markup):
        return child
    return "" if child is False else escape(str(child))
