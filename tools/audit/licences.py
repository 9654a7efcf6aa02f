"""Decides from a package's own metadata under which licence it is, and whether that is one we ship.

Pure: metadata comes in as a mapping of lists. Invariants: what is stated unclearly is unknown, never guessed; all that
is stated must be allowed, unless an SPDX expression says OR. Must not know where metadata comes from.

Sources: the core metadata fields License-Expression (PEP 639), License and Classifier; identifiers of
https://spdx.org/licenses.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

if TYPE_CHECKING:
    from collections.abc import Collection

ALLOWED = frozenset(
    ("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0", "Zlib")
)
"""May be shipped, unchanged, beside code under Apache-2.0. MPL-2.0 asks for the sources of its own files only."""

# What packages older than PEP 639 write. "BSD" alone is in neither: it names no version.
_WORDS = {
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "isc license": "ISC",
    "mit license": "MIT",
    "the mit license": "MIT",
}
_CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "zlib/libpng License": "Zlib",
}
_TROVE = "License :: OSI Approved :: "


class Metadata(Protocol):
    """The core metadata of a package, as importlib.metadata has it."""

    def get_all(self, name: str) -> list[Any] | None:
        """Return the values of a field."""


def stated(metadata: Metadata) -> str:
    """Return the SPDX expression that the metadata amounts to, or "" when that is not clear."""
    if expression := _first(metadata, "License-Expression"):
        return _canonical(expression)
    free = _first(metadata, "License").removeprefix(_TROVE)
    # One of the two suffices: either may be missing, or say "see LICENSE"; where both are clear both count.
    found = {_CLASSIFIERS[name] for name in _trove(metadata) if name in _CLASSIFIERS}
    if any(name not in _CLASSIFIERS for name in _trove(metadata)):
        return ""
    if word := _WORDS.get(free.lower()) or _CLASSIFIERS.get(free) or _canonical(free):
        found.add(word)
    elif free and not found:
        return ""
    return " AND ".join(sorted(found))


def acceptable(expression: str, allowed: Collection[str] = ALLOWED) -> bool:
    """Whether an SPDX expression can be met with these licences; an empty or unreadable one cannot.

    An exception (WITH) only ever grants more, so the licence before it decides.
    """
    tokens = re.findall(r"[()]|[^\s()]+", _canonical(expression))
    return bool(tokens) and _either(tokens, allowed)


def _either(tokens: list[str], allowed: Collection[str]) -> bool:
    answer = _both(tokens, allowed)
    while tokens and tokens[0] == "OR":
        tokens.pop(0)
        answer = _both(tokens, allowed) or answer
    return answer


def _both(tokens: list[str], allowed: Collection[str]) -> bool:
    answer = _one(tokens, allowed)
    while tokens and tokens[0] == "AND":
        tokens.pop(0)
        answer = _one(tokens, allowed) and answer
    return answer


def _one(tokens: list[str], allowed: Collection[str]) -> bool:
    word = tokens.pop(0)
    if word == "(":
        answer = _either(tokens, allowed)
        tokens.pop(0)  # the closing one: the expression was validated
        return answer
    if tokens and tokens[0] == "WITH":
        del tokens[:2]
    return word in allowed


def _canonical(expression: str) -> str:
    try:
        return str(canonicalize_license_expression(expression))
    except InvalidLicenseExpression:
        return ""


def _first(metadata: Metadata, field: str) -> str:
    values = metadata.get_all(field) or [""]
    return str(values[0]).strip()


def _trove(metadata: Metadata) -> list[str]:
    return [name.removeprefix(_TROVE) for name in metadata.get_all("Classifier") or [] if name.startswith(_TROVE)]
